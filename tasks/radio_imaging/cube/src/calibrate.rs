//! `calibrate`: brings the cube to Jy per beam, weighs the channels, leaves out the bad ones, and begins the context.

use airtight_sdk::prelude::*;
use radio_domain::npy::Precision;
use radio_domain::{Calibration, Channel, ChannelCalibration, Context, Failures, Image, Psf, median};

use crate::inspect::{Inspection, Measured, scale};
use crate::load::DirtyChannel;

/// From here on a channel's noise is worth a remark.
const NOISY: f64 = 1.5;

#[data]
struct Calibrate {
    channels: Vec<DirtyChannel>,
    psf: Blob,
    inspection: Inspection,
    #[serde(default)]
    context: Option<Context>,
    /// Channels with more than so many times the median noise are left out.
    #[serde(default = "default_flag_above")]
    #[schemars(range(min = 1.0))]
    flag_above: f64,
    #[serde(default)]
    failures: Failures,
}

fn default_flag_above() -> f64 {
    5.0
}

#[data]
struct Calibrated {
    /// The channels that take part: what the solver maps over.
    channels: Vec<Channel>,
    psf: Psf,
    context: Context,
}

/// Calibrates the cube: flux scale, noise and weight of each channel, flags. Answers the channels that take part, and the context with the
/// calibration and its score.
#[task]
fn calibrate(input: Calibrate) -> Result<Calibrated> {
    input.failures.check(0)?;
    let Inspection {
        channels: measured,
        psf_peak,
        beam,
        ..
    } = &input.inspection;
    let flux_scale = 1.0 / psf_peak;
    if !(flux_scale > 0.0 && flux_scale.is_finite()) {
        return Err(Failure::fatal(format!("the peak of the PSF is {psf_peak}")).code("unusable_psf"));
    }
    let noises: Vec<f64> = measured
        .iter()
        .filter_map(|m| m.sigma)
        .filter(|sigma| *sigma > 0.0)
        .collect();
    let median_sigma = median(noises);
    let verdicts: Vec<ChannelCalibration> = measured
        .iter()
        .map(|measured| judge(measured, median_sigma, flux_scale, input.flag_above))
        .collect();

    let mut channels = Vec::new();
    for channel in &input.channels {
        let verdict = verdicts.iter().find(|verdict| verdict.index == channel.index);
        let Some(verdict) = verdict else {
            let message = format!("channel {} was not inspected", channel.index);
            return Err(Failure::fatal(message).code("not_inspected"));
        };
        let (None, Some(sigma_jy)) = (&verdict.flagged, verdict.sigma_jy) else {
            warn!(
                "left out channel {}: {}",
                channel.index,
                verdict.flagged.as_deref().unwrap_or_default()
            );
            continue;
        };
        channels.push(Channel {
            index: channel.index,
            frequency_hz: channel.frequency_hz,
            image: rescaled(&channel.image, flux_scale)?,
            sigma_jy,
            weight: verdict.weight,
        });
    }
    if channels.is_empty() {
        return Err(Failure::fatal("no channel is usable")
            .code("no_channels")
            .details(&verdicts));
    }

    let mut context = input.context.unwrap_or_default();
    let (score, reasons) = score(&verdicts, median_sigma * flux_scale);
    info!(score, used = channels.len(), flux_scale, "calibrated");
    context.score("calibration", score, reasons);
    context.calibration = Some(Calibration {
        flux_scale,
        beam: *beam,
        median_sigma_jy: median_sigma * flux_scale,
        channels: verdicts,
    });
    Ok(Calibrated {
        channels,
        psf: Psf {
            image: rescaled(&input.psf, flux_scale)?,
            beam: *beam,
        },
        context,
    })
}

fn judge(measured: &Measured, median_sigma: f64, flux_scale: f64, flag_above: f64) -> ChannelCalibration {
    let Measured {
        index, frequency_hz, ..
    } = *measured;
    let flagged = match measured.sigma {
        _ if measured.bad_pixels > 0 => Some(format!("{} pixels are no finite numbers", measured.bad_pixels)),
        None => Some("its noise could not be measured".to_owned()),
        Some(sigma) if sigma.is_nan() || sigma <= 0.0 => Some("it is blank: its noise is 0".to_owned()),
        Some(sigma) if sigma > flag_above * median_sigma => Some(format!(
            "its noise is {:.1} times the median, more than {flag_above}",
            sigma / median_sigma
        )),
        Some(_) => None,
    };
    let weight = match measured.sigma {
        Some(sigma) if flagged.is_none() => (median_sigma / sigma).powi(2),
        _ => 0.0,
    };
    ChannelCalibration {
        index,
        frequency_hz,
        sigma_jy: measured.sigma.map(|sigma| sigma * flux_scale),
        weight,
        flagged,
    }
}

