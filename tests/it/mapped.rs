//! Mapped tasks, mapped groups and loops, seen over REST and on the command line, on both databases, across a crash.

use serde_json::{Value, json};

use crate::support::{Client, Database, Server, run_cli, skip};

/// A mapped task, one mapped over it, a mapped group, and a loop; parameters say how much there is.
const SHAPES: &str = r#"
dag: shapes
max_active_runs: 100
defaults: {retries: 0}
params: {count: 4, to: 10, ms: 0}
tasks:
  numbers: {component: workload@1, task: numbers, input: {count: "{{ params.count }}"}}
  square:
    component: workload@1
    task: spin
    input: {ms: "{{ params.ms }}"}
    expand: {value: "{{ xcom.numbers }}"}
    map_index_template: "number {{ item.value }}"
  again: {component: workload@1, task: spin, input: {ms: 0, value: "{{ item.each * 10 }}"}, expand: {each: "{{ xcom.square }}"}}
  total: {component: workload@1, task: sum, input: {values: "{{ xcom.again }}"}}
  lazily: {component: workload@1, task: sum_items, input: {task: again}, after: [again]}
  each:
    expand: {base: "{{ xcom.numbers }}"}
    tasks:
      first: {component: workload@1, task: spin, input: {ms: 0, value: "{{ item.base + 100 }}"}}
      second: {component: workload@1, task: spin, input: {ms: 0, value: "{{ xcom.first + 1000 }}"}}
  all: {component: workload@1, task: sum, input: {values: "{{ xcom['each.second'] }}"}}
  all_lazily: {component: workload@1, task: sum_items, input: {task: each.second}, after: [each]}
  solve:
    loop: {until: "{{ xcom.step.done }}", max: 50}
    tasks:
      step:
        component: workload@1
        task: climb
        input: {from: "{{ previous.step.value | default(0) }}", by: "{{ iteration + 1 }}", to: "{{ params.to }}", ms: "{{ params.ms }}"}
  publish: {component: workload@1, task: spin, input: {ms: 0, value: "{{ xcom['solve.step'].value }}"}}
"#;

async fn instances(client: &Client, run_id: &str, task: &str) -> Vec<Value> {
    let path = format!("/dags/shapes/dagRuns/{run_id}/taskInstances/{task}/listMapped?limit=100&order_by=map_index");
    let answer = client.get(&path).await.ok();
    answer["task_instances"].as_array().expect("a list").clone()
}

/// What the instances of a task returned, in the order of their indexes.
async fn values(client: &Client, run_id: &str, task: &str) -> Vec<Value> {
    let mut values = Vec::new();
    for ti in instances(client, run_id, task).await {
        let path = format!(
            "/dags/shapes/dagRuns/{run_id}/taskInstances/{task}/xcomEntries/return_value?map_index={}",
            ti["map_index"]
        );
        values.push(client.get(&path).await.ok()["value"].clone());
    }
    values
}

fn states(instances: &[Value]) -> Vec<&str> {
    instances
        .iter()
        .map(|ti| ti["state"].as_str().unwrap_or_default())
        .collect()
}

async fn start(database: &Database) -> (Server, Client) {
    let server = Server::start(database).await;
    let client = server.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    client.deploy(SHAPES).await.ok();
    (server, client)
}

async fn values_arrive(database: Database) {
    let (server, client) = start(&database).await;
    let run_id = client.trigger("shapes", json!({})).await;
    assert_eq!(client.wait("shapes", &run_id).await, "success");
    let squares = instances(&client, &run_id, "square").await;
    let named: Vec<_> = squares
        .iter()
        .map(|ti| (&ti["map_index"], &ti["rendered_map_index"]))
        .collect();
    assert_eq!(
        json!(named),
        json!([[0, "number 0"], [1, "number 1"], [2, "number 2"], [3, "number 3"]])
    );
    assert_eq!(values(&client, &run_id, "square").await, [0, 1, 2, 3]);
    assert_eq!(values(&client, &run_id, "again").await, [0, 10, 20, 30]);
    assert_eq!(values(&client, &run_id, "each.second").await, [1100, 1101, 1102, 1103]);
    let steps = values(&client, &run_id, "solve.step").await;
    let expected = json!([
        {"value": 1, "done": false}, {"value": 3, "done": false}, {"value": 6, "done": false}, {"value": 10, "done": true}
    ]);
    assert_eq!(json!(steps), expected);
    for (task, value) in [
        ("total", json!(60)),
        ("lazily", json!([4, 60])),
        ("all", json!(4406)),
        ("all_lazily", json!([4, 4406])),
        ("publish", json!(10)),
    ] {
        assert_eq!(
            client.xcom("shapes", &run_id, task, "return_value").await,
            value,
            "{task}"
        );
    }
    rows_are_shown(&client, &run_id).await;
    lines_are_shown(&server, &run_id);
    one_instance_runs_again(&client, &run_id).await;
    nothing_to_map_over(&client).await;
}

