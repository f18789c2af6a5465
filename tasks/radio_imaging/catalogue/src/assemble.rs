//! `assemble`: the restored channels become a cube again.

use airtight_sdk::prelude::*;
use radio_domain::fits::{self, Cube};
use radio_domain::{Beam, Context, Failures, Image, Plane, Psf, Restored, count_values};

/// What is left of a well deconvolved channel is little more than noise.
const CLEAN_RESIDUAL: f64 = 1.3;
/// What a channel counts whose deconvolution did not come to its end.
const UNFINISHED: f64 = 0.3;

#[data]
struct Assemble {
    /// What the solver answered for each channel; null where it answered nothing.
    images: Vec<Option<Restored>>,
    psf: Psf,
    #[serde(default)]
    context: Option<Context>,
    /// Under which name the context keeps the score.
    #[serde(default = "default_stage")]
    stage: String,
    #[serde(default)]
    failures: Failures,
}

fn default_stage() -> String {
    "imaging".to_owned()
}

#[data]
pub(crate) struct Assembled {
    /// The restored cube as FITS. Planes of channels that were left out are blank.
    cube: Blob,
    /// The planes that are not blank.
    planes: Vec<Plane>,
    beam: Beam,
    summary: Summary,
    context: Context,
}

/// The imaging in numbers.
#[data]
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    pub(crate) channels: usize,
    pub(crate) converged: usize,
    /// Summed over all channels.
    pub(crate) iterations: u32,
    pub(crate) minor_cycles: u32,
    /// The largest of all channels.
    pub(crate) peak_jy: f64,
    /// The peak, divided by the root mean square of what was left: the best channel's.
    pub(crate) dynamic_range: f64,
}

/// Puts the restored channels together to a cube, in their order, and scores the imaging.
#[task]
fn assemble(input: Assemble) -> Result<Assembled> {
    input.failures.check(0)?;
    let missing = input.images.iter().filter(|image| image.is_none()).count();
    let mut images: Vec<Restored> = input.images.into_iter().flatten().collect();
    images.sort_by_key(|image| image.index);
    let (Some(first), Some(last)) = (images.first(), images.last()) else {
        return Err(Failure::fatal("no channel was restored").code("no_channels"));
    };
    if images.array_windows::<2>().any(|[a, b]| a.index == b.index) {
        return Err(Failure::fatal("two images are of the same channel").code("repeated_channel"));
    }

    let (first_index, frequency_hz) = (first.index, frequency_axis(first, last));
    let count = (last.index - first_index) as usize + 1;
    let size = Image::read(&first.image)?;
    let shape = [size.width(), size.height(), count];
    let Some(values) = count_values(&shape) else {
        return Err(Failure::fatal(format!("a cube of {shape:?} is too large")).code("too_large"));
    };
    // Blank is how FITS says "not observed".
    let mut cube = vec![f64::NAN; values];
    let mut planes = Vec::with_capacity(images.len());
    for restored in &images {
        let image = Image::read(&restored.image)?;
        let plane = restored.index - first_index;
        match cube.chunks_exact_mut(size.values().len()).nth(plane as usize) {
            Some(target) if image.same_size(&size) => target.copy_from_slice(image.values()),
            _ => {
                let message = format!("channel {} is not as large as the others", restored.index);
                return Err(Failure::fatal(message).code("sizes_differ"));
            }
        }
        planes.push(Plane {
            plane,
            index: restored.index,
            frequency_hz: restored.frequency_hz,
            sigma_jy: restored.sigma_jy,
        });
    }

    let summary = summarize(&images);
    let (score, reasons) = score(&images, missing);
    info!(
        score,
        channels = summary.channels,
        converged = summary.converged,
        minor_cycles = summary.minor_cycles,
        dynamic_range = summary.dynamic_range,
        "assembled the cube"
    );
    let mut context = input.context.unwrap_or_default();
    context.score(&input.stage, score, reasons);
    let beam = input.psf.beam;
    let cube = fits::encode(&Cube {
        shape,
        values: cube,
        frequency_hz: Some(frequency_hz),
        object: None,
        unit: Some("Jy/beam".to_owned()),
        history: vec![
            format!("CLEAN (Hogbom), {} minor cycles", summary.minor_cycles),
            format!(
                "clean beam {:.3} x {:.3} px, {:.1} deg from +x to +y",
                beam.major_fwhm_px, beam.minor_fwhm_px, beam.angle_deg
            ),
            format!("first plane is channel {first_index}"),
        ],
    });
    Ok(Assembled {
        cube: Blob::from_bytes(cube, fits::MEDIA_TYPE)?,
        planes,
        beam,
        summary,
        context,
    })
}

/// The first frequency and the step; that of a single plane is a matter of form.
fn frequency_axis(first: &Restored, last: &Restored) -> (f64, f64) {
    let steps = last.index - first.index;
    let step = if steps == 0 {
        1.0
    } else {
        (last.frequency_hz - first.frequency_hz) / f64::from(steps)
    };
    (first.frequency_hz, step)
}

fn summarize(images: &[Restored]) -> Summary {
    let largest = |of: fn(&Restored) -> f64| images.iter().map(of).fold(0.0, f64::max);
    Summary {
        channels: images.len(),
        converged: images.iter().filter(|image| image.converged).count(),
        iterations: images.iter().map(|image| image.iterations).fold(0, u32::saturating_add),
        minor_cycles: images
            .iter()
            .map(|image| image.minor_cycles)
            .fold(0, u32::saturating_add),
        peak_jy: largest(|image| image.peak_jy),
        dynamic_range: largest(|image| image.peak_jy / image.residual_rms_jy.max(f64::MIN_POSITIVE)),
    }
}

