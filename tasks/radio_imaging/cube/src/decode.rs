//! Reads files of any kind that the example or a user may bring: FITS or `.npy`, packed with gzip or not.

use std::io::Read;

use airtight_sdk::prelude::*;
use flate2::read::MultiGzDecoder;
use radio_domain::fits::{self, Cube};
use radio_domain::{Image, MAX_VALUES, npy};

const GZIP: &[u8] = &[0x1f, 0x8b];
/// No file unpacks to more: the largest array that is read, and a header.
const MAX_UNPACKED: u64 = 8 * MAX_VALUES as u64 + (1 << 20);

/// A cube, from FITS.
pub(crate) fn cube(bytes: &[u8]) -> Result<Cube> {
    fits::decode(&unpacked(bytes)?)
}

/// An image, from FITS or `.npy`.
pub(crate) fn image(bytes: &[u8]) -> Result<Image> {
    let bytes = unpacked(bytes)?;
    if bytes.starts_with(fits::MAGIC) {
        let Cube { shape, values, .. } = fits::decode(&bytes)?;
        return match shape {
            [width, _, 1] => Image::new(width, values),
            _ => Err(Failure::fatal("a cube stands where an image was expected").code("not_an_image")),
        };
    }
    let array = npy::decode(&bytes)?;
    match *array.shape.as_slice() {
        [_, width] => Image::new(width, array.values),
        _ => Err(Failure::fatal(format!("an array of shape {:?} is no image", array.shape)).code("not_an_image")),
    }
}

fn unpacked(bytes: &[u8]) -> Result<Vec<u8>> {
    if !bytes.starts_with(GZIP) {
        return Ok(bytes.to_vec());
    }
    let mut unpacked = Vec::new();
    let read = MultiGzDecoder::new(bytes)
        .take(MAX_UNPACKED + 1)
        .read_to_end(&mut unpacked);
    match read {
        Ok(size) if size as u64 > MAX_UNPACKED => {
            Err(Failure::fatal("the file unpacks to more than an array may have").code("not_an_array"))
        }
        Ok(_) => Ok(unpacked),
        Err(error) => Err(Failure::fatal(format!("cannot unpack the file: {error}")).code("not_an_array")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{CUBE, PSF};

    #[test]
    fn the_files_inside_are_read() {
        let psf = image(PSF).unwrap();
        assert_eq!((psf.width(), psf.height(), psf.get(127, 127)), (255, 255, Some(1.0)));
        let cube = cube(CUBE).unwrap();
        assert_eq!(cube.shape, [128, 128, 10]);
        assert_eq!(cube.frequency_hz, Some((1.4e9, 1e7)));
    }

    #[test]
    fn a_damaged_file_is_fatal() {
        for damaged in [&PSF[..PSF.len() / 2], &PSF[..3], b"", b"SIMPLE  =", b"\x93NUMPY"] {
            assert!(image(damaged).unwrap_err().is_fatal());
            assert!(self::cube(damaged).unwrap_err().is_fatal());
        }
    }
}