/// The shapes of the answers about mapped task instances.
async fn rows_are_shown(client: &Client, run_id: &str) {
    let base = format!("/dags/shapes/dagRuns/{run_id}/taskInstances");
    let get = async |path: &str| client.get(&format!("{base}{path}")).await;
    let mapped = get("/square").await.expect(404);
    assert!(mapped["detail"].to_string().contains("listMapped"), "{mapped}");
    let flat = get("/numbers/listMapped").await.expect(404);
    assert_eq!(flat["code"], "task_not_mapped", "{flat}");
    get("/nothing/listMapped").await.expect(404);
    get("/square/7").await.expect(404);
    assert_eq!(get("/square/2").await.ok()["map_index"], 2);
    assert_eq!(get("/square/2/tries/1").await.ok()["rendered_map_index"], "number 2");
    let page = get("/square/listMapped?limit=2&offset=1&order_by=-map_index")
        .await
        .ok();
    let indexes: Vec<_> = page["task_instances"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|ti| &ti["map_index"])
        .collect();
    assert_eq!((json!(indexes), &page["total_entries"]), (json!([2, 1]), &json!(4)));
    let found = get("?rendered_map_index_pattern=%25ber%203").await.ok();
    assert_eq!(
        (&found["total_entries"], &found["task_instances"][0]["map_index"]),
        (&json!(1), &json!(3)),
        "{found}"
    );
    assert_eq!(get("?task_group_id=each").await.ok()["total_entries"], 8);
    let task = client.get("/dags/shapes/tasks/each.first").await.ok();
    assert_eq!(
        (&task["is_mapped"], &task["task_group_id"]),
        (&json!(true), &json!("each"))
    );
    assert_eq!(client.get("/dags/shapes/tasks/total").await.ok()["is_mapped"], false);
    assert_eq!(
        client.get("/dags/shapes/tasks/solve.step").await.ok()["is_mapped"],
        false
    );
}

