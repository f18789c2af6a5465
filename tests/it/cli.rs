//! The command line, as an author and an operator use it.

use std::path::{Path, PathBuf};
use std::process::Output;

use crate::support::{Database, Server, run_cli};

/// A directory with the workload component and a manifest beside it.
fn project(dir: &Path, manifest: &str) -> PathBuf {
    std::fs::copy(test_artifacts::E2E_WORKLOAD, dir.join("workload.wasm")).expect("it was built");
    let path = dir.join("dag.yaml");
    std::fs::write(&path, manifest).expect("it can be written");
    path
}

const GOOD: &str = r#"
dag: local
params: {base: 20}
tasks:
  one: {component: ./workload.wasm, task: spin, input: {ms: 0, value: "{{ params.base }}"}}
  two: {component: ./workload.wasm, task: spin, input: {ms: 0, value: "{{ xcom.one + 1 }}"}}
"#;

/// A command in a directory; the user's own files are out of reach.
fn airtight(dir: &Path, arguments: &[&str]) -> Output {
    let home = dir.display().to_string();
    run_cli(
        arguments,
        &[("HOME", &home), ("XDG_CACHE_HOME", &home), ("XDG_CONFIG_HOME", &home)],
        dir,
    )
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned()
}

#[track_caller]
fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{:?}: {}", output.status.code(), text(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_whole_dag_runs_from_local_files() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    project(dir.path(), GOOD);
    let output = airtight(dir.path(), &["dags", "test", "dag.yaml", "--conf", "{\"base\": 41}"]);
    let shown = text(&output);
    assert!(output.status.success(), "{shown}");
    assert!(
        shown.contains("two") && shown.contains("42") && shown.contains("success"),
        "{shown}"
    );
}

#[test]
fn a_local_dag_that_fails_exits_with_1_and_shows_the_log() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    project(
        dir.path(),
        "dag: bad\ntasks:\n  t: {component: ./workload.wasm, task: panic}\n",
    );
    let output = airtight(dir.path(), &["dags", "test", "dag.yaml"]);
    let shown = text(&output);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(
        shown.contains("the last words before the panic") && shown.contains("trapped"),
        "{shown}"
    );
}

const HIDING: &str = r#"
dag: hiding
tasks:
  load: {component: ./workload.wasm, task: spin, input: {ms: 0, value: 1}, retries: 1, retry_delay: 10s}
  clean: {component: ./workload.wasm, task: spin, input: {ms: 0, value: 2}, after: [load], trigger_rule: all_done}
"#;

#[test]
fn instances_of_a_mapped_task_are_one_line_under_its_name() {
    let dir = tempfile::tempdir().expect("a directory");
    project(
        dir.path(),
        r#"
dag: mapped
tasks:
  numbers: {component: ./workload.wasm, task: numbers, input: {count: 3}}
  each: {component: ./workload.wasm, task: spin, input: {ms: 0}, expand: {value: "{{ xcom.numbers }}"}}
"#,
    );
    let shown = succeeds(&airtight(dir.path(), &["dags", "test", "dag.yaml"]));
    let table: Vec<&str> = shown.lines().take_while(|line| !line.trim().is_empty()).collect();
    assert!(table.iter().any(|line| line.starts_with("numbers ")), "{shown}");
    assert!(table.iter().any(|line| line.starts_with("each [3/3] ")), "{shown}");
}

