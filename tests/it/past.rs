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

const GROUPS: &str = "
dag: groups
defaults: {retries: 0}
tasks:
  first: {component: workload@1, task: spin, input: {ms: 0, value: 1}}
  work:
    tasks:
      a: {component: workload@1, task: spin, after: [first], input: {ms: 0, value: 1}}
      deep:
        tasks:
          b: {component: workload@1, task: spin, after: [a], input: {ms: 0, value: 1}}
  last: {component: workload@1, task: spin, after: [work], input: {ms: 0, value: 1}}
";

/// The tries of the task instances of a run.
async fn tries(client: &Client, run_id: &str) -> Vec<(String, u64)> {
    let all = client.task_instances("groups", run_id).await;
    let tries = all
        .iter()
        .map(|(task, ti)| (task.clone(), ti["try_number"].as_u64().unwrap_or(0)));
    let mut tries: Vec<_> = tries.collect();
    tries.sort();
    tries
}

fn tried(of: [u64; 4]) -> Vec<(String, u64)> {
    let names = ["first", "last", "work.a", "work.deep.b"].map(str::to_owned);
    names.into_iter().zip(of).collect()
}

async fn groups_and_ranges(database: Database) {
    let server = Server::start(&database).await;
    let client = server.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    client.deploy(GROUPS).await.ok();
    let mut runs = Vec::new();
    for day in [2, 1, 3] {
        let run_id = dated(&client, "groups", day, json!({})).await;
        assert_eq!(client.wait("groups", &run_id).await, "success");
        runs.push((day, run_id));
    }
    runs.sort();
    let runs: Vec<String> = runs.into_iter().map(|(_, run_id)| run_id).collect();
    let all_ended = async || {
        for run_id in &runs {
            client.wait("groups", run_id).await;
        }
    };
    let url = server.url();
    let environment = [("AIRTIGHT_SERVER", url.as_str()), ("AIRTIGHT_TOKEN", client.token())];
    let cli = |arguments: &[&str]| {
        let output = run_cli(arguments, &environment, server.scratch());
        let shown = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.code(), shown)
    };

    // A group, in this run and all later ones; a dry run first.
    let clear = ["runs", "clear", "groups", &runs[1], "--group", "work", "--future"];
    let (code, shown) = cli(&[&clear[..], &["--dry-run"]].concat());
    assert_eq!(code, Some(0), "{shown}");
    assert!(
        shown.contains("4 task instance(s) of 2 runs would be cleared"),
        "{shown}"
    );
    assert_eq!(tries(&client, &runs[2]).await, tried([1; 4]));
    let (code, shown) = cli(&[&clear[..], &["--yes"]].concat());
    assert_eq!(code, Some(0), "{shown}");
    all_ended().await;
    for (run_id, of) in runs.iter().zip([[1, 1, 1, 1], [1, 1, 2, 2], [1, 1, 2, 2]]) {
        assert_eq!(tries(&client, run_id).await, tried(of), "{run_id}");
    }

    // A group within it with what follows, in this run and all earlier ones, over REST.
    let body = json!({
        "dag_run_id": runs[1], "task_group_ids": ["work.deep"], "include_downstream": true, "include_past": true,
        "only_failed": false, "dry_run": false,
    });
    client.post("/dags/groups/clearTaskInstances", &body).await.ok();
    all_ended().await;
    for (run_id, of) in runs.iter().zip([[1, 2, 1, 2], [1, 2, 2, 3], [1, 1, 2, 2]]) {
        assert_eq!(tries(&client, run_id).await, tried(of), "{run_id}");
    }
    let nothing = json!({"dag_run_id": runs[1], "include_past": true, "only_failed": true, "dry_run": false});
    let answer = client.post("/dags/groups/clearTaskInstances", &nothing).await.ok();
    assert_eq!(answer["total_entries"], 0, "nothing failed");
    let unknown = json!({"dag_run_id": runs[1], "task_group_ids": ["wor"]});
    let answer = client
        .post("/dags/groups/clearTaskInstances", &unknown)
        .await
        .expect(404);
    assert_eq!(answer["code"], "task_group_not_found");

    // States, of a group in one run, and of a task in all of them.
    let path = format!("/dags/groups/dagRuns/{}/taskGroupInstances/work", runs[0]);
    let answer = client.patch(&path, &json!({"new_state": "skipped"})).await.ok();
    assert_eq!(answer["total_entries"], 2, "{answer}");
    let path = format!("/dags/groups/dagRuns/{}/taskInstances/last", runs[1]);
    let failed = json!({"new_state": "failed", "include_past": true, "include_future": true});
    let shown = client.patch(&format!("{path}/dry_run"), &failed).await.ok();
    assert_eq!(shown["total_entries"], 3);
    let answer = client.patch(&path, &failed).await.ok();
    assert_eq!(answer["total_entries"], 3);
    for run_id in &runs {
        let path = format!("/dags/groups/dagRuns/{run_id}");
        client
            .until("groups", &format!("{path}/taskInstances/last"), |ti| {
                ti["state"] == "failed"
            })
            .await;
    }
    let log = client.get("/eventLogs?dag_id=groups").await.ok();
    let events: Vec<&Value> = log["event_logs"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|line| &line["event"])
        .collect();
    assert!(events.contains(&&json!("patch_task_instance")), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_cleared_and_set_over_ranges_of_runs_on_sqlite() {
    groups_and_ranges(Database::Own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_cleared_and_set_over_ranges_of_runs_on_postgres() {
    match test_postgres::database().await {
        Some(database) => groups_and_ranges(Database::Postgres(Box::new(database))).await,
        None => crate::support::skip("groups_and_ranges", "PostgreSQL is not installed"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_that_hides_a_failure_says_so() {
    let (server, client) = server().await;
    let manifest = "
dag: hiding
defaults: {retries: 0}
tasks:
  load: {component: COMPONENT, task: fail, input: {message: no luck, fatal: false}}
  clean: {component: COMPONENT, task: spin, after: [load], input: {ms: 0, value: 1}, trigger_rule: all_done}
";
    client.deploy(&manifest.replace("COMPONENT", "workload@1")).await.ok();
    let run_id = client.trigger("hiding", json!({})).await;
    assert_eq!(client.wait("hiding", &run_id).await, "success");
    let run = client.get(&format!("/dags/hiding/dagRuns/{run_id}")).await.ok();
    let hidden = &run["hidden_failures"];
    assert_eq!(hidden[0]["task_id"], "load", "{run}");
    assert_eq!(hidden[0]["reason"], "`clean` (all_done) ends well all the same");
    let url = server.url();
    let environment = [("AIRTIGHT_SERVER", url.as_str()), ("AIRTIGHT_TOKEN", client.token())];
    let cli = |arguments: &[&str]| {
        let output = run_cli(arguments, &environment, server.scratch());
        let shown = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(0), "{shown}");
        shown
    };
    let warning = "load failed, and the run is a success: `clean` (all_done) ends well all the same";
    let shown = cli(&["runs", "show", "hiding", &run_id]);
    assert!(shown.contains(warning), "{shown}");
    let scratch = server.scratch();
    std::fs::copy(test_artifacts::E2E_WORKLOAD, scratch.join("workload.wasm")).expect("it was built");
    std::fs::write(
        scratch.join("dag.yaml"),
        manifest.replace("COMPONENT", "./workload.wasm"),
    )
    .expect("a file");
    let file = scratch.join("dag.yaml").display().to_string();
    let shown = cli(&["dags", "test", &file]);
    assert!(shown.contains(warning), "{shown}");
    let shown = cli(&["--output", "json", "dags", "test", &file]);
    let mut values = serde_json::Deserializer::from_str(&shown).into_iter::<Value>();
    let told = values.next().expect("an answer").expect("JSON");
    assert_eq!(&told["hidden_failures"], hidden);

    // Somebody says that it did succeed: nothing is hidden any more.
    let mark = json!({"new_state": "success"});
    let path = format!("/dags/hiding/dagRuns/{run_id}");
    client.patch(&format!("{path}/taskInstances/load"), &mark).await.ok();
    assert_eq!(client.get(&path).await.ok()["hidden_failures"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dag_whose_runs_fail_is_paused_and_says_why() {
    let (server, client) = server().await;
    let manifest = "
dag: failing
max_consecutive_failed_dag_runs: 2
defaults: {retries: 0}
tasks:
  load: {component: workload@1, task: fail, input: {message: no luck, fatal: false}}
";
    client.deploy(manifest).await.ok();
    let url = server.url();
    let environment = [("AIRTIGHT_SERVER", url.as_str()), ("AIRTIGHT_TOKEN", client.token())];
    let cli = |arguments: &[&str]| {
        let output = run_cli(arguments, &environment, server.scratch());
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let reason = "its last 2 runs failed (`max_consecutive_failed_dag_runs`)";
    let shown = cli(&["dags", "trigger", "failing", "--wait"]);
    assert!(shown.contains("failed") && !shown.contains("is paused"), "{shown}");
    let shown = cli(&["dags", "trigger", "failing", "--wait"]);
    assert!(shown.contains(&format!("failing is paused: {reason}")), "{shown}");
    let shown = cli(&["dags", "show", "failing"]);
    assert!(shown.contains(reason), "{shown}");
    let dag = client.get("/dags/failing").await.ok();
    assert_eq!(
        (
            &dag["is_paused"],
            &dag["paused_reason"],
            &dag["max_consecutive_failed_dag_runs"]
        ),
        (&json!(true), &json!(reason), &json!(2))
    );
    let log = client.get("/eventLogs?dag_id=failing").await.ok();
    let lines = log["event_logs"].as_array().expect("lines");
    let line = lines.iter().find(|line| line["event"] == "paused").expect("a line");
    assert_eq!(line["owner"], "scheduler", "{line}");
    cli(&["dags", "unpause", "failing"]);
    assert_eq!(client.get("/dags/failing").await.ok()["paused_reason"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_by_hand_is_always_the_latest() {
    let (_server, client) = server().await;
    let manifest = "
dag: latest
tasks:
  only: {latest_only: true}
  publish: {component: workload@1, task: spin, after: [only], input: {ms: 0, value: 1}}
";
    client.deploy(manifest).await.ok();
    let run_id = dated(&client, "latest", 1, json!({})).await;
    assert_eq!(client.wait("latest", &run_id).await, "success");
    let instances = client.task_instances("latest", &run_id).await;
    assert_eq!(instances["publish"]["state"], "success");
    assert_eq!(instances["only"]["operator"], "LatestOnlyOperator");
}

async fn notes_and_bulk(database: Database) {
    let server = Server::start(&database).await;
    let client = server.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    client.deploy(GROUPS).await.ok();
    let run_id = client.trigger("groups", json!({})).await;
    assert_eq!(client.wait("groups", &run_id).await, "success");
    let base = format!("/dags/groups/dagRuns/{run_id}");
    let note = async |task: &str| client.get(&format!("{base}/taskInstances/{task}")).await.ok()["note"].clone();
    assert_eq!(note("first").await, Value::Null);
    let body = json!({"note": "looks odd"});
    let answer = client.patch(&format!("{base}/taskInstances/first"), &body).await.ok();
    assert_eq!(answer["task_instances"][0]["note"], "looks odd", "{answer}");
    let body = json!({"note": "whole group"});
    let answer = client
        .patch(&format!("{base}/taskGroupInstances/work"), &body)
        .await
        .ok();
    assert_eq!(answer["total_entries"], 2);
    let listed = client.task_instances("groups", &run_id).await;
    assert_eq!(
        ["first", "work.a", "work.deep.b", "last"].map(|task| listed[task]["note"].clone()),
        [
            json!("looks odd"),
            json!("whole group"),
            json!("whole group"),
            Value::Null
        ]
    );
    // Both at once; a note stays through another try, and an empty one is none.
    let body = json!({"new_state": "failed", "note": "known"});
    let answer = client.patch(&format!("{base}/taskInstances/last"), &body).await.ok();
    let ti = &answer["task_instances"][0];
    assert_eq!((&ti["state"], &ti["note"]), (&json!("failed"), &json!("known")));
    let clear = json!({"dag_run_id": run_id, "only_failed": true, "dry_run": false});
    client.post("/dags/groups/clearTaskInstances", &clear).await.ok();
    assert_eq!(client.wait("groups", &run_id).await, "success");
    assert_eq!(note("last").await, "known");
    client
        .patch(&format!("{base}/taskInstances/last"), &json!({"note": ""}))
        .await
        .ok();
    assert_eq!(note("last").await, Value::Null);

    let body = json!({"actions": [
        {"action": "update", "entities": [
            {"task_id": "first", "new_state": "skipped", "note": "by bulk"},
            {"task_id": "nope", "new_state": "failed"},
            {"task_id": "last", "new_state": "running"},
        ]},
        {"action": "update", "action_on_non_existence": "skip", "entities": [{"task_id": "nope", "note": "x"}]},
        {"action": "delete", "entities": ["first"]},
    ]});
    let answer = client.patch(&format!("{base}/taskInstances"), &body).await.ok();
    assert_eq!(answer["create"], Value::Null);
    assert_eq!(
        answer["update"]["success"],
        json!([format!("groups.{run_id}.first[-1]")]),
        "{answer}"
    );
    let codes: Vec<&Value> = answer["update"]["errors"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|error| &error["status_code"])
        .collect();
    assert_eq!(codes, [&json!(404), &json!(409)], "{answer}");
    assert_eq!(answer["delete"]["errors"][0]["status_code"], 405);
    assert_eq!(note("first").await, "by bulk");
    client.delete(&base).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn task_instances_have_notes_and_are_changed_in_bulk_on_sqlite() {
    notes_and_bulk(Database::Own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn task_instances_have_notes_and_are_changed_in_bulk_on_postgres() {
    match test_postgres::database().await {
        Some(database) => notes_and_bulk(Database::Postgres(Box::new(database))).await,
        None => crate::support::skip("notes_and_bulk", "PostgreSQL is not installed"),
    }
}
