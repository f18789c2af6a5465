//! Guests and components that take what belongs to all, beside runs that must not notice.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::component::Wat;
use crate::support::{Client, Database, Server, binary, run_cli};

const INNOCENT: &str = "dag: innocent\ntasks:\n  n: {component: workload@1, task: numbers, input: {count: 3}}\n";

/// Runs one after the other; all of them succeed.
async fn innocent_runs(client: &Client, number: usize) {
    for _ in 0..number {
        let run = client.trigger("innocent", json!({})).await;
        assert_eq!(client.wait("innocent", &run).await, "success");
    }
}

async fn deploy(client: &Client, manifest: &str) {
    client.deploy(manifest).await.ok();
}

/// Counts the task instances of a run in a state.
fn in_state(instances: &Value, state: &str) -> usize {
    let all = instances["task_instances"].as_array().expect("a list");
    all.iter().filter(|instance| instance["state"] == state).count()
}

async fn cancel(client: &Client, dag: &str, run: &str) {
    let path = format!("/dags/{dag}/dagRuns/{run}");
    client.patch(&path, &json!({"state": "failed"})).await.ok();
    client.wait(dag, run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn components_that_need_much_of_the_engine_wait_and_others_run() {
    let mut server = Server::new(&Database::Own).with_options(&["--parallelism", "8"]);
    server.resume().await;
    let client = server.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    let tables = format!(
        "(component\n(core module $t {}){}",
        "(table 1 funcref)".repeat(16),
        "(core instance (instantiate $t))".repeat(4)
    );
    let text = Wat::run("(loop $l (br $l)) unreachable").text();
    let wasm = wat::parse_str(text.replacen("(component", &tables, 1)).expect("the test's WAT is valid");
    let component = client.upload("tables@1", wasm).await.ok();
    assert_eq!(component["state"], "ready", "{component}");
    assert_eq!(component["engine"]["tables"], 64, "{component}");
    assert_eq!(component["queue_position"], Value::Null, "{component}");
    let listed = client.get("/components").await.ok();
    assert!(
        listed["components"]
            .as_array()
            .expect("a list")
            .iter()
            .all(|one| one["engine"]["memories"] == 1),
        "{listed}"
    );
    let tasks: String = (0..5)
        .map(|n| format!("  t{n}: {{component: tables@1, task: t, input: null}}\n"))
        .collect();
    deploy(&client, &format!("dag: large\ntasks:\n{tasks}")).await;
    deploy(&client, INNOCENT).await;

    let run = client.trigger("large", json!({})).await;
    let path = format!("/dags/large/dagRuns/{run}/taskInstances");
    let begun = client
        .until("large", &path, |instances| in_state(instances, "running") == 2)
        .await;
    assert_eq!(in_state(&begun, "queued"), 3, "they wait for the engine: {begun}");
    innocent_runs(&client, 10).await;
    let still = client.get(&path).await.ok();
    assert_eq!(
        (in_state(&still, "running"), in_state(&still, "queued")),
        (2, 3),
        "{still}"
    );
    cancel(&client, "large", &run).await;

    let environment = [("AIRTIGHT_SERVER", server.url())];
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let data_dir = server.data_dir().display().to_string();
    let arguments = ["components", "inspect", "tables@1", "--data-dir", &data_dir];
    let said = run_cli(&arguments, &environment, server.scratch());
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("5 core instances, 1 memory, 64 tables"), "{said}");
}

/// The program as it starts under limits of file descriptors.
fn with_few_descriptors(dir: &Path, soft: u32, hard: u32) -> PathBuf {
    let program = dir.join("airtight-with-few-descriptors");
    let binary = binary();
    let script = format!(
        "#!/bin/sh\nulimit -S -n {soft}; ulimit -H -n {hard}\nexec {} \"$@\"\n",
        binary.display()
    );
    std::fs::write(&program, script).expect("it can be written");
    std::fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("it can be made executable");
    program
}

#[tokio::test(flavor = "multi_thread")]
async fn health_says_that_the_server_is_short_of_descriptors() {
    let scratch = tempfile::tempdir().expect("a temporary directory can be made");
    let program = with_few_descriptors(scratch.path(), 80, 80);
    let mut server = Server::new(&Database::Own).with_program(program);
    server.resume().await;
    let health = server.client().await.get("/monitor/health").await.ok();
    let descriptors = &health["descriptors"];
    assert_eq!(
        (&descriptors["status"], &descriptors["limit"]),
        (&json!("unhealthy"), &json!(80)),
        "{health}"
    );
    let problem = descriptors["problem"].as_str().unwrap_or_default();
    assert!(
        problem.contains("the limit is 80") && problem.contains("ulimit -n"),
        "{problem}"
    );
    assert!(
        server.log().contains("the limit of file descriptors is low"),
        "{}",
        server.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tries_that_hoard_blobs_leave_the_server_its_descriptors() {
    let scratch = tempfile::tempdir().expect("a temporary directory can be made");
    let program = with_few_descriptors(scratch.path(), 200, 400);
    let mut server = Server::new(&Database::Own)
        .with_options(&["--parallelism", "8"])
        .with_program(program);
    server.resume().await;
    let client = server.client().await;
    let descriptors = async || client.get("/monitor/health").await.ok()["descriptors"].clone();
    let quiet = descriptors().await;
    assert_eq!(quiet["limit"], 400, "the soft limit was raised: {quiet}");
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    client.push("blobs@1", test_artifacts::BLOB_ACCESS).await;
    let tasks: String = (0..6)
        .map(|n| format!("  t{n}: {{component: blobs@1, task: hoard}}\n"))
        .collect();
    deploy(&client, &format!("dag: hoard\ntasks:\n{tasks}")).await;
    deploy(&client, INNOCENT).await;

    let run = client.trigger("hoard", json!({})).await;
    let path = format!("/dags/hoard/dagRuns/{run}/taskInstances");
    client
        .until("hoard", &path, |instances| in_state(instances, "running") == 6)
        .await;
    // They end only when they are cancelled: their logs say when they hold all that they get.
    for task in 0..6 {
        let path = format!("/dags/hoard/dagRuns/{run}/taskInstances/t{task}/logs/1");
        let mut said = String::new();
        for _ in 0..10_000 {
            said = client.get(&path).await.text;
            if said.contains("hoarding") {
                break;
            }
            innocent_runs(&client, 1).await;
        }
        assert!(said.contains("hoarding 6 and 60"), "{said}");
    }
    innocent_runs(&client, 10).await;
    let busy = descriptors().await;
    assert_eq!(busy["status"], "healthy", "{busy}");
    assert!(busy["open"].as_u64().is_some_and(|open| open < 250), "{busy}");
    let others = futures::future::join_all((0..50).map(|_| client.get("/version"))).await;
    assert!(
        others.iter().all(|answer| answer.status.is_success()),
        "connections are accepted"
    );
    cancel(&client, "hoard", &run).await;
    assert!(!server.log().contains("cannot accept a connection"), "{}", server.log());
    assert!(!server.log().contains("cannot write a task log"), "{}", server.log());
}

/// A component that takes a while to compile.
fn slow(seed: usize) -> Vec<u8> {
    let plain = Wat::default();
    let function = format!("(func {})", "(drop (i32.load (i32.const 1)))".repeat(150_000));
    let module = format!(
        "{} (global i32 (i32.const {seed})) {}",
        plain.module,
        function.repeat(2)
    );
    Wat { module, ..plain }.wasm()
}

/// The parent of a process and its nice value.
fn parent_and_nice(process: &Path) -> Option<(u32, i64)> {
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    // After the name in parentheses: state, parent, …, and nice as the 17th.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.get(1)?.parse().ok()?, fields.get(16)?.parse().ok()?))
}

/// The nice values of the compilers of a server.
fn compilers(server: u32) -> Vec<i64> {
    let processes = std::fs::read_dir("/proc").expect("a list of processes");
    let all = processes.filter_map(|entry| parent_and_nice(&entry.ok()?.path()));
    all.filter(|(parent, _)| *parent == server)
        .map(|(_, nice)| nice)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn compiling_yields_to_the_rest_and_tells_who_waits_its_place() {
    let mut server = Server::new(&Database::Own);
    server.resume().await;
    let client = server.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    deploy(&client, INNOCENT).await;
    let upload = async |tag: &str, wasm: Vec<u8>| {
        let path = format!("/components?name={tag}&version=1");
        let request = client
            .request(reqwest::Method::POST, &path)
            .header("content-type", "application/wasm");
        client.send(request.body(wasm)).await.expect("the server answers").ok()
    };
    for seed in 0..3 {
        upload(&format!("slow{seed}"), slow(seed)).await;
    }
    let last = upload("small", Wat::default().wasm()).await;
    assert!(
        last["queue_position"].as_u64().is_some_and(|place| place >= 1),
        "it is told its place: {last}"
    );
    let environment = [("AIRTIGHT_SERVER", server.url())];
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let data_dir = server.data_dir().display().to_string();
    let arguments = ["components", "inspect", "small@1", "--data-dir", &data_dir];
    let said = run_cli(&arguments, &environment, server.scratch());
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(
        said.contains("compiled before it") || said.contains("the next to be compiled"),
        "{said}"
    );
    // A child sets its own priority before it looks at the component.
    let pid = server.pid();
    let (_, own) = parent_and_nice(Path::new(&format!("/proc/{pid}"))).expect("it runs");
    while !compilers(pid).contains(&(own + 10).min(19)) {
        let small = client.get("/components/small@1").await.ok();
        assert_eq!(small["state"], "compiling", "no compiler of low priority was seen");
    }
    innocent_runs(&client, 5).await;
    let small = client.get("/components/small@1?wait=true").await.ok();
    assert_eq!(
        (&small["state"], &small["queue_position"]),
        (&json!("ready"), &Value::Null),
        "{small}"
    );
}
