//! `report`: the end of the workflow, for people.

use std::fmt::Write as _;

use airtight_sdk::prelude::*;
use airtight_sdk::serde_json::Value;
use radio_domain::Context;

use crate::assemble::Summary;
use crate::find::Source;
use crate::quality;
use crate::spectrum::Kind;

#[data]
struct Report {
    #[serde(default)]
    title: Option<String>,
    context: Context,
    summary: Summary,
    sources: Vec<Source>,
    reference_frequency_hz: f64,
    /// What a person decided; none where nobody was asked.
    #[serde(default)]
    decision: Option<Value>,
}

#[data]
struct Reported {
    /// The report, as Markdown.
    report: Blob,
    sources: usize,
    lines: usize,
    total_flux_jy: f64,
}

/// Writes the report: imaging, quality, sources, and what a person decided.
#[task]
fn report(input: Report) -> Result<Reported> {
    let text = write(&input);
    for line in text.lines() {
        info!("{line}");
    }
    let lines = input.sources.iter().filter(|source| source.kind == Kind::Line).count();
    Ok(Reported {
        report: Blob::from_bytes(text, "text/markdown")?,
        sources: input.sources.len(),
        lines,
        total_flux_jy: input.sources.iter().map(|source| source.flux_jy).sum(),
    })
}

fn write(input: &Report) -> String {
    let summary = &input.summary;
    let mut text = format!("# {}\n\n", input.title.as_deref().unwrap_or("Radio imaging"));
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "{} of {} channels converged after {} minor cycles; dynamic range {:.0}.\n\n## Quality\n\n{}\n",
        summary.converged,
        summary.channels,
        summary.minor_cycles,
        summary.dynamic_range,
        quality::describe(&input.context)
    );
    if let Some(decision) = &input.decision {
        let _ = write!(text, "\nA person decided: `{decision}`\n");
    }
    let _ = write!(
        text,
        "\n## Sources\n\nFluxes of the continuum at {:.4} GHz, of lines at their peak.\n\n\
         | id | kind | x | y | flux, Jy | spectral index | line, GHz |\n|---:|---|---:|---:|---:|---:|---:|\n",
        input.reference_frequency_hz / 1e9
    );
    for source in &input.sources {
        let index = match (source.spectral_index, source.spectral_index_error) {
            (Some(index), Some(error)) => format!("{index:.2} ± {error:.2}"),
            _ => String::new(),
        };
        let line = source
            .line_frequency_hz
            .map_or_else(String::new, |frequency| format!("{:.3}", frequency / 1e9));
        let kind = match source.kind {
            Kind::Continuum => "continuum",
            Kind::Line => "line",
        };
        let _ = writeln!(
            text,
            "| {} | {kind} | {:.2} | {:.2} | {:.4} ± {:.4} | {index} | {line} |",
            source.id, source.x_px, source.y_px, source.flux_jy, source.flux_error_jy
        );
    }
    text
}
