use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::dag::{Task, TaskKind};
use crate::id::{Digest, TaskIndex};

pub(super) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/fixtures/manifest")
}

fn task(name: &str, input: serde_json::Value, output: serde_json::Value) -> TaskDescriptor {
    TaskDescriptor {
        name: name.to_owned(),
        doc: String::new(),
        input,
        output,
        needs: Vec::new(),
        labels: None,
    }
}

/// The components that the fixtures name.
pub(super) fn components(manifest: &Manifest) -> Components {
    let closed = |properties: serde_json::Value, required: &[&str]| json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
    let tasks = vec![
        task(
            "load_csv",
            closed(json!({"source": {"type": "string"}}), &["source"]),
            closed(
                json!({
                    "rows": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
                    "columns": {"type": "array", "items": {"type": "string"}},
                    "warning": {"type": "string"},
                }),
                &["rows", "columns"],
            ),
        ),
        task(
            "train",
            closed(
                json!({
                    "rows": {"type": "array"},
                    "depth": {"type": "integer", "minimum": 1, "maximum": 64},
                    "kind": {"enum": ["tree", "forest"]},
                }),
                &["rows"],
            ),
            closed(
                json!({"accuracy": {"type": "number"}, "model": {"$ref": "#/$defs/model"}}),
                &["accuracy", "model"],
            ),
        ),
        TaskDescriptor {
            labels: Some(vec!["accept".to_owned(), "reject".to_owned()]),
            ..task(
                "accuracy_gate",
                closed(
                    json!({"accuracy": {"type": "number"}, "threshold": {"type": "number"}}),
                    &["accuracy", "threshold"],
                ),
                json!({"type": "null"}),
            )
        },
        task(
            "register",
            closed(json!({"model": {"type": "object"}}), &["model"]),
            json!(true),
        ),
        task("report", json!({"type": "object"}), json!({"type": "string"})),
        task("anything", json!(true), json!(true)),
        TaskDescriptor {
            needs: vec!["gpu".to_owned()],
            ..task("fast", json!(true), json!(true))
        },
    ];
    let mut ml = Descriptor {
        format: 1,
        sdk: None,
        tasks,
    };
    ml.tasks[1].output["$defs"] = json!({"model": {"type": "object", "required": ["$blob"]}});
    let ml = Arc::new(ml);
    let single = Arc::new(Descriptor {
        format: 1,
        sdk: None,
        tasks: vec![task("only", json!(true), json!(true))],
    });
    let mut found = HashMap::new();
    for component in manifest.components() {
        let reference = component.value;
        let answer = match reference.to_string().as_str() {
            "broken@1" => Err(Unresolved::Refused("not a component".to_owned())),
            "ml@1.2" | "./ml.wasm" => Ok((&b"ml"[..], &ml)),
            "single@1" => Ok((&b"single"[..], &single)),
            text if text.contains("sha256:") => Ok((&b"ml"[..], &ml)),
            _ => Err(Unresolved::NotFound {
                known: vec!["ml@1.2".to_owned(), "single@1".to_owned()],
            }),
        };
        let answer = answer.map(|(bytes, descriptor)| ResolvedComponent {
            digest: Digest::of(bytes),
            descriptor: Arc::clone(descriptor),
        });
        found.insert(reference, answer);
    }
    found
}

fn check(source: &str) -> Result<Checked, Vec<Diagnostic>> {
    let manifest = read(source);
    let components = components(&manifest);
    compile(&manifest, &components)
}

fn show(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().fold(String::new(), |mut text, diagnostic| {
        let _ = writeln!(text, "{diagnostic}");
        text
    })
}

#[test]
fn the_training_pipeline_compiles() {
    let source = std::fs::read_to_string(fixtures().join("valid/model_training.yaml")).unwrap();
    let checked = check(&source).unwrap_or_else(|diagnostics| panic!("{}", show(&diagnostics)));
    let dag = &checked.dag;
    let names =
        |indices: &[TaskIndex]| -> Vec<&str> { indices.iter().map(|at| dag.tasks[at.at()].id.as_str()).collect() };
    let edges: Vec<(&str, Vec<&str>, Vec<&str>)> = dag
        .tasks
        .iter()
        .map(|task: &Task| (task.id.as_str(), names(&task.upstream), names(&task.downstream)))
        .collect();
    assert_eq!(
        edges,
        [
            ("load", vec![], vec!["train"]),
            ("train", vec!["load"], vec!["gate", "register"]),
            ("gate", vec!["train"], vec!["register", "report"]),
            ("register", vec!["train", "gate"], vec!["report"]),
            ("report", vec!["gate", "register"], vec![]),
        ]
    );
    let TaskKind::Branch { labels } = &dag.tasks[2].kind else {
        panic!("gate is a branch");
    };
    assert_eq!(labels["accept"], [TaskIndex(3)]);
    assert_eq!(dag.tasks[0].retry.retries, 2);
    assert_eq!(dag.tasks[1].limits.timeout, std::time::Duration::from_secs(1800));
    assert_eq!(dag.tasks[1].limits.cpu_time, std::time::Duration::from_secs(1800));
    assert_eq!(checked.paused, Some(false));
    let stored: crate::Dag = serde_json::from_str(&serde_json::to_string(dag).unwrap()).unwrap();
    assert_eq!(stored.index_of("gate"), Some(TaskIndex(2)));
}
