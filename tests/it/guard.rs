//! Who fills the disk, floods logs, guesses passwords or opens connections harms nobody else.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Client, Database, Server, run_cli, skip};

async fn upload(client: &Client, bytes: Vec<u8>) -> (u16, Value) {
    let request = client.request(Method::POST, "/blobs").body(bytes);
    let answer = client.send(request).await.expect("the server answers");
    (answer.status.as_u16(), answer.body)
}

fn refused_for_space((status, body): (u16, Value), says: &str) {
    assert_eq!((status, &body["code"]), (507, &json!("no_space")), "{body}");
    let detail = body["detail"].as_str().unwrap_or_default();
    assert!(
        detail.contains(says) && !body["request_id"].as_str().unwrap_or_default().is_empty(),
        "{body}"
    );
}

const SPACE: &str = r#"
dag: space
defaults: {retries: 0}
tasks:
  talk: {component: lines@1, task: chatty, input: 50}
  blob: {component: workload@1, task: make_blob, input: {bytes: 100000}, after: [talk]}
  checkpoint: {component: workload@1, task: count_with_checkpoint, input: {to: 1}, after: [talk]}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_of_the_disk_is_kept_from_tasks_and_uploads() {
    let mut server = Server::start(&Database::Own).await;
    let client = server.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    client.push("lines@1", test_artifacts::LOG_LINES).await;
    client.deploy(SPACE).await.ok();
    let health = client.get("/monitor/health").await.ok();
    assert_eq!(health["storage"]["status"], "healthy", "{health}");
    assert!(server.stop().await);

    // More than any disk has.
    let mut server = server.with_options(&["--min-free-mib", "1000000000"]);
    server.resume().await;
    let client = server.client().await;
    let health = client.get("/monitor/health").await.ok();
    assert_eq!(health["storage"]["status"], "unhealthy", "{health}");
    assert!(health["storage"]["free_bytes"].as_u64() < health["storage"]["reserved_bytes"].as_u64());
    refused_for_space(
        upload(&client, b"small".to_vec()).await,
        "keeps 1000000000 MiB for itself",
    );
    let component = client
        .upload(
            "another@1",
            std::fs::read(test_artifacts::E2E_NOOP).expect("it was built"),
        )
        .await;
    refused_for_space((component.status.as_u16(), component.body), "nearly full");

    // The control plane goes on; what tasks write is refused, and what is lost leaves a trace.
    let run_id = client.trigger("space", json!({})).await;
    assert_eq!(client.wait("space", &run_id).await, "failed");
    let tasks = client.task_instances("space", &run_id).await;
    assert_eq!(tasks["talk"]["state"], "success", "{tasks:#?}");
    for task in ["blob", "checkpoint"] {
        assert_eq!(tasks[task]["state"], "failed", "{tasks:#?}");
        let log = client.log("space", &run_id, task, 1).await;
        assert!(log.contains("no_space") || log.contains("nearly full"), "{task}: {log}");
    }
    let log = client.log("space", &run_id, "talk", 1).await;
    assert!(
        log.contains("50 lines are missing here") && log.contains("nearly full"),
        "{log}"
    );
    assert!(server.stop().await);
    assert!(server.log().contains("lines were lost"), "{}", server.log());
}

const CHATTY: &str = r#"
dag: chatty
defaults: {retries: 0, limits: {log: 500KB}}
tasks:
  cut: {component: lines@1, task: chatty, input: 20000}
  fail: {component: lines@1, task: chatty, input: 20000, limits: {on_log_limit: fail}}
"#;

