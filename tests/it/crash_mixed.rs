//! `kill -9` at random points while everything that a run can have is under way at once: setup and teardown, of elements too, mapped tasks and
//! groups, a loop, a condition, runs of another DAG that are shared or reset, a sensor, a question to a person, retries, a branch, a skip, a pool, a run of another DAG, callbacks, and people who
//! clear what has ended.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::Rng as _;
use rand::seq::IteratorRandom as _;
use serde_json::{Value, json};

use crate::crash::trigger_until_gone;
use crate::support::{Client, Database, Server, seeded, skip};

const EVERYTHING: &str = r#"
dag: everything
max_active_runs: 100
max_active_tasks: 200
params:
  base: {type: integer, default: 0}
defaults: {max_infra_retries: 100, retry_delay: 100ms}
tasks:
  prepare: {component: workload@1, task: spin, setup: true, input: {ms: 1, value: 1}}
  numbers: {component: workload@1, task: numbers, after: [prepare], input: {count: 4}}
  square:
    component: workload@1
    task: spin
    pool: narrow
    input: {ms: 2}
    expand: {value: "{{ xcom.numbers }}"}
  total: {component: workload@1, task: sum_items, after: [square], input: {task: square}}
  each:
    expand: {number: "{{ xcom.numbers }}"}
    tasks:
      first: {component: workload@1, task: spin, input: {ms: 1, value: "{{ item.number + params.base }}"}}
      up: {component: workload@1, task: spin, setup: true, input: {ms: 0, value: "{{ item.number }}"}}
      second: {component: workload@1, task: spin, after: [up], input: {ms: 1, value: "{{ xcom.first + 1000 }}"}}
      down: {component: workload@1, task: spin, after: [up, second], teardown: true, input: {ms: 0, value: 0}}
  all: {component: workload@1, task: sum, input: {values: "{{ xcom['each.second'] }}"}}
  solve:
    after: [prepare]
    loop: {until: "{{ xcom.step.done }}", max: 20}
    tasks:
      step:
        component: workload@1
        task: climb
        input: {from: "{{ previous.step.value | default(0) }}", by: "{{ iteration + 1 }}", to: 15, ms: 1}
  publish: {component: workload@1, task: spin, input: {ms: 0, value: "{{ xcom['solve.step'].value }}"}}
  poke: {component: workload@1, task: third_poke, after: [prepare], sensor: {timeout: 10m}}
  ask:
    after: [prepare]
    human: {subject: "Is it {{ params.base }}?", options: [yes, no], defaults: [yes], timeout: 1s}
  flaky: {component: workload@1, task: fail_until, after: [prepare], retries: 2, input: {try_number: 3}}
  way:
    component: workload@1
    task: choose
    after: [prepare]
    branches: {left: [left], right: [right]}
    input: {left: false}
  left: {component: workload@1, task: spin, after: [way], input: {ms: 0, value: 1}}
  right: {component: workload@1, task: spin, after: [way], input: {ms: 0, value: 2}}
  idle: {component: workload@1, task: skip, after: [prepare]}
  other:
    after: [prepare]
    trigger_dag: {dag: child, conf: {base: "{{ params.base }}"}, wait: true, result: double}
  shared:
    after: [prepare]
    trigger_dag: {dag: child, run_id: shared, if_exists: reuse, wait: true, result: double}
  again:
    after: [numbers]
    trigger_dag: {dag: child, run_id: "again_{{ run_id }}", conf: {base: "{{ params.base }}"}, if_exists: reset, wait: true, result: double}
  off: {component: workload@1, task: spin, after: [prepare], when: "{{ params.base < 0 }}", input: {ms: 0, value: 0}}
  doubled: {component: workload@1, task: spin, input: {ms: 0, value: "{{ xcom.other.result }}"}}
  join:
    component: workload@1
    task: spin
    after: [total, all, publish, poke, ask, flaky, left, right, idle, doubled, shared, again, off]
    trigger_rule: none_failed
    input: {ms: 1, value: "{{ params.base }}"}
    on_success:
      - {notify: "joined {{ params.base }}"}
      - {component: workload@1, task: spin, input: {ms: 1, value: 0}}
  tidy: {component: workload@1, task: spin, after: [prepare, join], teardown: {on_failure_fail_dagrun: true}, input: {ms: 1, value: 0}}
"#;

const CHILD: &str = r#"
dag: child
max_active_runs: 100
params:
  base: {type: integer, default: 0}
defaults: {max_infra_retries: 100}
tasks:
  double: {component: workload@1, task: spin, input: {ms: 5, value: "{{ params.base * 2 }}"}}
"#;

const ROUNDS: u32 = 8;

async fn survives_kills(database: Database) {
    let mut random = seeded();
    let mut server = Server::start(&database).await;
    let client = server.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    client.post("/pools", &json!({"name": "narrow", "slots": 3})).await.ok();
    client.deploy(CHILD).await.ok();
    client.deploy(EVERYTHING).await.ok();

    let mut acknowledged: BTreeSet<String> = BTreeSet::new();
    let mut cleared: BTreeSet<String> = BTreeSet::new();
    for round in 0..ROUNDS {
        let client = server.client().await;
        let triggers = tokio::spawn(trigger_until_gone(client, "everything", round));
        if let Some(run_id) = acknowledged.iter().choose(&mut random) {
            clear(&server.client().await, run_id).await;
            cleared.insert(run_id.clone());
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..600))).await;
        server.kill();
        acknowledged.extend(triggers.await.expect("no panic"));
        server.resume().await;
    }

    let client = server.client().await;
    assert!(!acknowledged.is_empty());
    for run_id in &acknowledged {
        ended_well(&client, run_id, cleared.contains(run_id)).await;
    }
    let pool = client.get("/pools/narrow").await.ok();
    assert_eq!(pool["occupied_slots"], 0, "{pool}");
}

