//! One plane of numbers, and what is measured on it.

use airtight_sdk::prelude::*;

use crate::count_values;
use crate::npy::{self, Array, Precision};

/// A normal distribution's standard deviation is so many times its median absolute deviation.
const MAD_TO_SIGMA: f64 = 1.482_602_218_505_602;

/// An image: rows of pixels, x is the fast axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    width: usize,
    values: Vec<f64>,
}

/// A pixel that stands out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// The column.
    pub x: usize,
    /// The row.
    pub y: usize,
    /// Its value.
    pub value: f64,
}

impl Image {
    /// An image of so many columns; the values must fill whole rows.
    pub fn new(width: usize, values: Vec<f64>) -> Result<Self> {
        let whole = width > 0 && !values.is_empty() && values.len().is_multiple_of(width);
        if !whole || count_values(&[values.len()]).is_none() {
            return Err(odd(format!("{} values make no rows of {width}", values.len())));
        }
        Ok(Self { width, values })
    }

    /// An image of the same size as this one, of zeros.
    pub fn zeros_like(&self) -> Self {
        Self {
            width: self.width,
            values: vec![0.0; self.values.len()],
        }
    }

    /// Reads a blob that holds a two-dimensional `.npy` array.
    pub fn read(blob: &Blob) -> Result<Self> {
        let array = npy::decode(&blob.bytes()?)?;
        match *array.shape.as_slice() {
            [_, width] => Self::new(width, array.values),
            _ => Err(odd(format!("an array of shape {:?} is no image", array.shape))),
        }
    }

    /// Writes it as such a blob.
    pub fn write(&self, precision: Precision) -> Result<Blob> {
        let array = Array {
            shape: vec![self.height(), self.width],
            values: self.values.clone(),
        };
        Ok(Blob::from_bytes(npy::encode(&array, precision), npy::MEDIA_TYPE)?)
    }

    /// The number of columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The number of rows.
    pub fn height(&self) -> usize {
        self.values.len() / self.width
    }

    /// All pixels, row by row.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// All pixels, row by row.
    pub fn values_mut(&mut self) -> &mut [f64] {
        &mut self.values
    }

    /// Part of a row, as far as it is inside.
    pub fn row(&self, y: usize, x: std::ops::Range<usize>) -> &[f64] {
        let start = y.min(self.height()) * self.width;
        let end = x.end.min(self.width);
        self.values
            .get(start + x.start.min(end)..start + end)
            .unwrap_or_default()
    }

    /// Part of a row, as far as it is inside.
    pub fn row_mut(&mut self, y: usize, x: std::ops::Range<usize>) -> &mut [f64] {
        let start = y.min(self.height()) * self.width;
        let end = x.end.min(self.width);
        self.values
            .get_mut(start + x.start.min(end)..start + end)
            .unwrap_or_default()
    }

    /// One pixel, if it is inside.
    pub fn get(&self, x: usize, y: usize) -> Option<f64> {
        self.row(y, x..x.saturating_add(1)).first().copied()
    }

    /// The pixel with the largest absolute value, the first of several.
    pub fn peak(&self) -> Peak {
        let mut best = (0, 0.0_f64);
        let mut largest = -1.0;
        for (at, value) in self.values.iter().enumerate() {
            if value.abs() > largest {
                largest = value.abs();
                best = (at, *value);
            }
        }
        Peak {
            x: best.0 % self.width,
            y: best.0 / self.width,
            value: best.1,
        }
    }

    /// The root of the mean square.
    pub fn rms(&self) -> f64 {
        let sum: f64 = self.values.iter().map(|value| value * value).sum();
        (sum / self.values.len() as f64).sqrt()
    }

    /// How many pixels are infinite or no numbers.
    pub fn bad_pixels(&self) -> usize {
        self.values.iter().filter(|value| !value.is_finite()).count()
    }

    /// Whether another image has as many columns and rows.
    pub fn same_size(&self, other: &Self) -> bool {
        self.width == other.width && self.values.len() == other.values.len()
    }
}

/// The median; 0 of nothing.
pub fn median(mut values: Vec<f64>) -> f64 {
    let middle = values.len() / 2;
    if values.is_empty() {
        return 0.0;
    }
    let odd = values.len() % 2 == 1;
    let (below, upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    let upper = *upper;
    if odd {
        return upper;
    }
    let lower = below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    f64::midpoint(lower, upper)
}

/// The standard deviation of the bulk of some values, from their median absolute deviation: a few outliers do not move it.
pub fn robust_sigma(values: Vec<f64>) -> f64 {
    let centre = median(values.clone());
    MAD_TO_SIGMA * median(values.into_iter().map(|value| (value - centre).abs()).collect())
}

fn odd(message: String) -> Failure {
    Failure::fatal(message).code("not_an_image")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_the_first_of_the_largest() {
        let image = Image::new(3, vec![0.0, -2.0, 1.0, 2.0, 0.0, 0.0]).unwrap();
        let peak = image.peak();
        assert_eq!((peak.x, peak.y, peak.value), (1, 0, -2.0));
        assert_eq!(image.get(2, 0), Some(1.0));
        assert_eq!((image.get(3, 0), image.get(0, 2)), (None, None));
        assert_eq!(image.row(1, 0..9), [2.0, 0.0, 0.0]);
    }

    #[test]
    fn an_image_survives_being_a_blob() {
        let image = Image::new(2, vec![0.1, 0.2, 0.3, 0.4, 0.5, 0.6]).unwrap();
        assert_eq!(Image::read(&image.write(Precision::Double).unwrap()).unwrap(), image);
        assert!(Image::new(4, vec![0.0; 6]).is_err());
        assert!(Image::new(0, Vec::new()).is_err());
    }

    #[test]
    fn outliers_do_not_move_the_robust_sigma() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        let quiet: Vec<f64> = (0..1000).map(|n| f64::from(n % 7) - 3.0).collect();
        let mut loud = quiet.clone();
        loud[..50].fill(1e6);
        assert!((robust_sigma(loud) - robust_sigma(quiet)).abs() < 1e-9);
    }
}
