//! `load`: brings the table into the run as a blob.

use airtight_sdk::prelude::*;

use crate::table::{CLEAN, DIRTY, Table};

/// Which table.
#[data]
#[derive(Clone, Copy, Debug, Default)]
#[serde(rename_all = "snake_case")]
enum Source {
    /// The table as published.
    #[default]
    Clean,
    /// The table with faults.
    Dirty,
}

#[data]
#[derive(Default)]
struct Load {
    /// One of the tables inside the component.
    #[serde(default)]
    source: Source,
    /// A table of your own, uploaded before; it goes before `source`.
    #[serde(default)]
    dataset: Option<Blob>,
}

#[data]
struct Loaded {
    /// The table, as CSV with a header.
    dataset: Blob,
    rows: usize,
    columns: usize,
    /// Where it came from.
    source: String,
}

/// Loads the data set: one of those inside the component, or one that was uploaded as a blob.
#[task]
fn load(input: Load) -> Result<Loaded> {
    let (dataset, source) = match (input.dataset, input.source) {
        (Some(blob), _) => (blob, "blob"),
        (None, Source::Clean) => (Blob::from_bytes(CLEAN, "text/csv")?, "clean"),
        (None, Source::Dirty) => (Blob::from_bytes(DIRTY, "text/csv")?, "dirty"),
    };
    let table = Table::read(&dataset)?;
    let (rows, columns) = (table.records.len(), table.header.len());
    info!(
        rows,
        columns,
        source,
        bytes = dataset.size(),
        "loaded {rows} rows of {columns} columns"
    );
    Ok(Loaded {
        dataset,
        rows,
        columns,
        source: source.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tables_have_their_rows() {
        assert_eq!(load(Load::default()).unwrap().rows, 569);
        let dirty = load(Load {
            source: Source::Dirty,
            dataset: None,
        })
        .unwrap();
        assert_eq!((dirty.rows, dirty.columns), (594, 31));
    }

    #[test]
    fn an_own_table_goes_before_the_source() {
        let blob = Blob::from_bytes("a,target\n1,0\n", "text/csv").unwrap();
        let loaded = load(Load {
            source: Source::Dirty,
            dataset: Some(blob),
        })
        .unwrap();
        assert_eq!((loaded.rows, loaded.columns, loaded.source.as_str()), (1, 2, "blob"));
    }

    #[test]
    fn what_is_no_table_is_fatal() {
        let blob = Blob::from_bytes("a,target\n1\n", None).unwrap();
        let failure = load(Load {
            source: Source::Clean,
            dataset: Some(blob),
        })
        .map(|_| ())
        .unwrap_err();
        assert_eq!((failure.get_code(), failure.is_fatal()), (Some("not_a_table"), true));
    }
}
