//! `load_cube`: brings the cube into the run, one blob a channel.

use airtight_sdk::prelude::*;
use radio_domain::npy::Precision;
use radio_domain::{Failures, Image};

use crate::decode;

/// The example's dirty cube and the PSF of all its channels; see `data/README.md`.
pub(crate) const CUBE: &[u8] = include_bytes!("../../data/dirty.fits");
pub(crate) const PSF: &[u8] = include_bytes!("../../data/psf.npy.gz");
/// A workflow maps over the channels, and XComs carry a reference for each.
const MAX_CHANNELS: usize = 1000;

#[data]
#[derive(Default)]
#[serde(default)]
struct LoadCube {
    /// A dirty cube of your own, as FITS with a frequency axis. Without it: the one inside the component.
    cube: Option<Blob>,
    /// The PSF of your own cube, as FITS or `.npy`, its peak at its centre.
    psf: Option<Blob>,
    failures: Failures,
}

/// A channel as it came from the instrument.
#[data]
#[derive(Clone)]
pub(crate) struct DirtyChannel {
    /// Its number in the cube.
    pub(crate) index: u32,
    pub(crate) frequency_hz: f64,
    /// The dirty image, as a two-dimensional `.npy` array.
    pub(crate) image: Blob,
}

#[data]
struct Loaded {
    channels: Vec<DirtyChannel>,
    /// The point spread function, as a two-dimensional `.npy` array.
    psf: Blob,
    metadata: Metadata,
}

#[data]
struct Metadata {
    /// What was observed, if the file says so.
    object: Option<String>,
    /// What the values are, if the file says so.
    unit: Option<String>,
    width: usize,
    height: usize,
    channels: usize,
    first_frequency_hz: f64,
    last_frequency_hz: f64,
    /// `example` or `blob`.
    source: String,
}

/// Loads the spectral cube, the one inside the component or one that was uploaded, and takes it apart into channels.
#[task]
fn load_cube(input: LoadCube) -> Result<Loaded> {
    input.failures.check(0)?;
    let (cube, psf, source) = match (input.cube, input.psf) {
        (None, None) => (decode::cube(CUBE)?, decode::image(PSF)?, "example"),
        (Some(cube), Some(psf)) => (decode::cube(&cube.bytes()?)?, decode::image(&psf.bytes()?)?, "blob"),
        _ => return Err(Failure::fatal("`cube` and `psf` belong together: give both or none").code("cube_without_psf")),
    };
    let [width, height, count] = cube.shape;
    if count > MAX_CHANNELS {
        return Err(Failure::fatal(format!("{count} channels are more than {MAX_CHANNELS}")).code("too_many_channels"));
    }
    let (Some(first_frequency_hz), Some(last_frequency_hz)) = (cube.frequency(0), cube.frequency(count - 1)) else {
        return Err(Failure::fatal("the third axis of the cube is not a frequency").code("no_frequencies"));
    };
    check_psf(&psf)?;

    let mut channels = Vec::with_capacity(count);
    for (index, plane) in (0_u32..).zip(cube.planes()) {
        progress(f64::from(index) / count as f64, &format!("channel {index}"));
        channels.push(DirtyChannel {
            index,
            frequency_hz: cube.frequency(index as usize).unwrap_or(first_frequency_hz),
            image: Image::new(width, plane.to_vec())?.write(Precision::Single)?,
        });
    }
    info!(
        source,
        width, height, first_frequency_hz, last_frequency_hz, "loaded {count} channels of {width} x {height} pixels"
    );
    Ok(Loaded {
        channels,
        psf: psf.write(Precision::Single)?,
        metadata: Metadata {
            object: cube.object,
            unit: cube.unit,
            width,
            height,
            channels: count,
            first_frequency_hz,
            last_frequency_hz,
            source: source.to_owned(),
        },
    })
}

/// CLEAN lays the PSF's centre on a peak, so it must have one, with the largest value there.
fn check_psf(psf: &Image) -> Result<()> {
    let (x, y) = (psf.width() / 2, psf.height() / 2);
    let peak = psf.peak();
    let odd = psf.width() % 2 == 1 && psf.height() % 2 == 1;
    if psf.bad_pixels() == 0 && odd && (peak.x, peak.y) == (x, y) && peak.value > 0.0 {
        return Ok(());
    }
    let message = format!(
        "the PSF must have an odd number of rows and columns, and its largest value at its centre; this one has {} x {}, and {} at ({}, {})",
        psf.width(),
        psf.height(),
        peak.value,
        peak.x,
        peak.y
    );
    Err(Failure::fatal(message).code("unusable_psf"))
}

#[cfg(test)]
mod tests {
    use radio_domain::npy;

    use super::*;

    fn blob(bytes: &[u8]) -> Option<Blob> {
        Some(Blob::from_bytes(bytes, None).unwrap())
    }

    #[test]
    fn the_example_has_ten_channels() {
        let loaded = load_cube(LoadCube::default()).unwrap();
        assert_eq!(loaded.channels.len(), 10);
        let last = &loaded.channels[9];
        assert_eq!((last.index, last.frequency_hz), (9, 1.49e9));
        let image = Image::read(&last.image).unwrap();
        assert_eq!((image.width(), image.height()), (128, 128));
        assert_eq!(loaded.metadata.unit.as_deref(), Some("Jy/beam"));
    }

    #[test]
    fn a_cube_of_ones_own_needs_its_psf() {
        let own = |cube, psf| {
            load_cube(LoadCube {
                cube,
                psf,
                failures: Failures::default(),
            })
        };
        let loaded = own(blob(CUBE), blob(PSF)).unwrap();
        assert_eq!(loaded.metadata.source, "blob");
        let code = |result: Result<Loaded>| result.map(|_| ()).unwrap_err().get_code().map(str::to_owned);
        assert_eq!(code(own(blob(CUBE), None)).as_deref(), Some("cube_without_psf"));
        assert_eq!(code(own(blob(b"no cube"), blob(PSF))).as_deref(), Some("not_a_cube"));

        let shifted = npy::Array {
            shape: vec![3, 3],
            values: vec![1.0, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0],
        };
        let shifted = blob(&npy::encode(&shifted, Precision::Single));
        assert_eq!(code(own(blob(CUBE), shifted)).as_deref(), Some("unusable_psf"));
    }
}