/// The score is the share of the sensitivity that the cube would have if all its channels were as good as the median one.
fn score(channels: &[ChannelCalibration], median_sigma_jy: f64) -> (f64, Vec<String>) {
    let mut reasons = Vec::new();
    for ChannelCalibration {
        index,
        frequency_hz,
        sigma_jy,
        weight,
        flagged,
    } in channels
    {
        let name = format!("channel {index} ({:.3} GHz)", frequency_hz / 1e9);
        if let Some(why) = flagged {
            reasons.push(format!(
                "{name} was left out: {why}; observe it again or go on without it"
            ));
            continue;
        }
        let times = sigma_jy.unwrap_or_default() / median_sigma_jy;
        if times > NOISY {
            reasons.push(format!(
                "{name} has {times:.1} times the median noise and counts {:.0} %: look for interference, or leave it out with \
                 `flag_above` below {times:.1}",
                100.0 * weight
            ));
        }
    }
    // The usual scatter of the noise is no loss.
    let kept: f64 = channels
        .iter()
        .map(|channel| {
            if channel.weight > NOISY.powi(-2) {
                1.0
            } else {
                channel.weight
            }
        })
        .sum();
    (kept / channels.len().max(1) as f64, reasons)
}

fn rescaled(image: &Blob, factor: f64) -> Result<Blob> {
    if factor == 1.0 {
        return Ok(image.clone());
    }
    scale(&Image::read(image)?, factor).write(Precision::Single)
}

#[cfg(test)]
mod tests {
    use radio_domain::Beam;

    use super::*;

    fn cube(sigmas: &[Option<f64>], psf_peak: f64, flag_above: f64) -> Calibrate {
        let image = |value: f64| Image::new(3, vec![value; 9]).unwrap().write(Precision::Single).unwrap();
        let channels = (0_u32..).zip(sigmas);
        Calibrate {
            channels: channels
                .clone()
                .map(|(index, _)| DirtyChannel {
                    index,
                    frequency_hz: 1.4e9 + 1e7 * f64::from(index),
                    image: image(8.0),
                })
                .collect(),
            psf: image(psf_peak),
            inspection: Inspection {
                channels: channels
                    .map(|(index, sigma)| Measured {
                        index,
                        frequency_hz: 1.4e9 + 1e7 * f64::from(index),
                        sigma: *sigma,
                        peak: Some(1.0),
                        bad_pixels: 0,
                    })
                    .collect(),
                psf_peak,
                psf_sidelobe: 0.1,
                beam: Beam {
                    major_fwhm_px: 8.0,
                    minor_fwhm_px: 6.0,
                    angle_deg: 90.0,
                },
            },
            context: None,
            flag_above,
            failures: Failures::default(),
        }
    }

    #[test]
    fn the_flux_scale_brings_the_peak_of_the_psf_to_1() {
        let calibrated = calibrate(cube(&[Some(0.4)], 4.0, 5.0)).unwrap();
        assert_eq!(Image::read(&calibrated.psf.image).unwrap().get(1, 1), Some(1.0));
        assert_eq!(Image::read(&calibrated.channels[0].image).unwrap().get(0, 0), Some(2.0));
        assert_eq!(calibrated.channels[0].sigma_jy, 0.1);
        assert_eq!(calibrated.context.calibration.unwrap().median_sigma_jy, 0.1);
    }

    #[test]
    fn noise_costs_weight_and_too_much_of_it_the_channel() {
        let sigmas = [Some(0.1), Some(0.1), Some(0.2), Some(0.1), None, Some(0.0), Some(0.9)];
        let calibrated = calibrate(cube(&sigmas, 1.0, 5.0)).unwrap();
        let used: Vec<(u32, f64)> = calibrated
            .channels
            .iter()
            .map(|channel| (channel.index, channel.weight))
            .collect();
        assert_eq!(used, [(0, 1.0), (1, 1.0), (2, 0.25), (3, 1.0)]);
        let score = &calibrated.context.qa[0];
        assert_eq!((score.stage.as_str(), score.score), ("calibration", 3.25 / 7.0));
        assert_eq!(
            score.reasons,
            [
                "channel 2 (1.420 GHz) has 2.0 times the median noise and counts 25 %: look for interference, or leave it out with \
                 `flag_above` below 2.0",
                "channel 4 (1.440 GHz) was left out: its noise could not be measured; observe it again or go on without it",
                "channel 5 (1.450 GHz) was left out: it is blank: its noise is 0; observe it again or go on without it",
                "channel 6 (1.460 GHz) was left out: its noise is 9.0 times the median, more than 5; observe it again or go on \
                 without it",
            ]
        );
        let stricter = calibrate(cube(&sigmas, 1.0, 1.9)).unwrap();
        assert_eq!(stricter.channels.len(), 3);
    }

    #[test]
    fn without_a_usable_channel_it_fails_for_good() {
        let failure = calibrate(cube(&[None, Some(0.0)], 1.0, 5.0)).map(|_| ()).unwrap_err();
        assert_eq!((failure.get_code(), failure.is_fatal()), (Some("no_channels"), true));
    }
}
