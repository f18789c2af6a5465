//! `clean_step`: one iteration of a channel's loop.

use airtight_sdk::prelude::*;
use radio_domain::npy::Precision;
use radio_domain::{Channel, Failures, Image, Psf};

use crate::hogbom::{Clean, Component};

/// A model of more pixels than this is no model of the sky, and too long for an XCom.
const MAX_COMPONENTS: usize = 5000;
/// It diverges if what is left grows to so many times what it was before the step.
const DIVERGED: f64 = 2.0;

/// How to deconvolve.
#[data]
#[derive(Clone, Debug, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// The share of a peak that one minor cycle subtracts.
    #[schemars(range(max = 1.0))]
    pub(crate) gain: f64,
    /// A channel has converged when no pixel is above so many times its noise.
    pub(crate) threshold_sigmas: f64,
    /// The most minor cycles of one step.
    #[schemars(range(min = 1, max = 100_000))]
    pub(crate) minor_cycles: u32,
    /// The most minor cycles of a channel.
    #[schemars(range(min = 1))]
    pub(crate) max_minor_cycles: u32,
    /// The minor cycles between two checkpoints.
    #[schemars(range(min = 1))]
    pub(crate) checkpoint_every: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            gain: 0.1,
            threshold_sigmas: 5.0,
            minor_cycles: 50,
            max_minor_cycles: 5000,
            checkpoint_every: 25,
        }
    }
}

#[data]
struct CleanStep {
    channel: Channel,
    psf: Psf,
    /// What the step before answered; none for the first.
    #[serde(default)]
    previous: Option<State>,
    #[serde(default)]
    settings: Settings,
    #[serde(default)]
    failures: Failures,
}

/// Where a channel is.
#[data]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct State {
    /// The channel's number.
    pub(crate) channel: u32,
    /// What is left of the dirty image, in double precision: the next step goes on exactly from here.
    pub(crate) residual: Blob,
    /// What was found so far, pixel by pixel.
    pub(crate) components: Vec<Component>,
    /// The steps so far.
    pub(crate) iteration: u32,
    /// The minor cycles of all of them.
    pub(crate) minor_cycles: u32,
    /// The largest absolute value that is left.
    pub(crate) peak_jy: f64,
    pub(crate) sigma_jy: f64,
    pub(crate) threshold_jy: f64,
    /// Nothing is above the threshold any more.
    pub(crate) converged: bool,
    /// Another step would change nothing: it has converged, or it may not take more minor cycles.
    pub(crate) finished: bool,
}

/// A step half done.
#[data]
struct Checkpoint {
    /// Which step, as text: numbers need not survive JSON to the last bit.
    step: String,
    now: State,
}

/// Runs one batch of CLEAN's minor cycles on a channel: on its dirty image, or from where the previous step stopped. A try that follows a
/// failed one goes on from its checkpoint.
#[task]
fn clean_step(input: CleanStep) -> Result<State> {
    let CleanStep {
        channel,
        psf,
        previous,
        settings,
        failures,
    } = input;
    check(&channel, previous.as_ref(), &settings)?;
    let before = match previous {
        Some(state) if state.finished => return Ok(state),
        Some(state) => state,
        None => begin(&channel, &settings)?,
    };
    let psf_image = Image::read(&psf.image)?;
    let step = format!(
        "{} {} {before:?} {settings:?}",
        psf.image.digest(),
        channel.image.digest()
    );
    // One that cannot be read is as good as none: it only saves work.
    let mut state = match checkpoint::load::<Checkpoint>() {
        Ok(Some(saved)) if saved.step == step => {
            info!(minor_cycles = saved.now.minor_cycles, "goes on from the checkpoint");
            State {
                sigma_jy: before.sigma_jy,
                threshold_jy: before.threshold_jy,
                ..saved.now
            }
        }
        _ => before.clone(),
    };
    let residual = Image::read(&state.residual)?;
    if residual.bad_pixels() > 0 {
        let message = format!("channel {} has pixels that are no finite numbers", channel.index);
        return Err(Failure::fatal(message).code("bad_pixels"));
    }

    let end = before
        .minor_cycles
        .saturating_add(settings.minor_cycles)
        .min(settings.max_minor_cycles);
    let mut clean = Clean::resume(&psf_image, residual, &state.components);
    loop {
        let batch = end.saturating_sub(state.minor_cycles).min(settings.checkpoint_every);
        let done = clean.run(settings.gain, state.threshold_jy, batch);
        state.minor_cycles += done;
        state.peak_jy = clean.residual().peak().value.abs();
        state.converged = state.peak_jy <= state.threshold_jy;
        let step_done = state.converged || state.minor_cycles >= end;
        if state.peak_jy.is_nan() || state.peak_jy > DIVERGED * before.peak_jy {
            return Err(diverged(&before, &state));
        }
        if !step_done {
            record(&clean, &mut state)?;
            checkpoint::save(&json!({"step": step, "now": state}))?;
        }
        // After the first batch, so that a try that is made to fail leaves something for the next one.
        failures.check(before.iteration)?;
        progress(
            fraction(&before, &state, end),
            &format!("{} minor cycles", state.minor_cycles),
        );
        if step_done {
            break;
        }
    }
    record(&clean, &mut state)?;
    state.iteration = before.iteration + 1;
    state.finished = state.converged || state.minor_cycles >= settings.max_minor_cycles;
    checkpoint::clear()?;
    info!(
        iteration = state.iteration,
        minor_cycles = state.minor_cycles,
        peak_jy = state.peak_jy,
        threshold_jy = state.threshold_jy,
        converged = state.converged,
        "channel {}: {:.1} sigma left",
        channel.index,
        state.peak_jy / state.sigma_jy
    );
    Ok(state)
}

