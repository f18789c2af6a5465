//! Runs and the runs before them, with the real server.

use serde_json::{Value, json};

use crate::support::{Client, Database, Server, run_cli};

async fn server() -> (Server, Client) {
    let server = Server::start(&Database::Own).await;
    let client = server.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    (server, client)
}

/// Starts a run with a logical date; answers its id.
async fn dated(client: &Client, dag: &str, day: u32, conf: Value) -> String {
    let body = json!({"logical_date": format!("2026-01-{day:02}T00:00:00Z"), "conf": conf});
    let run = client.post(&format!("/dags/{dag}/dagRuns"), &body).await.ok();
    run["dag_run_id"].as_str().expect("it has an id").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_waits_for_the_run_before_and_says_so() {
    let (mut server, client) = server().await;
    let manifest = "
dag: daily
defaults: {retries: 0, depends_on_past: true}
tasks:
  load: {component: workload@1, task: sum, input: {values: '{{ params.values }}'}}
  report: {component: workload@1, task: spin, after: [load], input: {ms: 0, value: 1}, depends_on_past: false}
params: {values: {type: [array, string], default: [1, 2]}}
";
    client.deploy(manifest).await.ok();
    let first = dated(&client, "daily", 1, json!({"values": "no list"})).await;
    assert_eq!(client.wait("daily", &first).await, "failed");
    let second = dated(&client, "daily", 2, json!({})).await;
    let base = format!("/dags/daily/dagRuns/{second}");
    let reason = format!("`depends_on_past`: `load` has not succeeded in the run before, `{first}`");
    let waits = |run: &Value| run["state"] == "running";
    client.until("daily", &base, waits).await;
    let why = client
        .get(&format!("{base}/taskInstances/load/dependencies"))
        .await
        .ok();
    assert_eq!(
        why,
        json!({"dependencies": [{"name": "Previous Dagrun State", "reason": reason}]})
    );
    let tasks = client.get("/dags/daily/tasks").await.ok();
    assert_eq!(tasks["tasks"][0]["depends_on_past"], true);

    // It waits on after a crash.
    server.kill();
    server.resume().await;
    let client = server.client().await;
    let url = server.url();
    let environment = [("AIRTIGHT_SERVER", url.as_str()), ("AIRTIGHT_TOKEN", client.token())];
    let shown = run_cli(&["runs", "show", "daily", &second], &environment, server.scratch());
    let shown = String::from_utf8_lossy(&[shown.stdout, shown.stderr].concat()).into_owned();
    assert!(shown.contains("running") && shown.contains(&reason), "{shown}");

    // Somebody finds that the failure does not matter.
    let mark = json!({"new_state": "success"});
    client
        .patch(&format!("/dags/daily/dagRuns/{first}/taskInstances/load"), &mark)
        .await
        .ok();
    assert_eq!(client.wait("daily", &second).await, "success");
}
