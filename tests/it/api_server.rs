//! A server for the API beside the one that schedules: everything that can be asked is asked through it, with the scheduler there, away and
//! back again.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Client, Database, Server, binary, run_cli, skip, start_refused};

const PAIR: &str = r#"
dag: pair
params: {value: 20}
tasks:
  one: {component: workload@1, task: spin, input: {ms: 0, value: "{{ params.value }}"}}
  two: {component: workload@1, task: spin, pool: narrow, input: {ms: 0, value: "{{ xcom.one + 1 }}"}}
  say: {component: workload@1, task: talk, input: {lines: 3000, endless: false}, after: [two]}
"#;

const ENDLESS: &str = r#"
dag: endless
tasks:
  talk: {component: workload@1, task: talk, input: {lines: 3, endless: true}}
  next: {component: workload@1, task: skip, after: [talk]}
"#;

const CALLING: &str = r#"
dag: calling
defaults: {retries: 0}
tasks:
  bad:
    component: workload@1
    task: panic
    on_failure: [{component: workload@1, task: spin, input: {ms: 1000, value: 8}}]
"#;

const ASKED: &str = "
dag: asked
tasks:
  ask: {human: {subject: Go on?, options: [yes, no]}}
";

/// A server that schedules, one for the API, and a client of the latter.
async fn pair(database: &Database, options: &[&str]) -> (Server, Server, Client) {
    let server = Server::start(database).await;
    let mut api = server.api_server(options);
    api.resume().await;
    let client = api.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    (server, api, client)
}

