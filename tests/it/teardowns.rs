//! Setups and teardowns over REST, on both databases: what follows a group, what is cleared along, cancelled runs.

use serde_json::{Value, json};

use crate::support::{Client, Database, Server, skip};

const GUARDED: &str = r#"
dag: guarded
params: {ms: 1}
tasks:
  g:
    tasks:
      up: {component: workload@1, task: spin, setup: true, input: {ms: "{{ params.ms }}", value: 1}}
      w: {component: workload@1, task: fail_until, after: [up], input: {try_number: 2}}
      down: {component: workload@1, task: spin, after: [up, w], teardown: true, input: {ms: 1, value: 1}}
  publish: {component: workload@1, task: spin, after: [g], input: {ms: 1, value: 2}}
  note_it: {component: workload@1, task: spin, input: {ms: 1, value: 2}}
"#;

async fn seen(client: &Client, run_id: &str) -> Vec<(String, String, u64)> {
    let rows = client.task_instances("guarded", run_id).await;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    rows.iter()
        .map(|(name, ti)| (name.clone(), text(&ti["state"]), ti["try_number"].as_u64().unwrap_or(0)))
        .collect()
}

fn expected(of: &[(&str, &str, u64)]) -> Vec<(String, String, u64)> {
    let one = |(name, state, tries): &(&str, &str, u64)| ((*name).to_owned(), (*state).to_owned(), *tries);
    let mut all: Vec<_> = of.iter().map(one).collect();
    all.sort();
    all
}

async fn scopes_hold_together(database: Database) {
    let server = Server::start(&database).await;
    let client = server.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    client.deploy(GUARDED).await.ok();

    let run_id = client.trigger("guarded", json!({})).await;
    assert_eq!(client.wait("guarded", &run_id).await, "failed");
    let mut found = seen(&client, &run_id).await;
    found.sort();
    let first = [
        ("g.up", "success", 1),
        ("g.w", "failed", 1),
        ("g.down", "success", 1),
        ("publish", "upstream_failed", 0),
        ("note_it", "success", 1),
    ];
    assert_eq!(
        found,
        expected(&first),
        "what follows the group is what its work allows"
    );

    let clear = json!({"dry_run": false, "dag_run_id": run_id, "only_failed": true});
    let answer = client.post("/dags/guarded/clearTaskInstances", &clear).await.ok();
    assert_eq!(answer["total_entries"], 4, "{answer}");
    assert_eq!(client.wait("guarded", &run_id).await, "success");
    // What follows the group does not wait for the teardown, but the run does.
    let mut found = seen(&client, &run_id).await;
    found.sort();
    let again = [
        ("g.up", "success", 2),
        ("g.w", "success", 2),
        ("g.down", "success", 2),
        ("publish", "success", 1),
        ("note_it", "success", 1),
    ];
    assert_eq!(found, expected(&again), "never on what was torn down");

    let run_id = client.trigger("guarded", json!({"ms": 60_000})).await;
    let path = format!("/dags/guarded/dagRuns/{run_id}/taskInstances/g.up");
    client.until("guarded", &path, |ti| ti["state"] == "running").await;
    let cancel = json!({"state": "failed"});
    client
        .patch(&format!("/dags/guarded/dagRuns/{run_id}"), &cancel)
        .await
        .ok();
    assert_eq!(
        client.wait("guarded", &run_id).await,
        "failed",
        "cancelled in the setup"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_hold_together_on_sqlite() {
    scopes_hold_together(Database::Own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_hold_together_on_postgres() {
    match test_postgres::database().await {
        Some(database) => scopes_hold_together(Database::Postgres(Box::new(database))).await,
        None => skip("scopes_hold_together_on_postgres", "PostgreSQL is not installed"),
    }
}
