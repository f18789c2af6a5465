//! People in a run: asked over REST and by the command line, across a crash; and what a retry policy gives a try.

use serde_json::{Value, json};

use crate::support::{Client, Database, Server, run_cli, skip};

const APPROVAL: &str = r#"
dag: approval
params: {limit: 100}
tasks:
  ask:
    human:
      subject: "Spend {{ params.limit }}?"
      body: "run **{{ run_id }}**"
      options: [some, all]
      params: {amount: {type: integer, minimum: 1, default: 10}}
  approve:
    human: {subject: "{{ xcom.ask.params_input.amount }} of {{ xcom.ask.chosen_options | join(',') }}?", approval: true}
  way:
    human: {subject: Which way?, options: [left, right]}
    branches: {left: [turn], right: []}
    after: [approve]
  turn: {human: {subject: There?, timeout: 1s, defaults: [OK]}, after: [way]}
"#;

/// What waits for an answer in a run, once it does.
async fn question(client: &Client, run_id: &str, task: &str) -> Value {
    let path = format!("/dags/approval/dagRuns/{run_id}/taskInstances/{task}/-1/hitlDetails");
    let waiting = format!("/dags/approval/dagRuns/{run_id}/hitlDetails?response_received=false&task_id={task}");
    client
        .until("approval", &waiting, |answer| answer["total_entries"] == 1)
        .await;
    client.get(&path).await.ok()
}

async fn respond(client: &Client, run_id: &str, task: &str, body: Value, status: u16) -> Value {
    let path = format!("/dags/approval/dagRuns/{run_id}/taskInstances/{task}/-1/hitlDetails");
    client.patch(&path, &body).await.expect(status)
}

