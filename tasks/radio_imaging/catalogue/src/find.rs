//! `find_sources`: what is there, where, how bright, and with which spectrum.

use std::fmt::Write as _;

use airtight_sdk::prelude::*;
use radio_domain::fits::{self, Cube};
use radio_domain::{Beam, Context, Failures, Image, Plane, robust_sigma};

use crate::finder::{Finder, MAX_SOURCES};
use crate::fit::{Sources, noise_seen_by_fits};
use crate::spectrum::{self, Kind, Point};

#[data]
struct FindSources {
    /// The restored cube, as FITS.
    cube: Blob,
    /// Its planes that are not blank.
    planes: Vec<Plane>,
    beam: Beam,
    #[serde(default)]
    context: Option<Context>,
    /// A source is what stands above so many times the noise of the mean of all planes.
    #[serde(default = "default_threshold")]
    threshold_sigmas: f64,
    /// Or above so many times the noise of a single plane.
    #[serde(default = "default_line_threshold")]
    line_threshold_sigmas: f64,
    /// Under which name the context keeps the score.
    #[serde(default = "default_stage")]
    stage: String,
    #[serde(default)]
    failures: Failures,
}

fn default_threshold() -> f64 {
    5.0
}

/// A cube has many more pixels than their mean.
fn default_line_threshold() -> f64 {
    6.0
}

fn default_stage() -> String {
    "catalogue".to_owned()
}

/// A point source.
#[data]
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// From 1, the brightest first.
    pub(crate) id: u32,
    pub(crate) kind: Kind,
    pub(crate) x_px: f64,
    pub(crate) y_px: f64,
    /// Of the position, along the worse axis.
    pub(crate) position_error_px: f64,
    /// A continuum source's flux at the reference frequency, a line's at its peak.
    pub(crate) flux_jy: f64,
    pub(crate) flux_error_jy: f64,
    /// The power of the frequency that the flux follows; none for lines and where it could not be fitted.
    pub(crate) spectral_index: Option<f64>,
    pub(crate) spectral_index_error: Option<f64>,
    /// Where a line peaks.
    pub(crate) line_frequency_hz: Option<f64>,
    pub(crate) spectrum: Vec<Point>,
}

#[data]
struct Found {
    sources: Vec<Source>,
    /// The same as CSV, without the spectra.
    catalogue: Blob,
    /// What the fluxes of continuum sources are given for.
    reference_frequency_hz: f64,
    /// The noise of the mean of all planes.
    mean_sigma_jy: f64,
    /// Holes as deep as the threshold is high: noise and artefacts make as many false sources.
    negatives: usize,
    context: Context,
}

/// Finds the point sources of a restored cube, fits their positions and fluxes, and tells continuum from lines.
#[task]
fn find_sources(input: FindSources) -> Result<Found> {
    input.failures.check(0)?;
    let Some(beam) = input.beam.gaussian() else {
        return Err(Failure::fatal(format!("{:?} is no beam", input.beam)).code("unusable_psf"));
    };
    let cube = fits::decode(&input.cube.bytes()?)?;
    let planes = read_planes(&cube, &input.planes)?;
    let (mean, mean_sigma_jy, reference_frequency_hz) = average(&planes)?;

    let mut finder = Finder {
        beam: &beam,
        apart: input.beam.minor_fwhm_px,
        found: Vec::new(),
    };
    progress(0.1, "the mean of all planes");
    finder.search(&mean, input.threshold_sigmas * mean_sigma_jy);
    for (done, (plane, image)) in planes.iter().enumerate() {
        progress(
            0.2 + 0.6 * done as f64 / planes.len() as f64,
            &format!("channel {}", plane.index),
        );
        let sigma = robust_sigma(image.values().to_vec()).max(plane.sigma_jy);
        finder.search(image, input.line_threshold_sigmas * sigma);
    }
    progress(0.8, "positions");
    let images: Vec<(&Image, f64)> = std::iter::once((&mean, mean_sigma_jy))
        .chain(planes.iter().map(|(plane, image)| (image, plane.sigma_jy)))
        .collect();
    let images = with_noise(&finder, &images)?;
    let errors = finder.refine_all(&images);
    let negatives = finder.negatives(&mean, input.threshold_sigmas * mean_sigma_jy);
    progress(0.9, "spectra");
    let sources = measure(&finder, &errors, &images, &planes, reference_frequency_hz)?;

    let (score, reasons) = score(sources.len(), negatives);
    let mut context = input.context.unwrap_or_default();
    context.score(&input.stage, score, reasons);
    info!(
        score,
        negatives,
        mean_sigma_jy,
        lines = sources.iter().filter(|source| source.kind == Kind::Line).count(),
        "found {} sources",
        sources.len()
    );
    Ok(Found {
        catalogue: Blob::from_bytes(csv(&sources), "text/csv")?,
        sources,
        reference_frequency_hz,
        mean_sigma_jy,
        negatives,
        context,
    })
}

