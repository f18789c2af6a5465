//! What a manifest says, from the check on the command line to what runs: built-in steps that are mapped, parameters that nobody
//! declared, names of instances, numbers of any length.

use std::process::Output;

use serde_json::{Value, json};

use crate::support::{Database, Server, run_cli};

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned()
}

/// The first thing that anybody translates from Airflow: `TriggerDagRunOperator.partial(…).expand(conf=…)`.
const PARENT: &str = r#"
dag: parent
tasks:
  go:
    trigger_dag: {dag: child, wait: true, conf: "{{ item.conf }}"}
    expand: {conf: [{n: 1}, {n: 2}]}
  named:
    trigger_dag: {dag: child, wait: true, run_id: "named_{{ item.run_id }}", conf: {n: "{{ item.n }}"}}
    expand_kwargs: [{run_id: a, n: 3}, {run_id: b, n: 4}]
"#;

const CHILD: &str = r#"
dag: child
params: {n: {type: integer}}
max_active_runs: 4
tasks:
  add: {component: workload@1, task: spin, input: {ms: 0, value: "{{ params.n }}"}}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_step_between_dags_is_mapped_over_elements_with_the_names_of_its_keys() {
    let server = Server::start(&Database::Own).await;
    let client = server.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    client.deploy(CHILD).await.ok();
    client.deploy(PARENT).await.ok();
    let run_id = client.trigger("parent", json!({})).await;
    let state = client.wait("parent", &run_id).await;
    let tis = client.task_instances("parent", &run_id).await;
    assert_eq!(state, "success", "{tis:?}");
    let runs = client.get("/dags/child/dagRuns?order_by=id").await.ok();
    let mut given: Vec<i64> = runs["dag_runs"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|run| run["conf"]["n"].as_i64())
        .collect();
    given.sort_unstable();
    assert_eq!(given, [1, 2, 3, 4]);
    client.get("/dags/child/dagRuns/named_b").await.ok();
}

const MEASURE: &str = r#"
dag: measure
params: {threshold: 5}
tasks:
  numbers: {component: workload@1, task: numbers, input: {count: 3}}
  each: {component: workload@1, task: spin, input: {ms: 0}, expand: {value: "{{ xcom.numbers }}"}}
  huge: {component: workload@1, task: huge, input: {count: "{{ params.threshold }}"}}
  used: {component: workload@1, task: spin, input: {ms: 0, value: "{{ conf.used | default(0) }}"}}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_named_as_they_are_shown_and_numbers_printed_as_they_are() {
    let server = Server::start(&Database::Own).await;
    let client = server.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    client.deploy(MEASURE).await.ok();
    let (url, data_dir) = (server.url(), server.data_dir().display().to_string());
    let run = |arguments: &[&str]| {
        let environment = [
            ("AIRTIGHT_SERVER", url.as_str()),
            ("AIRTIGHT_DATA_DIR", data_dir.as_str()),
        ];
        run_cli(arguments, &environment, server.scratch())
    };
    let succeeds = |arguments: &[&str]| {
        let output = run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };

    // What is passed and nobody reads is told by name.
    let output = run(&[
        "dags",
        "trigger",
        "measure",
        "--run-id",
        "r",
        "--wait",
        "-p",
        "thresold=1",
        "--conf",
        "{\"used\": 1, \"other\": 2}",
    ]);
    let shown = text(&output);
    assert!(output.status.success(), "{shown}");
    assert!(
        shown.contains("`thresold` is not a parameter of the DAG: did you mean `threshold`?")
            && shown.contains("`other` is not a parameter of the DAG: nothing of the DAG reads it"),
        "{shown}"
    );
    assert!(
        !shown.contains("`used`") && !shown.contains("`threshold` is not"),
        "{shown}"
    );

    // An instance is called what it is shown as, in every command that takes a task.
    assert_eq!(succeeds(&["xcom", "get", "measure", "r", "each[2]"]).trim(), "2");
    let listed: Value =
        serde_json::from_str(&succeeds(&["xcom", "list", "measure", "r", "each[1]", "-o", "json"])).expect("JSON");
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    let shown = succeeds(&["runs", "show", "measure", "r", "--task", "each[1]"]);
    assert!(shown.contains("each[1]") && !shown.contains("each[2]"), "{shown}");
    let would = succeeds(&["tasks", "set-state", "measure", "r", "each[1]", "failed", "--dry-run"]);
    assert!(would.contains("each [1/1]"), "{would}");
    let would = succeeds(&["runs", "clear", "measure", "r", "each[1]", "--dry-run"]);
    assert!(would.contains("each [1/1]"), "{would}");
    succeeds(&["logs", "measure", "r", "each[1]"]);

    // A number of any length is printed digit for digit.
    let digits = "123456789012345678901234567895";
    assert_eq!(succeeds(&["xcom", "get", "measure", "r", "huge"]).trim(), digits);
    for format in ["json", "yaml"] {
        let shown = succeeds(&["xcom", "get", "measure", "r", "huge", "-o", format]);
        assert!(shown.contains(digits), "{shown}");
    }

    // A DAG may insist on what it declares.
    client
        .deploy(&MEASURE.replace("params:", "strict_params: true\nparams:"))
        .await
        .ok();
    let output = run(&["dags", "trigger", "measure", "-p", "thresold=1"]);
    let shown = text(&output);
    assert_eq!(output.status.code(), Some(2), "{shown}");
    assert!(
        shown.contains("parameter `thresold` is not declared; did you mean `threshold`?")
            && shown.contains("invalid_params"),
        "{shown}"
    );
    succeeds(&["dags", "trigger", "measure", "-p", "threshold=1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_day_of_the_calendar_is_a_logical_date() {
    let server = Server::start(&Database::Own).await;
    let client = server.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    client.deploy(CHILD).await.ok();
    let body = json!({"logical_date": "9999-12-31T23:59:59Z", "dag_run_id": "last", "conf": {"n": 1}});
    let run = client.post("/dags/child/dagRuns", &body).await.ok();
    let shown = run["logical_date"].as_str().expect("a date").to_owned();
    assert!(shown.starts_with("9999-12-31T23:59:59"), "{run}");
    assert_eq!(client.wait("child", "last").await, "success");
    let listed = client
        .get("/dags/child/dagRuns?logical_date_gte=9999-12-31T23:59:58Z")
        .await
        .ok();
    assert_eq!(listed["total_entries"], 1, "{listed}");
    let dots = client
        .post(
            "/dags/child/dagRuns",
            &json!({"logical_date": null, "dag_run_id": "..", "conf": {"n": 1}}),
        )
        .await
        .expect(422);
    assert!(dots.to_string().contains("mean a place in a path"), "{dots}");
}