/// Waits until the API server has seen how the scheduler is.
async fn until_scheduler(client: &Client, status: &str) -> Value {
    let begin = Instant::now();
    loop {
        let health = client.get("/monitor/health").await.ok();
        if health["scheduler"]["status"] == status {
            return health["scheduler"].clone();
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "{health}");
        // It looks once a second; the only way to learn what it saw is to ask again.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The log of a try, followed to its end.
async fn followed(client: &Client, dag: &str, run_id: &str, task: &str) -> String {
    let path = format!("/dags/{dag}/dagRuns/{run_id}/taskInstances/{task}/logs/1?follow=true");
    let request = client.request(Method::GET, &path).header("accept", "text/plain");
    client.send(request).await.expect("the server answers").text
}

async fn all_goes_through_an_api_server(database: Database) {
    let (server, _api, client) = pair(&database, &[]).await;
    let direct = server.client().await;
    let pool = json!({"name": "narrow", "slots": 1});
    client.post("/pools", &pool).await.expect(201);
    assert_eq!(client.post("/pools", &pool).await.expect(409)["code"], "pool_exists");
    client.deploy(PAIR).await.expect(201);
    client.deploy(PAIR).await.expect(200);
    let wrong = PAIR.replace("task: talk", "task: tlak");
    assert!(client.deploy(&wrong).await.expect(422)["diagnostics"].is_array());

    let run_id = client.trigger("pair", json!({"value": 41})).await;
    assert_eq!(client.wait("pair", &run_id).await, "success");
    assert_eq!(client.xcom("pair", &run_id, "two", "return_value").await, json!(42));
    let log = client.log("pair", &run_id, "say", 1).await;
    assert!(
        log.lines().count() >= 3000 && log.contains("line 3000"),
        "{}",
        log.len()
    );
    assert_eq!(log, direct.log("pair", &run_id, "say", 1).await);
    assert_eq!(log, followed(&client, "pair", &run_id, "say").await);
    let again = json!({"dag_run_id": run_id, "logical_date": null});
    client.post("/dags/pair/dagRuns", &again).await.expect(409);

    let body = json!({"dag_run_id": run_id, "task_ids": ["one"], "include_downstream": true, "only_failed": false, "dry_run": false});
    let cleared = client.post("/dags/pair/clearTaskInstances", &body).await.ok();
    assert_eq!(cleared["total_entries"], 3, "{cleared}");
    assert_eq!(client.wait("pair", &run_id).await, "success");
    let task_instances = client.task_instances("pair", &run_id).await;
    assert_eq!(task_instances["say"]["try_number"], 2);
    assert!(client.log("pair", &run_id, "say", 2).await.contains("line 3000"));
    let path = format!("/dags/pair/dagRuns/{run_id}");
    let noted = client.patch(&path, &json!({"note": "looked at"})).await.ok();
    assert_eq!(noted["note"], "looked at");
    let noted = client
        .patch(&format!("{path}/taskInstances/one"), &json!({"note": "this too"}))
        .await
        .ok();
    assert_eq!(noted["task_instances"][0]["note"], "this too", "{noted}");

    // What is refused is refused in the same words.
    let refusals = [
        ("/dags/nowhere/dagRuns", json!({"logical_date": null})),
        (
            "/dags/pair/dagRuns",
            json!({"logical_date": null, "conf": {"value": {}}, "run_after": 3}),
        ),
        (
            "/dags/pair/clearTaskInstances",
            json!({"dag_run_id": "none", "dry_run": false}),
        ),
    ];
    for (path, body) in refusals {
        let (here, there) = (client.post(path, &body).await, direct.post(path, &body).await);
        assert!(here.status.is_client_error(), "{path}: {}", here.text);
        assert_eq!(here.status, there.status, "{path}");
        assert_eq!(
            (&here.body["detail"], &here.body["code"]),
            (&there.body["detail"], &there.body["code"]),
            "{path}"
        );
    }

    client
        .patch("/pools/narrow", &json!({"pool": "narrow", "slots": 3}))
        .await
        .ok();
    assert_eq!(client.get("/pools/narrow").await.ok()["slots"], 3);
    client.delete("/pools/narrow").await.expect(409);
    client.patch("/dags/pair", &json!({"is_paused": true})).await.ok();
    let later = client.trigger("pair", json!({})).await;
    assert_eq!(
        client.get(&format!("/dags/pair/dagRuns/{later}")).await.ok()["state"],
        "queued"
    );
    client.patch("/dags/pair", &json!({"is_paused": false})).await.ok();
    assert_eq!(client.wait("pair", &later).await, "success");
    client.delete(&format!("/dags/pair/dagRuns/{later}")).await.expect(204);
    client.get(&format!("/dags/pair/dagRuns/{later}")).await.expect(404);
    client.delete("/dags/pair").await.ok();
    client.get("/dags/pair").await.expect(404);
    client.delete("/pools/narrow").await.expect(204);

    client.deploy(ASKED).await.ok();
    let run_id = client.trigger("asked", json!({})).await;
    let waiting = format!("/dags/asked/dagRuns/{run_id}/hitlDetails?response_received=false");
    client
        .until("asked", &waiting, |answer| answer["total_entries"] == 1)
        .await;
    let path = format!("/dags/asked/dagRuns/{run_id}/taskInstances/ask/-1/hitlDetails");
    client.patch(&path, &json!({"chosen_options": ["yes"]})).await.ok();
    client
        .patch(&path, &json!({"chosen_options": ["no"]}))
        .await
        .expect(409);
    assert_eq!(client.wait("asked", &run_id).await, "success");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_goes_through_an_api_server_on_sqlite() {
    all_goes_through_an_api_server(Database::Own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_goes_through_an_api_server_on_postgres() {
    match test_postgres::database().await {
        Some(database) => all_goes_through_an_api_server(Database::Postgres(Box::new(database))).await,
        None => skip(
            "all_goes_through_an_api_server_on_postgres",
            "PostgreSQL is not installed",
        ),
    }
}

/// A log is followed while its task runs in the other process, and ends with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_followed_live() {
    let (_server, _api, client) = pair(&Database::Own, &[]).await;
    client.deploy(ENDLESS).await.ok();
    let run_id = client.trigger("endless", json!({})).await;
    let path = format!("/dags/endless/dagRuns/{run_id}/taskInstances/talk/logs/1?follow=true");
    let request = client.request(Method::GET, &path).header("accept", "text/plain");
    let response = request.send().await.expect("the server answers");
    let mut stream = response.bytes_stream();
    let mut text = String::new();
    while !text.contains("line 3\n") {
        let chunk = stream.next().await.expect("the task goes on").expect("no error");
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    let task = client.task_instances("endless", &run_id).await["talk"].clone();
    assert!(task["state"] == "running" || task["state"] == "queued", "{task}");
    let path = format!("/dags/endless/dagRuns/{run_id}");
    client.patch(&path, &json!({"state": "failed"})).await.ok();
    while let Some(chunk) = stream.next().await {
        text.push_str(&String::from_utf8_lossy(&chunk.expect("no error")));
    }
    assert_eq!(client.wait("endless", &run_id).await, "failed");
    assert_eq!(text, client.log("endless", &run_id, "talk", 1).await);
}

/// The log of a callback, too, is followed from its beginning to its end.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_callback_is_followed() {
    let (server, _api, client) = pair(&Database::Own, &[]).await;
    client.deploy(CALLING).await.ok();
    let run_id = client.trigger("calling", json!({})).await;
    let callbacks = format!("/dags/calling/dagRuns/{run_id}/callbacks");
    let running = |answer: &Value| answer["callbacks"][0]["state"] == "running";
    let found = client.until("calling", &callbacks, running).await;
    let id = found["callbacks"][0]["callback_id"].as_i64().expect("an id");
    let path = format!("{callbacks}/{id}/logs?follow=true");
    let read = async |client: &Client| {
        let request = client.request(Method::GET, &path).header("accept", "text/plain");
        client.send(request).await.expect("the server answers").text
    };
    let log = read(&client).await;
    assert!(log.contains("returned 8"), "{log}");
    let after = client.get(&callbacks).await.ok();
    assert_eq!(after["callbacks"][0]["state"], "success", "its end is the log's");
    assert_eq!(log, read(&server.client().await).await);
}

/// A gap is told as one: what fell into it is asked for anew.
#[tokio::test(flavor = "multi_thread")]
async fn events_of_the_scheduler_are_told_on() {
    let (mut server, api, client) = pair(&Database::Own, &[]).await;
    client
        .deploy("dag: seen\ntasks:\n  t: {component: workload@1, task: report_progress}\n")
        .await
        .ok();
    let events = client.request(Method::GET, "/events?dag_id=seen");
    let events = events.send().await.expect("the server answers");
    assert!(!events.headers().contains_key("airtight-events-of"));
    let mut stream = events.bytes_stream();
    for moved in [false, true] {
        if moved {
            server.kill();
            server.move_port();
            server.resume().await;
            until_scheduler(&client, "healthy").await;
        }
        let mut run_id = client.trigger("seen", json!({})).await;
        let mut text = String::new();
        while !(text.contains(&run_id)
            && text.contains("\"dag_run\"")
            && text.contains("\"success\"")
            && text.contains("halfway"))
        {
            let chunk = stream.next().await.expect("the stream goes on").expect("no error");
            text.push_str(&String::from_utf8_lossy(&chunk));
            if text.contains("event: lagged") {
                text.clear();
                run_id = client.trigger("seen", json!({})).await;
            }
        }
    }
    let log = api.log();
    let complaints = log.matches("cannot follow the scheduler's events").count();
    assert!(complaints <= 1, "{log}");
}

/// Where an API server cannot follow the scheduler (its address is another machine's), whoever watches a run is told to look.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_watched_without_events() {
    let server = Server::start(&Database::Own).await;
    // It answers a moment before it is announced.
    while std::fs::remove_file(server.data_dir().join("url")).is_err() {
        tokio::task::yield_now().await;
    }
    let mut api = server.api_server(&[]);
    api.resume().await;
    let client = api.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    client
        .deploy("dag: slow\ntasks:\n  t: {component: workload@1, task: spin, input: {ms: 1500, value: 1}}\n")
        .await
        .ok();
    let (url, dir) = (api.url(), server.data_dir().to_owned());
    let scratch = server.scratch().to_owned();
    let output = tokio::task::spawn_blocking(move || {
        let dir = dir.to_str().expect("a path of ASCII");
        let arguments = [
            "--server",
            &url,
            "--data-dir",
            dir,
            "dags",
            "trigger",
            "slow",
            "--watch",
        ];
        run_cli(&arguments, &[], &scratch)
    });
    let output = output.await.expect("no panic");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("success"), "{output:?}");
    let log = api.log();
    assert_eq!(log.matches("cannot follow the scheduler's events").count(), 1, "{log}");
}

async fn a_scheduler_goes_and_comes_back(database: Database) {
    let (mut server, mut api, client) = pair(&database, &["--scheduler-patience", "100ms"]).await;
    client
        .deploy("dag: d\ntasks:\n  t: {component: workload@1, task: spin, input: {ms: 0, value: 1}}\n")
        .await
        .ok();
    let before = client.trigger("d", json!({})).await;
    assert_eq!(client.wait("d", &before).await, "success");
    let (code, text) = start_refused(server.data_dir(), &[]);
    assert_eq!(code, Some(7), "{text}");

    assert!(server.stop().await, "{}", server.log());
    let health = until_scheduler(&client, "unhealthy").await;
    assert_eq!(health["problem"], "no scheduler is running", "{health}");
    let run = client.get(&format!("/dags/d/dagRuns/{before}")).await.ok();
    assert_eq!(run["state"], "success");
    assert!(client.log("d", &before, "t", 1).await.is_empty());
    let trigger = json!({"dag_run_id": "refused", "logical_date": null});
    let refused = client.post("/dags/d/dagRuns", &trigger).await.expect(503);
    assert_eq!(refused["code"], "no_scheduler", "{refused}");
    let pool = client
        .post("/pools", &json!({"name": "p", "slots": 1}))
        .await
        .expect(503);
    assert_eq!(pool["code"], "no_scheduler", "{pool}");

    server.resume().await;
    until_scheduler(&client, "healthy").await;
    let after = client.trigger("d", json!({})).await;
    assert_eq!(client.wait("d", &after).await, "success");
    client.get("/dags/d/dagRuns/refused").await.expect(404);

    // A killed one holds its lease for a while; that it comes back at once is no second scheduler.
    server.kill();
    server.resume().await;
    let last = client.trigger("d", json!({})).await;
    assert_eq!(client.wait("d", &last).await, "success");

    // The API server stops by itself, and leaves what is the scheduler's.
    assert!(api.stop().await, "{}", api.log());
    for left in ["url", "lock", "inbox.sock"] {
        assert!(server.data_dir().join(left).exists(), "{left}");
    }
    server.client().await.trigger("d", json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_goes_and_comes_back_on_sqlite() {
    a_scheduler_goes_and_comes_back(Database::Own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_goes_and_comes_back_on_postgres() {
    match test_postgres::database().await {
        Some(database) => a_scheduler_goes_and_comes_back(Database::Postgres(Box::new(database))).await,
        None => skip(
            "a_scheduler_goes_and_comes_back_on_postgres",
            "PostgreSQL is not installed",
        ),
    }
}

/// On a directory and a database that neither has seen before.
#[tokio::test(flavor = "multi_thread")]
async fn servers_may_start_together() {
    let mut server = Server::new(&Database::Own);
    let mut apis = [server.api_server(&[]), server.api_server(&[])];
    let [first, second] = &mut apis;
    tokio::join!(server.resume(), first.resume(), second.resume());
    for api in &apis {
        let client = api.client().await;
        until_scheduler(&client, "healthy").await;
        client.deploy(ASKED).await.ok();
        client.trigger("asked", json!({})).await;
    }
    let runs = server.client().await.get("/dags/asked/dagRuns").await.ok();
    assert_eq!(runs["total_entries"], 2);
}

/// Without the bell, the scheduler looks once a second. A killed one leaves a socket that nobody listens to.
#[tokio::test(flavor = "multi_thread")]
async fn the_scheduler_hears_the_bell() {
    let (mut server, _api, client) = pair(&Database::Own, &[]).await;
    client.deploy(ASKED).await.ok();
    server.kill();
    assert!(server.data_dir().join("inbox.sock").exists());
    server.resume().await;
    client.trigger("asked", json!({})).await;
    let begin = Instant::now();
    for _ in 0..10 {
        client.trigger("asked", json!({})).await;
    }
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// Both servers compile it, for neither knows of the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_component_may_be_compiled_twice() {
    let mut server = Server::new(&Database::Own);
    let mut api = server.api_server(&[]);
    tokio::join!(server.resume(), api.resume());
    let (here, there) = (api.client().await, server.client().await);
    tokio::join!(
        here.push("workload@1", test_artifacts::E2E_WORKLOAD),
        there.push("workload@1", test_artifacts::E2E_WORKLOAD),
    );
    here.deploy("dag: d\ntasks:\n  t: {component: workload@1, task: spin, input: {ms: 0, value: 5}}\n")
        .await
        .ok();
    let run_id = here.trigger("d", json!({})).await;
    assert_eq!(there.wait("d", &run_id).await, "success");
    assert!(!server.log().contains("changed on disk"), "{}", server.log());
}

/// Asks for a run and comes back once the server works on it; nobody is there who could start it.
async fn ask_in_vain(api: &Server, client: &Client) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", api.port()))
        .await
        .expect("the server listens");
    let body = json!({"logical_date": null}).to_string();
    let head = format!(
        "POST /api/v2/dags/asked/dagRuns HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         connection: close\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        client.token(),
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("the server reads");
    let mut go_on = [0; 25];
    stream
        .read_exact(&mut go_on)
        .await
        .expect("the server asks for the body");
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(body.as_bytes()).await.expect("the server reads");
    stream
}

async fn until_stopping(api: &Server) {
    while !api.log().contains("SIGTERM") {
        tokio::task::yield_now().await;
    }
}

/// SIGTERM lets open requests end; a second one does not.
#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_stops_gracefully_or_at_once() {
    let (mut server, mut api, client) = pair(&Database::Own, &["--scheduler-patience", "1m"]).await;
    client.deploy(ASKED).await.ok();
    assert!(server.stop().await);
    until_scheduler(&client, "unhealthy").await;
    let mut other = server.api_server(&["--scheduler-patience", "1m"]);
    other.resume().await;

    let mut cut_off = ask_in_vain(&other, &client).await;
    other.signal(Signal::TERM);
    until_stopping(&other).await;
    other.signal(Signal::TERM);
    assert_eq!(other.wait_exit().await.code(), Some(130), "{}", other.log());
    let mut answer = String::new();
    let _ = cut_off.read_to_string(&mut answer).await;
    assert_eq!(answer, "");

    let mut waiting = ask_in_vain(&api, &client).await;
    api.signal(Signal::TERM);
    until_stopping(&api).await;
    server.resume().await;
    waiting.read_to_string(&mut answer).await.expect("it is answered");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(api.wait_exit().await.success(), "{}", api.log());
    let runs = server.client().await.get("/dags/asked/dagRuns").await.ok();
    assert_eq!(runs["total_entries"], 1);
}

/// An API server that cannot compile takes an upload and is killed; the server that schedules finishes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_was_left_behind_becomes_ready() {
    let mut server = Server::new(&Database::Own).with_options(&["--compile-patience", "200ms"]);
    server.resume().await;
    let beside = binary();
    let dir = tempfile::tempdir_in(beside.parent().expect("it lies in a directory")).expect("it can be made");
    let program = dir.path().join("airtight");
    std::fs::hard_link(&beside, &program).expect("it can be linked");
    let mut api = server.api_server(&[]).with_program(program.clone());
    api.resume().await;
    // Compiling starts the program anew, which is not there any more: that is tried again for a while.
    std::fs::remove_file(&program).expect("it is there");
    let client = api.client().await;
    let wasm = std::fs::read(test_artifacts::E2E_WORKLOAD).expect("it was built");
    let upload = client
        .request(Method::POST, "/components?name=left&version=1")
        .header("content-type", "application/wasm")
        .body(wasm);
    let component = client.send(upload).await.expect("the server answers").expect(201);
    assert_eq!(component["state"], "compiling", "{component}");
    api.kill();
    let client = server.client().await;
    let ready = client.get("/components/left@1?wait=true").await.ok();
    assert_eq!(ready["state"], "ready", "{ready}");
    assert!(
        server.log().contains("which another server has not finished"),
        "{}",
        server.log()
    );
}

/// What a run may refer to is what its caller may read: not any digest that somebody knows.
async fn a_reference_in_conf_is_no_permission(database: Database) {
    let (server, api, _) = pair(&database, &[]).await;
    let (here, there) = (server.client().await, api.client().await);
    let dag =
        "dag: reads\ntasks:\n  read: {component: workload@1, task: read_blob, input: {blob: \"{{ conf.blob }}\"}}\n";
    here.deploy(dag).await.ok();
    let component = here.get("/components/workload@1").await.ok();
    let component = json!({"$blob": component["digest"], "size": component["size"]});
    let unknown = json!({"$blob": format!("sha256:{}", "0".repeat(64)), "size": 1});
    for client in [&here, &there] {
        let path = format!("/blobs/{}", component["$blob"].as_str().unwrap());
        client.get(&path).await.expect(404);
        for blob in [&component, &unknown] {
            let body = json!({"logical_date": null, "conf": {"blob": blob, "again": [blob]}});
            let refused = client.post("/dags/reads/dagRuns", &body).await.expect(400);
            assert_eq!(refused["code"], "invalid_params", "{refused}");
            let detail = refused["detail"].as_str().unwrap();
            let digest = blob["$blob"].as_str().unwrap();
            assert!(
                detail.contains(&format!("there is no blob `{digest}` that you may read")),
                "{detail}"
            );
        }
        let odd = json!({"logical_date": null, "conf": {"blob": {"$blob": "x", "size": 1}}});
        let refused = client.post("/dags/reads/dagRuns", &odd).await.expect(400);
        assert_eq!(refused["code"], "invalid_params", "{refused}");
    }
    assert_eq!(here.get("/dags/reads/dagRuns").await.ok()["total_entries"], 0);
    // Uploaded at one server, referred to at the other.
    for (at, content, client) in [(&here, "here", &there), (&there, "there", &here)] {
        let upload = at.request(Method::POST, "/blobs").body(content);
        let blob = at.send(upload).await.unwrap().expect(201);
        let path = format!("/blobs/{}", blob["$blob"].as_str().unwrap());
        let read = client.request(Method::GET, &path).send().await.unwrap();
        assert_eq!(read.text().await.unwrap(), content);
        let mut wrong = blob.clone();
        wrong["size"] = json!(1);
        let body = json!({"logical_date": null, "conf": {"blob": wrong}});
        let refused = client.post("/dags/reads/dagRuns", &body).await.expect(400);
        assert!(
            refused["detail"]
                .as_str()
                .unwrap()
                .contains(&format!("has {} bytes, not 1", content.len()))
        );
        let run_id = client.trigger("reads", json!({"blob": blob})).await;
        assert_eq!(client.wait("reads", &run_id).await, "success");
        let read = client.xcom("reads", &run_id, "read", "return_value").await;
        assert_eq!(read["digest"], blob["$blob"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_in_conf_is_no_permission_on_sqlite() {
    a_reference_in_conf_is_no_permission(Database::Own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_in_conf_is_no_permission_on_postgres() {
    match test_postgres::database().await {
        Some(database) => a_reference_in_conf_is_no_permission(Database::Postgres(Box::new(database))).await,
        None => skip(
            "a_reference_in_conf_is_no_permission_on_postgres",
            "PostgreSQL is not installed",
        ),
    }
}
