//! The algorithm of Högbom (1974): find the brightest pixel of what is left, subtract part of it with all its sidelobes, go on.

use std::collections::BTreeMap;

use airtight_sdk::prelude::*;
use radio_domain::{Image, Peak};

/// What was found at one pixel.
#[data]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Component {
    pub(crate) x: u32,
    pub(crate) y: u32,
    pub(crate) flux_jy: f64,
}

/// A deconvolution on its way.
pub(crate) struct Clean<'a> {
    psf: &'a Image,
    residual: Image,
    /// By row and column, so that they come out in the order of the image.
    components: BTreeMap<(u32, u32), f64>,
}

impl<'a> Clean<'a> {
    /// Goes on from what is left after some components. The peak of the PSF is 1 and at its centre.
    pub(crate) fn resume(psf: &'a Image, residual: Image, components: &[Component]) -> Self {
        Self {
            psf,
            residual,
            components: components.iter().map(|c| ((c.y, c.x), c.flux_jy)).collect(),
        }
    }

    /// Minor cycles until no pixel is above the threshold, but at most `most`. Answers how many they were.
    pub(crate) fn run(&mut self, gain: f64, threshold: f64, most: u32) -> u32 {
        for cycle in 0..most {
            let peak = self.residual.peak();
            if peak.value.abs() <= threshold {
                return cycle;
            }
            self.subtract(peak, gain * peak.value);
        }
        most
    }

    fn subtract(&mut self, peak: Peak, flux: f64) {
        // An image that is read from a blob has fewer pixels than a u32 counts.
        let at = (peak.y as u32, peak.x as u32);
        *self.components.entry(at).or_default() += flux;

        // Row `y` of the image meets row `y + shift` of the PSF, and so do the columns: the PSF's centre lies on the peak.
        let overlap = |length: usize, psf_length: usize, peak: usize| {
            let centre = psf_length / 2;
            let start = peak.saturating_sub(centre);
            let end = length.min(peak + psf_length - centre);
            (start..end, start + centre - peak)
        };
        let (rows, first_row) = overlap(self.residual.height(), self.psf.height(), peak.y);
        let (columns, first_column) = overlap(self.residual.width(), self.psf.width(), peak.x);
        for (row, psf_row) in rows.zip(first_row..) {
            let psf = self.psf.row(psf_row, first_column..first_column + columns.len());
            let residual = self.residual.row_mut(row, columns.clone());
            residual
                .iter_mut()
                .zip(psf)
                .for_each(|(value, psf)| *value -= flux * psf);
        }
    }

    pub(crate) fn residual(&self) -> &Image {
        &self.residual
    }

    pub(crate) fn components(&self) -> Vec<Component> {
        let component = |(&(y, x), &flux_jy): (&(u32, u32), &f64)| Component { x, y, flux_jy };
        self.components.iter().map(component).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_psf_is_laid_over_corners_and_edges() {
        let psf = Image::new(3, vec![0.1, 0.2, 0.3, 0.4, 1.0, 0.5, 0.6, 0.7, 0.8]).unwrap();
        for (x, y, expected) in [
            (0, 0, [[1.0, 0.5, 0.0], [0.7, 0.8, 0.0], [0.0, 0.0, 0.0]]),
            (2, 1, [[0.0, 0.1, 0.2], [0.0, 0.4, 1.0], [0.0, 0.6, 0.7]]),
            (1, 2, [[0.0, 0.0, 0.0], [0.1, 0.2, 0.3], [0.4, 1.0, 0.5]]),
        ] {
            let mut clean = Clean::resume(&psf, Image::new(3, vec![0.0; 9]).unwrap(), &[]);
            clean.subtract(Peak { x, y, value: 0.0 }, -1.0);
            assert_eq!(clean.residual().values(), expected.as_flattened());
        }
    }

    #[test]
    fn a_lone_source_is_taken_out_down_to_the_threshold() {
        let mut psf = vec![0.0; 25];
        psf[12] = 1.0;
        let psf = Image::new(5, psf).unwrap();
        let mut image = Image::new(4, vec![0.0; 16]).unwrap();
        image.row_mut(2, 1..2)[0] = -1.0;
        let mut clean = Clean::resume(&psf, image, &[]);
        // 0.5^3 = 0.125 is above 0.1, 0.5^4 is not.
        assert_eq!(clean.run(0.5, 0.1, 3), 3);
        assert_eq!(clean.run(0.5, 0.1, 3), 1);
        assert_eq!(clean.run(0.5, 0.1, 3), 0);
        assert_eq!(
            clean.components(),
            [Component {
                x: 1,
                y: 2,
                flux_jy: -0.9375
            }]
        );
        assert_eq!(clean.residual().peak().value, -0.0625);
    }
}