fn read_planes<'a>(cube: &Cube, planes: &'a [Plane]) -> Result<Vec<(&'a Plane, Image)>> {
    let mut read = Vec::with_capacity(planes.len());
    for plane in planes {
        let values = cube.planes().nth(plane.plane as usize);
        let image = Image::new(cube.shape[0], values.unwrap_or_default().to_vec())
            .ok()
            .filter(|image| image.bad_pixels() == 0 && plane.sigma_jy > 0.0 && plane.frequency_hz > 0.0);
        let Some(image) = image else {
            let message = format!(
                "plane {} of the cube, channel {}, is missing or blank",
                plane.plane, plane.index
            );
            return Err(Failure::fatal(message).code("blank_plane"));
        };
        read.push((plane, image));
    }
    Ok(read)
}

/// The mean of all planes, weighted by their noise; its noise; its frequency.
fn average(planes: &[(&Plane, Image)]) -> Result<(Image, f64, f64)> {
    let Some((_, first)) = planes.first() else {
        return Err(Failure::fatal("the cube has no planes").code("no_channels"));
    };
    let mut mean = first.zeros_like();
    let (mut total, mut frequency) = (0.0, 0.0);
    for (plane, image) in planes {
        let weight = plane.sigma_jy.powi(-2);
        mean.values_mut()
            .iter_mut()
            .zip(image.values())
            .for_each(|(sum, value)| *sum += weight * value);
        total += weight;
        frequency += weight * plane.frequency_hz;
    }
    mean.values_mut().iter_mut().for_each(|value| *value /= total);
    // What CLEAN left of the sources' sidelobes is in all planes alike and does not average out.
    let sigma = robust_sigma(mean.values().to_vec()).max(total.powf(-0.5));
    Ok((mean, sigma, frequency / total))
}

