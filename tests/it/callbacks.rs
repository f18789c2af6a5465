//! Callbacks with real guests: what a failure calls, across `kill -9`; what people read of it over REST and by the command line.

use serde_json::{Value, json};

use crate::support::{Client, Database, Server, binary, run_cli, skip};

const DAG: &str = r#"
dag: called
on_failure:
  - {notify: "{{ run_id }}: {{ callback.reason }} in {{ callback.failed_tasks | join(', ') }}, {{ xcom.load }} loaded"}
on_success: {notify: all is well, level: info}
tasks:
  load: {component: workload@1, task: spin, input: {ms: 1, value: 41}}
  bad:
    component: workload@1
    task: fail
    input: {message: "not today \u001b[31m", fatal: false}
    after: [load]
    retries: 1
    retry_delay: 10ms
    on_retry: {notify: "try {{ callback.try_number }} of {{ task_id }}: {{ callback.code }}"}
    on_failure:
      - component: workload@1
        task: spin
        input: {ms: 1500, value: "{{ xcom.load + callback.try_number }}"}
      - {component: workload@1, task: panic, timeout: 5s}
      - {notify: plain, level: warning}
  never:
    component: workload@1
    task: spin
    input: {ms: 1, value: 1}
    after: [bad]
    on_failure: {notify: this is never said}
"#;

async fn callbacks(client: &Client, run_id: &str, done: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let path = format!("/dags/called/dagRuns/{run_id}/callbacks");
    let list = |answer: &Value| answer["callbacks"].as_array().cloned().unwrap_or_default();
    let answer = client.until("called", &path, |answer| done(&list(answer))).await;
    list(&answer)
}

fn state<'c>(callbacks: &'c [Value], event: &str, does: &str) -> &'c str {
    let found = callbacks
        .iter()
        .find(|callback| callback["event"] == event && callback["name"].as_str().unwrap_or_default().contains(does));
    found
        .and_then(|callback| callback["state"].as_str())
        .unwrap_or_default()
}

