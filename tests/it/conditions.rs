//! What decides whether a task does its work: `when`, runs that are there already, and setups of elements; over REST and on the command line.

use serde_json::{Value, json};

use crate::support::{Client, Database, Server, run_cli, skip};

const CONDITIONS: &str = r#"
dag: conditions
params: {full: false}
tasks:
  numbers: {component: workload@1, task: numbers, input: {count: 4}}
  verify: {component: workload@1, task: spin, input: {ms: 0, value: 1}, when: "{{ params.full and xcom.numbers | length > 0 }}"}
  after: {component: workload@1, task: spin, input: {ms: 0, value: 1}, after: [verify]}
  ask: {human: {subject: "Go on?"}, when: "{{ params.full }}"}
  start: {trigger_dag: {dag: missing}, when: "{{ params.full }}"}
  each:
    component: workload@1
    task: spin
    input: {ms: 0}
    expand: {value: "{{ xcom.numbers }}"}
    when: "{{ item.value > 1 }}"
  sum: {component: workload@1, task: sum, input: {values: "{{ xcom.each }}"}, trigger_rule: none_failed}
  fields:
    expand: {field: [a, b]}
    tasks:
      up: {component: workload@1, task: spin, input: {ms: 0, value: 1}, setup: true, when: "{{ item.field == 'a' }}"}
      work: {component: workload@1, task: spin, input: {ms: 0, value: "{{ xcom.up }}"}, after: [up]}
      down: {component: workload@1, task: spin, input: {ms: 0, value: 2}, after: [up, work], teardown: true}
"#;