/// What people see of them.
fn lines_are_shown(server: &Server, run_id: &str) {
    let url = server.url();
    let data_dir = server.data_dir().display().to_string();
    let run = |arguments: &[&str]| {
        let environment = [
            ("AIRTIGHT_SERVER", url.as_str()),
            ("AIRTIGHT_DATA_DIR", data_dir.as_str()),
        ];
        let output = run_cli(arguments, &environment, server.scratch());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let shown = run(&["runs", "show", "shapes", run_id]);
    assert!(
        shown.contains("square [4/4]") && shown.contains("solve.step [4/4]"),
        "{shown}"
    );
    assert!(!shown.contains("square[2]"), "{shown}");
    let shown = run(&["runs", "show", "shapes", run_id, "--task", "square", "--map-index", "2"]);
    assert!(
        shown.contains("square[2] number 2") && !shown.contains("square[1]"),
        "{shown}"
    );
    let xcom = run(&["xcom", "get", "shapes", run_id, "each.second", "--map-index", "3"]);
    assert_eq!(xcom.trim(), "1103");
    let listed = run(&["xcom", "list", "shapes", run_id, "--map-index", "3", "--output", "json"]);
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(listed.as_array().map(Vec::len), Some(5), "{listed}");
    let would = run(&[
        "runs",
        "clear",
        "shapes",
        run_id,
        "square",
        "--map-index",
        "1",
        "--dry-run",
    ]);
    assert!(would.contains("square [1/1]"), "{would}");
    let would = run(&["tasks", "set-state", "shapes", run_id, "square", "failed", "--dry-run"]);
    assert!(would.contains("square [4/4]"), "{would}");
}

async fn one_instance_runs_again(client: &Client, run_id: &str) {
    let body = json!({"dag_run_id": run_id, "task_ids": [["square", 3]], "only_failed": false, "dry_run": false});
    let cleared = client.post("/dags/shapes/clearTaskInstances", &body).await.ok();
    assert_eq!(cleared["total_entries"], 1, "{cleared}");
    assert_eq!(client.wait("shapes", run_id).await, "success");
    let tries: Vec<Value> = instances(client, run_id, "square")
        .await
        .iter()
        .map(|ti| ti["try_number"].clone())
        .collect();
    assert_eq!(tries, [1, 1, 1, 2]);
}

async fn nothing_to_map_over(client: &Client) {
    let run_id = client.trigger("shapes", json!({"count": 0})).await;
    assert_eq!(client.wait("shapes", &run_id).await, "success");
    let tis = client.task_instances("shapes", &run_id).await;
    for task in ["square", "again", "total", "each.first", "each.second", "all"] {
        let shown = (&tis[task]["state"], &tis[task]["map_index"]);
        assert_eq!(shown, (&json!("skipped"), &json!(-1)), "{task}");
    }
    assert_eq!(tis["publish"]["state"], "success");
    assert_eq!(instances(client, &run_id, "square").await, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn values_arrive_on_sqlite() {
    values_arrive(Database::Own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_arrive_on_postgres() {
    match test_postgres::database().await {
        Some(database) => values_arrive(Database::Postgres(Box::new(database))).await,
        None => skip("values_arrive_on_postgres", "PostgreSQL is not installed"),
    }
}

/// A person decides: what failed counts as done, what follows runs after all.
async fn states_are_set(database: Database) {
    let server = Server::start(&database).await;
    let client = server.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    let manifest = r#"
dag: marks
defaults: {retries: 0}
tasks:
  odd: {component: workload@1, task: fail, expand_kwargs: [{message: a, fatal: true}, {message: b, fatal: true}]}
  next: {component: workload@1, task: spin, after: [odd], input: {ms: 0, value: 1}}
"#;
    client.deploy(manifest).await.ok();
    let run_id = client.trigger("marks", json!({})).await;
    assert_eq!(client.wait("marks", &run_id).await, "failed");
    let base = format!("/dags/marks/dagRuns/{run_id}/taskInstances");
    let patch = async |path: &str, body: Value| client.patch(&format!("{base}{path}"), &body).await;
    let state = async |path: &str| client.get(&format!("{base}{path}")).await.ok()["state"].clone();
    assert_eq!(state("/next").await, "upstream_failed");
    let why = client.get(&format!("{base}/next/dependencies")).await.ok();
    assert_eq!(why, json!({"dependencies": []}), "it does not wait");

    let would = patch("/odd/dry_run", json!({"new_state": "success"})).await.ok();
    assert_eq!(would["total_entries"], 2, "{would}");
    assert_eq!(state("/odd/0").await, "failed");
    let done = patch("/odd/0", json!({"new_state": "success"})).await.ok();
    assert_eq!(
        (&done["total_entries"], &done["task_instances"][0]["state"]),
        (&json!(1), &json!("success")),
        "{done}"
    );
    // The other one still stands in the way.
    assert_eq!(client.wait("marks", &run_id).await, "failed");
    assert_eq!(state("/next").await, "upstream_failed");
    let again = patch("/odd/0", json!({"new_state": "success"})).await.expect(409);
    assert_eq!(again["code"], "conflict", "{again}");
    let done = patch("/odd", json!({"new_state": "success"})).await.ok();
    assert_eq!(done["total_entries"], 1, "the other one: {done}");
    assert_eq!(client.wait("marks", &run_id).await, "success");
    assert_eq!(state("/next").await, "success");

    // Upstream first: what follows is not cleared by what is set before it.
    let body = json!({"new_state": "failed", "include_downstream": true});
    assert_eq!(patch("/odd", body).await.ok()["total_entries"], 3);
    assert_eq!(state("/next").await, "failed");

    patch("/odd", json!({"new_state": "running"})).await.expect(422);
    patch("/odd", json!({})).await.expect(422);
    patch("/odd/9", json!({"new_state": "failed"})).await.expect(404);
    patch("/none", json!({"new_state": "failed"})).await.expect(404);
    let log = client.get("/eventLogs?dag_id=marks&limit=100").await.ok();
    let marks = log["event_logs"].as_array().expect("a list").iter();
    assert_eq!(
        marks.filter(|line| line["event"] == "patch_task_instance").count(),
        3,
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn states_are_set_on_sqlite() {
    states_are_set(Database::Own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn states_are_set_on_postgres() {
    match test_postgres::database().await {
        Some(database) => states_are_set(Database::Postgres(Box::new(database))).await,
        None => skip("states_are_set_on_postgres", "PostgreSQL is not installed"),
    }
}

/// What runs is stopped, and what it would have published does not count.
#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_stopped_when_its_state_is_set() {
    let server = Server::start(&Database::Own).await;
    let client = server.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    let manifest = "dag: stop\ntasks:\n  t: {component: workload@1, task: endless}\n  u: {component: workload@1, task: spin, after: [t], input: {ms: 0, value: 7}}\n";
    client.deploy(manifest).await.ok();
    let run_id = client.trigger("stop", json!({})).await;
    let path = format!("/dags/stop/dagRuns/{run_id}/taskInstances/t");
    client.until("stop", &path, |ti| ti["state"] == "running").await;
    let why = client
        .get(&format!("/dags/stop/dagRuns/{run_id}/taskInstances/u/dependencies"))
        .await
        .ok();
    let reason = "the trigger rule `all_success` is not met yet: `t` is running";
    assert_eq!(
        why,
        json!({"dependencies": [{"name": "Trigger Rule", "reason": reason}]})
    );
    client.patch(&path, &json!({"new_state": "success"})).await.ok();
    assert_eq!(client.wait("stop", &run_id).await, "success");
    assert_eq!(client.get(&path).await.ok()["cause"], "cancelled");
    assert_eq!(client.xcom("stop", &run_id, "u", "return_value").await, json!(7));
}

/// `kill -9` while instances run and the loop goes round: the values are right, and nothing ran past its end.
async fn survives_a_kill(database: Database) {
    let (mut server, client) = start(&database).await;
    let run_id = client
        .trigger("shapes", json!({"count": 40, "to": 300, "ms": 20}))
        .await;
    let second = format!("/dags/shapes/dagRuns/{run_id}/taskInstances?task_id=solve.step&map_index=2");
    client
        .until("shapes", &second, |answer| {
            answer["task_instances"][0]["state"] == "success"
        })
        .await;
    server.kill();
    server.resume().await;
    let client = server.client().await;
    assert_eq!(client.wait("shapes", &run_id).await, "success");
    let squares: Vec<i64> = (0..40).collect();
    assert_eq!(values(&client, &run_id, "square").await, squares);
    // 1 + 2 + … + 24 is the first sum that reaches 300.
    let steps = instances(&client, &run_id, "solve.step").await;
    assert_eq!(steps.len(), 24, "the loop went on after its end, or not far enough");
    assert!(states(&steps).iter().all(|state| *state == "success"), "{steps:#?}");
    let sums: Vec<i64> = (1..=24).map(|n| n * (n + 1) / 2).collect();
    let published: Vec<_> = values(&client, &run_id, "solve.step")
        .await
        .iter()
        .map(|step| step["value"].clone())
        .collect();
    assert_eq!(published, sums);
    for (task, value) in [("total", 7_800), ("all", 40 * 1_100 + 780), ("publish", 300)] {
        assert_eq!(
            client.xcom("shapes", &run_id, task, "return_value").await,
            json!(value),
            "{task}"
        );
    }
    for ti in instances(&client, &run_id, "square").await.iter().chain(&steps) {
        assert_eq!(ti["try_number"], 1, "a loss spent a retry: {ti}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn survives_a_kill_on_sqlite() {
    survives_a_kill(Database::Own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn survives_a_kill_on_postgres() {
    match test_postgres::database().await {
        Some(database) => survives_a_kill(Database::Postgres(Box::new(database))).await,
        None => skip("survives_a_kill_on_postgres", "PostgreSQL is not installed"),
    }
}
