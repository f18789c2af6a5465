//! The clean beam: the Gaussian that the restored image shows in place of each component.

use airtight_sdk::prelude::*;

use crate::Image;
use crate::linear::{invert, multiply};

/// A Gaussian's full width at half maximum is so many times its standard deviation.
const FWHM: f64 = 2.354_820_045_030_949_3;
/// What of the PSF counts as its main lobe: above this share of the peak.
const LOBE: f64 = 0.35;
/// The Gaussian is cut where so many standard deviations of the major axis have passed.
const REACH: f64 = 4.5;

/// An elliptical Gaussian of peak 1.
#[data]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Beam {
    /// The longer full width at half maximum, in pixels.
    pub major_fwhm_px: f64,
    /// The shorter one.
    pub minor_fwhm_px: f64,
    /// Where the longer axis points: from +x towards +y, from 0 to 180 degrees.
    pub angle_deg: f64,
}

impl Beam {
    /// Fits the main lobe of a PSF whose peak is at its centre. None where that is no bump.
    pub fn fit(psf: &Image) -> Option<Self> {
        let lobe = main_lobe(psf);
        // ln(psf) = -(a x² + 2 b x y + c y²) / 2 is linear in a, b, c. The weights bring the errors of the logarithm back to those of the
        // PSF itself.
        let mut normal = vec![vec![0.0; 3]; 3];
        let mut right = vec![0.0; 3];
        for (x, y, value) in lobe {
            let basis = [-0.5 * x * x, -x * y, -0.5 * y * y];
            let weight = value * value;
            for (row, (left, right)) in basis.iter().zip(normal.iter_mut().zip(&mut right)) {
                left.iter_mut()
                    .zip(basis)
                    .for_each(|(sum, column)| *sum += weight * row * column);
                *right += weight * row * value.ln();
            }
        }
        let form = multiply(&invert(&normal)?, &right);
        let [a, b, c] = *form.as_slice() else { return None };
        let (middle, spread) = (f64::midpoint(a, c), (f64::midpoint(a, -c)).hypot(b));
        let (steep, flat) = (middle + spread, middle - spread);
        if !(flat > 0.0 && steep.is_finite()) {
            return None;
        }
        let steepest = 0.5 * (2.0 * b).atan2(a - c);
        Some(Self {
            major_fwhm_px: FWHM / flat.sqrt(),
            minor_fwhm_px: FWHM / steep.sqrt(),
            angle_deg: (steepest.to_degrees() + 90.0).rem_euclid(180.0),
        })
    }

    /// The function that it stands for. None where it is none: a width that is not above zero.
    pub fn gaussian(&self) -> Option<Gaussian> {
        let (major, minor) = (self.major_fwhm_px / FWHM, self.minor_fwhm_px / FWHM);
        let sane = |sigma: f64| (0.05..=1e4).contains(&sigma);
        if !sane(major) || !sane(minor) || !self.angle_deg.is_finite() {
            return None;
        }
        let (sin, cos) = self.angle_deg.to_radians().sin_cos();
        let (flat, steep) = (major.powi(-2), minor.powi(-2));
        Some(Gaussian {
            a: cos * cos * flat + sin * sin * steep,
            b: sin * cos * (flat - steep),
            c: sin * sin * flat + cos * cos * steep,
            reach: REACH * major.max(minor),
        })
    }
}

/// A beam ready to be evaluated.
#[derive(Clone, Copy, Debug)]
pub struct Gaussian {
    a: f64,
    b: f64,
    c: f64,
    reach: f64,
}

impl Gaussian {
    /// Its value at a distance from its centre.
    pub fn at(&self, dx: f64, dy: f64) -> f64 {
        (-0.5 * (self.a * dx * dx + 2.0 * self.b * dx * dy + self.c * dy * dy)).exp()
    }

    /// How its value changes when its centre moves along x and along y, divided by its value.
    pub fn slope(&self, dx: f64, dy: f64) -> (f64, f64) {
        (self.a * dx + self.b * dy, self.b * dx + self.c * dy)
    }

    /// Columns and rows of an image in which a Gaussian with this centre counts.
    pub fn window(&self, x: f64, y: f64, image: &Image) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        // `as` clamps what is negative to 0.
        let range = |at: f64, length: usize| {
            let start = ((at - self.reach).ceil() as usize).min(length);
            let end = ((at + self.reach).floor() + 1.0) as usize;
            start..end.clamp(start, length)
        };
        (range(x, image.width()), range(y, image.height()))
    }

    /// Adds it to an image.
    pub fn add_to(&self, image: &mut Image, x: f64, y: f64, amplitude: f64) {
        let (columns, rows) = self.window(x, y, image);
        for row in rows {
            let dy = row as f64 - y;
            for (column, value) in columns.clone().zip(image.row_mut(row, columns.clone())) {
                *value += amplitude * self.at(column as f64 - x, dy);
            }
        }
    }
}

/// The pixels of the main lobe, as distances from the centre and values: what is connected with the centre above a share of the peak.
fn main_lobe(psf: &Image) -> Vec<(f64, f64, f64)> {
    let (cx, cy) = (psf.width() / 2, psf.height() / 2);
    let mut seen = vec![false; psf.values().len()];
    let mut open = vec![(cx, cy)];
    let mut lobe = Vec::new();
    while let Some((x, y)) = open.pop() {
        let Some(value) = psf.get(x, y).filter(|value| *value > LOBE) else {
            continue;
        };
        match seen.get_mut(y * psf.width() + x) {
            Some(seen) if !*seen => *seen = true,
            _ => continue,
        }
        lobe.push((x as f64 - cx as f64, y as f64 - cy as f64, value));
        open.extend([(x + 1, y), (x, y + 1), (x.wrapping_sub(1), y), (x, y.wrapping_sub(1))]);
    }
    lobe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beam_is_found_again_in_its_own_image() {
        for angle_deg in [0.0, 20.0, 90.0, 133.0] {
            let beam = Beam {
                major_fwhm_px: 9.0,
                minor_fwhm_px: 5.0,
                angle_deg,
            };
            let mut psf = Image::new(41, vec![0.0; 41 * 41]).unwrap();
            beam.gaussian().unwrap().add_to(&mut psf, 20.0, 20.0, 1.0);
            let found = Beam::fit(&psf).unwrap();
            assert!((found.major_fwhm_px - 9.0).abs() < 1e-6, "{found:?}");
            assert!((found.minor_fwhm_px - 5.0).abs() < 1e-6, "{found:?}");
            assert!((found.angle_deg - angle_deg).abs() < 1e-6, "{found:?}");
        }
    }

    #[test]
    fn what_is_no_bump_has_no_beam() {
        assert_eq!(Beam::fit(&Image::new(5, vec![1.0; 25]).unwrap()), None);
        assert_eq!(Beam::fit(&Image::new(5, vec![f64::NAN; 25]).unwrap()), None);
        let flat = Beam {
            major_fwhm_px: 0.0,
            minor_fwhm_px: -1.0,
            angle_deg: 0.0,
        };
        assert!(flat.gaussian().is_none());
    }

    #[test]
    fn the_window_ends_at_the_image() {
        let image = Image::new(10, vec![0.0; 100]).unwrap();
        let beam = Beam {
            major_fwhm_px: 2.354_82,
            minor_fwhm_px: 2.354_82,
            angle_deg: 0.0,
        };
        let gaussian = beam.gaussian().unwrap();
        assert_eq!(gaussian.window(0.0, 5.0, &image), (0..5, 1..10));
        assert_eq!(gaussian.window(-100.0, 1e12, &image), (0..0, 10..10));
    }
}
