//! `train`.

use airtight_sdk::prelude::*;

use crate::logistic::Model;
use crate::table::Table;

#[data]
struct Train {
    /// The rows to learn from.
    train: Blob,
}

#[data]
struct Trained {
    /// The model, as JSON.
    model: Blob,
    rows: usize,
    /// The share of right answers on the rows it learned from.
    training_accuracy: f64,
    /// The three features that weigh most.
    strongest: Vec<String>,
}

/// Trains a logistic regression on standardised features.
#[task]
fn train(input: Train) -> Result<Trained> {
    progress(0.0, "reading the rows");
    let table = Table::read(&input.train)?;
    progress(0.2, &format!("training on {} rows", table.y.len()));
    let model = Model::fit(&table.features, &table.x, &table.y)?;
    let training_accuracy = model.judge(&table.x, &table.y).accuracy();

    let mut by_weight: Vec<(&String, f64)> = model.features.iter().zip(model.weights.iter().copied()).collect();
    by_weight.sort_by(|(_, a), (_, b)| b.abs().total_cmp(&a.abs()));
    let strongest: Vec<String> = by_weight.iter().take(3).map(|(name, _)| (*name).clone()).collect();
    info!(
        rows = model.rows,
        training_accuracy, strongest, "trained on {} rows", model.rows
    );
    progress(1.0, "trained");
    Ok(Trained {
        rows: model.rows,
        training_accuracy,
        strongest,
        model: Blob::from_json(&model)?,
    })
}