async fn people_are_asked(database: Database) {
    let mut server = Server::start(&database).await;
    let client = server.client().await;
    client.deploy(APPROVAL).await.ok();
    let run_id = client.trigger("approval", json!({"limit": 7})).await;
    let asked = question(&client, &run_id, "ask").await;
    assert_eq!(
        (&asked["subject"], &asked["options"]),
        (&json!("Spend 7?"), &json!(["some", "all"]))
    );
    assert_eq!(asked["body"], format!("run **{run_id}**"));
    assert_eq!(asked["task_instance"]["state"], "awaiting_input");
    assert_eq!(asked["task_instance"]["operator"], "HITLOperator");
    assert_eq!(asked["params"]["amount"]["value"], 10);

    // A crash forgets neither the question nor who answered what.
    server.kill();
    server.resume().await;
    let client = server.client().await;
    assert_eq!(
        question(&client, &run_id, "ask").await["created_at"],
        asked["created_at"]
    );
    let bad = json!({"chosen_options": ["none"], "params_input": {"amount": 0}});
    assert_eq!(
        respond(&client, &run_id, "ask", bad, 400).await["code"],
        "invalid_answer"
    );
    let answer = json!({"chosen_options": ["all"], "params_input": {"amount": 3}});
    let responded = respond(&client, &run_id, "ask", answer.clone(), 200).await;
    assert_eq!(responded["responded_by"], json!({"id": "admin", "name": "admin"}));
    let again = respond(&client, &run_id, "ask", answer, 409).await;
    assert!(
        again["detail"].as_str().unwrap_or_default().contains("`success`"),
        "{again}"
    );
    let published = client.xcom("approval", &run_id, "ask", "return_value").await;
    assert_eq!(published["chosen_options"], json!(["all"]));

    assert_eq!(question(&client, &run_id, "approve").await["subject"], "3 of all?");
    respond(&client, &run_id, "approve", json!({"chosen_options": ["Approve"]}), 200).await;
    question(&client, &run_id, "way").await;
    server.kill();
    server.resume().await;
    let client = server.client().await;
    respond(&client, &run_id, "way", json!({"chosen_options": ["left"]}), 200).await;
    assert_eq!(client.wait("approval", &run_id).await, "success");
    let path = format!("/dags/approval/dagRuns/{run_id}/taskInstances/turn/-1/hitlDetails/tries/1");
    let by_default = client.get(&path).await.ok();
    assert_eq!(by_default["chosen_options"], json!(["OK"]));
    assert_eq!(
        (&by_default["responded_by_user"], &by_default["response_received"]),
        (&Value::Null, &json!(true))
    );

    let run_id = client.trigger("approval", json!({})).await;
    question(&client, &run_id, "ask").await;
    respond(&client, &run_id, "ask", json!({"chosen_options": ["some"]}), 200).await;
    question(&client, &run_id, "approve").await;
    respond(&client, &run_id, "approve", json!({"chosen_options": ["Reject"]}), 200).await;
    assert_eq!(client.wait("approval", &run_id).await, "success");
    let states = client.task_instances("approval", &run_id).await;
    assert_eq!(
        (&states["way"]["state"], &states["turn"]["state"]),
        (&json!("skipped"), &json!("skipped"))
    );
    let listed = client
        .get("/dags/~/dagRuns/~/hitlDetails?order_by=-created_at&subject_search=spend")
        .await
        .ok();
    assert_eq!(listed["total_entries"], 2, "{listed}");
    let answered = client
        .get("/dags/~/dagRuns/~/hitlDetails?responded_by_user_id=admin&state=success")
        .await
        .ok();
    assert_eq!(answered["total_entries"], 5, "{answered}");
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_asked_on_sqlite() {
    people_are_asked(Database::Own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_asked_on_postgres() {
    match test_postgres::database().await {
        Some(database) => people_are_asked(Database::Postgres(Box::new(database))).await,
        None => skip("people_are_asked_on_postgres", "PostgreSQL is not installed"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_answered_by_the_command_line() {
    let server = Server::start(&Database::Own).await;
    let client = server.client().await;
    client.deploy(APPROVAL).await.ok();
    let run_id = client.trigger("approval", json!({})).await;
    question(&client, &run_id, "ask").await;
    let url = server.url();
    let token = client.token().to_owned();
    let environment = [("AIRTIGHT_SERVER", url.as_str()), ("AIRTIGHT_TOKEN", token.as_str())];
    let cli = |arguments: &[&str]| {
        let output = run_cli(arguments, &environment, server.scratch());
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    let (code, listed) = cli(&["hitl", "list"]);
    assert!(code == Some(0) && listed.contains("Spend 100?"), "{listed}");
    let respond = [
        "hitl", "respond", "approval", &run_id, "ask", "all", "--param", "amount=5",
    ];
    let (code, answered) = cli(&respond);
    assert!(code == Some(0) && answered.contains("admin"), "{answered}");
    assert_eq!(cli(&respond).0, Some(4), "there is one answer");

    // In a test the defaults answer where nobody can type.
    let file = server.scratch().join("dag.yaml");
    let manifest = "dag: d\ntasks:\n  a: {human: {subject: Go?}}\n  b: {human: {subject: \"{{ xcom.a.chosen_options[0] }}\"}, after: [a]}\n";
    std::fs::write(&file, manifest).expect("a file");
    let file = file.to_string_lossy().into_owned();
    assert_eq!(cli(&["dags", "test", &file]).0, Some(0));
    std::fs::write(&file, "dag: d\ntasks:\n  a: {human: {subject: Go?, options: [x]}}\n").expect("a file");
    assert_eq!(cli(&["dags", "test", &file]).0, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_try_that_ran_out_of_memory_is_followed_by_one_with_more() {
    let server = Server::start(&Database::Own).await;
    let client = server.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    let manifest = r#"
dag: memory
tasks:
  eat:
    component: workload@1
    task: eat_memory
    limits: {memory: 32MiB}
    retries: 5
    retry_policy:
      - {on: [out_of_memory], memory_factor: 2, max_memory: 100MiB, delay: 0s}
  denied:
    component: workload@1
    task: panic
    retries: 5
    retry_policy: [{on: [trapped], action: fail}]
"#;
    client.deploy(manifest).await.ok();
    let run_id = client.trigger("memory", json!({})).await;
    assert_eq!(client.wait("memory", &run_id).await, "failed");
    let tries = client
        .get(&format!("/dags/memory/dagRuns/{run_id}/taskInstances/eat/tries"))
        .await
        .ok();
    let mib = |row: &Value| row["memory_limit_bytes"].as_u64().unwrap_or(0) >> 20;
    let limits: Vec<u64> = tries["task_instances"]
        .as_array()
        .expect("a list")
        .iter()
        .map(mib)
        .collect();
    assert_eq!(limits, [32, 64, 100, 100, 100, 100]);
    let task_instances = client.task_instances("memory", &run_id).await;
    let eat = &task_instances["eat"];
    assert!(eat["usage"]["peak_memory_bytes"].as_u64() > Some(64 << 20), "{eat}");
    let reason = eat["retry_reason"].as_str().unwrap_or_default();
    assert!(
        reason.starts_with("rule 1 of `retry_policy`: on out_of_memory"),
        "{eat}"
    );
    let denied = &task_instances["denied"];
    assert_eq!((&denied["state"], &denied["try_number"]), (&json!("failed"), &json!(1)));
}
