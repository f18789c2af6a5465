//! `restore`: the image that people look at: what was found, as sharp as the instrument sees, on what was left.

use airtight_sdk::prelude::*;
use radio_domain::npy::Precision;
use radio_domain::{Channel, Failures, Image, Psf, Restored};

use crate::step::State;

#[data]
struct Restore {
    channel: Channel,
    psf: Psf,
    /// What the last step answered.
    state: State,
    #[serde(default)]
    failures: Failures,
}

/// Draws the clean beam in place of every component, on the residual.
#[task]
fn restore(input: Restore) -> Result<Restored> {
    let Restore {
        channel,
        psf,
        state,
        failures,
    } = input;
    failures.check(0)?;
    if state.channel != channel.index {
        let message = format!("the state is of channel {}, not {}", state.channel, channel.index);
        return Err(Failure::fatal(message).code("wrong_channel"));
    }
    let Some(beam) = psf.beam.gaussian() else {
        return Err(Failure::fatal(format!("{:?} is no beam", psf.beam)).code("unusable_psf"));
    };
    let residual = Image::read(&state.residual)?;
    let mut image = residual.clone();
    for component in &state.components {
        beam.add_to(&mut image, component.x.into(), component.y.into(), component.flux_jy);
    }
    let restored = Restored {
        index: channel.index,
        frequency_hz: channel.frequency_hz,
        image: image.write(Precision::Single)?,
        sigma_jy: state.sigma_jy,
        threshold_jy: state.threshold_jy,
        converged: state.converged,
        iterations: state.iteration,
        minor_cycles: state.minor_cycles,
        components: state.components.len() as u32,
        model_flux_jy: state.components.iter().map(|component| component.flux_jy).sum(),
        peak_jy: image.values().iter().copied().fold(f64::NEG_INFINITY, f64::max),
        residual_peak_jy: residual.peak().value.abs(),
        residual_rms_jy: residual.rms(),
    };
    info!(
        peak_jy = restored.peak_jy,
        residual_rms_jy = restored.residual_rms_jy,
        model_flux_jy = restored.model_flux_jy,
        "restored channel {} from {} components",
        restored.index,
        restored.components
    );
    Ok(restored)
}

#[cfg(test)]
mod tests {
    use radio_domain::Beam;

    use super::*;
    use crate::hogbom::Component;

    #[test]
    fn a_component_becomes_a_beam_on_the_residual() {
        let blob = Image::new(21, vec![0.25; 441])
            .unwrap()
            .write(Precision::Double)
            .unwrap();
        let channel = Channel {
            index: 4,
            frequency_hz: 1e9,
            image: blob.clone(),
            sigma_jy: 0.1,
            weight: 1.0,
        };
        let beam = Beam {
            major_fwhm_px: 4.0,
            minor_fwhm_px: 2.0,
            angle_deg: 90.0,
        };
        let component = |x, y| Component { x, y, flux_jy: 2.0 };
        let input = |index| Restore {
            channel: Channel {
                index,
                ..channel.clone()
            },
            psf: Psf {
                image: blob.clone(),
                beam,
            },
            state: State {
                channel: 4,
                residual: blob.clone(),
                components: vec![component(10, 10), component(0, 20)],
                iteration: 3,
                minor_cycles: 70,
                peak_jy: 0.25,
                sigma_jy: 0.1,
                threshold_jy: 0.5,
                converged: true,
                finished: true,
            },
            failures: Failures::default(),
        };
        let restored = restore(input(4)).unwrap();
        let image = Image::read(&restored.image).unwrap();
        // Half of the flux at half of the width: 2 pixels along y, 1 along x.
        for (x, y, value) in [
            (10, 10, 2.25),
            (10, 12, 1.25),
            (11, 10, 1.25),
            (0, 20, 2.25),
            (20, 0, 0.25),
        ] {
            assert!((image.get(x, y).unwrap() - value).abs() < 1e-6, "({x}, {y})");
        }
        assert_eq!((restored.components, restored.model_flux_jy), (2, 4.0));
        assert_eq!((restored.residual_peak_jy, restored.residual_rms_jy), (0.25, 0.25));
        let failure = restore(input(5)).map(|_| ()).unwrap_err();
        assert_eq!(failure.get_code(), Some("wrong_channel"));
    }
}
