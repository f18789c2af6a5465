//! `check_quality`: is the table fit to train on?

use std::collections::{BTreeMap, HashSet};

use airtight_sdk::prelude::*;

use crate::table::{CLEAN, LABEL, MISSING, Table};

/// How many findings of each kind a report shows.
const SHOWN: usize = 5;
/// A value is plausible up to so many times the largest clean one.
const MARGIN: f64 = 10.0;

#[data]
struct Check {
    dataset: Blob,
}

/// One thing that is wrong.
#[data]
#[derive(Debug, PartialEq)]
struct Finding {
    fault: String,
    /// The line in the file; the header is line 1.
    line: usize,
    /// The column; none where it is about the whole row.
    column: Option<String>,
    /// The cell as it stands in the file.
    value: Option<String>,
}

/// How often each kind of fault was found.
#[data]
#[derive(Debug, Default, PartialEq)]
struct Faults {
    /// Empty cells and `NA`.
    missing_cells: usize,
    rows_with_missing_cells: usize,
    /// Rows that repeat an earlier one exactly.
    duplicate_rows: usize,
    negative_cells: usize,
    /// Cells above ten times the largest value of their column in the reference table.
    cells_above_range: usize,
    /// Labels that are neither 0 nor 1.
    bad_labels: usize,
}

#[data]
#[derive(Debug)]
struct Report {
    rows: usize,
    /// Rows that remain when bad rows and repeats are dropped.
    sound_rows: usize,
    faults: Faults,
    /// Missing cells by column, where there are any.
    missing_by_column: BTreeMap<String, usize>,
    /// The first findings of each kind.
    findings: Vec<Finding>,
}

/// Looks for missing cells, repeated rows, values out of range and bad labels. It publishes its report under the key `report` and fails if
/// anything was found.
#[task]
fn check_quality(input: Check) -> Result<Report> {
    let report = inspect(&Table::read(&input.dataset)?)?;
    xcom::push("report", &report)?;
    let faults = &report.faults;
    if *faults == Faults::default() {
        info!(rows = report.rows, "all {} rows are sound", report.rows);
        return Ok(report);
    }
    for finding in &report.findings {
        let column = finding.column.as_deref().unwrap_or("(row)");
        warn!(line = finding.line, column, value = finding.value, "{}", finding.fault);
    }
    Err(
        Failure::fatal(format!("the data set is not fit for training: {}", summary(faults)))
            .code("quality_failed")
            .details(&report),
    )
}

fn summary(faults: &Faults) -> String {
    let rows = faults.rows_with_missing_cells;
    [
        (
            faults.missing_cells,
            format!("{} missing cells in {rows} rows", faults.missing_cells),
        ),
        (
            faults.duplicate_rows,
            format!("{} duplicate rows", faults.duplicate_rows),
        ),
        (
            faults.negative_cells,
            format!("{} negative cells", faults.negative_cells),
        ),
        (
            faults.cells_above_range,
            format!("{} cells above their range", faults.cells_above_range),
        ),
        (
            faults.bad_labels,
            format!("{} labels that are neither 0 nor 1", faults.bad_labels),
        ),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(_, text)| text)
    .collect::<Vec<_>>()
    .join(", ")
}

/// The largest plausible value of each column.
fn upper_bounds() -> Result<BTreeMap<String, f64>> {
    let clean = Table::parse(CLEAN)?;
    let mut bounds = BTreeMap::new();
    for record in &clean.records {
        for (name, cell) in clean.header.iter().zip(record) {
            let bound = bounds.entry(name.to_owned()).or_insert(f64::NEG_INFINITY);
            *bound = f64::max(*bound, MARGIN * cell.parse::<f64>()?);
        }
    }
    Ok(bounds)
}

fn inspect(table: &Table) -> Result<Report> {
    let bounds = upper_bounds()?;
    let mut faults = Faults::default();
    let mut missing_by_column = BTreeMap::new();
    let mut findings = Findings::default();
    let mut seen = HashSet::new();
    let mut sound_rows = 0;
    for (row, record) in table.records.iter().enumerate() {
        let mut sound = true;
        let mut has_missing = false;
        for (name, cell) in table.header.iter().zip(record) {
            let mut found = |fault| {
                sound = false;
                findings.add(fault, row, Some((name, cell)));
            };
            if MISSING.contains(&cell) {
                faults.missing_cells += 1;
                *missing_by_column.entry(name.to_owned()).or_default() += 1;
                has_missing = true;
                found("missing cell");
                continue;
            }
            let value: f64 = cell.parse()?;
            if name == LABEL {
                if value != 0.0 && value != 1.0 {
                    faults.bad_labels += 1;
                    found("bad label");
                }
            } else if value < 0.0 {
                faults.negative_cells += 1;
                found("negative cell");
            } else if bounds.get(name).is_some_and(|bound| value > *bound) {
                faults.cells_above_range += 1;
                found("cell above its range");
            }
        }
        if !seen.insert(record.iter().collect::<Vec<&str>>()) {
            faults.duplicate_rows += 1;
            sound = false;
            findings.add("duplicate row", row, None);
        }
        faults.rows_with_missing_cells += usize::from(has_missing);
        sound_rows += usize::from(sound);
    }
    Ok(Report {
        rows: table.records.len(),
        sound_rows,
        faults,
        missing_by_column,
        findings: findings.shown,
    })
}

/// The first findings of each kind.
#[derive(Default)]
struct Findings {
    shown: Vec<Finding>,
    counts: BTreeMap<&'static str, usize>,
}

impl Findings {
    fn add(&mut self, fault: &'static str, row: usize, cell: Option<(&str, &str)>) {
        let count = self.counts.entry(fault).or_default();
        *count += 1;
        if *count <= SHOWN {
            self.shown.push(Finding {
                fault: fault.to_owned(),
                line: Table::line(row),
                column: cell.map(|(name, _)| name.to_owned()),
                value: cell.map(|(_, value)| value.to_owned()),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use airtight_sdk::testing::TestHost;

    use super::*;
    use crate::table::DIRTY;

    fn check(text: &str) -> Result<Report> {
        check_quality(Check {
            dataset: Blob::from_bytes(text, "text/csv")?,
        })
    }

    #[test]
    fn the_clean_table_passes() {
        let report = check(CLEAN).unwrap();
        assert_eq!((report.rows, report.sound_rows), (569, 569));
    }

    #[test]
    fn every_fault_of_the_dirty_table_is_counted() {
        let host = TestHost::new().install();
        let failure = check(DIRTY).unwrap_err();
        assert_eq!(failure.get_code(), Some("quality_failed"));
        assert!(failure.is_fatal());
        assert_eq!(
            failure.message(),
            "the data set is not fit for training: 63 missing cells in 50 rows, 25 duplicate rows, 12 negative cells, \
             8 cells above their range, 5 labels that are neither 0 nor 1"
        );
        let report: Report = serde_json::from_value(host.pushed("report").unwrap()).unwrap();
        assert_eq!(
            report.faults,
            Faults {
                missing_cells: 63,
                rows_with_missing_cells: 50,
                duplicate_rows: 25,
                negative_cells: 12,
                cells_above_range: 8,
                bad_labels: 5,
            }
        );
        assert_eq!((report.rows, report.sound_rows), (594, 494));
        assert_eq!(report.missing_by_column.values().sum::<usize>(), 63);
        assert_eq!(report.findings.len(), 5 * SHOWN);
        assert_eq!(
            report.findings[0],
            Finding {
                fault: "missing cell".to_owned(),
                line: 3,
                column: Some("mean_concavity".to_owned()),
                value: Some("NA".to_owned()),
            }
        );
    }
}