/// A person runs the numbers and all that follows again.
async fn clear(client: &Client, run_id: &str) {
    let body = json!({
        "dry_run": false, "dag_run_id": run_id, "task_ids": ["numbers"], "include_downstream": true, "only_failed": false,
    });
    client.post("/dags/everything/clearTaskInstances", &body).await.ok();
}

async fn ended_well(client: &Client, run_id: &str, cleared: bool) {
    let state = client.wait("everything", run_id).await;
    let rows = instances(client, run_id).await;
    assert_eq!(state, "success", "{run_id}: {rows:#?}");
    let base: i64 = run_id
        .rsplit('_')
        .next()
        .and_then(|text| text.parse().ok())
        .expect("ends in a number");
    for (task, value) in [
        ("total", json!([4, 6])),
        ("all", json!(4 * (1_000 + base) + 6)),
        ("publish", json!(15)),
        ("flaky", json!(3)),
        ("right", json!(2)),
        ("join", json!(base)),
        ("doubled", json!(2 * base)),
        (
            "shared",
            json!({"dag_id": "child", "run_id": "shared", "state": "success", "result": 0}),
        ),
        (
            "again",
            json!({"dag_id": "child", "run_id": format!("again_{run_id}"), "state": "success", "result": 2 * base}),
        ),
    ] {
        let path = format!("/dags/everything/dagRuns/{run_id}/taskInstances/{task}/xcomEntries/return_value");
        let found = client.get(&path).await.body["value"].clone();
        if found != value {
            let run = client.get(&format!("/dags/everything/dagRuns/{run_id}")).await.ok();
            let log = client.get("/eventLogs?limit=100").await.ok();
            panic!(
                "{run_id} {task}: {found}; {run:#}, before: {rows:#?}, now: {:#?} {log:#}",
                instances(client, run_id).await
            );
        }
    }
    let base_path = format!("/dags/everything/dagRuns/{run_id}");
    let children = client.get(&format!("{base_path}/children")).await.ok();
    let children: Vec<&Value> = children["dag_runs"].as_array().into_iter().flatten().collect();
    // Of all that share a run one has made it.
    let own: Vec<&&Value> = children
        .iter()
        .filter(|child| child["dag_run_id"] != "shared")
        .collect();
    assert_eq!(own.len(), 2, "{run_id}: {children:?}");
    for child in &children {
        assert_eq!(child["state"], "success", "{run_id}: {children:?}");
    }
    if !cleared {
        // Callbacks are carried out a moment later.
        let callbacks = client
            .until("everything", &format!("{base_path}/callbacks"), |answer| {
                let rows = answer["callbacks"].as_array().expect("a list");
                rows.iter()
                    .all(|row| row["state"] != "queued" && row["state"] != "running")
            })
            .await;
        assert_eq!(callbacks["total_entries"], 2, "{run_id}: {callbacks}");
        let told = callbacks["callbacks"]
            .as_array()
            .expect("a list")
            .iter()
            .find(|row| row["kind"] == "notification");
        assert_eq!(
            told.map(|row| &row["text"]),
            Some(&json!(format!("joined {base}"))),
            "{callbacks}"
        );
    }
    let answer = client.xcom("everything", run_id, "ask", "return_value").await;
    assert_eq!(answer["chosen_options"], json!(["yes"]), "{answer}");
    let mut counts: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
    for ti in &rows {
        let task = ti["task_id"].as_str().expect("a name");
        *counts.entry(task).or_default() += 1;
        let skipped = ["left", "idle", "off"].contains(&task);
        assert_eq!(
            ti["state"],
            if skipped { "skipped" } else { "success" },
            "{run_id}: {ti}"
        );
        let tries = match task {
            "left" => 0,
            "flaky" => 3,
            _ => 1,
        };
        // What was cleared has the tries of before, too.
        if !cleared {
            assert_eq!(ti["try_number"], tries, "a loss spent a retry: {run_id}: {ti}");
        }
        let path = format!(
            "/dags/everything/dagRuns/{run_id}/taskInstances/{task}/{}/tries",
            ti["map_index"]
        );
        let path = if ti["map_index"] == -1 {
            path.replace("/-1/", "/")
        } else {
            path
        };
        let history = client.get(&path).await.ok();
        let numbers: Vec<&Value> = history["task_instances"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|of| &of["try_number"])
            .collect();
        let unique: BTreeSet<u64> = numbers.iter().filter_map(|number| number.as_u64()).collect();
        assert_eq!(unique.len(), numbers.len(), "a try ended twice: {history}");
    }
    let expected = [
        ("square", 4),
        ("each.first", 4),
        ("each.up", 4),
        ("each.second", 4),
        ("each.down", 4),
        ("solve.step", 5),
    ];
    for (task, count) in expected {
        assert_eq!(counts.get(task), Some(&count), "{run_id} {task}");
    }
    assert_eq!(rows.len(), 5 * 4 + 5 + 19, "{counts:?}");
}

async fn instances(client: &Client, run_id: &str) -> Vec<Value> {
    let path = format!("/dags/everything/dagRuns/{run_id}/taskInstances?limit=100");
    let answer = client.get(&path).await.ok();
    answer["task_instances"].as_array().expect("a list").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_survives_kills_on_sqlite() {
    survives_kills(Database::Own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_survives_kills_on_postgres() {
    match test_postgres::database().await {
        Some(database) => survives_kills(Database::Postgres(Box::new(database))).await,
        None => skip("everything_survives_kills_on_postgres", "PostgreSQL is not installed"),
    }
}
