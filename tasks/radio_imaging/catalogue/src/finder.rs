//! Looks for sources: the highest pixel, its source taken out, the next highest, and so on.

use radio_domain::{Gaussian, Image, Peak};

use crate::fit::{Position, Sources, refine};

/// Sources so many widths of the beam apart may share pixels.
const NEIGHBOURS: f64 = 3.0;
/// A field with more sources than this is not deconvolved well, and its catalogue too long for an XCom.
pub(crate) const MAX_SOURCES: usize = 100;

/// What was found so far.
pub(crate) struct Finder<'a> {
    pub(crate) beam: &'a Gaussian,
    /// Nearer than the beam is wide, two sources cannot be told apart.
    pub(crate) apart: f64,
    pub(crate) found: Vec<Position>,
}

impl Finder<'_> {
    /// Looks for what stands above a threshold once all sources found so far are taken out, one after the other.
    pub(crate) fn search(&mut self, image: &Image, threshold: f64) {
        while self.found.len() < MAX_SOURCES {
            let Some(sources) = Sources::new(self.beam, &self.found, image) else {
                return;
            };
            let residual = sources.residual(image);
            let Some(peak) = self.highest(&residual).filter(|peak| peak.value > threshold) else {
                return;
            };
            let start = Position {
                x: peak.x as f64,
                y: peak.y as f64,
            };
            self.found.push(start);
            self.settle(start, image);
        }
    }

    /// Moves a new source and its neighbours to where they fit best. A source that was fitted while it covered a fainter one sits a little
    /// beside its place, and would leave a ghost there.
    fn settle(&mut self, new: Position, image: &Image) {
        let near = |position: &Position| (position.x - new.x).hypot(position.y - new.y) < NEIGHBOURS * self.apart;
        let neighbours: Vec<usize> = (0..self.found.len())
            .filter(|i| self.found.get(*i).is_some_and(near))
            .collect();
        for i in neighbours.iter().rev().chain(&neighbours).copied() {
            let refined = self
                .alone(i, image)
                .and_then(|(start, alone)| refine(self.beam, start, &alone));
            if let (Some((refined, _)), Some(position)) = (refined, self.found.get_mut(i)) {
                *position = refined;
            }
        }
    }

    /// A source and the image without all others.
    fn alone(&self, i: usize, image: &Image) -> Option<(Position, Image)> {
        let sources = Sources::new(self.beam, &self.found, image)?;
        let position = *self.found.get(i)?;
        let mut alone = sources.residual(image);
        self.beam
            .add_to(&mut alone, position.x, position.y, *sources.fluxes(image).get(i)?);
        Some((position, alone))
    }

    /// The highest pixel that is not too near to a source.
    fn highest(&self, image: &Image) -> Option<Peak> {
        let mut highest: Option<Peak> = None;
        for (at, value) in image.values().iter().enumerate() {
            if highest.is_some_and(|highest| *value <= highest.value) {
                continue;
            }
            let (x, y) = (at % image.width(), at / image.width());
            let near = |source: &Position| (x as f64 - source.x).hypot(y as f64 - source.y) < self.apart;
            if !self.found.iter().any(near) {
                highest = Some(Peak { x, y, value: *value });
            }
        }
        highest
    }

    /// Fits each position once more, in that of some images, each with the noise of its pixels, in which it is clearest. Answers the errors.
    pub(crate) fn refine_all(&mut self, images: &[(&Image, f64)]) -> Vec<f64> {
        let mut errors = vec![0.0; self.found.len()];
        let sources = images
            .first()
            .and_then(|(image, _)| Sources::new(self.beam, &self.found, image));
        let Some(sources) = sources else { return errors };
        let clearness: Vec<Vec<f64>> = images
            .iter()
            .map(|(image, sigma)| sources.fluxes(image).iter().map(|flux| flux / sigma).collect())
            .collect();
        for (i, error) in errors.iter_mut().enumerate() {
            let of = |image: usize| {
                clearness
                    .get(image)
                    .and_then(|all| all.get(i))
                    .copied()
                    .unwrap_or_default()
            };
            let best = (0..images.len()).max_by(|&a, &b| of(a).total_cmp(&of(b)));
            let Some((image, sigma)) = best.and_then(|best| images.get(best)) else {
                continue;
            };
            let refined = self
                .alone(i, image)
                .and_then(|(start, alone)| refine(self.beam, start, &alone));
            if let (Some((refined, (along_x, along_y))), Some(position)) = (refined, self.found.get_mut(i)) {
                *position = refined;
                *error = sigma * along_x.max(along_y);
            }
        }
        errors
    }

    /// How many sources the image would have if it were turned over: holes that are as deep as sources are high.
    pub(crate) fn negatives(&self, image: &Image, threshold: f64) -> usize {
        let Some(sources) = Sources::new(self.beam, &self.found, image) else {
            return 0;
        };
        let mut negative = sources.residual(image);
        negative.values_mut().iter_mut().for_each(|value| *value = -*value);
        let mut holes = Finder {
            beam: self.beam,
            apart: self.apart,
            found: self.found.clone(),
        };
        holes.search(&negative, threshold);
        holes.found.len() - self.found.len()
    }
}
