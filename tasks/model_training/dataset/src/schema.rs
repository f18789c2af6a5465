//! `validate_schema`: the columns are the ones the model was made for, and every cell is a number or missing.

use airtight_sdk::prelude::*;

use crate::table::{CLEAN, MISSING, Table};

#[data]
struct Validate {
    dataset: Blob,
}

#[data]
struct Validated {
    rows: usize,
    /// The columns that the model learns from.
    features: Vec<String>,
    /// The column that it predicts.
    label: String,
}

/// Checks that the table has the expected columns in the expected order and that its cells are numbers.
#[task]
fn validate_schema(input: Validate) -> Result<Validated> {
    let expected = Table::parse(CLEAN)?.header;
    let table = Table::read(&input.dataset)?;
    if table.header != expected {
        let missing: Vec<&str> = expected
            .iter()
            .filter(|name| !table.header.iter().any(|other| other == *name))
            .collect();
        let extra: Vec<&str> = table
            .header
            .iter()
            .filter(|name| !expected.iter().any(|other| other == *name))
            .collect();
        let message = match (missing.is_empty(), extra.is_empty()) {
            (true, true) => "the columns are in another order".to_owned(),
            _ => format!("the columns differ: missing {missing:?}, not expected {extra:?}"),
        };
        return Err(Failure::fatal(message)
            .code("schema_mismatch")
            .details(json!({"missing": missing, "extra": extra})));
    }
    for (row, record) in table.records.iter().enumerate() {
        for (name, cell) in table.header.iter().zip(record) {
            if !MISSING.contains(&cell) && !cell.parse::<f64>().is_ok_and(f64::is_finite) {
                let line = Table::line(row);
                return Err(
                    Failure::fatal(format!("line {line}, column `{name}`: `{cell}` is not a number"))
                        .code("schema_mismatch")
                        .details(json!({"line": line, "column": name, "value": cell})),
                );
            }
        }
    }
    let mut features: Vec<String> = expected.iter().map(str::to_owned).collect();
    let label = features.pop().unwrap_or_default();
    info!(
        "{} rows fit the schema of {} features",
        table.records.len(),
        features.len()
    );
    Ok(Validated {
        rows: table.records.len(),
        features,
        label,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validate(text: &str) -> Result<Validated> {
        validate_schema(Validate {
            dataset: Blob::from_bytes(text, "text/csv")?,
        })
    }

    #[test]
    fn both_tables_fit() {
        let validated = validate(CLEAN).unwrap();
        assert_eq!(
            (validated.rows, validated.features.len(), validated.label.as_str()),
            (569, 30, "target")
        );
        assert_eq!(validate(crate::table::DIRTY).unwrap().rows, 594);
    }

    #[test]
    fn a_renamed_column_is_named() {
        let failure = validate(&CLEAN.replacen("mean_area", "area", 1))
            .map(|_| ())
            .unwrap_err();
        assert_eq!(
            failure.message(),
            r#"the columns differ: missing ["mean_area"], not expected ["area"]"#
        );
    }

    #[test]
    fn a_word_between_numbers_is_found_by_line_and_column() {
        let failure = validate(&CLEAN.replacen("20.57,", "big,", 1)).map(|_| ()).unwrap_err();
        assert_eq!(failure.message(), "line 3, column `mean_radius`: `big` is not a number");
    }
}
