//! The context of the domain: what the stages tell each other beside their data. Each stage takes it and answers it extended.

use airtight_sdk::prelude::*;

use crate::Beam;

/// Calibration and quality so far. An empty one (`{}`) is where a workflow begins.
#[data]
#[derive(Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct Context {
    pub calibration: Option<Calibration>,
    /// One entry a stage, in the order of the stages.
    pub qa: Vec<StageScore>,
}

/// What calibration found out about the data.
#[data]
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// What the images were multiplied by: it brings the peak of the PSF to 1.
    pub flux_scale: f64,
    /// Fitted to the main lobe of the PSF.
    pub beam: Beam,
    /// The noise of the usual channel.
    pub median_sigma_jy: f64,
    pub channels: Vec<ChannelCalibration>,
}

/// What calibration found out about one channel.
#[data]
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelCalibration {
    pub index: u32,
    pub frequency_hz: f64,
    /// None where it could not be measured.
    pub sigma_jy: Option<f64>,
    /// What it counts beside a channel of usual noise; 0 for one that was left out.
    pub weight: f64,
    /// Why it was left out; none for one that takes part.
    pub flagged: Option<String>,
}

/// How well a stage went.
#[data]
#[derive(Clone, Debug, PartialEq)]
pub struct StageScore {
    pub stage: String,
    /// From 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub score: f64,
    /// What took from the score, and what to do about it.
    pub reasons: Vec<String>,
}

/// What a score means.
#[data]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Below 0.33.
    Bad,
    /// From 0.33.
    Doubtful,
    /// From 0.66.
    Usable,
    /// From 0.9.
    Good,
}

impl Context {
    /// Notes how a stage went. One that ran before is scored anew.
    pub fn score(&mut self, stage: &str, score: f64, reasons: Vec<String>) {
        let score = if score.is_nan() { 0.0 } else { score.clamp(0.0, 1.0) };
        let entry = StageScore {
            stage: stage.to_owned(),
            score,
            reasons,
        };
        match self.qa.iter_mut().find(|entry| entry.stage == stage) {
            Some(before) => *before = entry,
            None => self.qa.push(entry),
        }
    }

    /// The stage with the lowest score, the first of several.
    pub fn worst(&self) -> Option<&StageScore> {
        self.qa.iter().min_by(|a, b| a.score.total_cmp(&b.score))
    }
}

impl From<f64> for Verdict {
    fn from(score: f64) -> Self {
        match score {
            score if score >= 0.9 => Self::Good,
            score if score >= 0.66 => Self::Usable,
            score if score >= 0.33 => Self::Doubtful,
            _ => Self::Bad,
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bad => "bad",
            Self::Doubtful => "doubtful",
            Self::Usable => "usable",
            Self::Good => "good",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_scored_once() {
        let mut context: Context = serde_json::from_str("{}").unwrap();
        context.score("calibration", 0.8, vec!["noisy".to_owned()]);
        context.score("imaging", 7.0, Vec::new());
        context.score("calibration", 0.9, Vec::new());
        let scores: Vec<_> = context
            .qa
            .iter()
            .map(|entry| (entry.stage.as_str(), entry.score))
            .collect();
        assert_eq!(scores, [("calibration", 0.9), ("imaging", 1.0)]);
        assert_eq!(context.worst().unwrap().stage, "calibration");
        context.score("imaging", f64::NAN, Vec::new());
        assert_eq!(context.worst().unwrap().score, 0.0);
    }

    #[test]
    fn verdicts_follow_the_score() {
        let verdicts = [0.0, 0.33, 0.66, 0.9, 1.0, f64::NAN].map(Verdict::from);
        use Verdict::{Bad, Doubtful, Good, Usable};
        assert_eq!(verdicts, [Bad, Doubtful, Usable, Good, Good, Bad]);
    }
}
