//! A CSV table held as text: the tasks of this component look at cells before they are numbers.

use airtight_sdk::prelude::*;

/// Cells that mean "nobody knows".
pub(crate) const MISSING: &[&str] = &["", "NA"];

/// The name of the last column.
pub(crate) const LABEL: &str = "target";

/// The table that defines what is normal: its columns, and the range of each.
pub(crate) const CLEAN: &str = include_str!("../../data/clean.csv");

/// The same table with faults in it.
pub(crate) const DIRTY: &str = include_str!("../../data/dirty.csv");

/// A header and records of the same length.
pub(crate) struct Table {
    pub(crate) header: csv::StringRecord,
    pub(crate) records: Vec<csv::StringRecord>,
}

impl Table {
    /// Parses CSV with a header line. Records of differing length are an error that names the line.
    pub(crate) fn parse(text: &str) -> Result<Self, csv::Error> {
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        Ok(Self {
            header: reader.headers()?.clone(),
            records: reader.records().collect::<Result<_, _>>()?,
        })
    }

    /// Reads a blob that holds CSV.
    pub(crate) fn read(blob: &Blob) -> Result<Self> {
        let text = blob.text()?;
        Self::parse(&text)
            .map_err(|error| Failure::fatal(format!("the data set is not a CSV table: {error}")).code("not_a_table"))
    }

    /// The line of a record in the file: the header is line 1.
    pub(crate) fn line(record: usize) -> usize {
        record + 2
    }
}