/// The noise that fits meet in each image; it is no less than that of its pixels.
fn with_noise<'a>(finder: &Finder<'_>, images: &[(&'a Image, f64)]) -> Result<Vec<(&'a Image, f64)>> {
    let mut with_noise = Vec::with_capacity(images.len());
    for (image, sigma) in images {
        let sources = fitted(finder, image)?;
        let noise = noise_seen_by_fits(&sources.residual(image), finder.beam).max(*sigma);
        with_noise.push((*image, noise));
    }
    Ok(with_noise)
}

fn fitted<'a>(finder: &'a Finder<'_>, image: &Image) -> Result<Sources<'a>> {
    Sources::new(finder.beam, &finder.found, image)
        .ok_or_else(|| Failure::fatal("two sources cannot be told apart").code("confused_sources"))
}

/// Fluxes in all planes, and what they say. `images` are the mean and the planes, each with its noise.
fn measure(
    finder: &Finder<'_>,
    position_errors: &[f64],
    images: &[(&Image, f64)],
    planes: &[(&Plane, Image)],
    reference_hz: f64,
) -> Result<Vec<Source>> {
    let Some(((mean, mean_noise), images)) = images.split_first() else {
        return Ok(Vec::new());
    };
    let sources = fitted(finder, mean)?;
    let unit_errors = sources.errors();
    let mut spectra: Vec<Vec<Point>> = vec![Vec::with_capacity(planes.len()); finder.found.len()];
    for ((plane, _), (image, noise)) in planes.iter().zip(images) {
        for ((spectrum, flux_jy), unit_error) in spectra.iter_mut().zip(sources.fluxes(image)).zip(&unit_errors) {
            spectrum.push(Point {
                index: plane.index,
                frequency_hz: plane.frequency_hz,
                flux_jy,
                error_jy: unit_error * noise,
            });
        }
    }
    let mut sources: Vec<Source> = finder
        .found
        .iter()
        .zip(position_errors)
        .zip(spectra)
        .zip(&unit_errors)
        .map(|(((position, error), spectrum), unit_error)| Source {
            x_px: position.x,
            y_px: position.y,
            position_error_px: *error,
            ..describe(spectrum, reference_hz, unit_error * mean_noise)
        })
        .collect();
    sources.sort_by(|a, b| b.flux_jy.total_cmp(&a.flux_jy));
    (1..).zip(&mut sources).for_each(|(id, source)| source.id = id);
    Ok(sources)
}

/// A source without its place. The error of its mean flux is no less than that in the mean of all planes: what CLEAN left of sidelobes is in
/// all of them alike.
fn describe(spectrum: Vec<Point>, reference_hz: f64, mean_error_jy: f64) -> Source {
    let line = spectrum::line(&spectrum).cloned();
    let law = match line {
        Some(_) => None,
        None => spectrum::power_law(&spectrum, reference_hz),
    };
    let (flux_jy, flux_error_jy) = match (&line, law) {
        (Some(peak), _) => (peak.flux_jy, peak.error_jy),
        (None, Some(law)) => (law.flux.0, law.flux.1.max(mean_error_jy)),
        (None, None) => (spectrum::mean(&spectrum).0, mean_error_jy),
    };
    Source {
        id: 0,
        kind: if line.is_some() { Kind::Line } else { Kind::Continuum },
        x_px: 0.0,
        y_px: 0.0,
        position_error_px: 0.0,
        flux_jy,
        flux_error_jy,
        spectral_index: law.map(|law| law.index.0),
        spectral_index_error: law.map(|law| law.index.1),
        line_frequency_hz: line.map(|peak| peak.frequency_hz),
        spectrum,
    }
}

/// Noise is as often below zero as above: the share of the sources that holes leave credible.
fn score(sources: usize, negatives: usize) -> (f64, Vec<String>) {
    if sources == 0 {
        let reason = "nothing was found: is the field empty, or `threshold_sigmas` too high?";
        return (0.0, vec![reason.to_owned()]);
    }
    let mut reasons = Vec::new();
    if sources >= MAX_SOURCES {
        reasons.push(format!(
            "the search stopped at {MAX_SOURCES} sources: raise `threshold_sigmas`, and check the deconvolution for artefacts"
        ));
    }
    if negatives > 0 {
        reasons.push(format!(
            "{negatives} holes are as deep as sources are high, so about as many of the {sources} sources are false: raise \
             `threshold_sigmas`, or deconvolve deeper"
        ));
    }
    let credible = 1.0 - negatives as f64 / sources as f64;
    let most = if sources >= MAX_SOURCES { 0.5 } else { 1.0 };
    (credible.min(most), reasons)
}

fn csv(sources: &[Source]) -> String {
    let mut text = String::from(
        "id,kind,x_px,y_px,position_error_px,flux_jy,flux_error_jy,spectral_index,spectral_index_error,line_frequency_hz\n",
    );
    for source in sources {
        let number =
            |value: Option<f64>, digits: usize| value.map_or_else(String::new, |value| format!("{value:.digits$}"));
        let kind = match source.kind {
            Kind::Continuum => "continuum",
            Kind::Line => "line",
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{},{kind},{:.3},{:.3},{:.3},{:.6},{:.6},{},{},{}",
            source.id,
            source.x_px,
            source.y_px,
            source.position_error_px,
            source.flux_jy,
            source.flux_error_jy,
            number(source.spectral_index, 3),
            number(source.spectral_index_error, 3),
            number(source.line_frequency_hz, 0),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cube of so many planes of one size, with sources and a deep hole.
    fn cube(width: usize, sources: &[(f64, f64, f64)], planes: usize) -> FindSources {
        let beam = Beam {
            major_fwhm_px: 6.0,
            minor_fwhm_px: 5.0,
            angle_deg: 0.0,
        };
        let mut image = Image::new(width, vec![0.0; width * width]).unwrap();
        // Enough of a noise: its robust deviation is near 0.01.
        for (at, value) in image.values_mut().iter_mut().enumerate() {
            *value = 0.01 * ((at as f64 * 12.9898).sin() * 43758.5453).fract();
        }
        for (x, y, flux) in sources {
            beam.gaussian().unwrap().add_to(&mut image, *x, *y, *flux);
        }
        let values = image.values().repeat(planes);
        let file = fits::encode(&Cube {
            shape: [width, width, planes],
            values,
            frequency_hz: Some((1e9, 1e7)),
            object: None,
            unit: None,
            history: Vec::new(),
        });
        FindSources {
            cube: Blob::from_bytes(file, fits::MEDIA_TYPE).unwrap(),
            planes: (0..planes as u32)
                .map(|plane| Plane {
                    plane,
                    index: plane,
                    frequency_hz: 1e9 + 1e7 * f64::from(plane),
                    sigma_jy: 0.01,
                })
                .collect(),
            beam,
            context: None,
            threshold_sigmas: default_threshold(),
            line_threshold_sigmas: default_line_threshold(),
            stage: default_stage(),
            failures: Failures::default(),
        }
    }

    #[test]
    fn a_single_plane_has_sources_but_no_spectral_index() {
        let found = find_sources(cube(48, &[(20.25, 30.0, 1.0), (10.0, 8.0, 0.5)], 1)).unwrap();
        assert_eq!(found.sources.len(), 2);
        let first = &found.sources[0];
        assert!(
            (first.x_px - 20.25).abs() < 0.05 && (first.y_px - 30.0).abs() < 0.05,
            "{first:?}"
        );
        assert!((first.flux_jy - 1.0).abs() < 0.02, "{first:?}");
        assert_eq!((first.kind, first.spectral_index), (Kind::Continuum, None));
        assert_eq!((found.negatives, found.context.qa[0].score), (0, 1.0));
        let catalogue = found.catalogue.text().unwrap();
        assert_eq!(catalogue.lines().count(), 3);
        assert!(
            catalogue.lines().nth(1).unwrap().starts_with("1,continuum,20."),
            "{catalogue}"
        );
    }

    #[test]
    fn holes_make_sources_doubtful() {
        let found = find_sources(cube(48, &[(20.0, 30.0, 1.0), (10.0, 8.0, 0.5), (38.0, 10.0, -0.4)], 3)).unwrap();
        assert_eq!((found.sources.len(), found.negatives), (2, 1));
        let score = &found.context.qa[0];
        assert_eq!(score.score, 0.5);
        assert!(
            score.reasons[0].starts_with("1 holes are as deep"),
            "{:?}",
            score.reasons
        );
    }

    #[test]
    fn an_empty_field_and_a_blank_plane_are_told() {
        let empty = find_sources(cube(48, &[], 2)).unwrap();
        assert_eq!((empty.sources.len(), empty.context.qa[0].score), (0, 0.0));
        let mut blank = cube(48, &[], 1);
        blank.planes[0].plane = 7;
        let failure = find_sources(blank).map(|_| ()).unwrap_err();
        assert_eq!((failure.get_code(), failure.is_fatal()), (Some("blank_plane"), true));
    }
}
