//! Large runs on the real binary: how large they may be, and `kill -9` in the middle of what goes on in steps.

use serde_json::{Value, json};

use crate::support::{Client, Database, Server, skip};

/// As many instances of `work` as the parameter is long; they sleep until they are cancelled.
const WIDE: &str = r#"
dag: wide
max_active_tasks: 4
params: {many: {type: array, default: [1]}}
defaults: {retries: 0}
tasks:
  first: {component: workload@1, task: spin, input: {ms: 0, value: 1}}
  work:
    component: workload@1
    task: spin
    after: [first]
    input: {ms: 600000, value: 1}
    expand: {number: "{{ params.many }}"}
    map_limit: 100000
  last: {component: workload@1, task: spin, after: [work], input: {ms: 0, value: 1}}
"#;

/// What is mapped over two lists that a task publishes, inside a group that is mapped over one of them.
const NESTED: &str = r#"
dag: nested
params: {count: 4}
defaults: {retries: 0}
tasks:
  numbers: {component: workload@1, task: numbers, input: {count: "{{ params.count }}"}}
  each:
    expand: {a: "{{ xcom.numbers }}"}
    map_limit: 1000
    tasks:
      pair: {component: workload@1, task: spin, input: {ms: 0, value: 1}, expand: {b: [1, 2, 3, 4, 5]}, map_limit: 10}
      after: {component: workload@1, task: spin, after: [pair], input: {ms: 0, value: 1}}
"#;

fn numbers(count: u32) -> Value {
    json!({"many": (0..count).collect::<Vec<u32>>()})
}

async fn with_workload(server: &Server) -> Client {
    let client = server.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn more_task_instances_than_there_may_be_are_refused_or_fail_and_say_why() {
    let options = ["--max-task-instances-per-run", "60", "--max-task-instances", "110"];
    let mut server = Server::new(&Database::Own).with_options(&options);
    server.resume().await;
    let client = with_workload(&server).await;

    // Declared in the manifest, or given to a run.
    let declared = WIDE.replace(
        "default: [1]",
        &format!("default: {}", json!((0..60).collect::<Vec<u32>>())),
    );
    let refused = client.deploy(&declared).await.expect(409);
    assert_eq!(refused["code"], "too_many_task_instances", "{refused}");
    client.deploy(WIDE).await.ok();
    let body = json!({"logical_date": null, "conf": numbers(59)});
    let refused = client.post("/dags/wide/dagRuns", &body).await.expect(409);
    assert_eq!(refused["code"], "too_many_task_instances", "{refused}");
    let said = refused["detail"].to_string();
    assert!(
        said.contains("61 task instances") && said.contains("--max-task-instances-per-run"),
        "{said}"
    );

    // Nested mappings multiply: six task instances for each number.
    client.deploy(NESTED).await.ok();
    let fits = client.trigger("nested", json!({"count": 9})).await;
    assert_eq!(client.wait("nested", &fits).await, "success");
    assert_eq!(client.task_instances("nested", &fits).await.len(), 55);
    let larger = client.trigger("nested", json!({"count": 10})).await;
    assert_eq!(client.wait("nested", &larger).await, "failed");
    let instances = client.task_instances("nested", &larger).await;
    assert_eq!(instances.len(), 3, "none was made: {instances:?}");
    let failed = &instances["each.pair"];
    assert_eq!(failed["state"], "failed");
    assert_eq!(failed["failure_code"], "too_many_task_instances", "{failed}");
    let said = failed["cause_message"].as_str().expect("a message");
    assert!(said.contains("61 task instances; it may have 60"), "{said}");
    assert_eq!(instances["each.after"]["state"], "upstream_failed");

    // All active runs together.
    let first = client.trigger("wide", numbers(57)).await;
    let body = json!({"logical_date": null, "conf": numbers(49)});
    let refused = client.post("/dags/wide/dagRuns", &body).await.ok();
    let second = refused["dag_run_id"].as_str().expect("it fits").to_owned();
    let refused = client.post("/dags/wide/dagRuns", &body).await.expect(409);
    assert_eq!(refused["code"], "too_many_task_instances", "{refused}");
    for run in [first, second] {
        let path = format!("/dags/wide/dagRuns/{run}");
        client.patch(&path, &json!({"state": "failed"})).await.ok();
    }
    client.trigger("wide", numbers(57)).await;
}

async fn a_kill_in_the_middle(database: Database) {
    const WIDTH: u32 = 12_000;
    let mut server = Server::start(&database).await;
    let client = with_workload(&server).await;
    client.deploy(WIDE).await.ok();
    let run_id = client.trigger("wide", numbers(WIDTH)).await;
    let path = format!("/dags/wide/dagRuns/{run_id}");
    let work = format!("{path}/taskInstances?task_id=work&state=running&limit=1");
    client
        .until("wide", &work, |page| page["total_entries"].as_u64() > Some(0))
        .await;

    // The answer comes with the promise, or after it is carried out for two seconds.
    client.patch(&path, &json!({"state": "failed"})).await.ok();
    server.kill();
    server.resume().await;
    let client = server.client().await;
    assert_eq!(client.wait("wide", &run_id).await, "failed");
    let count = async |state: &str| {
        let path = format!("{path}/taskInstances?state={state}&limit=1");
        client.get(&path).await.ok()["total_entries"].as_u64().expect("a count")
    };
    let (skipped, failed) = (count("skipped").await, count("failed").await);
    assert_eq!(skipped + failed, u64::from(WIDTH) + 1, "{skipped} + {failed}");
    assert_eq!(count("success").await, 1);
    assert!(failed <= 8, "{failed}");

    // Clearing all of it, with another kill: each task instance runs once more, or would.
    let clear = json!({"dag_run_id": run_id, "task_ids": ["work", "last"], "dry_run": false, "only_failed": false});
    let answer = client.send(
        client
            .request(reqwest::Method::POST, "/dags/wide/clearTaskInstances")
            .json(&clear),
    );
    answer.await.expect("the server answers").ok();
    server.kill();
    server.resume().await;
    let client = server.client().await;
    let work = format!("{path}/taskInstances?task_id=work&state=running&limit=1");
    client
        .until("wide", &work, |page| page["total_entries"].as_u64() > Some(0))
        .await;
    let ended = format!("{path}/taskInstances?state=skipped&state=failed&limit=1");
    assert_eq!(
        client.get(&ended).await.ok()["total_entries"],
        0,
        "all were cleared before the first ran"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_promised_of_a_large_run_survives_kills_on_sqlite() {
    a_kill_in_the_middle(Database::Own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_promised_of_a_large_run_survives_kills_on_postgres() {
    match test_postgres::database().await {
        Some(database) => a_kill_in_the_middle(Database::Postgres(Box::new(database))).await,
        None => skip(
            "what_is_promised_of_a_large_run_survives_kills_on_postgres",
            "PostgreSQL is not installed",
        ),
    }
}