async fn instances(client: &Client, run_id: &str, task: &str) -> Vec<Value> {
    let path = format!("/dags/conditions/dagRuns/{run_id}/taskInstances/{task}/listMapped?order_by=map_index");
    let answer = client.get(&path).await.ok();
    let states = answer["task_instances"].as_array().into_iter().flatten();
    states.map(|ti| ti["state"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_condition_is_false_is_skipped_and_says_why() {
    let server = Server::start(&Database::Own).await;
    let client = server.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    client.deploy(CONDITIONS).await.ok();
    let run_id = client.trigger("conditions", json!({})).await;
    assert_eq!(client.wait("conditions", &run_id).await, "success");
    let tis = client.task_instances("conditions", &run_id).await;
    for task in ["verify", "after", "ask", "start"] {
        assert_eq!(tis[task]["state"], "skipped", "{task}");
    }
    let reason = "`when` is false: {{ params.full and xcom.numbers | length > 0 }}";
    assert_eq!(tis["verify"]["cause_message"], reason);
    assert_eq!(tis["after"]["cause_message"], Value::Null, "its rule skipped it");
    let log = client
        .get(&format!(
            "/dags/conditions/dagRuns/{run_id}/taskInstances/verify/logs/1"
        ))
        .await
        .ok();
    assert!(log.to_string().contains("skipped: `when` is false"), "{log}");
    assert_eq!(
        instances(&client, &run_id, "each").await,
        ["skipped", "skipped", "success", "success"]
    );
    assert_eq!(client.xcom("conditions", &run_id, "sum", "return_value").await, 5);
    for task in ["up", "work", "down"] {
        assert_eq!(
            instances(&client, &run_id, &format!("fields.{task}")).await,
            ["success", "skipped"],
            "{task}"
        );
    }
    let task = client.get("/dags/conditions/tasks/each").await.ok();
    assert_eq!(task["when"], "{{ item.value > 1 }}");
    let (url, token) = (server.url(), client.token().to_owned());
    let environment = [("AIRTIGHT_SERVER", url.as_str()), ("AIRTIGHT_TOKEN", token.as_str())];
    let shown = run_cli(&["runs", "show", "conditions", &run_id], &environment, server.scratch());
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("`when` is false: {{ params.full"), "{shown}");

    // What is no truth value fails, and is not taken for one.
    let run_id = client.trigger("conditions", json!({"full": 1})).await;
    assert_eq!(client.wait("conditions", &run_id).await, "failed");
    let ask = &client.task_instances("conditions", &run_id).await["ask"];
    assert_eq!(
        (&ask["state"], &ask["cause"]),
        (&json!("failed"), &json!("input_invalid")),
        "{ask}"
    );
}

const CHILD: &str = r#"
dag: child
params: {value: 0}
tasks:
  ask: {human: {subject: "Go on with {{ params.value }}?"}}
  work: {component: workload@1, task: spin, input: {ms: 0, value: "{{ params.value }}"}, after: [ask]}
"#;

fn parent(dag: &str, if_exists: &str) -> String {
    format!(
        r#"
dag: {dag}
params: {{value: 1, target: child}}
tasks:
  solve:
    trigger_dag:
      dag: "{{{{ params.target }}}}"
      allowed: [child, other]
      conf: {{value: "{{{{ params.value }}}}"}}
      run_id: "key_{{{{ params.value }}}}"
      if_exists: {if_exists}
      wait: true
      result: work
  use: {{component: workload@1, task: spin, input: {{ms: 0, value: "{{{{ xcom.solve.result + 1 }}}}"}}}}
"#
    )
}

async fn deferred(client: &Client, dag: &str, run_id: &str) {
    let path = format!("/dags/{dag}/dagRuns/{run_id}/taskInstances?state=deferred");
    client.until(dag, &path, |answer| answer["total_entries"] == 1).await;
}

/// Answers the open question of the one run of the child.
async fn answer(client: &Client, try_number: u64) {
    let run = "/dags/child/dagRuns/key_1/taskInstances";
    client
        .until("child", &format!("{run}?state=awaiting_input"), |answer| {
            answer["task_instances"][0]["try_number"] == try_number
        })
        .await;
    let path = format!("{run}/ask/-1/hitlDetails");
    client.patch(&path, &json!({"chosen_options": ["OK"]})).await.ok();
}

async fn parent_of_child(client: &Client) -> Value {
    client.get("/dags/child/dagRuns/key_1").await.ok()["parent"]["dag_run_id"].clone()
}

async fn a_key_survives_a_kill(database: Database) {
    let mut server = Server::start(&database).await;
    let client = server.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    client.deploy(CHILD).await.ok();
    client.deploy(&parent("sharing", "reuse")).await.ok();
    client.deploy(&parent("again", "reset")).await.ok();
    client.deploy(&parent("once", "skip")).await.ok();

    // Two share a run.
    let first = client.trigger("sharing", json!({})).await;
    deferred(&client, "sharing", &first).await;
    let second = client.trigger("sharing", json!({})).await;
    deferred(&client, "sharing", &second).await;
    assert_eq!(parent_of_child(&client).await, first);
    server.kill();
    server.resume().await;
    let client = server.client().await;
    answer(&client, 1).await;
    for run_id in [&first, &second] {
        assert_eq!(client.wait("sharing", run_id).await, "success");
        assert_eq!(client.xcom("sharing", run_id, "use", "return_value").await, 2);
    }
    // What has ended counts at once.
    let third = client.trigger("sharing", json!({})).await;
    assert_eq!(client.wait("sharing", &third).await, "success");

    // Another one makes it run again.
    let fourth = client.trigger("again", json!({})).await;
    deferred(&client, "again", &fourth).await;
    assert_eq!(parent_of_child(&client).await, fourth);
    server.kill();
    server.resume().await;
    let client = server.client().await;
    assert_eq!(parent_of_child(&client).await, fourth);
    deferred(&client, "again", &fourth).await;
    answer(&client, 2).await;
    assert_eq!(client.wait("again", &fourth).await, "success");
    // Clearing it clears the child.
    let clear = json!({"dry_run": false, "only_failed": false, "dag_run_id": fourth, "task_ids": ["solve"]});
    client.post("/dags/again/clearTaskInstances", &clear).await.ok();
    answer(&client, 3).await;
    assert_eq!(client.wait("again", &fourth).await, "success");

    let last = client.trigger("once", json!({})).await;
    assert_eq!(client.wait("once", &last).await, "success");
    let solve = &client.task_instances("once", &last).await["solve"];
    assert_eq!(solve["state"], "skipped", "{solve}");
    assert_eq!(client.get("/dags/child/dagRuns").await.ok()["total_entries"], 1);

    // A template names only what is allowed.
    let wrong = client.trigger("sharing", json!({"target": "again"})).await;
    assert_eq!(client.wait("sharing", &wrong).await, "failed");
    let solve = &client.task_instances("sharing", &wrong).await["solve"];
    assert_eq!(solve["cause"], "input_invalid", "{solve}");
    let task = client.get("/dags/again/tasks/solve").await.ok();
    assert_eq!(
        task["trigger_dag"],
        json!({"dag_id": null, "allowed": ["child", "other"], "if_exists": "reset", "wait": true})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_shared_or_reset_survives_a_kill_on_sqlite() {
    a_key_survives_a_kill(Database::Own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_shared_or_reset_survives_a_kill_on_postgres() {
    match test_postgres::database().await {
        Some(database) => a_key_survives_a_kill(Database::Postgres(Box::new(database))).await,
        None => skip(
            "a_run_that_is_shared_or_reset_survives_a_kill_on_postgres",
            "PostgreSQL is not installed",
        ),
    }
}

#[test]
fn conditions_hold_in_a_local_test_and_in_a_simulation() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::copy(test_artifacts::E2E_WORKLOAD, dir.path().join("workload.wasm")).expect("it was built");
    let manifest = CONDITIONS.replace("workload@1", "./workload.wasm");
    std::fs::write(dir.path().join("conditions.yaml"), manifest).expect("it can be written");
    let home = dir.path().display().to_string();
    let environment = [("HOME", home.as_str()), ("XDG_CACHE_HOME", home.as_str())];
    let run = |arguments: &[&str]| {
        let output = run_cli(arguments, &environment, dir.path());
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    let (code, shown) = run(&["dags", "test", "conditions.yaml"]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("`when` is false"), "{shown}");
    // A person who is not asked is one of the things that can happen.
    let (code, shown) = run(&["dags", "simulate", "conditions.yaml", "--fail", "ask=skip"]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("ask"), "{shown}");
}
