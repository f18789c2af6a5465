//! Runs and tasks that wait for slots of any kind, with the real server: they go on when they can, and say meanwhile for what they wait.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Client, Database, Server, run_cli};

async fn server() -> (Server, Client) {
    let server = Server::start(&Database::Own).await;
    let client = server.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    (server, client)
}

async fn dated(client: &Client, dag: &str, day: u32, conf: Value) -> String {
    let body = json!({"logical_date": format!("2026-01-{day:02}T00:00:00Z"), "conf": conf});
    let run = client.post(&format!("/dags/{dag}/dagRuns"), &body).await.ok();
    run["dag_run_id"].as_str().expect("it has an id").to_owned()
}

/// Asks why a task instance waits until the answer is `wanted`. Rows of what waits are written a moment after it began to.
async fn until_it_waits(client: &Client, dag: &str, run: &str, task: &str, wanted: &[(&str, &str)]) {
    let path = format!("/dags/{dag}/dagRuns/{run}/taskInstances/{task}/dependencies");
    let wanted: Vec<Value> = wanted
        .iter()
        .map(|(name, reason)| json!({"name": name, "reason": reason}))
        .collect();
    let wanted = json!({ "dependencies": wanted });
    let began = Instant::now();
    loop {
        let found = client.get(&path).await.ok();
        if found == wanted {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{found}\nnot\n{wanted}");
        tokio::task::yield_now().await;
    }
}

fn show(server: &Server, client: &Client, dag: &str, run: &str) -> String {
    let url = server.url();
    let environment = [("AIRTIGHT_SERVER", url.as_str()), ("AIRTIGHT_TOKEN", client.token())];
    let shown = run_cli(&["runs", "show", dag, run], &environment, server.scratch());
    String::from_utf8_lossy(&[shown.stdout, shown.stderr].concat()).into_owned()
}

async fn cancel(client: &Client, dag: &str, run: &str) {
    let failed = json!({"state": "failed"});
    client.patch(&format!("/dags/{dag}/dagRuns/{run}"), &failed).await.ok();
    client.wait(dag, run).await;
}

const LEDGER: &str = "
dag: ledger
max_active_runs: 1
defaults: {retries: 0}
params: {values: {type: [array, string], default: [1, 2]}}
tasks:
  add: {component: workload@1, task: sum, input: {values: '{{ params.values }}'}, depends_on_past: true}
  publish: {component: workload@1, task: spin, after: [add], input: {ms: 0, value: 1}}
";

/// As the documentation advises: the failed run is cleared. It fails again, then somebody says that it does not matter.
#[tokio::test(flavor = "multi_thread")]
async fn clearing_the_run_before_does_not_lock_a_dag_of_one_run_at_a_time() {
    let (mut server, client) = server().await;
    client.deploy(LEDGER).await.ok();
    let first = dated(&client, "ledger", 1, json!({"values": "no list"})).await;
    assert_eq!(client.wait("ledger", &first).await, "failed");
    let second = dated(&client, "ledger", 2, json!({})).await;
    let waits = |run: &Value| run["state"] == "running";
    client
        .until("ledger", &format!("/dags/ledger/dagRuns/{second}"), waits)
        .await;
    let third = dated(&client, "ledger", 3, json!({})).await;

    // It has the only slot, and the third says so.
    let reason = format!(
        "the run is `queued`, not `running`: it waits for a run slot: DAG `ledger` has `max_active_runs: 1`, and `{second}` is running; its \
         tasks look back at the run before, `{second}`, which is running and goes first"
    );
    until_it_waits(
        &client,
        "ledger",
        &third,
        "publish",
        &[
            ("Dagrun Running", &reason),
            (
                "Trigger Rule",
                "the trigger rule `all_success` is not met yet: `add` is no_status",
            ),
        ],
    )
    .await;
    let shown = show(&server, &client, "ledger", &third);
    assert!(shown.contains(&format!("the run waits: {reason}")), "{shown}");
    let past = format!("`depends_on_past`: `add` has not succeeded in the run before, `{first}`");
    until_it_waits(&client, "ledger", &second, "add", &[("Previous Dagrun State", &past)]).await;

    let clear = json!({"dag_run_id": first, "dry_run": false, "only_failed": false, "reset_dag_runs": true});
    client.post("/dags/ledger/clearTaskInstances", &clear).await.ok();
    assert_eq!(client.wait("ledger", &first).await, "failed", "it had the slot");
    // And again, with a crash between.
    client
        .until("ledger", &format!("/dags/ledger/dagRuns/{second}"), waits)
        .await;
    server.kill();
    server.resume().await;
    let client = server.client().await;
    client.post("/dags/ledger/clearTaskInstances", &clear).await.ok();
    assert_eq!(client.wait("ledger", &first).await, "failed");
    let success = json!({"new_state": "success"});
    let path = format!("/dags/ledger/dagRuns/{first}/taskInstances/add");
    client.patch(&path, &success).await.ok();
    assert_eq!(client.wait("ledger", &second).await, "success");
    assert_eq!(client.wait("ledger", &third).await, "success");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_slots_of_a_pool_says_for_which() {
    let (server, client) = server().await;
    client.post("/pools", &json!({"name": "x", "slots": 3})).await.ok();
    let manifest = |dag: &str, slots: u32| {
        format!(
            "
dag: {dag}
defaults: {{retries: 0}}
tasks:
  t: {{component: workload@1, task: endless, pool: x, pool_slots: {slots}, priority_weight: {slots}}}
"
        )
    };
    client.deploy(&manifest("small", 1)).await.ok();
    client.deploy(&manifest("big", 3)).await.ok();
    let first = client.trigger("small", json!({})).await;
    let is_running = |ti: &Value| ti["state"] == "running";
    let path = format!("/dags/small/dagRuns/{first}/taskInstances/t");
    client.until("small", &path, is_running).await;
    let big = client.trigger("big", json!({})).await;
    let pool = "Pool Slots Available";
    let its = "it needs 3 slots of pool `x`, of which 2 of 3 are free, kept for it";
    until_it_waits(&client, "big", &big, "t", &[(pool, its)]).await;
    let second = client.trigger("small", json!({})).await;
    let kept = format!(
        "it needs 1 slot of pool `x`, of which 2 of 3 are free, kept for `t` of run `{big}` of DAG `big`, which is more urgent and needs 3"
    );
    until_it_waits(&client, "small", &second, "t", &[(pool, &kept)]).await;
    let shown = show(&server, &client, "small", &second);
    assert!(shown.contains(&format!("t waits: {kept}")), "{shown}");

    // The pool gets smaller than what the big one needs: nothing is kept for it.
    client.patch("/pools/x", &json!({"slots": 2})).await.ok();
    let path = format!("/dags/small/dagRuns/{second}/taskInstances/t");
    client.until("small", &path, is_running).await;
    let never = "it needs 3 slots of pool `x`, which has 2 in all: it waits until the pool gets more";
    until_it_waits(&client, "big", &big, "t", &[(pool, never)]).await;
    // And then it has none.
    client.patch("/pools/x", &json!({"slots": 0})).await.ok();
    cancel(&client, "small", &first).await;
    cancel(&client, "small", &second).await;
    let none = "it needs 3 slots of pool `x`, which has none: it waits until the pool gets some";
    until_it_waits(&client, "big", &big, "t", &[(pool, none)]).await;
    assert!(show(&server, &client, "big", &big).contains(none));
    client.patch("/pools/x", &json!({"slots": 3})).await.ok();
    let path = format!("/dags/big/dagRuns/{big}/taskInstances/t");
    client.until("big", &path, is_running).await;
    cancel(&client, "big", &big).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_runs_of_its_own_counts_and_says_so() {
    let (_server, client) = server().await;
    client
        .post("/pools", &json!({"name": "held", "slots": 1, "include_deferred": true}))
        .await
        .ok();
    client
        .deploy(
            "
dag: child
tasks:
  t: {component: workload@1, task: endless}
",
        )
        .await
        .ok();
    client
        .deploy(
            "
dag: parent
defaults: {retries: 0}
tasks:
  solve:
    trigger_dag: {dag: child, wait: true}
    expand: {n: [1, 2]}
    max_active_tis_per_dag: 1
  other: {component: workload@1, task: endless, pool: held, after: [first]}
  first:
    trigger_dag: {dag: child, wait: false}
  held:
    trigger_dag: {dag: child, wait: true}
    pool: held
    priority_weight: 100
",
        )
        .await
        .ok();
    let run = client.trigger("parent", json!({})).await;
    let at_work =
        "`solve` has `max_active_tis_per_dag: 1`, and so many are at work or wait for the runs that they triggered";
    let (mut waiting, began) = (Vec::new(), Instant::now());
    while waiting.is_empty() {
        let all = client.task_instances("parent", &run).await;
        let deferred = |name: &str| all.get(name).is_some_and(|ti| ti["state"] == "deferred");
        if deferred("held") && (deferred("solve[0]") || deferred("solve[1]")) {
            waiting.extend(["solve[0]", "solve[1]"].into_iter().filter(|name| !deferred(name)));
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{all:?}");
    }
    assert_eq!(waiting.len(), 1, "one at a time");
    let index = if waiting == ["solve[0]"] { "solve/0" } else { "solve/1" };
    until_it_waits(&client, "parent", &run, index, &[("Task Concurrency", at_work)]).await;
    let held = "it needs 1 slot of pool `held`, of which 0 of 1 are free (1 held by task instances that are deferred)";
    until_it_waits(&client, "parent", &run, "other", &[("Pool Slots Available", held)]).await;
    cancel(&client, "parent", &run).await;
}

/// Nothing but the operator can end this: it is named.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_for_a_run_of_its_own_dag_says_who_has_the_slot() {
    let (server, client) = server().await;
    client
        .deploy(
            "
dag: narrow
max_active_runs: 1
tasks:
  again: {trigger_dag: {dag: narrow, wait: true}}
",
        )
        .await
        .ok();
    let run = client.trigger("narrow", json!({})).await;
    let path = format!("/dags/narrow/dagRuns/{run}/taskInstances/again");
    client.until("narrow", &path, |ti| ti["state"] == "deferred").await;
    let children = client.get(&format!("/dags/narrow/dagRuns/{run}/children")).await.ok();
    let child = children["dag_runs"][0]["dag_run_id"]
        .as_str()
        .expect("it has one")
        .to_owned();
    let reason = format!(
        "it waits for run `{child}` of DAG `narrow`: the run is `queued`, not `running`: it waits for a run slot: DAG `narrow` has \
         `max_active_runs: 1`, and `{run}` is running"
    );
    until_it_waits(&client, "narrow", &run, "again", &[("Triggered Dagrun", &reason)]).await;
    let shown = show(&server, &client, "narrow", &run);
    assert!(shown.contains(&format!("again waits: {reason}")), "{shown}");
    cancel(&client, "narrow", &run).await;
    assert_eq!(
        client.wait("narrow", &child).await,
        "failed",
        "it was cancelled with it"
    );
}

/// A DAG whose tasks are tried a thousand times is simulated in a time that does not grow with that.
#[test]
fn a_simulation_says_what_waits_and_ends_however_many_retries_there_are() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::copy(test_artifacts::E2E_WORKLOAD, dir.path().join("workload.wasm")).expect("it was built");
    let manifest = LEDGER
        .replace("workload@1", "./workload.wasm")
        .replace("retries: 0", "retries: 1000");
    std::fs::write(dir.path().join("dag.yaml"), manifest).expect("it can be written");
    let home = dir.path().display().to_string();
    let environment = [
        ("HOME", home.as_str()),
        ("XDG_CACHE_HOME", &home),
        ("XDG_CONFIG_HOME", &home),
    ];
    let arguments = [
        "dags",
        "simulate",
        "dag.yaml",
        "--scenarios",
        "200",
        "--pool",
        "default_pool=1",
    ];
    let output = run_cli(&arguments, &environment, dir.path());
    let shown = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let in_one_line = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(output.status.success(), "{shown}");
    assert!(
        in_one_line.contains(
            "The run waits: add waits until it has succeeded, or was skipped, in the run before (`depends_on_past`)"
        ) && in_one_line
            .contains("gives it its run slot where there is no other (`max_active_runs: 1`) (the run before failed)."),
        "{shown}"
    );
}
