//! What happens inside runs, seen over REST: states, causes, retries, branches, cancels, clears, logs, blobs, events.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Client, Database, Server};

async fn server() -> (Server, Client) {
    let server = Server::start(&Database::Own).await;
    let client = server.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    (server, client)
}

/// Runs a DAG of the tasks given as YAML lines to its end; answers the run's state and its task instances.
async fn run(client: &Client, dag: &str, tasks: &str, conf: Value) -> (String, String, serde_json::Map<String, Value>) {
    client
        .deploy(&format!("dag: {dag}\ndefaults: {{retries: 0}}\ntasks:\n{tasks}"))
        .await
        .ok();
    let run_id = client.trigger(dag, conf).await;
    let state = client.wait(dag, &run_id).await;
    let task_instances = client.task_instances(dag, &run_id).await;
    (run_id, state, task_instances)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_end_of_a_try_is_told_apart() {
    let (_server, client) = server().await;
    let tasks = r#"
  fine:      {component: workload@1, task: spin, input: {ms: 0, value: 1}}
  failed:    {component: workload@1, task: fail, input: {message: "no luck", fatal: false}}
  trapped:   {component: workload@1, task: panic}
  memory:    {component: workload@1, task: eat_memory, limits: {memory: 32MiB}}
  cpu:       {component: workload@1, task: endless, limits: {cpu_time: 100ms}}
  late:      {component: workload@1, task: endless, timeout: 200ms}
  flood:     {component: workload@1, task: flood_log, limits: {log: 64KiB, on_log_limit: fail}}
  bad_input: {component: workload@1, task: sum, input: {values: "{{ params.not_a_list }}"}}
  skipped:   {component: workload@1, task: skip}
params:
  not_a_list: {type: [string, array], default: "text"}
"#;
    let (run_id, state, task_instances) = run(&client, "ends", tasks, json!({})).await;
    assert_eq!(state, "failed");
    for (task_id, state, cause) in [
        ("fine", "success", "returned"),
        ("failed", "failed", "failed"),
        ("trapped", "failed", "trapped"),
        ("memory", "failed", "out_of_memory"),
        ("cpu", "failed", "cpu_exhausted"),
        ("late", "failed", "timed_out"),
        ("flood", "failed", "output_limit"),
        ("bad_input", "failed", "input_invalid"),
        ("skipped", "skipped", "returned"),
    ] {
        let ti = &task_instances[task_id];
        assert_eq!(
            (&ti["state"], &ti["cause"]),
            (&json!(state), &json!(cause)),
            "{task_id}: {ti}"
        );
    }
    let log = client.log("ends", &run_id, "trapped", 1).await;
    assert!(log.contains("the last words before the panic"), "{log}");
    assert!(log.contains("this task panics"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_use_up_tries_and_keep_their_history() {
    let (_server, client) = server().await;
    let tasks = "
  flaky: {component: workload@1, task: fail_until, input: {try_number: 3}, retries: 4, retry_delay: 10ms}
  fatal: {component: workload@1, task: fail, input: {message: never, fatal: true}, retries: 4, retry_delay: 10ms}
";
    let (run_id, state, task_instances) = run(&client, "retries", tasks, json!({})).await;
    assert_eq!(state, "failed");
    assert_eq!(
        (
            &task_instances["flaky"]["state"],
            &task_instances["flaky"]["try_number"]
        ),
        (&json!("success"), &json!(3))
    );
    assert_eq!(task_instances["fatal"]["try_number"], 1);
    let tries = client
        .get(&format!("/dags/retries/dagRuns/{run_id}/taskInstances/flaky/tries"))
        .await
        .ok();
    let states: Vec<&Value> = tries["task_instances"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|each| &each["state"])
        .collect();
    assert_eq!(
        states,
        [&json!("failed"), &json!("failed"), &json!("success")],
        "{tries}"
    );
    assert!(client.log("retries", &run_id, "flaky", 1).await.contains("try 1"));
    assert!(client.log("retries", &run_id, "flaky", 3).await.contains("try 3"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_skips_what_it_did_not_choose() {
    let (_server, client) = server().await;
    let tasks = r#"
  gate:   {component: workload@1, task: choose, input: {left: "{{ params.left }}"}, branches: {left: [a], right: [b]}}
  a:      {component: workload@1, task: spin, after: [gate], input: {ms: 0, value: 1}}
  b:      {component: workload@1, task: spin, after: [gate], input: {ms: 0, value: 2}}
  report: {component: workload@1, task: spin, after: [a, b], input: {ms: 0, value: 3}, trigger_rule: none_failed_min_one_success}
params: {left: true}
"#;
    let (_, state, task_instances) = run(&client, "branch", tasks, json!({"left": false})).await;
    assert_eq!(state, "success");
    let states: Vec<&Value> = ["a", "b", "report"]
        .iter()
        .map(|task| &task_instances[*task]["state"])
        .collect();
    assert_eq!(states, [&json!("skipped"), &json!("success"), &json!("success")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_set_failed_stops_at_once() {
    let (_server, client) = server().await;
    let tasks =
        "  loop: {component: workload@1, task: endless}\n  next: {component: workload@1, task: skip, after: [loop]}\n";
    client.deploy(&format!("dag: endless\ntasks:\n{tasks}")).await.ok();
    let run_id = client.trigger("endless", json!({})).await;
    let path = format!("/dags/endless/dagRuns/{run_id}");
    while client.get(&format!("{path}/taskInstances/loop")).await.ok()["state"] != "running" {
        tokio::task::yield_now().await;
    }
    let begin = Instant::now();
    client.patch(&path, &json!({"state": "failed"})).await.ok();
    assert_eq!(client.wait("endless", &run_id).await, "failed");
    assert!(begin.elapsed() < Duration::from_secs(5));
    let task_instances = client.task_instances("endless", &run_id).await;
    assert_eq!(task_instances["loop"]["cause"], "cancelled", "{task_instances:?}");
    assert_eq!(task_instances["next"]["state"], "skipped");
}

#[tokio::test(flavor = "multi_thread")]
async fn cleared_task_instances_run_again() {
    let (_server, client) = server().await;
    let tasks = r#"
  one: {component: workload@1, task: spin, input: {ms: 0, value: 1}}
  two: {component: workload@1, task: spin, input: {ms: 0, value: "{{ xcom.one + 1 }}"}}
"#;
    let (run_id, ..) = run(&client, "again", tasks, json!({})).await;
    let body = json!({"dag_run_id": run_id, "task_ids": ["one"], "include_downstream": true, "only_failed": false});
    let mut dry = body.clone();
    dry["dry_run"] = json!(true);
    let would = client.post("/dags/again/clearTaskInstances", &dry).await.ok();
    assert_eq!(would["total_entries"], 2, "{would}");
    assert_eq!(client.task_instances("again", &run_id).await["one"]["state"], "success");
    let mut wet = body;
    wet["dry_run"] = json!(false);
    client.post("/dags/again/clearTaskInstances", &wet).await.ok();
    assert_eq!(client.wait("again", &run_id).await, "success");
    let task_instances = client.task_instances("again", &run_id).await;
    assert_eq!(task_instances["one"]["try_number"], 2);
    assert_eq!(task_instances["two"]["try_number"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_dag_keeps_runs_queued() {
    let (_server, client) = server().await;
    client
        .deploy("dag: later\npaused: true\ntasks:\n  t: {component: workload@1, task: skip}\n")
        .await
        .ok();
    let run_id = client.trigger("later", json!({})).await;
    let path = format!("/dags/later/dagRuns/{run_id}");
    assert_eq!(client.get(&path).await.ok()["state"], "queued");
    client.patch("/dags/later", &json!({"is_paused": false})).await.ok();
    assert_eq!(client.wait("later", &run_id).await, "success");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_values_travel_as_blobs() {
    let (_server, client) = server().await;
    let tasks = r#"
  make: {component: workload@1, task: make_blob, input: {bytes: 3000000}}
  read: {component: workload@1, task: read_blob, input: {blob: "{{ xcom.make }}"}}
"#;
    let (run_id, state, _) = run(&client, "blobs", tasks, json!({})).await;
    assert_eq!(state, "success");
    let made = client.xcom("blobs", &run_id, "make", "return_value").await;
    let read = client.xcom("blobs", &run_id, "read", "return_value").await;
    assert_eq!((&made["size"], &read["size"]), (&json!(3_000_000), &json!(3_000_000)));
    assert_eq!(read["digest"], made["$blob"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_alone_opens_nothing() {
    let (_server, client) = server().await;
    let make = "  make: {component: workload@1, task: make_blob, input: {bytes: 1000}}\n";
    let (run_id, ..) = run(&client, "owner", make, json!({})).await;
    let made = client.xcom("owner", &run_id, "make", "return_value").await;
    let steal = "  thief: {component: workload@1, task: steal_blob, input: {digest: \"{{ conf.digest }}\"}}\n";
    let (run_id, state, _) = run(&client, "thief", steal, json!({"digest": made["$blob"]})).await;
    assert_eq!(state, "success");
    assert_eq!(
        client.xcom("thief", &run_id, "thief", "return_value").await,
        json!("not_found")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_survives_a_retry() {
    let (_server, client) = server().await;
    let tasks =
        "  count: {component: workload@1, task: count_with_checkpoint, input: {to: 5}, retries: 9, retry_delay: 1ms}\n";
    let (run_id, state, task_instances) = run(&client, "checkpoints", tasks, json!({})).await;
    assert_eq!(state, "success", "{task_instances:?}");
    assert_eq!(task_instances["count"]["try_number"], 5);
    assert_eq!(
        client.xcom("checkpoints", &run_id, "count", "return_value").await,
        json!(5)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sensor_waits_without_using_up_tries() {
    let (_server, client) = server().await;
    let tasks = "  sensor: {component: workload@1, task: third_poke, retries: 0}\n";
    let (_, state, task_instances) = run(&client, "sensor", tasks, json!({})).await;
    assert_eq!(state, "success", "{task_instances:?}");
    assert_eq!(task_instances["sensor"]["try_number"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sensor_published_before_is_there_at_its_next_poke_and_for_who_is_mapped_over_it() {
    let (_server, client) = server().await;
    let tasks = r#"
  collect: {component: workload@1, task: collect}
  each: {component: workload@1, task: spin, input: {ms: 0}, expand: {value: "{{ xcom_key('collect', 'seen') }}"}}
"#;
    let (run_id, state, task_instances) = run(&client, "collecting", tasks, json!({})).await;
    assert_eq!(state, "success", "{task_instances:?}");
    assert_eq!(task_instances["collect"]["try_number"], 1);
    assert_eq!(
        client.xcom("collecting", &run_id, "collect", "return_value").await,
        json!(6)
    );
    let listed = client
        .get(&format!("/dags/collecting/dagRuns/{run_id}/taskInstances?task_id=each"))
        .await
        .ok();
    assert_eq!(listed["total_entries"], 3, "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_leaves_runs_on_their_version() {
    let (_server, client) = server().await;
    let manifest = |value: u32| {
        format!("dag: versions\ntasks:\n  t: {{component: workload@1, task: spin, input: {{ms: 0, value: {value}}}}}\n")
    };
    let first = client.deploy(&manifest(1)).await.ok();
    let run_1 = client.trigger("versions", json!({})).await;
    assert_eq!(client.wait("versions", &run_1).await, "success");
    let second = client.deploy(&manifest(2)).await.ok();
    let same = client
        .deploy(&format!("# a comment changes nothing\n{}", manifest(2)))
        .await
        .ok();
    assert_eq!(
        (&first["version_number"], &second["version_number"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(same["version_number"], 2);
    let run_2 = client.trigger("versions", json!({})).await;
    assert_eq!(client.wait("versions", &run_2).await, "success");
    assert_eq!(client.xcom("versions", &run_1, "t", "return_value").await, json!(1));
    assert_eq!(client.xcom("versions", &run_2, "t", "return_value").await, json!(2));
    // A manifest with an error changes nothing.
    let refused = client
        .deploy("dag: versions\ntasks:\n  t: {component: workload@1, task: spinn}\n")
        .await
        .expect(422);
    assert!(refused.to_string().contains("spin"), "{refused}");
    assert_eq!(client.get("/dags/versions/dagVersions").await.ok()["total_entries"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_a_run_arrive_as_events() {
    use futures::StreamExt as _;
    let (_server, client) = server().await;
    client
        .deploy("dag: seen\ntasks:\n  t: {component: workload@1, task: report_progress}\n")
        .await
        .ok();
    let events = client
        .request(reqwest::Method::GET, "/events?dag_id=seen")
        .send()
        .await
        .expect("the server answers");
    assert!(events.status().is_success());
    let run_id = client.trigger("seen", json!({})).await;
    let mut stream = events.bytes_stream();
    let mut text = String::new();
    while !(text.contains("\"dag_run\"") && text.contains("\"success\"") && text.contains("halfway")) {
        let chunk = stream.next().await.expect("the stream goes on").expect("no error");
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    assert!(text.contains(&run_id), "{text}");
}
