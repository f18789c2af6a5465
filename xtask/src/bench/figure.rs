//! What was measured, and the table of it.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use super::floor::Floors;

/// One figure. Times are in milliseconds unless the unit says otherwise.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// What was measured.
    pub(crate) name: String,
    /// The median, or the only value.
    pub(crate) value: f64,
    /// `ms`, `µs`, `MiB`, …
    pub(crate) unit: &'static str,
    /// How many times it was measured.
    pub(crate) runs: usize,
    /// The least that it could be, in the same unit.
    pub(crate) floor: Option<f64>,
    /// What the floor is.
    pub(crate) floor_is: String,
    /// The aim, in the same unit.
    pub(crate) aim: Option<f64>,
}

/// All figures of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Measured in the same run.
    pub(crate) floors: Floors,
    /// The figures.
    pub(crate) figures: Vec<Figure>,
}

impl Report {
    pub(crate) fn new(floors: Floors) -> Self {
        Self {
            floors,
            figures: Vec::new(),
        }
    }

    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(["figure", "value", "floor", "ratio", "aim", "", "what the floor is"]);
        for figure in &self.figures {
            let number = |value: f64| format!("{} {}", rounded(value), figure.unit);
            table.add_row([
                figure.name.clone(),
                number(figure.value),
                figure.floor.map_or_else(String::new, number),
                figure
                    .floor
                    .map_or_else(String::new, |floor| format!("{:.1}", figure.value / floor)),
                figure.aim.map_or_else(String::new, |aim| format!("≤ {}", number(aim))),
                figure
                    .aim
                    .map_or("", |aim| if figure.value <= aim { "met" } else { "missed" })
                    .to_owned(),
                figure.floor_is.clone(),
            ]);
        }
        for column in 1..=4 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let floors = &self.floors;
        format!(
            "{table}\nfloors: fdatasync of 4 KiB {} ms · commit of one tick (c) {} ms · raw instantiate + call {} µs · \
             sha256 + write + fdatasync of 10 MB {} ms",
            rounded(floors.fdatasync_ms),
            rounded(floors.commit_ms),
            rounded(floors.instantiate_us),
            rounded(floors.blob_ms),
        )
    }
}

/// Three significant digits or so.
fn rounded(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The value below which a share of the sorted samples lies.
pub(crate) fn quantile(samples: &mut [f64], share: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let last = samples.len().saturating_sub(1);
    let at = (share * last as f64).round() as usize;
    samples.get(at.min(last)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_few_samples() {
        assert_eq!(quantile(&mut [3.0, 1.0, 2.0], 0.5), 2.0);
        assert_eq!(quantile(&mut [3.0, 1.0, 2.0], 0.99), 3.0);
        assert!(quantile(&mut [], 0.5).is_nan());
    }
}
