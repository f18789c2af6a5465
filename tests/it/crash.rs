//! `kill -9` at random points, again and again: nothing acknowledged is lost, no result is committed twice, and losses of the
//! machine do not spend the tasks' retries.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::Rng as _;
use serde_json::{Value, json};

use crate::support::{Client, Database, Server, seeded, skip};

/// Ten tasks side by side between a start and a join, and a chain beside them.
const MIX: &str = r#"
dag: mix
max_active_runs: 100
defaults: {max_infra_retries: 100}
tasks:
  start: {component: workload@1, task: spin, input: {ms: 1, value: "{{ params.base }}"}}
  side_0: {component: workload@1, task: spin, input: {ms: 3, value: "{{ xcom.start + 0 }}"}}
  side_1: {component: workload@1, task: spin, input: {ms: 1, value: "{{ xcom.start + 1 }}"}}
  side_2: {component: workload@1, task: spin, input: {ms: 8, value: "{{ xcom.start + 2 }}"}}
  side_3: {component: workload@1, task: spin, input: {ms: 2, value: "{{ xcom.start + 3 }}"}}
  side_4: {component: workload@1, task: spin, input: {ms: 30, value: "{{ xcom.start + 4 }}"}}
  side_5: {component: workload@1, task: spin, input: {ms: 1, value: "{{ xcom.start + 5 }}"}}
  link_1: {component: workload@1, task: spin, after: [start], input: {ms: 4, value: 1}}
  link_2: {component: workload@1, task: spin, input: {ms: 4, value: "{{ xcom.link_1 + 1 }}"}}
  link_3: {component: workload@1, task: spin, input: {ms: 4, value: "{{ xcom.link_2 + 1 }}"}}
  join:
    component: workload@1
    task: sum
    input:
      values:
        - "{{ xcom.side_0 }}"
        - "{{ xcom.side_1 }}"
        - "{{ xcom.side_2 }}"
        - "{{ xcom.side_3 }}"
        - "{{ xcom.side_4 }}"
        - "{{ xcom.side_5 }}"
        - "{{ xcom.link_3 }}"
params:
  base: {type: integer, default: 0}
"#;

const ROUNDS: u32 = 12;

async fn survives_kills(database: Database) {
    let mut random = seeded();
    let mut server = Server::start(&database).await;
    let client = server.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    client.deploy(MIX).await.ok();

    let mut acknowledged: BTreeSet<String> = BTreeSet::new();
    for round in 0..ROUNDS {
        let client = server.client().await;
        let triggers = tokio::spawn(trigger_until_gone(client, "mix", round));
        tokio::time::sleep(Duration::from_millis(random.random_range(0..250))).await;
        server.kill();
        acknowledged.extend(triggers.await.expect("no panic"));
        server.resume().await;
    }

    let client = server.client().await;
    assert!(!acknowledged.is_empty());
    for run_id in &acknowledged {
        let state = client.wait("mix", run_id).await;
        assert_eq!(
            state,
            "success",
            "{run_id}: {:#?}",
            client.task_instances("mix", run_id).await
        );
        let base = run_id
            .rsplit('_')
            .next()
            .and_then(|text| text.parse::<i64>().ok())
            .expect("ends in a number");
        let sum = 6 * base + 15 + 3;
        assert_eq!(
            client.xcom("mix", run_id, "join", "return_value").await,
            json!(sum),
            "run {run_id}"
        );
        let task_instances = client.task_instances("mix", run_id).await;
        assert_eq!(task_instances.len(), 11);
        for (task_id, ti) in &task_instances {
            assert_eq!(ti["state"], "success", "{run_id} {task_id}: {ti}");
            assert_eq!(ti["try_number"], 1, "a loss spent a retry: {run_id} {task_id}");
            let path = format!("/dags/mix/dagRuns/{run_id}/taskInstances/{task_id}/tries");
            let tries = client.get(&path).await.ok();
            assert_eq!(tries["total_entries"], 1, "a try ended twice: {tries}");
        }
    }
    let runs = client.get("/dags/mix/dagRuns?limit=1").await.ok();
    let total = runs["total_entries"].as_u64().expect("a count");
    assert!(
        total >= acknowledged.len() as u64,
        "{total} runs, {} acknowledged",
        acknowledged.len()
    );
}

/// Triggers runs until the server is gone; answers those that it acknowledged.
pub(crate) async fn trigger_until_gone(client: Client, dag_id: &'static str, round: u32) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for number in 0..40 {
        let base = i64::from(round) * 100 + number;
        let run_id = format!("round_{round}_{base}");
        let body = json!({"dag_run_id": run_id, "logical_date": null, "conf": {"base": base}});
        let request = client.request(reqwest::Method::POST, &format!("/dags/{dag_id}/dagRuns"));
        let request = request.json(&body);
        match client.send(request).await {
            Ok(answer) if answer.status.is_success() => {
                assert_eq!(answer.body["dag_run_id"], Value::from(run_id.as_str()));
                acknowledged.push(run_id);
            }
            Ok(answer) => panic!("the trigger answered {}: {}", answer.status, answer.text),
            Err(_) => break,
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn survives_kills_on_sqlite() {
    survives_kills(Database::Own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn survives_kills_on_postgres() {
    match test_postgres::database().await {
        Some(database) => survives_kills(Database::Postgres(Box::new(database))).await,
        None => skip("survives_kills_on_postgres", "PostgreSQL is not installed"),
    }
}

/// SIGTERM hands running tries back: after the restart they run again under the same try number, and nothing counts as a loss.
#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_stop_hands_running_tries_back() {
    let mut server = Server::start(&Database::Own).await;
    let client = server.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    let manifest = "dag: slow\ntasks:\n  t: {component: workload@1, task: spin_until_second_dispatch}\n";
    client.deploy(manifest).await.ok();
    let run_id = client.trigger("slow", json!({})).await;
    let path = format!("/dags/slow/dagRuns/{run_id}/taskInstances/t");
    while client.get(&path).await.ok()["state"] != "running" {
        tokio::task::yield_now().await;
    }
    server.signal(rustix::process::Signal::TERM);
    assert!(server.wait_exit().await.success(), "{}", server.log());
    server.resume().await;
    let client = server.client().await;
    assert_eq!(client.wait("slow", &run_id).await, "success");
    let ti = client.get(&path).await.ok();
    assert_eq!(
        (&ti["state"], &ti["try_number"]),
        (&json!("success"), &json!(1)),
        "{ti}"
    );
}
