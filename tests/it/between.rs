//! DAGs that trigger and wait for each other, over REST and by the command line, with `kill -9` between a trigger and the child's end.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Client, Database, Server, run_cli, skip};

const PARENT: &str = r#"
dag: parent
params: {value: 7}
tasks:
  solve:
    trigger_dag: {dag: child, conf: {value: "{{ params.value }}"}, wait: true, result: work}
  each:
    trigger_dag: {dag: leaf, conf: {value: "{{ item.n }}"}}
    expand: {n: [1, 2]}
  use: {component: workload@1, task: spin, input: {ms: 0, value: "{{ xcom.solve.result + 1 }}"}}
"#;

/// It waits for a person, so that a test decides when it ends.
const CHILD: &str = r#"
dag: child
params: {value: {type: integer}}
tasks:
  ask: {human: {subject: "Go on with {{ params.value }}?"}}
  work: {component: workload@1, task: spin, input: {ms: 0, value: "{{ params.value }}"}, after: [ask]}
"#;

const LEAF: &str = r#"
dag: leaf
params: {value: 0}
tasks:
  work: {component: workload@1, task: spin, input: {ms: 0, value: "{{ params.value }}"}}
"#;

const WATCHER: &str = r#"
dag: watcher
tasks:
  worked:
    wait_for_dag: {dag: child, task: work, run_id: "{{ conf.run }}", failed_states: [failed, upstream_failed, skipped]}
  ended:
    wait_for_dag: {dag: child, run_id: "{{ conf.run }}"}
  after: {component: workload@1, task: spin, input: {ms: 0, value: 1}, after: [worked, ended]}
"#;

async fn started(database: &Database) -> (Server, Client) {
    let server = Server::start(database).await;
    let client = server.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    let first = client.deploy(PARENT).await.ok();
    // Any order of deploys is fine; what is missing is said.
    let codes: Vec<&Value> = first["diagnostics"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|found| &found["code"])
        .collect();
    assert_eq!(codes, ["manifest_unknown_dag", "manifest_unknown_dag"], "{first}");
    for manifest in [CHILD, LEAF, WATCHER] {
        client.deploy(manifest).await.ok();
    }
    (server, client)
}

async fn deferred(client: &Client, dag: &str, run_id: &str, tasks: u64) {
    let path = format!("/dags/{dag}/dagRuns/{run_id}/taskInstances?state=deferred");
    client
        .until(dag, &path, |answer| answer["total_entries"] == tasks)
        .await;
}

