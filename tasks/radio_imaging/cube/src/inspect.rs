//! `inspect`: measures every channel and the PSF, and changes nothing.

use airtight_sdk::prelude::*;
use radio_domain::{Beam, Failures, Image};

use crate::load::DirtyChannel;
use crate::noise::pixel_noise;

#[data]
struct Inspect {
    channels: Vec<DirtyChannel>,
    psf: Blob,
    #[serde(default)]
    failures: Failures,
}

/// What was measured of one channel, in the units of the file.
#[data]
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) index: u32,
    pub(crate) frequency_hz: f64,
    /// The noise of a pixel; none where pixels are bad or too few.
    pub(crate) sigma: Option<f64>,
    /// The largest absolute value.
    pub(crate) peak: Option<f64>,
    /// Pixels that are infinite or no numbers.
    pub(crate) bad_pixels: usize,
}

#[data]
#[derive(Clone, Debug)]
pub(crate) struct Inspection {
    pub(crate) channels: Vec<Measured>,
    /// The value at the centre of the PSF.
    pub(crate) psf_peak: f64,
    /// The largest absolute value beside the main lobe, as a share of the peak.
    pub(crate) psf_sidelobe: f64,
    /// Fitted to the main lobe.
    pub(crate) beam: Beam,
}

/// Measures the noise and the peak of every channel, and the main lobe and the sidelobes of the PSF.
#[task]
fn inspect(input: Inspect) -> Result<Inspection> {
    input.failures.check(0)?;
    let psf = Image::read(&input.psf)?;
    let psf_peak = psf.peak().value;
    let scaled = scale(&psf, 1.0 / psf_peak);
    let Some(beam) = Beam::fit(&scaled) else {
        return Err(Failure::fatal("the main lobe of the PSF is no Gaussian").code("unusable_psf"));
    };

    let count = input.channels.len();
    let mut channels = Vec::with_capacity(count);
    for (done, channel) in input.channels.iter().enumerate() {
        progress(done as f64 / count as f64, &format!("channel {}", channel.index));
        let image =
            Image::read(&channel.image).map_err(|failure| failure.context(format!("channel {}", channel.index)))?;
        let bad_pixels = image.bad_pixels();
        let measured = Measured {
            index: channel.index,
            frequency_hz: channel.frequency_hz,
            sigma: pixel_noise(&image),
            peak: (bad_pixels == 0).then(|| image.peak().value.abs()),
            bad_pixels,
        };
        info!(
            sigma = measured.sigma,
            peak = measured.peak,
            bad_pixels,
            "measured channel {}",
            channel.index
        );
        channels.push(measured);
    }
    Ok(Inspection {
        channels,
        psf_peak,
        psf_sidelobe: sidelobe(&scaled, &beam),
        beam,
    })
}

/// An image times a number.
pub(crate) fn scale(image: &Image, factor: f64) -> Image {
    let mut scaled = image.clone();
    scaled.values_mut().iter_mut().for_each(|value| *value *= factor);
    scaled
}

/// The largest absolute value farther from the centre than the beam is long.
fn sidelobe(psf: &Image, beam: &Beam) -> f64 {
    let (cx, cy) = (psf.width() / 2, psf.height() / 2);
    let mut largest = 0.0_f64;
    for (at, value) in psf.values().iter().enumerate() {
        let (x, y) = (at % psf.width(), at / psf.width());
        if (x.abs_diff(cx) as f64).hypot(y.abs_diff(cy) as f64) > beam.major_fwhm_px {
            largest = largest.max(value.abs());
        }
    }
    largest
}

#[cfg(test)]
mod tests {
    use airtight_sdk::serde_json;
    use radio_domain::npy::Precision;

    use super::*;
    use crate::{decode, load};

    #[test]
    fn the_beam_is_that_of_the_psf_and_bad_pixels_are_counted() {
        let psf = decode::image(load::PSF).unwrap();
        let mut values = vec![0.0; 400];
        values[7] = f64::NAN;
        values[9] = f64::INFINITY;
        let inspection = inspect(Inspect {
            channels: vec![DirtyChannel {
                index: 3,
                frequency_hz: 1e9,
                image: Image::new(20, values).unwrap().write(Precision::Single).unwrap(),
            }],
            psf: scale(&psf, 4.0).write(Precision::Single).unwrap(),
            failures: Failures::default(),
        })
        .unwrap();

        let truth: serde_json::Value = serde_json::from_str(include_str!("../../data/truth.json")).unwrap();
        let number = |value: &serde_json::Value| value.as_f64().unwrap();
        let lobe = &truth["psf"]["main_lobe_fwhm_px"];
        // The truth was fitted to the inner 4 pixels alone, and the lobe is no perfect Gaussian.
        assert!((inspection.beam.minor_fwhm_px / number(&lobe[0]) - 1.0).abs() < 0.03);
        assert!((inspection.beam.major_fwhm_px / number(&lobe[1]) - 1.0).abs() < 0.03);
        assert!((inspection.psf_sidelobe - number(&truth["psf"]["max_abs_beyond_8px"])).abs() < 0.01);
        assert_eq!(inspection.psf_peak, 4.0);

        let channel = &inspection.channels[0];
        assert_eq!((channel.index, channel.bad_pixels), (3, 2));
        assert_eq!((channel.sigma, channel.peak), (None, None));
    }
}