/// What all logs take on the disk, and how many there are.
fn stored_logs(server: &Server) -> (u64, usize) {
    let runs = std::fs::read_dir(server.data_dir().join("logs")).expect("there are logs");
    let logs =
        runs.flat_map(|run| std::fs::read_dir(run.expect("it is listed").path()).expect("a run has a directory"));
    let sizes: Vec<u64> = logs
        .map(|log| log.expect("it is listed").metadata().expect("it is there").len())
        .collect();
    (sizes.iter().sum(), sizes.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_takes_no_more_of_the_disk_than_its_limit() {
    let server = Server::start(&Database::Own).await;
    let client = server.client().await;
    client.push("lines@1", test_artifacts::LOG_LINES).await;
    // Each task prints less than its limit, in lines that take six times as much as they say.
    let text = CHATTY.replace(", limits: {on_log_limit: fail}", "");
    client.deploy(&text).await.ok();
    let run_id = client.trigger("chatty", json!({})).await;
    assert_eq!(client.wait("chatty", &run_id).await, "success");
    let (bytes, logs) = stored_logs(&server);
    assert_eq!(logs, 2);
    assert!(bytes < 2 * (500_000 + (64 << 10) + 1_000), "{bytes} bytes");
    let log = client.log("chatty", &run_id, "cut", 1).await;
    for says in [
        "row 0 is odd",
        "the log is cut here",
        "were dropped here",
        "row 19999 is odd",
    ] {
        assert!(log.contains(says), "the log does not say `{says}`");
    }
    // Whoever wants the task to end of it says so.
    client.deploy(CHATTY).await.ok();
    let run_id = client.trigger("chatty", json!({})).await;
    assert_eq!(client.wait("chatty", &run_id).await, "failed");
    let tasks = client.task_instances("chatty", &run_id).await;
    assert_eq!(
        (&tasks["cut"]["state"], &tasks["fail"]["cause"]),
        (&json!("success"), &json!("output_limit"))
    );
}

/// A file system of its own in memory; none where this process may not make one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(mib: u32) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"])
            .arg(dir.path());
        let mounted = mount.stderr(Stdio::null()).status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(dir))
    }

    fn fill(&self) -> PathBuf {
        use std::io::Write as _;
        let path = self.0.path().join("ballast");
        let mut file = std::fs::File::create(&path).expect("a file can be made");
        for size in [1 << 20, 4 << 10, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_as_such_and_passes() {
    let Some(disk) = SmallDisk::mount(256) else {
        skip(
            "a_full_disk_is_told_as_such_and_passes",
            "only root can mount a small disk",
        );
        return;
    };
    let mut server = Server::new(&Database::Own)
        .with_data_dir(disk.0.path().join("data"))
        .with_options(&["--min-free-mib", "0"]);
    server.resume().await;
    let client = server.client().await;
    let ballast = disk.fill();
    refused_for_space(upload(&client, vec![7; 2 << 20]).await, "disk is full");
    let wasm = std::fs::read(test_artifacts::E2E_WORKLOAD).expect("it was built");
    let component = client.upload("workload@1", wasm.clone()).await;
    refused_for_space((component.status.as_u16(), component.body), "disk is full");
    std::fs::remove_file(ballast).expect("it is there");
    assert_eq!(upload(&client, vec![7; 2 << 20]).await.0, 201);
    client.upload("workload@1", wasm).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_s_wrong_passwords_keep_the_local_command_line_out() {
    let server = Server::start(&Database::Own).await;
    let http = reqwest::Client::new();
    let log_in = |username: &'static str, password: String| {
        let body = json!({ "username": username, "password": password });
        let request = http.post(format!("{}/auth/token", server.url())).json(&body);
        async move { request.send().await.expect("the server answers") }
    };
    // For names that nobody has, as often as one likes.
    for _ in 0..25 {
        log_in("root", "wrong".to_owned()).await;
    }
    assert_eq!(log_in("admin", server.password()).await.status(), 201);
    for _ in 0..25 {
        log_in("admin", "wrong".to_owned()).await;
    }
    let refused = log_in("admin", server.password()).await;
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    let data_dir = server.data_dir().to_str().expect("the path is text");
    let home = server.scratch().to_str().expect("the path is text");
    let listed = run_cli(
        &["--data-dir", data_dir, "dags", "list"],
        &[("HOME", home)],
        server.scratch(),
    );
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_keep_nobody_out() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let old = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: old.maximum,
        maximum: old.maximum,
    };
    if setrlimit(Resource::Nofile, raised).is_err() || old.maximum.is_some_and(|most| most < 4_096) {
        skip("idle_connections_keep_nobody_out", "too few file descriptors");
        return;
    }
    let server = Server::start(&Database::Own).await;
    let mut idle = Vec::new();
    for _ in 0..1_100 {
        let stream = TcpStream::connect(("127.0.0.1", server.port())).await;
        idle.push(stream.expect("the kernel takes it"));
    }
    let mut stream = TcpStream::connect(("127.0.0.1", server.port()))
        .await
        .expect("the kernel takes it");
    let request = "GET /api/v2/version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("it is taken");
    let mut answer = String::new();
    // By itself none of them ends within 30 seconds: the bound is far from both.
    let answered = tokio::time::timeout(Duration::from_secs(20), stream.read_to_string(&mut answer)).await;
    answered.expect("an answer at once").expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let last = idle.last_mut().expect("there are many");
    let mut byte = [0];
    assert!(last.try_read(&mut byte).is_err(), "the youngest of them is still open");
}