async fn children(client: &Client, run_id: &str, dag: &str) -> Vec<Value> {
    let path = format!("/dags/parent/dagRuns/{run_id}/children");
    let mut runs = client.get(&path).await.ok()["dag_runs"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    runs.retain(|run| run["dag_id"] == dag);
    runs
}

async fn answer(client: &Client, child: &str) {
    let path = format!("/dags/child/dagRuns/{child}/taskInstances/ask/-1/hitlDetails");
    client
        .until("child", &format!("/dags/child/dagRuns/{child}/hitlDetails"), |answer| {
            answer["total_entries"] == 1
        })
        .await;
    client.patch(&path, &json!({"chosen_options": ["OK"]})).await.ok();
}

fn id(run: &Value) -> String {
    run["dag_run_id"].as_str().expect("a run id").to_owned()
}

async fn survives_a_kill(database: Database) {
    let (mut server, client) = started(&database).await;
    let run_id = client.trigger("parent", json!({"value": 41})).await;
    deferred(&client, "parent", &run_id, 1).await;
    let child = id(&children(&client, &run_id, "child").await[0]);
    let watcher = client.trigger("watcher", json!({"run": child})).await;
    deferred(&client, "watcher", &watcher, 2).await;

    server.kill();
    server.resume().await;
    let client = server.client().await;
    deferred(&client, "parent", &run_id, 1).await;
    deferred(&client, "watcher", &watcher, 2).await;
    answer(&client, &child).await;
    assert_eq!(client.wait("parent", &run_id).await, "success");
    assert_eq!(client.wait("watcher", &watcher).await, "success");

    let triggered = children(&client, &run_id, "child").await;
    assert_eq!(triggered.len(), 1, "it was triggered once: {triggered:?}");
    let parent = json!({"dag_id": "parent", "dag_run_id": run_id, "task_id": "solve", "map_index": -1, "depth": 1});
    assert_eq!(triggered[0]["parent"], parent);
    assert_eq!(
        (&triggered[0]["triggered_by"], &triggered[0]["run_type"]),
        (&json!("operator"), &json!("manual"))
    );
    assert_eq!(children(&client, &run_id, "leaf").await.len(), 2);
    let published = client.xcom("parent", &run_id, "solve", "return_value").await;
    assert_eq!(
        published,
        json!({"dag_id": "child", "run_id": child, "state": "success", "result": 41})
    );
    assert_eq!(client.xcom("parent", &run_id, "solve", "trigger_run_id").await, child);
    assert_eq!(client.xcom("parent", &run_id, "use", "return_value").await, 42);
    assert_eq!(client.task_instances("parent", &run_id).await["solve"]["try_number"], 1);

    // What has ended counts at once.
    let late = client.trigger("watcher", json!({"run": child})).await;
    assert_eq!(client.wait("watcher", &late).await, "success");

    // Both ways by the command line.
    let (url, token) = (server.url(), client.token().to_owned());
    let environment = [("AIRTIGHT_SERVER", url.as_str()), ("AIRTIGHT_TOKEN", token.as_str())];
    let show = |dag: &'static str, run: &str| {
        let output = run_cli(&["runs", "show", dag, run], &environment, server.scratch());
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let shown = show("parent", &run_id);
    assert!(shown.contains(&child) && shown.contains("leaf"), "{shown}");
    let shown = show("child", &child);
    assert!(shown.contains(&format!("task solve of parent {run_id}")), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_survives_a_kill_on_sqlite() {
    survives_a_kill(Database::Own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_survives_a_kill_on_postgres() {
    match test_postgres::database().await {
        Some(database) => survives_a_kill(Database::Postgres(Box::new(database))).await,
        None => skip("a_child_survives_a_kill_on_postgres", "PostgreSQL is not installed"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_cancelled_with_whom_it_waits_for_and_told_when_that_is_gone() {
    let (_server, client) = started(&Database::Own).await;
    let run_id = client.trigger("parent", json!({})).await;
    deferred(&client, "parent", &run_id, 1).await;
    let child = id(&children(&client, &run_id, "child").await[0]);
    client
        .patch(&format!("/dags/parent/dagRuns/{run_id}"), &json!({"state": "failed"}))
        .await
        .ok();
    assert_eq!(client.wait("child", &child).await, "failed");

    let run_id = client.trigger("parent", json!({})).await;
    deferred(&client, "parent", &run_id, 1).await;
    let child = id(&children(&client, &run_id, "child").await[0]);
    let gone = client.delete(&format!("/dags/child/dagRuns/{child}")).await;
    assert!(gone.status.is_success(), "{}", gone.text);
    assert_eq!(client.wait("parent", &run_id).await, "failed");
    let solve = &client.task_instances("parent", &run_id).await["solve"];
    assert_eq!(solve["failure_code"], "triggered_run_deleted", "{solve}");

    client.patch("/dags/child", &json!({"is_paused": true})).await.ok();
    let run_id = client.trigger("parent", json!({})).await;
    assert_eq!(client.wait("parent", &run_id).await, "failed");
    let solve = &client.task_instances("parent", &run_id).await["solve"];
    assert_eq!(solve["failure_code"], "trigger_dag_paused", "{solve}");
}

#[test]
fn other_dags_come_from_files_in_a_local_test() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::copy(test_artifacts::E2E_WORKLOAD, dir.path().join("workload.wasm")).expect("it was built");
    for (name, manifest) in [("parent", PARENT), ("child", CHILD), ("leaf", LEAF)] {
        let manifest = manifest.replace("workload@1", "./workload.wasm");
        std::fs::write(dir.path().join(format!("{name}.yaml")), manifest).expect("it can be written");
    }
    let home = dir.path().display().to_string();
    let environment = [("HOME", home.as_str()), ("XDG_CACHE_HOME", home.as_str())];
    let test = |with: &[&str]| {
        let arguments = [&["dags", "test", "parent.yaml"], with].concat();
        let output = run_cli(&arguments, &environment, dir.path());
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    let (code, shown) = test(&["--with", "child.yaml", "--with", "leaf.yaml"]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(
        shown.contains("Go on with 7?") && shown.contains("trigger_run_id"),
        "{shown}"
    );
    let (code, shown) = test(&[]);
    assert_eq!(code, Some(1), "{shown}");
    assert!(
        shown.contains("--with FILE") && shown.contains("does not exist"),
        "{shown}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_airflow_client_reads_parents_and_children() {
    let Some(python) = std::env::var_os("AIRTIGHT_PYTHON") else {
        skip(
            "the_official_airflow_client_reads_parents_and_children",
            "AIRTIGHT_PYTHON names no interpreter with the client",
        );
        return;
    };
    let (server, client) = started(&Database::Own).await;
    let run_id = client.trigger("parent", json!({})).await;
    deferred(&client, "parent", &run_id, 1).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/children.py");
    let (url, password) = (server.url(), server.password());
    let output = tokio::task::spawn_blocking(move || {
        Command::new(python)
            .arg(script)
            .args([&url, &password, &run_id])
            .output()
    });
    let output = output.await.expect("no panic").expect("Python starts");
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&text));
}
