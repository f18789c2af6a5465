use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::dag::{Task, TaskKind};
use crate::id::{Digest, TaskIndex};
use crate::schema::Validator;

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
        task(
            "score",
            json!({"type": "object", "properties": {
                "threshold": {"type": "number", "description": "What counts as good."},
                "rows": {"type": "array", "items": {"type": "object"}},
                "kind": {"type": "string"},
                "options": {"type": "object", "properties": {"verbose": {"type": "boolean"}}},
            }}),
            json!({"type": "number"}),
        ),
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
                known: ["ml@1.2".to_owned(), "single@1".to_owned()].into(),
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
    compile_on(&manifest, &components, &pools())
}

/// The pools of the server that the fixtures are deployed to.
fn pools() -> Pools {
    [("default_pool", 128), ("database", 4), ("endless", -1), ("closed", 0)]
        .map(|(name, slots)| (name.to_owned(), slots))
        .into()
}

fn show(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().fold(String::new(), |mut text, diagnostic| {
        let _ = writeln!(text, "{diagnostic}");
        text
    })
}

#[test]
fn the_training_pipeline_compiles() {
    let source = fs::read_to_string(fixtures().join("valid/model_training.yaml")).unwrap();
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

#[test]
fn settings_of_capacity_reach_the_compiled_tasks() {
    let source = "
dag: d
defaults: {pool: database, max_active_tis_per_dag: 3, priority_weight: 2}
tasks:
  first: {component: single@1, queue: gpu, pool_slots: 4}
  second: {component: single@1, after: [first], weight_rule: absolute, max_active_tis_per_dagrun: 1, pool: closed}
  third: {component: single@1, after: [second], weight_rule: upstream, priority_weight: 5, pool: default_pool}
";
    let checked = check(source).unwrap_or_else(|diagnostics| panic!("{}", show(&diagnostics)));
    let tasks = &checked.dag.tasks;
    let weights: Vec<i32> = tasks.iter().map(|task| task.queueing.weight).collect();
    assert_eq!(weights, [9, 2, 9]);
    let places: Vec<(&str, u32, &str)> = tasks
        .iter()
        .map(|task| (task.pool.as_str(), task.pool_slots, task.queueing.queue.as_str()))
        .collect();
    assert_eq!(
        places,
        [
            ("database", 4, "gpu"),
            ("closed", 1, "default"),
            ("default_pool", 1, "default")
        ]
    );
    let limits: Vec<_> = tasks
        .iter()
        .map(|task| {
            (
                task.queueing.max_active_tis_per_dag,
                task.queueing.max_active_tis_per_dagrun,
            )
        })
        .collect();
    assert_eq!(limits, [(Some(3), None), (Some(3), Some(1)), (Some(3), None)]);
    let warned: Vec<&str> = checked.diagnostics.iter().map(|found| found.code.as_str()).collect();
    assert_eq!(warned, ["manifest_pool_slots"], "a closed pool may be opened again");
    // Where there is no server, nothing is known of pools.
    let manifest = read(&source.replace("database", "elsewhere"));
    assert!(compile(&manifest, &components(&manifest)).is_ok());
}

#[test]
fn every_dag_that_a_template_may_name_is_looked_for_where_it_stands() {
    let manifest = read(
        "dag: d\nparams: {to: a}\ntasks:\n  go: {trigger_dag: {dag: '{{ params.to }}', allowed: [a, b, d]}}\n  see: {wait_for_dag: {dag: c}}\n",
    );
    let named: Vec<String> = manifest.named_dags().iter().map(ToString::to_string).collect();
    assert_eq!(named, ["a", "b", "d", "c"]);
    let unknown = manifest.unknown_dags(|dag| dag.as_str() == "a");
    assert_eq!(
        show(&unknown)
            .lines()
            .filter(|line| !line.starts_with("  "))
            .collect::<Vec<_>>(),
        [
            "4:59: warning: there is no DAG `b` yet [manifest_unknown_dag]",
            "5:29: warning: there is no DAG `c` yet [manifest_unknown_dag]"
        ]
    );
}

#[test]
fn a_log_over_its_limit_is_cut_unless_the_manifest_says_otherwise() {
    use crate::limits::OnLogLimit;
    let source = "dag: chatty\n\
                  defaults: {limits: {log: 1MiB, on_log_limit: fail}}\n\
                  tasks:\n\
                  \x20 a: {component: ml@1.2, task: load_csv, input: {source: x}}\n\
                  \x20 b: {component: ml@1.2, task: load_csv, input: {source: x}, limits: {on_log_limit: cut}}\n";
    let checked = check(source).unwrap_or_else(|diagnostics| panic!("{}", show(&diagnostics)));
    let chosen = checked.dag.tasks.iter().map(|task| task.limits.on_log_limit);
    assert!(chosen.eq([OnLogLimit::Fail, OnLogLimit::Cut]));
    // The default is not stored: versions of before keep their digests.
    let stored = serde_json::to_value(&checked.dag.tasks[1].limits).unwrap();
    assert!(stored.get("on_log_limit").is_none(), "{stored}");
    assert_eq!(
        serde_json::to_value(&checked.dag.tasks[0].limits).unwrap()["on_log_limit"],
        "fail"
    );
    let refused = check(&source.replace("cut", "drop"))
        .err()
        .expect("`drop` is no choice");
    assert_eq!(refused[0].code, "manifest_value");
    assert!(
        refused[0]
            .hint
            .as_deref()
            .is_some_and(|hint| hint.contains("cut, fail")),
        "{refused:?}"
    );
}

#[test]
fn a_default_of_null_is_no_missing_default() {
    let compiled = |param: &str| {
        let source = format!(
            "dag: d\nparams: {{p: {param}}}\ntasks:\n  load_csv: {{component: ml@1.2, input: {{source: x}}}}\n"
        );
        check(&source).unwrap()
    };
    let with = compiled("{type: [string, 'null'], default: null}");
    let without = compiled("{type: [string, 'null']}");
    for dag in [&with.dag, &without.dag] {
        let text = serde_json::to_string(dag).unwrap();
        let read: crate::Dag = serde_json::from_str(&text).unwrap();
        assert_eq!(read.params, dag.params, "{text}");
    }
    assert_ne!(with.digest, without.digest);
}

#[test]
fn a_task_of_a_group_is_found_by_its_name_in_the_group() {
    let compiled = |name: &str| {
        let source = format!(
            "dag: d\ntasks:\n  outer:\n    tasks:\n      inner:\n        tasks:\n          {name}: {{component: ml@1.2, input: {{source: x}}}}\n"
        );
        check(&source)
    };
    let dag = compiled("load_csv").unwrap().dag;
    assert_eq!(dag.tasks[0].id.as_str(), "outer.inner.load_csv");
    assert_eq!(dag.tasks[0].work.operator_name(), "load_csv");
    let refused = show(&compiled("load_cvs").unwrap_err());
    assert!(
        refused.contains("none of them is named `load_cvs`") && refused.contains("did you mean `load_csv`?"),
        "{refused}"
    );
}

fn yaml_files(folder: &str) -> Vec<(PathBuf, String)> {
    let mut paths: Vec<PathBuf> = fs::read_dir(fixtures().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect()
}

/// Compares with the file beside the fixture; `UPDATE_FIXTURES=1` writes it instead.
fn expect(path: &Path, extension: &str, found: &str, failures: &mut Vec<String>) {
    let path = path.with_extension(extension);
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        fs::write(&path, found).unwrap();
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    if expected != found {
        failures.push(format!(
            "{}\n--- expected\n{expected}+++ found\n{found}",
            path.display()
        ));
    }
}

#[test]
fn every_invalid_fixture_is_refused_with_all_its_errors() {
    let files = yaml_files("invalid");
    assert!(files.len() >= 40);
    let mut failures = Vec::new();
    for (path, source) in files {
        let diagnostics = check(&source).err().unwrap_or_default();
        assert!(
            diagnostics
                .iter()
                .any(|diagnostic| diagnostic.severity == Severity::Error),
            "{} is accepted",
            path.display()
        );
        expect(&path, "err", &show(&diagnostics), &mut failures);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_finding_says_what_to_do() {
    let without: Vec<String> = yaml_files("invalid")
        .into_iter()
        .flat_map(|(path, source)| {
            let found = check(&source).err().unwrap_or_default();
            let without = found.into_iter().filter(|found| found.hint.is_none());
            without.map(move |found| format!("{}: {found}", path.display()))
        })
        .collect();
    assert_eq!(without, Vec::<String>::new());
}

#[test]
fn one_finding_is_told_once() {
    for (path, source) in yaml_files("invalid") {
        let found = check(&source).err().unwrap_or_default();
        let mut told = std::collections::HashSet::new();
        for found in &found {
            let place = (found.line, found.column, found.code.clone(), found.message.clone());
            assert!(told.insert(place), "{}: {found}", path.display());
        }
    }
    // What stands between two that are the same does not keep them apart.
    let mut findings = diagnostic::Findings::default();
    for message in ["a", "b", "a"] {
        findings.error("manifest_value", Pos::START, message);
    }
    assert_eq!(findings.sorted().len(), 2);
    // A value that several tasks share by an alias, and `defaults`, are judged once.
    let found = check(
        "dag: d\ntasks:\n  a: &a {component: single@1, retrys: 1}\n  b: *a\n  c: *a\n  half: {component: ml@1.2, task: \
         accuracy_gate, branches: {accept: [], reject: []}, short_circuit: true, input: {accuracy: 1, threshold: 1}}\n",
    )
    .unwrap_err();
    let codes: Vec<&str> = found.iter().map(|found| found.code.as_str()).collect();
    assert_eq!(codes, ["manifest_unknown_key", "manifest_value"], "{}", show(&found));
    // A component that is not there is told where it is named first.
    let found = check(
        "dag: d\ntasks:\n  a: {component: none@1}\n  b: {component: none@1}\n  c: {component: broken@1, on_failure: {component: \
         broken@1}}\n",
    )
    .unwrap_err();
    let told: Vec<(u32, &str)> = found.iter().map(|found| (found.line, found.code.as_str())).collect();
    assert_eq!(told, [(3, "component_not_found"), (5, "component_refused")]);
}

#[test]
fn pools_that_nobody_was_asked_about_are_noted() {
    let source = "dag: d\ndefaults: {pool: database}\ntasks:\n  a: {component: single@1}\n  b: {component: single@1, pool: other}\n  c: \
                  {component: single@1, pool: default_pool}\n";
    let manifest = read(source);
    let found = compile(&manifest, &components(&manifest)).unwrap().diagnostics;
    let noted: Vec<(Severity, &str)> = found
        .iter()
        .map(|found| (found.severity, found.message.as_str()))
        .collect();
    assert_eq!(
        noted,
        [
            (Severity::Note, "pool `database` was not checked: no server was asked"),
            (Severity::Note, "pool `other` was not checked: no server was asked")
        ]
    );
    assert_eq!(check(source).unwrap_err().len(), 1, "a server is asked");
}

#[test]
fn every_valid_fixture_compiles() {
    let schema = Validator::compile(&json_schema()).unwrap();
    let mut failures = Vec::new();
    for (path, source) in yaml_files("valid") {
        let checked = check(&source).unwrap_or_else(|diagnostics| panic!("{}\n{}", path.display(), show(&diagnostics)));
        let found = json!({"dag": checked.dag, "paused": checked.paused, "diagnostics": checked.diagnostics});
        expect(&path, "json", &format!("{found:#}\n"), &mut failures);
        let value = tree::read(&source, &mut diagnostic::Findings::default())
            .unwrap()
            .to_json();
        assert_eq!(schema.validate(&value), Vec::<String>::new(), "{}", path.display());
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_published_schema_refuses_unknown_keys() {
    let schema = Validator::compile(&json_schema()).unwrap();
    for value in [
        json!({"dag": "d", "tasks": {"a": {"component": "x@1"}}, "retries": 1}),
        json!({"dag": "d", "tasks": {"a": {"component": "x@1", "retrys": 1}}}),
        json!({"dag": "d", "tasks": {"a": {"component": "x@1", "retries": -1}}}),
        json!({"dag": "d", "tasks": {"a": {}}}),
        json!({"dag": "d", "tasks": {"a": {"component": "x@1", "timeout": "5 fortnights"}}}),
        json!({"dag": "d", "schedule": "@daily", "tasks": {"a": {"component": "x@1"}}}),
    ] {
        assert!(!schema.is_valid(&value), "{value}");
    }
}

#[test]
fn what_means_the_same_is_the_same_version() {
    let version = |source: &str| {
        check(source)
            .unwrap_or_else(|diagnostics| panic!("{}", show(&diagnostics)))
            .digest
    };
    let plain = version(
        "dag: d\nparams: {p: 1}\ntasks:\n  a: {component: single@1, input: {x: 1, y: [2]}, retries: 2, timeout: 1h}\n  b: {component: single@1, after: [a]}\n",
    );
    let same = version(
        "# a comment\ntasks:\n  a:\n    retries: 2\n    component: \"single@1\"\n    input:\n      y:\n      - 2\n      x: 1\n  \
         b: {after: [a, a], component: single@1, trigger_rule: all_success}\nparams:\n  p: 1\ndag: d\npaused: true\n",
    );
    assert_eq!(plain, same);
    for other in [
        "dag: e\nparams: {p: 1}\ntasks:\n  a: {component: single@1, input: {x: 1, y: [2]}, retries: 2}\n  b: {component: single@1, after: [a]}\n",
        "dag: d\nparams: {p: 2}\ntasks:\n  a: {component: single@1, input: {x: 1, y: [2]}, retries: 2}\n  b: {component: single@1, after: [a]}\n",
        "dag: d\nparams: {p: 1}\ntasks:\n  b: {component: single@1, after: [a]}\n  a: {component: single@1, input: {x: 1, y: [2]}, retries: 2}\n",
        "dag: d\nparams: {p: 1}\ntasks:\n  a: {component: single@1, input: {x: 1, y: [3]}, retries: 2}\n  b: {component: single@1, after: [a]}\n",
    ] {
        assert_ne!(plain, version(other), "{other}");
    }
    let manifest = read("dag: d\ntasks: {a: {component: single@1}}\n");
    let mut others = components(&manifest);
    for component in others.values_mut() {
        component.as_mut().unwrap().digest = Digest::of(b"other content");
    }
    let before = compile(&manifest, &components(&manifest)).unwrap().digest;
    assert_ne!(before, compile(&manifest, &others).unwrap().digest);
}

#[test]
fn components_can_be_renamed_in_the_text() {
    let source = "dag: d # ü\ntasks:\n  é: {component: ./a.wasm}\n  b: {component: &c './b.wasm' }\n  c: {component: *c}\n  d: {component: x@1} # end\n  e:\n    component: ./a.wasm   # why\n    after: [d]\n  f:\n    component:\n      './a.wasm'\n";
    let manifest = parse(source).unwrap();
    let named: Vec<(String, u32, u32)> = manifest
        .components()
        .iter()
        .map(|component| (component.value.to_string(), component.pos.line, component.pos.column))
        .collect();
    assert_eq!(
        named,
        [
            ("./a.wasm".to_owned(), 3, 18),
            ("./b.wasm".to_owned(), 4, 18),
            ("x@1".to_owned(), 6, 18)
        ]
    );
    let digest = Digest([7; 32]);
    let renamed = manifest.with_components(|component| match component {
        ComponentRef::Path(path) if path == "./b.wasm" => Some(ComponentRef::Digest(digest)),
        ComponentRef::Path(_) => Some("new@2".parse().unwrap()),
        _ => None,
    });
    assert_eq!(
        renamed,
        format!(
            "dag: d # ü\ntasks:\n  é: {{component: \"new@2\"}}\n  b: {{component: &c \"{digest}\" }}\n  c: {{component: *c}}\n  d: {{component: x@1}} # end\n  e:\n    component: \"new@2\"   # why\n    after: [d]\n  f:\n    component:\n      \"new@2\"\n"
        )
    );
    assert!(parse(&renamed).is_ok());

    // Callbacks run components too; one in `defaults` is renamed once, however many tasks it is of.
    let called = |name: &str| {
        format!(
            "dag: d\non_failure: {{component: {name}}}\ndefaults: {{on_retry: [{{notify: x}}, {{component: {name}}}]}}\ntasks:\n  a: \
             {{component: x@1, on_success: {{component: {name}}}}}\n  b: {{component: x@1}}\n"
        )
    };
    let manifest = parse(&called("./c.wasm")).unwrap();
    assert_eq!(manifest.components().len(), 2);
    let renamed = manifest.with_components(|component| {
        let ComponentRef::Path(_) = component else { return None };
        Some("new@2".parse().unwrap())
    });
    assert_eq!(renamed, called("\"new@2\""));
}

#[test]
fn a_large_dag_is_read_in_linear_time() {
    let mut source = "dag: large\ntasks:\n  start: {component: single@1}\n".to_owned();
    for n in 0..10_000 {
        let _ = writeln!(
            source,
            "  t{n}: {{component: single@1, input: {{x: \"{{{{ xcom.start.v }}}}\"}}}}"
        );
    }
    let checked = check(&source).unwrap_or_else(|diagnostics| panic!("{}", show(&diagnostics)));
    assert_eq!(checked.dag.tasks.len(), 10_001);
    assert_eq!(checked.dag.tasks[0].downstream.len(), 10_000);
}

#[test]
fn hostile_text_ends_soon() {
    let size = MAX_MANIFEST_BYTES / 8;
    for pattern in [
        "[", "{", "- ", "? ", "a: ", "{a: ", "[a, ", "&a ", "*a ", "!", "# ", "%", "\"", "'", "\\", "|", ">\n", "\t",
        "\n", "---\n", "a:\n ", "é", ",", "\r", "- - a\n", "{{ ",
    ] {
        for prefix in [
            "",
            "dag: ",
            "dag: d\ntasks:\n  a:\n    component: single@1\n    input: ",
        ] {
            let source = format!("{prefix}{}", pattern.repeat((size - prefix.len()) / pattern.len()));
            // Most of these are errors, some are long comments or texts: none may take long, overflow the stack or flood.
            assert!(read(&source).diagnostics().len() <= 500, "{prefix}{pattern}…");
        }
    }
    let keys: String = (0..60_000).map(|n| format!("k{n}: 1\n")).collect();
    assert_eq!(read(&keys).diagnostics().len(), 500);
}

#[test]
fn deep_expressions_do_not_overflow_the_stack() {
    let repeat = |before: &str, last: &str, times: usize| format!("{}{last}", before.repeat(times));
    for times in [40, 240, 490, 4_000] {
        let after = |first: &str, more: &str| format!("{first}{}", more.repeat(times));
        for chain in [
            repeat("(", "1", times),
            repeat("not ", "1", times),
            repeat("-", "1", times),
            repeat("1 - ", "1", times),
            repeat("1 if 1 else ", "1", times),
            repeat("[", "1", times),
            repeat("{1:", "1", times),
            after("params.a", ".a"),
            after("1", "[0]"),
            after("1", " | int"),
            after("1", " and 1"),
            after("1", " is odd"),
        ] {
            let template = format!("{{{{ {chain} }}}}");
            let source =
                format!("dag: d\nparams: {{a: 1}}\ntasks: {{a: {{component: single@1, input: '{template}'}}}}");
            assert!(times < 4_000 || read(&source).has_errors(), "{chain}");
            let text = serde_json::Value::from(format!("{template} "));
            if let Ok(input) = crate::template::InputTemplate::parse(&text) {
                let context = crate::template::TemplateContext {
                    dag_id: "",
                    run_id: "",
                    task_id: "",
                    map_index: -1,
                    try_number: 1,
                    iteration: None,
                    items: &[],
                    callback: None,
                    logical_date: None,
                    data_interval_start: None,
                    data_interval_end: None,
                    params: &json!({"a": 1}),
                    conf: &json!({}),
                    xcoms: &HashMap::new(),
                };
                let _ = input.render(&context, 100_000, 1 << 20);
            }
        }
    }
}

#[test]
fn a_manifest_over_the_limit_is_not_read() {
    let mebi = MAX_MANIFEST_BYTES;
    assert!(read(&"x".repeat(mebi + 1)).has_errors());
}

fn mutated() -> impl Strategy<Value = String> {
    let files: Vec<String> = [yaml_files("valid"), yaml_files("invalid")]
        .concat()
        .into_iter()
        .map(|(_, source)| source)
        .filter(|source| source.len() < 4_000)
        .collect();
    let edit = (
        any::<prop::sample::Index>(),
        0..6_usize,
        "[\\[\\]{}:,&*!|>'\"%@#? \t\n\\\\a-z0-9é-]{0,6}",
    );
    (prop::sample::select(files), prop::collection::vec(edit, 1..6)).prop_map(|(source, edits)| {
        let mut text: Vec<char> = source.chars().collect();
        for (at, cut, insert) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + cut).min(text.len());
            text.splice(at..end, insert.chars());
        }
        text.into_iter().collect()
    })
}

fn holds_for(source: &str) -> Result<(), TestCaseError> {
    let lines = locate::Lines::of(source).len() + 1;
    if let Err(diagnostics) = check(source) {
        prop_assert!(!diagnostics.is_empty());
        for diagnostic in &diagnostics {
            prop_assert!(diagnostic.line >= 1 && diagnostic.column >= 1);
            prop_assert!(diagnostic.line as usize <= lines, "{}", diagnostic);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn reading_mutated_manifests_never_panics(source in mutated()) {
        holds_for(&source)?;
    }

    #[test]
    fn reading_any_text_never_panics(source in any::<String>()) {
        holds_for(&source)?;
    }

    #[test]
    fn reading_any_characters_of_yaml_never_panics(source in "[\\[\\]{}:,&*!|>'\"%@#? \t\n\r\\\\a-d1.~<-]{0,80}") {
        holds_for(&source)?;
    }
}

fn reference() -> String {
    fs::read_to_string(fixtures().join("../../../docs/manifest.md")).unwrap()
}

#[test]
fn every_example_of_the_reference_is_a_manifest() {
    let text = reference();
    let examples: Vec<&str> = text
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(examples.len() >= 5);
    for example in examples {
        let manifest = parse(example).unwrap_or_else(|diagnostics| panic!("{example}\n{}", show(&diagnostics)));
        assert_eq!(manifest.diagnostics(), [], "{example}");
    }
}

#[test]
fn the_reference_names_every_key_and_every_code() {
    let text = reference();
    for field in [
        field::DAG,
        field::TASK,
        field::SETTINGS,
        field::RETRY_RULE,
        field::SENSOR,
        field::HUMAN,
        field::APPROVAL,
        field::CALLBACK,
        field::LIMITS,
    ]
    .into_iter()
    .flatten()
    {
        assert!(text.contains(&format!("`{}`", field.name)), "{}", field.name);
    }
    for name in crate::TriggerRule::ALL.iter().map(|rule| rule.as_str()) {
        assert!(text.contains(&format!("`{name}`")), "{name}");
    }
    for folder in ["valid", "invalid"] {
        for (_, source) in yaml_files(folder) {
            let diagnostics = check(&source).map_or_else(|diagnostics| diagnostics, |checked| checked.diagnostics);
            for diagnostic in diagnostics {
                assert!(
                    text.contains(&format!("| `{}` |", diagnostic.code)),
                    "{}",
                    diagnostic.code
                );
            }
        }
    }
}

#[test]
fn a_default_that_can_be_described_in_very_many_ways_is_refused_in_bounded_steps() {
    let nested = |depth: usize| "{a: ".repeat(depth) + "{}" + &"}".repeat(depth);
    let branch = r##"{type: object, properties: {a: {$ref: "#/$defs/n"}}, required: [a]}"##;
    let source = format!(
        "dag: d\nparams:\n  p:\n    $defs: {{n: {{anyOf: [{branch}, {branch}]}}}}\n    $ref: \"#/$defs/n\"\n    default: {}\ntasks: {{a: {{latest_only: true}}}}\n",
        nested(20)
    );
    let budget = crate::budget::Budget::new(20_000_000, 64 << 20);
    let manifest = crate::budget::within(budget, || super::read(&source));
    let codes: Vec<_> = manifest.diagnostics().into_iter().map(|finding| finding.code).collect();
    assert_eq!(
        codes,
        ["manifest_param"],
        "it is told that it does not match, and not in how many ways"
    );
}

#[test]
fn what_takes_more_than_may_be_taken_is_said_by_a_code_of_its_own() {
    let source = format!(
        "dag: d\nparams:\n  p:\n    items: {{type: integer}}\n    default: [{}1]\ntasks: {{a: {{latest_only: true}}}}\n",
        "1, ".repeat(20_000)
    );
    assert!(!super::read(&source).has_errors());
    let manifest = crate::budget::within(crate::budget::Budget::new(30_000, 1 << 20), || super::read(&source));
    let codes: Vec<_> = manifest.diagnostics().into_iter().map(|finding| finding.code).collect();
    assert!(codes.contains(&"manifest_too_costly".to_owned()), "{codes:?}");
}
