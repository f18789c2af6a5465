//! Point sources in a restored image: all have the shape of the beam, so only where they are and how bright is to be found.

use radio_domain::linear::{invert, multiply};
use radio_domain::{Gaussian, Image, robust_sigma};

/// Where a source is, in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Position {
    pub(crate) x: f64,
    pub(crate) y: f64,
}

/// Positions ready to be fitted to images of one size. All sources are fitted together: neighbours share pixels.
pub(crate) struct Sources<'a> {
    beam: &'a Gaussian,
    positions: &'a [Position],
    inverse: Vec<Vec<f64>>,
}

impl<'a> Sources<'a> {
    /// None where two positions cannot be told apart.
    pub(crate) fn new(beam: &'a Gaussian, positions: &'a [Position], image: &Image) -> Option<Self> {
        let mut normal = vec![vec![0.0; positions.len()]; positions.len()];
        for (i, a) in positions.iter().enumerate() {
            for (j, b) in positions.iter().enumerate().take(i + 1) {
                let sum = overlap(beam, a, b, image);
                for (row, column) in [(i, j), (j, i)] {
                    if let Some(entry) = normal.get_mut(row).and_then(|row| row.get_mut(column)) {
                        *entry = sum;
                    }
                }
            }
        }
        Some(Self {
            beam,
            positions,
            inverse: invert(&normal)?,
        })
    }

    /// The fluxes that fit an image best.
    pub(crate) fn fluxes(&self, image: &Image) -> Vec<f64> {
        let right: Vec<f64> = self
            .positions
            .iter()
            .map(|position| sum_over(self.beam, position, image, |gaussian, value, _, _| gaussian * value))
            .collect();
        multiply(&self.inverse, &right)
    }

    /// The errors of the fluxes where the noise of a pixel is 1.
    pub(crate) fn errors(&self) -> Vec<f64> {
        let diagonal = self.inverse.iter().enumerate().filter_map(|(i, row)| row.get(i));
        diagonal.map(|variance| variance.max(0.0).sqrt()).collect()
    }

    /// What is left of an image without the sources.
    pub(crate) fn residual(&self, image: &Image) -> Image {
        let mut residual = image.clone();
        for (position, flux) in self.positions.iter().zip(self.fluxes(image)) {
            self.beam.add_to(&mut residual, position.x, position.y, -flux);
        }
        residual
    }
}

/// Where a source is to the fraction of a pixel, and the errors of that where the noise of a pixel is 1. `image` holds this source alone.
/// None where the fit runs off.
pub(crate) fn refine(beam: &Gaussian, start: Position, image: &Image) -> Option<(Position, (f64, f64))> {
    let mut at = start;
    let mut errors = (0.0, 0.0);
    for _ in 0..8 {
        let one = [at];
        let flux = *Sources::new(beam, &one, image)?.fluxes(image).first()?;
        let mut normal = vec![vec![0.0; 3]; 3];
        let mut right = vec![0.0; 3];
        sum_over(beam, &at, image, |gaussian, value, dx, dy| {
            let (along_x, along_y) = beam.slope(dx, dy);
            // The unknowns are changes of the flux and the flux times the shifts, so that faint sources need no other precision.
            let basis = [gaussian, gaussian * along_x, gaussian * along_y];
            for (row, (left, right)) in basis.iter().zip(normal.iter_mut().zip(&mut right)) {
                left.iter_mut()
                    .zip(basis)
                    .for_each(|(sum, column)| *sum += row * column);
                *right += row * (value - flux * gaussian);
            }
            0.0
        });
        let inverse = invert(&normal)?;
        let step = multiply(&inverse, &right);
        let [_, dx, dy] = *step.as_slice() else { return None };
        let (dx, dy) = (dx / flux, dy / flux);
        at = Position {
            x: at.x + dx.clamp(-0.5, 0.5),
            y: at.y + dy.clamp(-0.5, 0.5),
        };
        let variance = |i: usize| inverse.get(i).and_then(|row| row.get(i)).copied().unwrap_or_default();
        errors = (
            (variance(1).max(0.0).sqrt() / flux).abs(),
            (variance(2).max(0.0).sqrt() / flux).abs(),
        );
        if dx.is_nan() || dy.is_nan() {
            return None;
        }
        if dx.hypot(dy) < 1e-4 {
            break;
        }
    }
    // A source is at most a pixel from its brightest pixel; noise and rounding may add one more.
    ((at.x - start.x).hypot(at.y - start.y) <= 2.0).then_some((at, errors))
}

