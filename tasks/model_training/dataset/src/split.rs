//! `split`: keeps a share of the rows aside, with the same share of each label.

use std::collections::BTreeMap;

use airtight_sdk::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::table::{LABEL, Table};

#[data]
struct Split {
    dataset: Blob,
    /// The share of rows to keep aside, between 0 and 1.
    #[serde(default = "default_holdout")]
    holdout: f64,
    /// The same seed gives the same split.
    #[serde(default)]
    seed: u64,
}

fn default_holdout() -> f64 {
    0.2
}

#[data]
struct Parts {
    train: Blob,
    test: Blob,
    train_rows: usize,
    test_rows: usize,
    /// The library that shuffled the rows, with the version sealed inside this component.
    shuffled_by: String,
}

/// Splits the table at random into rows to train on and rows to test with; every label has its share in both.
#[task]
fn split(input: Split) -> Result<Parts> {
    if !(input.holdout > 0.0 && input.holdout < 1.0) {
        return Err(
            Failure::fatal(format!("the holdout must be between 0 and 1, not {}", input.holdout)).code("bad_holdout"),
        );
    }
    let table = Table::read(&input.dataset)?;
    let label = table.header.iter().position(|name| name == LABEL);
    let label = label.ok_or_else(|| Failure::fatal(format!("there is no column `{LABEL}`")).code("schema_mismatch"))?;

    let mut rng = StdRng::seed_from_u64(input.seed);
    let mut by_label: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (row, record) in table.records.iter().enumerate() {
        by_label
            .entry(record.get(label).unwrap_or_default())
            .or_default()
            .push(row);
    }
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for rows in by_label.values_mut() {
        rows.shuffle(&mut rng);
        let aside = (rows.len() as f64 * input.holdout).round() as usize;
        test.extend_from_slice(&rows[..aside]);
        train.extend_from_slice(&rows[aside..]);
    }
    train.sort_unstable();
    test.sort_unstable();

    let shuffled_by = concat!("rand ", env!("RAND_VERSION")).to_owned();
    println!(
        "{} rows to train, {} to test, shuffled by {shuffled_by}",
        train.len(),
        test.len()
    );
    Ok(Parts {
        train: write(&table, &train)?,
        test: write(&table, &test)?,
        train_rows: train.len(),
        test_rows: test.len(),
        shuffled_by,
    })
}

fn write(table: &Table, rows: &[usize]) -> Result<Blob> {
    let mut csv = csv::Writer::from_writer(Blob::writer("text/csv")?);
    csv.write_record(&table.header)?;
    for row in rows {
        csv.write_record(&table.records[*row])?;
    }
    let writer = csv
        .into_inner()
        .map_err(|error| Failure::retryable(error.to_string()))?;
    Ok(writer.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::CLEAN;

    fn parts(seed: u64) -> Parts {
        let dataset = Blob::from_bytes(CLEAN, "text/csv").unwrap();
        split(Split {
            dataset,
            holdout: 0.2,
            seed,
        })
        .unwrap()
    }

    fn positives(blob: &Blob) -> usize {
        Table::read(blob)
            .unwrap()
            .records
            .iter()
            .filter(|record| record.get(30) == Some("1"))
            .count()
    }

    #[test]
    fn every_row_is_in_one_part_and_every_label_has_its_share() {
        let parts = parts(42);
        assert_eq!((parts.train_rows, parts.test_rows), (456, 113));
        assert_eq!((positives(&parts.train), positives(&parts.test)), (286, 71));
        let mut rows: Vec<_> = Table::read(&parts.train).unwrap().records;
        rows.extend(Table::read(&parts.test).unwrap().records);
        rows.sort_by(|a, b| a.as_slice().cmp(b.as_slice()));
        let mut all = Table::parse(CLEAN).unwrap().records;
        all.sort_by(|a, b| a.as_slice().cmp(b.as_slice()));
        assert_eq!(rows, all);
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(parts(1).test, parts(1).test);
        assert_ne!(parts(1).test, parts(2).test);
    }

    #[test]
    fn the_component_carries_rand_0_9() {
        assert!(parts(0).shuffled_by.starts_with("rand 0.9."));
    }
}
