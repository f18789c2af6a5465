//! A logistic regression on standardised features. Linfa fits it; what is kept is plain numbers that any program can use.

use airtight_sdk::prelude::*;
use linfa::dataset::Dataset;
use linfa::traits::Fit;
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, Array2, ArrayView1, Axis, Zip};

/// What is learned. The probability of label 1 is `sigmoid(intercept + Σ weight · (value − mean) / scale)`.
#[data]
pub(crate) struct Model {
    pub(crate) kind: String,
    pub(crate) features: Vec<String>,
    /// Mean of each feature over the training rows.
    pub(crate) mean: Vec<f64>,
    /// Standard deviation of each feature over the training rows.
    pub(crate) scale: Vec<f64>,
    pub(crate) weights: Vec<f64>,
    pub(crate) intercept: f64,
    /// How many rows it learned from.
    pub(crate) rows: usize,
}

impl Model {
    /// Learns from all rows. The standardisation is fitted on these rows alone.
    pub(crate) fn fit(features: &[String], x: &Array2<f64>, y: &Array1<bool>) -> Result<Self> {
        let mean = x
            .mean_axis(Axis(0))
            .ok_or_else(|| Failure::fatal("there are no rows to learn from").code("no_rows"))?;
        // A constant column has nothing to say; dividing by 1 keeps it at zero.
        let scale = x
            .std_axis(Axis(0), 0.0)
            .mapv(|deviation| if deviation > 0.0 { deviation } else { 1.0 });
        let dataset = Dataset::new((x - &mean) / &scale, y.clone());
        // alpha 1 is scikit-learn's C = 1.
        let fitted = LogisticRegression::default()
            .alpha(1.0)
            .max_iterations(1000)
            .gradient_tolerance(1e-6)
            .fit(&dataset)?;
        // Linfa makes one of the labels the positive one by rules of its own.
        let sign = if fitted.labels().pos.class { 1.0 } else { -1.0 };
        Ok(Self {
            kind: "logistic_regression".to_owned(),
            features: features.to_vec(),
            mean: mean.to_vec(),
            scale: scale.to_vec(),
            weights: (fitted.params() * sign).to_vec(),
            intercept: fitted.intercept() * sign,
            rows: x.nrows(),
        })
    }

    /// The probability that the label is 1.
    pub(crate) fn probability(&self, row: ArrayView1<'_, f64>) -> f64 {
        let sum: f64 = row
            .iter()
            .zip(&self.mean)
            .zip(&self.scale)
            .zip(&self.weights)
            .map(|(((value, mean), scale), weight)| weight * (value - mean) / scale)
            .sum();
        1.0 / (1.0 + (-(self.intercept + sum)).exp())
    }

    /// Counts right and wrong answers.
    pub(crate) fn judge(&self, x: &Array2<f64>, y: &Array1<bool>) -> Confusion {
        let mut confusion = Confusion::default();
        Zip::from(x.rows())
            .and(y)
            .for_each(|row, label| match (*label, self.probability(row) >= 0.5) {
                (true, true) => confusion.true_positive += 1,
                (true, false) => confusion.false_negative += 1,
                (false, true) => confusion.false_positive += 1,
                (false, false) => confusion.true_negative += 1,
            });
        confusion
    }
}

/// Answers beside truths; positive is label 1.
#[data]
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Confusion {
    pub(crate) true_positive: usize,
    pub(crate) true_negative: usize,
    pub(crate) false_positive: usize,
    pub(crate) false_negative: usize,
}

impl Confusion {
    /// The share of right answers.
    pub(crate) fn accuracy(&self) -> f64 {
        let right = self.true_positive + self.true_negative;
        right as f64 / (right + self.false_positive + self.false_negative).max(1) as f64
    }
}