/// The noise of a pixel that explains how much fluxes scatter that are fitted where nothing is. What CLEAN leaves of sidelobes is smooth, so
/// that fits notice more of it than pixels do.
pub(crate) fn noise_seen_by_fits(residual: &Image, beam: &Gaussian) -> f64 {
    /// Every so many pixels is often enough: the beam is wider.
    const STEP: usize = 4;
    let mut scatter = Vec::new();
    for y in (0..residual.height()).step_by(STEP) {
        for x in (0..residual.width()).step_by(STEP) {
            let position = Position {
                x: x as f64,
                y: y as f64,
            };
            let norm = sum_over(beam, &position, residual, |gaussian, _, _, _| gaussian * gaussian);
            let sum = sum_over(beam, &position, residual, |gaussian, value, _, _| gaussian * value);
            scatter.push(sum / norm.sqrt());
        }
    }
    robust_sigma(scatter)
}

fn overlap(beam: &Gaussian, a: &Position, b: &Position, image: &Image) -> f64 {
    let (columns, rows) = beam.window(a.x, a.y, image);
    let (other_columns, other_rows) = beam.window(b.x, b.y, image);
    if columns.end <= other_columns.start
        || other_columns.end <= columns.start
        || rows.end <= other_rows.start
        || other_rows.end <= rows.start
    {
        return 0.0;
    }
    sum_over(beam, a, image, |gaussian, _, dx, dy| {
        gaussian * beam.at(dx + a.x - b.x, dy + a.y - b.y)
    })
}

/// Sums over the pixels in which a source counts: of its Gaussian, the pixel's value, and how far the pixel is from it.
fn sum_over(
    beam: &Gaussian,
    position: &Position,
    image: &Image,
    mut term: impl FnMut(f64, f64, f64, f64) -> f64,
) -> f64 {
    let (columns, rows) = beam.window(position.x, position.y, image);
    let mut sum = 0.0;
    for row in rows {
        let dy = row as f64 - position.y;
        for (column, value) in columns.clone().zip(image.row(row, columns.clone())) {
            let dx = column as f64 - position.x;
            sum += term(beam.at(dx, dy), *value, dx, dy);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use radio_domain::Beam;

    use super::*;

    const BEAM: Beam = Beam {
        major_fwhm_px: 8.4,
        minor_fwhm_px: 5.8,
        angle_deg: 70.0,
    };

    #[test]
    fn neighbours_are_told_apart() {
        let beam = BEAM.gaussian().unwrap();
        let positions = [(20.0, 20.0, 1.0), (22.0, 28.0, 0.1), (50.0, 2.0, -0.5)];
        let mut image = Image::new(60, vec![0.0; 3600]).unwrap();
        for (x, y, flux) in positions {
            beam.add_to(&mut image, x, y, flux);
        }
        let at = positions.map(|(x, y, _)| Position { x, y });
        let sources = Sources::new(&beam, &at, &image).unwrap();
        for (found, (_, _, flux)) in sources.fluxes(&image).iter().zip(positions) {
            assert!((found - flux).abs() < 1e-4, "{found}, not {flux}");
        }
        assert!(sources.residual(&image).peak().value.abs() < 1e-3);
        // A lone source's error is that of the matched filter: the root of the sum of its squared values, inverted.
        let expected = (std::f64::consts::PI * 8.4 * 5.8 / 2.354_82_f64.powi(2)).powf(-0.5);
        assert!((sources.errors()[2] / expected - 1.0).abs() < 0.1);
        assert!(Sources::new(&beam, &[at[0], at[0]], &image).is_none());
    }

    #[test]
    fn a_position_is_found_to_a_fraction_of_a_pixel() {
        let beam = BEAM.gaussian().unwrap();
        let mut image = Image::new(40, vec![0.0; 1600]).unwrap();
        beam.add_to(&mut image, 17.3, 21.8, 0.4);
        let (found, _) = refine(&beam, Position { x: 17.0, y: 22.0 }, &image).unwrap();
        assert!((found.x - 17.3).hypot(found.y - 21.8) < 1e-3, "{found:?}");
        assert_eq!(refine(&beam, Position { x: 30.0, y: 30.0 }, &image), None);
    }
}