#[test]
fn a_simulation_tells_which_failures_nobody_would_notice() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    project(dir.path(), HIDING);
    let shown = succeeds(&airtight(dir.path(), &["dags", "simulate", "dag.yaml"]));
    let words = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "success after 2.0s",
        "FAILURES THAT NOBODY WOULD NOTICE (1)",
        "`clean` (all_done) ends well all the same",
        "a second, seed 1",
    ] {
        assert!(words.contains(part), "`{part}` is not in:\n{shown}");
    }
    assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");
    let strict = airtight(dir.path(), &["dags", "simulate", "dag.yaml", "--strict"]);
    assert_eq!(strict.status.code(), Some(1), "{}", text(&strict));
    let asked = [
        "dags",
        "simulate",
        "dag.yaml",
        "--output",
        "json",
        "--seed",
        "9",
        "--fail",
        "load=once",
        "--task-time",
        "clean=1m",
    ];
    let json = succeeds(&airtight(dir.path(), &asked));
    assert_eq!(
        json,
        succeeds(&airtight(dir.path(), &asked)),
        "the same seed, the same answer"
    );
    let json: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    // A second, ten to wait, a second, a minute.
    assert_eq!(json["requested"]["run_time"], 72.0, "{json}");
    assert_eq!(json["requested"]["task_instances"][0]["tries"], 2, "{json}");
    assert_eq!(json["unnoticed"][0]["task_id"], "load", "{json}");
    let wrong = airtight(dir.path(), &["dags", "simulate", "dag.yaml", "--fail", "lod=once"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", text(&wrong));
    assert!(text(&wrong).contains("lod"), "{}", text(&wrong));
}

#[test]
fn one_task_runs_without_a_server() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    project(dir.path(), GOOD);
    let arguments = [
        "tasks",
        "test",
        "workload.wasm",
        "sum",
        "--input",
        "{\"values\": [1, 2, 39]}",
    ];
    let shown = succeeds(&airtight(dir.path(), &arguments));
    assert!(shown.contains("42"), "{shown}");
    let wrong = airtight(dir.path(), &["tasks", "test", "workload.wasm", "summ", "--input", "{}"]);
    assert!(!wrong.status.success());
    assert!(text(&wrong).contains("sum"), "{}", text(&wrong));
}

#[test]
fn a_manifest_with_errors_shows_all_of_them_with_their_places() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let manifest = "dag: broken\ntasks:\n  a: {component: ./workload.wasm, task: spinn, inputs: {}}\n  b: {component: \
                    ./workload.wasm, task: skip, after: [aa]}\n";
    project(dir.path(), manifest);
    let output = airtight(dir.path(), &["dags", "check", "dag.yaml"]);
    let shown = text(&output);
    assert_eq!(output.status.code(), Some(2), "{shown}");
    for part in ["dag.yaml:3:", "dag.yaml:4:", "inputs", "aa"] {
        assert!(shown.contains(part), "`{part}` is not in:\n{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loop_of_build_deploy_trigger_read() {
    let server = Server::start(&Database::Own).await;
    let dir = server.scratch();
    project(dir, GOOD);
    let (url, data_dir) = (server.url(), server.data_dir().display().to_string());
    let run = |arguments: &[&str]| {
        let home = dir.display().to_string();
        let environment = [
            ("HOME", home.as_str()),
            ("AIRTIGHT_SERVER", url.as_str()),
            ("AIRTIGHT_DATA_DIR", data_dir.as_str()),
        ];
        run_cli(arguments, &environment, dir)
    };
    succeeds(&run(&["dags", "deploy", "dag.yaml"]));
    let listed = succeeds(&run(&["dags", "list"]));
    assert!(listed.contains("local"), "{listed}");
    succeeds(&run(&[
        "dags", "trigger", "local", "--param", "base=1", "--run-id", "first", "--wait",
    ]));
    let value = succeeds(&run(&["xcom", "get", "local", "first", "two"]));
    assert_eq!(value.trim(), "2");
    let runs = succeeds(&run(&["runs", "list", "local", "--output", "json"]));
    assert!(runs.contains("\"first\"") && runs.contains("\"success\""), "{runs}");
    succeeds(&run(&["runs", "show", "local", "first"]));
    succeeds(&run(&["logs", "local", "first", "two"]));
    succeeds(&run(&["components", "list"]));
    succeeds(&run(&["components", "push", "workload.wasm", "mine@1"]));
    std::fs::write(dir.join("tagged.yaml"), GOOD.replace("./workload.wasm", "mine@1")).expect("it can be written");
    let checked = run(&["dags", "check", "tagged.yaml"]);
    assert!(text(&checked).contains("2 tasks, no errors"), "{}", text(&checked));
    let inspected = succeeds(&run(&["components", "inspect", "mine@1"]));
    assert!(
        inspected.contains("spin") && inspected.contains("sha256:"),
        "{inspected}"
    );
    succeeds(&run(&["runs", "clear", "local", "first", "--yes"]));
    succeeds(&run(&["dags", "pause", "local"]));
    succeeds(&run(&["dags", "unpause", "local"]));
    let simulated = succeeds(&run(&["dags", "simulate", "local"]));
    assert!(simulated.contains("When nothing goes wrong"), "{simulated}");
    let missing = run(&["dags", "show", "nothing"]);
    assert!(!missing.status.success());
    assert!(text(&missing).contains("nothing"), "{}", text(&missing));
}

#[test]
fn a_server_that_is_not_there_is_a_clear_error() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let output = airtight(
        dir.path(),
        &["--server", "http://127.0.0.1:9", "--token", "x", "dags", "list"],
    );
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(text(&output).contains("127.0.0.1:9"), "{}", text(&output));
}