async fn failures_call(database: Database) {
    let mut server = Server::start(&database).await;
    let client = server.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    client.deploy(DAG).await.ok();
    let run_id = client.trigger("called", json!({})).await;
    assert_eq!(client.wait("called", &run_id).await, "failed");
    // Between the failure and its callbacks, and again while one of them runs.
    server.kill();
    server.resume().await;
    let client = server.client().await;
    callbacks(&client, &run_id, |callbacks| {
        state(callbacks, "on_failure", "spin") == "running"
    })
    .await;
    server.kill();
    server.resume().await;
    let client = server.client().await;
    let over = |callbacks: &[Value]| {
        state(callbacks, "on_failure", "spin") == "success"
            && callbacks.iter().all(|callback| callback["state"] != "running")
    };
    let found = callbacks(&client, &run_id, over).await;
    let shown: Vec<(&str, &str, &Value)> = found
        .iter()
        .map(|callback| {
            let text = |key: &str| callback[key].as_str().unwrap_or_default();
            (text("event"), text("kind"), &callback["task_id"])
        })
        .collect();
    let bad = json!("bad");
    assert_eq!(
        shown,
        [
            ("on_retry", "notification", &bad),
            ("on_failure", "task", &bad),
            ("on_failure", "task", &bad),
            ("on_failure", "notification", &bad),
            ("on_failure", "notification", &Value::Null),
        ],
        "each once, whatever happened"
    );
    let spun = &found[1];
    assert!(
        spun["attempt"].as_u64() >= Some(2),
        "the first attempt was lost: {spun}"
    );
    assert_eq!(spun["context"]["message"], "not today \u{1b}[31m");
    let id = spun["callback_id"].as_i64().expect("an id");
    let path = format!("/dags/called/dagRuns/{run_id}/callbacks/{id}/logs?full_content=true");
    let log = client.get(&path).await.ok();
    let last = log["content"]
        .as_array()
        .and_then(|lines| lines.last())
        .expect("a line");
    assert_eq!(
        last["event"], "returned 43",
        "41 from an upstream task, 2 from the callback's context"
    );
    assert_eq!(
        client
            .get(&format!("/dags/called/dagRuns/{run_id}/callbacks/{id}"))
            .await
            .ok()["state"],
        "success"
    );
    client
        .get(&format!("/dags/called/dagRuns/{run_id}/callbacks/999"))
        .await
        .expect(404);

    let notes = client.get("/notifications?dag_id=called").await.ok();
    let texts: Vec<&str> = notes["notifications"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|note| note["text"].as_str())
        .collect();
    let of_run = format!("{run_id}: task_failure in bad, never, 41 loaded");
    assert_eq!(
        texts,
        [of_run.as_str(), "plain", "try 1 of bad: asked_for"],
        "newest first"
    );
    let warnings = client.get("/notifications?level=warning&order_by=id").await.ok();
    assert_eq!(warnings["total_entries"], 2);
    assert_eq!(warnings["notifications"][0]["text"], "try 1 of bad: asked_for");

    // What a callback does changes nothing; that one fails is seen.
    let run = client.get(&format!("/dags/called/dagRuns/{run_id}")).await.ok();
    assert_eq!(run["state"], "failed");
    let (url, token) = (server.url(), client.token().to_owned());
    let environment = [("AIRTIGHT_SERVER", url.as_str()), ("AIRTIGHT_TOKEN", token.as_str())];
    let cli = |arguments: &[&str]| {
        let output = run_cli(arguments, &environment, server.scratch());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let listed = cli(&["runs", "callbacks", "called", &run_id]);
    assert!(
        listed.contains("workload@1 spin") && listed.contains("(the run)"),
        "{listed}"
    );
    let log = cli(&["runs", "callbacks", "called", &run_id, "--log", &id.to_string()]);
    assert!(log.contains("returned 43"), "{log}");
    let told = cli(&["notifications", "called"]);
    assert!(
        told.contains("task_failure in bad, never") && !told.contains('\u{1b}'),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_call_on_sqlite() {
    failures_call(Database::Own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_call_on_postgres() {
    match test_postgres::database().await {
        Some(database) => failures_call(Database::Postgres(Box::new(database))).await,
        None => skip("failures_call_on_postgres", "PostgreSQL is not installed"),
    }
}

const REPEATED: &str = r#"
dag: repeated
on_failure: {notify: "{{ xcom.each }} {{ callback.failed_count }}"}
tasks:
  nums: {component: ./workload.wasm, task: numbers, input: {count: 3}}
  each:
    component: ./workload.wasm
    task: spin
    input: {ms: 1}
    expand: {value: "{{ xcom.nums }}"}
    on_success: {notify: "item {{ item.value }} gave {{ xcom.each }} of {{ xcom.nums | length }}"}
  solve:
    loop: {until: "{{ xcom.step.done }}", max: 5}
    tasks:
      step:
        component: ./workload.wasm
        task: climb
        input: {from: "{{ previous.step.value | default(0) }}", by: 5, to: 12, ms: 1}
        on_success: {notify: "round {{ iteration }}: {{ previous.step.value | default('none') }}, {{ xcom.step.value }}"}
      leave:
        component: ./workload.wasm
        task: skip
        after: [step]
        on_skipped: {notify: "skipped after {{ xcom.step.value }}"}
  die: {component: ./workload.wasm, task: panic}
"#;

/// A callback of something repeated sees its own element, its own iteration, and what belongs to them.
#[test]
fn a_callback_stands_where_its_task_instance_stands() {
    let scratch = tempfile::tempdir().expect("a directory");
    std::fs::copy(test_artifacts::E2E_WORKLOAD, scratch.path().join("workload.wasm")).expect("the component was built");
    std::fs::write(scratch.path().join("dag.yaml"), REPEATED).expect("it is written");
    let output = run_cli(&["dags", "test", "dag.yaml", "-o", "json"], &[], scratch.path());
    assert_eq!(
        output.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let result: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let callbacks = result["callbacks"].as_array().expect("a list");
    let mut texts: Vec<&str> = callbacks
        .iter()
        .filter_map(|callback| callback["text"].as_str())
        .collect();
    texts.sort_unstable();
    assert_eq!(
        texts,
        [
            "[0,1,2] 1",
            "item 0 gave 0 of 3",
            "item 1 gave 1 of 3",
            "item 2 gave 2 of 3",
            "round 0: none, 5",
            "round 1: 5, 10",
            "round 2: 10, 15",
            "skipped after 10",
            "skipped after 15",
            "skipped after 5",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_are_followed_as_they_come() {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    let server = Server::start(&Database::Own).await;
    let client = server.client().await;
    let dag = r#"
dag: talks
on_success: {notify: "{{ run_id }} is over"}
tasks: {way: {human: {subject: s, timeout: 10ms}, on_success: {notify: "plain \e[2J"}}}
"#;
    client.deploy(dag).await.ok();
    let first = client.trigger("talks", json!({})).await;
    assert_eq!(client.wait("talks", &first).await, "success");
    let complete = |count: u64| move |told: &Value| told["total_entries"] == count;
    client.until("talks", "/notifications?dag_id=talks", complete(2)).await;
    let mut follower = Command::new(binary())
        .args(["notifications", "talks", "-f"])
        .env("AIRTIGHT_SERVER", server.url())
        .env("AIRTIGHT_TOKEN", client.token())
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let lines = BufReader::new(follower.stdout.take().expect("it is piped")).lines();
    let mut lines = lines.map(|line| line.expect("text"));
    let mut two = || -> Vec<String> { lines.by_ref().take(2).collect() };
    // What is there already comes first; the stream of events is open by then.
    let before = two();
    assert!(
        before.iter().any(|line| line.contains(&format!("{first} is over"))),
        "{before:?}"
    );
    assert!(
        before
            .iter()
            .any(|line| line.contains("plain ") && !line.contains('\u{1b}')),
        "{before:?}"
    );
    let second = client.trigger("talks", json!({})).await;
    let after = two();
    assert!(
        after.iter().any(|line| line.contains(&format!("{second} is over"))),
        "{after:?}"
    );
    follower.kill().expect("it is stopped");
    follower.wait().expect("it ends");
}

#[test]
fn a_local_run_carries_its_callbacks_out_and_shows_them() {
    let scratch = tempfile::tempdir().expect("a directory");
    std::fs::copy(test_artifacts::E2E_WORKLOAD, scratch.path().join("workload.wasm")).expect("the component was built");
    let manifest = DAG
        .replace("workload@1", "./workload.wasm")
        .replace("ms: 1500", "ms: 1");
    let file = scratch.path().join("dag.yaml");
    std::fs::write(&file, manifest).expect("it is written");
    let file = file.display().to_string();
    let output = run_cli(&["dags", "test", &file, "-o", "json"], &[], scratch.path());
    assert_eq!(
        output.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let result: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let callbacks = result["callbacks"].as_array().expect("a list");
    let states: Vec<&str> = callbacks
        .iter()
        .filter_map(|callback| callback["state"].as_str())
        .collect();
    assert_eq!(
        states,
        ["success", "success", "failed", "success", "success"],
        "{callbacks:#?}"
    );
    assert_eq!(
        (&callbacks[2]["cause"], &callbacks[2]["attempt"]),
        (&json!("trapped"), &json!(3))
    );
    let table = run_cli(&["dags", "test", &file], &[], scratch.path());
    let shown = String::from_utf8_lossy(&table.stdout);
    assert!(shown.contains("try 1 of bad: asked_for"), "{shown}");
    assert!(shown.contains("log of callback on_failure of bad"), "{shown}");
}
