//! A CSV table as numbers: features and a label of 0 or 1.

use airtight_sdk::prelude::*;
use ndarray::{Array1, Array2};

/// The name of the column to predict.
const LABEL: &str = "target";

/// Rows of numbers. It is read after the quality check, so anything odd in it is fatal.
pub(crate) struct Table {
    pub(crate) features: Vec<String>,
    pub(crate) x: Array2<f64>,
    pub(crate) y: Array1<bool>,
}

impl Table {
    /// Reads a blob that holds CSV with the label in the last column.
    pub(crate) fn read(blob: &Blob) -> Result<Self> {
        let mut reader = csv::Reader::from_reader(blob.reader()?);
        let mut features: Vec<String> = reader.headers()?.iter().map(str::to_owned).collect();
        if features.pop().as_deref() != Some(LABEL) {
            return Err(odd(format!("the last column is not `{LABEL}`")));
        }
        let (mut x, mut y) = (Vec::new(), Vec::new());
        for record in reader.records() {
            let record = record?;
            let line = record.position().map_or(0, csv::Position::line);
            let mut numbers = Vec::with_capacity(record.len());
            for cell in &record {
                numbers.push(
                    cell.parse::<f64>()
                        .map_err(|_| odd(format!("line {line}: `{cell}` is not a number")))?,
                );
            }
            y.push(match numbers.pop() {
                Some(0.0) => false,
                Some(1.0) => true,
                label => return Err(odd(format!("line {line}: the label {label:?} is neither 0 nor 1"))),
            });
            x.append(&mut numbers);
        }
        let x = Array2::from_shape_vec((y.len(), features.len()), x)?;
        Ok(Self {
            features,
            x,
            y: Array1::from_vec(y),
        })
    }
}

fn odd(message: String) -> Failure {
    Failure::fatal(message).code("not_a_table")
}