/// The mean over the channels of how well each is deconvolved.
fn score(images: &[Restored], missing: usize) -> (f64, Vec<String>) {
    let mut reasons = Vec::new();
    let mut sum = 0.0;
    for image in images {
        let name = format!("channel {} ({:.3} GHz)", image.index, image.frequency_hz / 1e9);
        let excess = image.residual_rms_jy / image.sigma_jy;
        if !image.converged {
            sum += UNFINISHED;
            reasons.push(format!(
                "{name} stopped after {} minor cycles at {:.1} times its noise, above its threshold of {:.1}: let the loop go round more \
                 often, allow more `max_minor_cycles`, or raise `threshold_sigmas`",
                image.minor_cycles,
                image.residual_peak_jy / image.sigma_jy,
                image.threshold_jy / image.sigma_jy
            ));
        } else if excess > CLEAN_RESIDUAL {
            sum += CLEAN_RESIDUAL / excess;
            reasons.push(format!(
                "what is left of {name} is {excess:.1} times its noise: lower `threshold_sigmas`, or check that the PSF is that of this cube"
            ));
        } else {
            sum += 1.0;
        }
    }
    if missing > 0 {
        reasons.push(format!(
            "{missing} channels have no image: look at their task instances, clear them once the cause is gone"
        ));
    }
    (sum / (images.len() + missing).max(1) as f64, reasons)
}

#[cfg(test)]
mod tests {
    use radio_domain::npy::Precision;

    use super::*;

    fn restored(index: u32, value: f64) -> Option<Restored> {
        Some(Restored {
            index,
            frequency_hz: 1.4e9 + 1e7 * f64::from(index),
            image: Image::new(2, vec![value; 4]).unwrap().write(Precision::Single).unwrap(),
            sigma_jy: 0.1,
            threshold_jy: 0.5,
            converged: true,
            iterations: 2,
            minor_cycles: 60,
            components: 3,
            model_flux_jy: 1.0,
            peak_jy: value,
            residual_peak_jy: 0.4,
            residual_rms_jy: 0.1,
        })
    }

    fn assembled(images: Vec<Option<Restored>>) -> Result<Assembled> {
        assemble(Assemble {
            images,
            psf: Psf {
                image: Blob::from_bytes("unused", None)?,
                beam: Beam {
                    major_fwhm_px: 8.0,
                    minor_fwhm_px: 6.0,
                    angle_deg: 90.0,
                },
            },
            context: None,
            stage: default_stage(),
            failures: Failures::default(),
        })
    }

    #[test]
    fn channels_stand_in_their_order_and_gaps_are_blank() {
        let assembled = assembled(vec![restored(5, 3.0), restored(2, 1.0), restored(4, 2.0)]).unwrap();
        let cube = fits::decode(&assembled.cube.bytes().unwrap()).unwrap();
        assert_eq!((cube.shape, cube.frequency_hz), ([2, 2, 4], Some((1.42e9, 1e7))));
        let planes: Vec<f64> = cube.planes().map(|plane| plane[0]).collect();
        assert_eq!((planes[0], planes[2], planes[3]), (1.0, 2.0, 3.0));
        assert!(planes[1].is_nan());
        let at: Vec<(u32, u32)> = assembled
            .planes
            .iter()
            .map(|plane| (plane.plane, plane.index))
            .collect();
        assert_eq!(at, [(0, 2), (2, 4), (3, 5)]);
        assert_eq!((assembled.summary.minor_cycles, assembled.summary.peak_jy), (180, 3.0));
        assert_eq!(assembled.context.qa[0].score, 1.0);
    }

    #[test]
    fn what_went_wrong_costs_score_and_is_named() {
        let mut unfinished = restored(0, 1.0);
        let mut noisy = restored(1, 1.0);
        if let (Some(unfinished), Some(noisy)) = (&mut unfinished, &mut noisy) {
            (unfinished.converged, unfinished.residual_peak_jy) = (false, 0.9);
            noisy.residual_rms_jy = 0.26;
        }
        let score = assembled(vec![unfinished, noisy, restored(2, 1.0), None])
            .unwrap()
            .context
            .qa
            .remove(0);
        assert!((score.score - (0.3 + 0.5 + 1.0) / 4.0).abs() < 1e-12);
        let begins: Vec<bool> = score
            .reasons
            .iter()
            .zip([
                "channel 0 (1.400 GHz) stopped",
                "what is left of channel 1",
                "1 channels have no image",
            ])
            .map(|(reason, begin)| reason.starts_with(begin))
            .collect();
        assert_eq!(begins, [true; 3], "{:?}", score.reasons);
    }

    #[test]
    fn what_makes_no_cube_is_fatal() {
        let code = |images| assembled(images).map(|_| ()).unwrap_err().get_code().map(str::to_owned);
        assert_eq!(code(vec![None]).as_deref(), Some("no_channels"));
        assert_eq!(
            code(vec![restored(1, 0.0), restored(1, 0.0)]).as_deref(),
            Some("repeated_channel")
        );
        assert_eq!(
            code(vec![restored(0, 0.0), restored(u32::MAX, 0.0)]).as_deref(),
            Some("too_large")
        );
    }
}
