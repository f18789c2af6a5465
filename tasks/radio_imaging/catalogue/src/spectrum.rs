//! What a source's fluxes over the channels say of it: a continuum that follows a power law, or a line.

use airtight_sdk::prelude::*;

/// A channel stands out as a line if it is so many errors above the median of all.
const LINE_ERRORS: f64 = 8.0;
/// And so many times that median.
const LINE_FACTOR: f64 = 2.0;

/// A source's flux in one channel.
#[data]
#[derive(Clone, Debug)]
pub(crate) struct Point {
    pub(crate) index: u32,
    pub(crate) frequency_hz: f64,
    pub(crate) flux_jy: f64,
    pub(crate) error_jy: f64,
}

/// What kind of emission it is.
#[data]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Much the same in all channels.
    Continuum,
    /// In a few channels only.
    Line,
}

/// A power law `flux · (frequency / reference)^index`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PowerLaw {
    pub(crate) flux: (f64, f64),
    pub(crate) index: (f64, f64),
}

/// The channel of a line's peak, if there is a line.
pub(crate) fn line(points: &[Point]) -> Option<&Point> {
    let median = radio_domain::median(points.iter().map(|point| point.flux_jy).collect());
    points
        .iter()
        .filter(|point| point.flux_jy - median > LINE_ERRORS * point.error_jy && point.flux_jy > LINE_FACTOR * median)
        .max_by(|a, b| a.flux_jy.total_cmp(&b.flux_jy))
}

/// Fits a power law by weighted least squares of the logarithms, and answers values and errors at the reference frequency. None with fewer
/// than three channels, and where a flux is not clearly above zero.
pub(crate) fn power_law(points: &[Point], reference_hz: f64) -> Option<PowerLaw> {
    let clear = |point: &Point| point.error_jy > 0.0 && point.flux_jy > 3.0 * point.error_jy;
    if points.len() < 3 || !points.iter().all(clear) {
        return None;
    }
    let (mut s, mut sx, mut sxx, mut sy, mut sxy) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for point in points {
        let x = (point.frequency_hz / reference_hz).ln();
        let y = point.flux_jy.ln();
        let weight = (point.flux_jy / point.error_jy).powi(2);
        s += weight;
        sx += weight * x;
        sxx += weight * x * x;
        sy += weight * y;
        sxy += weight * x * y;
    }
    let determinant = s * sxx - sx * sx;
    if determinant.is_nan() || determinant <= 1e-15 * s * s {
        return None;
    }
    let flux = ((sxx * sy - sx * sxy) / determinant).exp();
    Some(PowerLaw {
        flux: (flux, flux * (sxx / determinant).sqrt()),
        index: ((s * sxy - sx * sy) / determinant, (s / determinant).sqrt()),
    })
}

/// The weighted mean and its error.
pub(crate) fn mean(points: &[Point]) -> (f64, f64) {
    let (mut weights, mut sum) = (0.0, 0.0);
    for point in points {
        let weight = point.error_jy.max(f64::MIN_POSITIVE.sqrt()).powi(-2);
        weights += weight;
        sum += weight * point.flux_jy;
    }
    if weights > 0.0 {
        (sum / weights, weights.powf(-0.5))
    } else {
        (0.0, 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(flux: impl Fn(f64) -> f64) -> Vec<Point> {
        (0..10)
            .map(|index| {
                let frequency_hz = 1.4e9 + 1e7 * f64::from(index);
                Point {
                    index,
                    frequency_hz,
                    flux_jy: flux(frequency_hz),
                    error_jy: 0.01,
                }
            })
            .collect()
    }

    #[test]
    fn a_power_law_is_found_again() {
        let points = points(|f| 2.0 * (f / 1.445e9).powf(-0.7));
        let law = power_law(&points, 1.445e9).unwrap();
        assert!((law.flux.0 - 2.0).abs() < 1e-9 && (law.index.0 + 0.7).abs() < 1e-9);
        // The error of the index: that of a flux, over the scatter of ln(frequency) times the root of 10.
        assert!(
            (law.index.1 - 0.005 / (0.0199 * 10_f64.sqrt())).abs() < 0.002,
            "{law:?}"
        );
        assert!(line(&points).is_none());
    }

    #[test]
    fn a_line_is_no_power_law() {
        let line_at = points(|f| 0.4 * (-((f - 1.45e9) / 1e7).powi(2)).exp());
        assert_eq!(line(&line_at).unwrap().index, 5);
        assert_eq!(power_law(&line_at, 1.445e9), None);
        assert_eq!(power_law(&points(|_| 1.0)[..2], 1.445e9), None);
        let (flux, error) = mean(&points(|_| 0.3));
        assert!((flux - 0.3).abs() < 1e-12 && (error - 0.01 / 10_f64.sqrt()).abs() < 1e-12);
    }
}
