//! The last steps of the weekly training: let a good model pass, register it, write the report.

#![expect(clippy::print_stdout, reason = "what a task prints is its log")]

use airtight_sdk::prelude::*;

#[data]
struct Gate {
    accuracy: f64,
    threshold: f64,
}

#[derive(Labels)]
enum Verdict {
    /// The model is good enough.
    Accept,
    /// It is not; nothing is registered.
    Reject,
}

/// Lets a model pass whose accuracy is above the threshold.
#[task]
fn accuracy_gate(input: Gate) -> Branch<Verdict> {
    let Gate { accuracy, threshold } = input;
    if accuracy > threshold {
        info!(accuracy, threshold, "accepted");
        Branch::to(Verdict::Accept)
    } else {
        warn!(accuracy, threshold, "rejected");
        Branch::to(Verdict::Reject)
    }
}

#[data]
struct Register {
    /// The name to register it under.
    name: String,
    model: Blob,
    accuracy: f64,
}

/// An entry of the model registry.
#[data]
struct Registered {
    name: String,
    /// The run that made it.
    run_id: String,
    model: Blob,
    accuracy: f64,
}

/// Registers the model: what a later run finds under this task's id is the model to use.
#[task]
fn register(input: Register) -> Registered {
    let Register { name, model, accuracy } = input;
    info!(name, digest = model.digest(), bytes = model.size(), "registered");
    Registered {
        name,
        run_id: context::run_id(),
        model,
        accuracy,
    }
}

#[data]
struct Report {
    rows: u64,
    accuracy: f64,
    cross_validated_accuracy: f64,
    threshold: f64,
    /// What was registered; none where the gate rejected the model.
    registered: Option<Registered>,
    /// Which library each component says it carries.
    libraries: Vec<String>,
}

#[data]
struct Reported {
    /// The report, as Markdown.
    report: Blob,
    verdict: String,
    /// Which library each component says it carries.
    libraries: Vec<String>,
}

/// Writes the report of the run, whatever the gate said.
#[task]
fn report(input: Report) -> Result<Reported> {
    let verdict = match &input.registered {
        Some(registered) => format!("registered as `{}`", registered.name),
        None => "rejected".to_owned(),
    };
    let text = format!(
        "# {} {}\n\n* {} rows\n* accuracy on rows kept aside: {:.4}, threshold {}\n* accuracy by cross-validation: {:.4}\n\
         * the model was {verdict}\n* shuffled by: {}\n",
        context::dag_id(),
        context::run_id(),
        input.rows,
        input.accuracy,
        input.threshold,
        input.cross_validated_accuracy,
        input.libraries.join("; "),
    );
    print!("{text}");
    Ok(Reported {
        report: Blob::from_bytes(text, "text/markdown")?,
        verdict,
        libraries: input.libraries,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_itself_does_not_pass() {
        assert_eq!(
            accuracy_gate(Gate {
                accuracy: 0.96,
                threshold: 0.95
            })
            .chosen(),
            ["accept"]
        );
        assert_eq!(
            accuracy_gate(Gate {
                accuracy: 0.95,
                threshold: 0.95
            })
            .chosen(),
            ["reject"]
        );
    }

    #[test]
    fn the_report_says_what_happened() {
        let mut input = Report {
            rows: 569,
            accuracy: 0.9735,
            cross_validated_accuracy: 0.979,
            threshold: 0.95,
            registered: None,
            libraries: vec!["split: rand 0.9".to_owned(), "evaluate: rand 0.8".to_owned()],
        };
        let model = Blob::from_bytes("{}", "application/json").unwrap();
        input.registered = Some(register(Register {
            name: "m".to_owned(),
            model,
            accuracy: 0.9735,
        }));
        let reported = report(input).unwrap();
        assert_eq!(reported.verdict, "registered as `m`");
        let text = reported.report.text().unwrap();
        assert!(text.contains("0.9735, threshold 0.95"), "{text}");
        assert!(text.contains("split: rand 0.9; evaluate: rand 0.8"), "{text}");
    }
}