fn check(channel: &Channel, previous: Option<&State>, settings: &Settings) -> Result<()> {
    let Settings {
        gain,
        threshold_sigmas,
        minor_cycles,
        max_minor_cycles,
        checkpoint_every,
    } = *settings;
    let in_range = gain > 0.0
        && gain <= 1.0
        && threshold_sigmas > 0.0
        && threshold_sigmas.is_finite()
        && minor_cycles > 0
        && max_minor_cycles > 0
        && checkpoint_every > 0;
    if !in_range {
        return Err(Failure::fatal(format!("settings that cannot work: {settings:?}")).code("invalid_settings"));
    }
    if !(channel.sigma_jy > 0.0 && channel.sigma_jy.is_finite()) {
        let message = format!("the noise of channel {} is {}", channel.index, channel.sigma_jy);
        return Err(Failure::fatal(message).code("no_noise"));
    }
    match previous {
        Some(state) if state.channel != channel.index => {
            let message = format!(
                "the previous step was of channel {}, not {}",
                state.channel, channel.index
            );
            Err(Failure::fatal(message).code("wrong_channel"))
        }
        _ => Ok(()),
    }
}

fn begin(channel: &Channel, settings: &Settings) -> Result<State> {
    let image = Image::read(&channel.image)?;
    Ok(State {
        channel: channel.index,
        peak_jy: image.peak().value.abs(),
        residual: channel.image.clone(),
        components: Vec::new(),
        iteration: 0,
        minor_cycles: 0,
        sigma_jy: channel.sigma_jy,
        threshold_jy: settings.threshold_sigmas * channel.sigma_jy,
        converged: false,
        finished: false,
    })
}

/// Writes what the deconvolution holds into the state.
fn record(clean: &Clean<'_>, state: &mut State) -> Result<()> {
    state.components = clean.components();
    if state.components.len() > MAX_COMPONENTS {
        let message = format!(
            "channel {}: components on more than {MAX_COMPONENTS} pixels; the threshold of {} Jy may be too low",
            state.channel, state.threshold_jy
        );
        return Err(Failure::fatal(message).code("too_many_components"));
    }
    state.residual = clean.residual().write(Precision::Double)?;
    Ok(())
}

fn diverged(before: &State, now: &State) -> Failure {
    let message = format!(
        "channel {}: what is left grew from {} to {} Jy; is the PSF that of this image, and the gain not too high?",
        now.channel, before.peak_jy, now.peak_jy
    );
    Failure::fatal(message).code("clean_diverged")
}

/// How much of the way to the threshold is done, or of the step if that is nearer its end.
fn fraction(before: &State, now: &State, end: u32) -> f64 {
    let way = (before.peak_jy / now.peak_jy).ln() / (before.peak_jy / now.threshold_jy).ln();
    let cycles = f64::from(now.minor_cycles - before.minor_cycles) / f64::from((end - before.minor_cycles).max(1));
    way.max(cycles)
}

#[cfg(test)]
mod tests;