#[test]
fn listening_beyond_loopback_needs_a_flag() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data_dir = dir.path().join("data").display().to_string();
    let output = airtight(
        dir.path(),
        &["standalone", "--data-dir", &data_dir, "--listen", "0.0.0.0:0"],
    );
    assert!(!output.status.success());
    assert!(text(&output).contains("--insecure-http"), "{}", text(&output));
}

#[test]
fn numbers_that_would_be_changed_are_refused_wherever_a_run_gets_them_from() {
    const PASSES_ON: &str = r#"
dag: passes_on
params: {n: 18446744073709551615}
tasks:
  go: {trigger_dag: {dag: local, conf: {base: "{{ params.n * 10 }}"}}}
"#;
    let dir = tempfile::tempdir().expect("a temporary directory");
    project(dir.path(), GOOD);
    let big = "123456789012345678901234567890";
    let given = format!("{{\"base\": {big}}}");
    let param = format!("base={big}");
    for arguments in [
        ["dags", "test", "dag.yaml", "--conf", &given],
        ["dags", "test", "dag.yaml", "--param", &param],
        ["dags", "test", "dag.yaml", "--conf", "{\"base\": 1, \"base\": 2}"],
        ["tasks", "test", "workload.wasm", "spin", &format!("--input={given}")],
    ] {
        let output = airtight(dir.path(), &arguments);
        let shown = text(&output);
        assert_eq!(output.status.code(), Some(2), "{shown}");
        assert!(
            shown.contains("more than 64 bits") || shown.contains("there twice"),
            "{shown}"
        );
    }
    std::fs::write(dir.path().join("passes_on.yaml"), PASSES_ON).expect("it can be written");
    let output = airtight(dir.path(), &["dags", "test", "passes_on.yaml", "--with", "dag.yaml"]);
    let shown = text(&output);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(
        shown.contains("integer overflow") && shown.contains("does not fit into 64 bits"),
        "{shown}"
    );
}

#[test]
fn the_schemas_are_printed_without_a_server() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let schema = |arguments: &[&str]| -> serde_json::Value {
        let printed = succeeds(&airtight(dir.path(), arguments));
        serde_json::from_str(&printed).expect("JSON")
    };
    let manifest = schema(&["dags", "schema"]);
    assert_eq!(manifest["title"], "Airtight DAG manifest");
    assert_eq!(manifest["required"], serde_json::json!(["dag", "tasks"]));
    let describe: serde_json::Value =
        serde_json::from_str(include_str!("../../wit/describe.schema.json")).expect("JSON");
    assert_eq!(schema(&["components", "schema"]), describe);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_can_wait_for_the_server_that_it_has_just_started() {
    let mut server = Server::new(&Database::Own);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (url, home) = (server.url(), dir.path().to_owned());
    let waiting = std::thread::spawn(move || {
        let home_text = home.display().to_string();
        let environment = [("AIRTIGHT_SERVER", url.as_str()), ("HOME", home_text.as_str())];
        run_cli(&["version", "--wait"], &environment, &home)
    });
    server.resume().await;
    let printed = succeeds(&waiting.join().expect("it does not panic"));
    assert!(printed.contains(&format!("at {}", server.url())), "{printed}");
}
