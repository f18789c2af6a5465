//! A running `airtight standalone` or `airtight api-server`, and what can be done to it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{Client, Database};

/// The binary under test: `AIRTIGHT_BIN`, else what `cargo build` left beside the tests.
pub(crate) fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("AIRTIGHT_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("a test knows its own path");
    let dir = test
        .parent()
        .and_then(Path::parent)
        .expect("tests lie in target/<profile>/deps");
    let path = dir.join("airtight");
    assert!(
        path.is_file(),
        "{} does not exist; run `cargo build --bin airtight` first",
        path.display()
    );
    path
}

/// Runs a command of the binary to its end.
pub(crate) fn run_cli(arguments: &[&str], environment: &[(&str, &str)], dir: &Path) -> Output {
    let mut command = Command::new(binary());
    command
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .env_remove("AIRTIGHT_SERVER")
        .env("NO_COLOR", "1");
    command.envs(environment.iter().copied());
    command.output().expect("the binary starts")
}

/// A server: a standalone one in a data directory of its own, or one for the API beside it.
pub(crate) struct Server {
    dir: Option<TempDir>,
    data_dir: PathBuf,
    log_path: PathBuf,
    program: PathBuf,
    /// The command and its own options.
    command: Vec<String>,
    database: Option<String>,
    port: u16,
    child: Option<Child>,
}

impl Server {
    /// Starts a server in a fresh data directory.
    pub(crate) async fn start(database: &Database) -> Self {
        let mut server = Self::new(database);
        server.resume().await;
        server
    }

    /// A standalone server with a data directory of its own; not yet started.
    pub(crate) fn new(database: &Database) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let data_dir = dir.path().join("data");
        Self {
            log_path: data_dir.with_extension("log"),
            program: binary(),
            command: vec!["standalone".to_owned()],
            dir: Some(dir),
            data_dir,
            database: database.url(),
            port: free_port(),
            child: None,
        }
    }

    /// A server for the API on this one's data directory and database; not yet started.
    pub(crate) fn api_server(&self, options: &[&str]) -> Self {
        let port = free_port();
        let command = ["api-server"].iter().chain(options);
        Self {
            dir: None,
            data_dir: self.data_dir.clone(),
            log_path: self.data_dir.with_extension(format!("{port}.log")),
            program: binary(),
            command: command.map(|&text| text.to_owned()).collect(),
            database: self.database.clone(),
            port,
            child: None,
        }
    }

    /// The same with options of its own; not yet started.
    pub(crate) fn with_options(mut self, options: &[&str]) -> Self {
        self.command.extend(options.iter().map(|&text| text.to_owned()));
        self
    }

    /// The same with a data directory that lies elsewhere, such as on a disk of its own; not yet started.
    pub(crate) fn with_data_dir(mut self, dir: PathBuf) -> Self {
        self.data_dir = dir;
        self
    }

    /// A second server on the same database with a data directory of its own; not yet started.
    pub(crate) fn sibling(&self, database: &Database) -> Self {
        Self::new(database)
    }

    /// The same, from another file of the program; not yet started.
    pub(crate) fn with_program(mut self, program: PathBuf) -> Self {
        self.program = program;
        self
    }

    fn spawn(&self) -> Child {
        std::fs::create_dir_all(self.data_dir.parent().expect("it has a parent")).expect("it can be made");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log_path)
            .expect("a log file");
        let mut command = Command::new(&self.program);
        command
            .args(&self.command)
            .args(["--listen", &format!("127.0.0.1:{}", self.port), "--data-dir"])
            .arg(&self.data_dir);
        if let Some(database) = &self.database {
            command.args(["--database", database]);
        }
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
        command.spawn().expect("the binary starts")
    }

    /// Starts the process (again) and waits until it is ready.
    pub(crate) async fn resume(&mut self) {
        assert!(self.child.is_none(), "the server runs already");
        self.child = Some(self.spawn());
        self.wait_ready().await;
    }

    /// Starts the process again where it was killed.
    pub(crate) async fn resume_if_killed(&mut self) {
        if self.child.is_none() {
            self.resume().await;
        }
    }

    /// Starts the process; an error is what it printed before it stopped by itself.
    pub(crate) async fn try_start(&mut self) -> Result<(), String> {
        let url = format!("{}/api/v2/monitor/health", self.url());
        let _ = std::fs::remove_file(&self.log_path);
        let mut child = self.spawn();
        let http = reqwest::Client::new();
        loop {
            if let Some(status) = child.try_wait().expect("the process can be watched") {
                return Err(format!("{status}: {}", self.log()));
            }
            if http
                .get(&url)
                .send()
                .await
                .is_ok_and(|answer| answer.status().is_success())
            {
                self.child = Some(child);
                return Ok(());
            }
            // The only way to learn that a process listens is to ask it again.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Shares the blobs of another server: they lie in its data directory.
    pub(crate) fn copy_blobs_from(&self, other: &Self) {
        std::fs::create_dir_all(&self.data_dir).expect("it can be made");
        let copied = Command::new("cp")
            .arg("-r")
            .arg(other.data_dir.join("blobs"))
            .arg(&self.data_dir)
            .status();
        assert!(copied.is_ok_and(|status| status.success()), "the blobs can be copied");
    }

    /// Waits until the server answers that it is healthy.
    pub(crate) async fn wait_ready(&mut self) {
        let url = format!("{}/api/v2/monitor/health", self.url());
        let http = reqwest::Client::new();
        let begin = Instant::now();
        loop {
            if http
                .get(&url)
                .send()
                .await
                .is_ok_and(|answer| answer.status().is_success())
            {
                return;
            }
            let child = self.child.as_mut().expect("it was started");
            if let Some(status) = child.try_wait().expect("the process can be watched") {
                panic!("the server stopped ({status}):\n{}", self.log());
            }
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "the server is not ready:\n{}",
                self.log()
            );
            // The only way to learn that a process listens is to ask it again.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// `http://127.0.0.1:port`.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port alone.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// From its next start on it listens on another port.
    pub(crate) fn move_port(&mut self) {
        self.port = free_port();
    }

    /// Its data directory.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// A directory for whatever a test wants to write.
    pub(crate) fn scratch(&self) -> &Path {
        self.dir.as_ref().expect("only given away on drop").path()
    }

    /// What it has printed so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log_path).unwrap_or_default()
    }

    /// The administrator's password.
    pub(crate) fn password(&self) -> String {
        let text = std::fs::read_to_string(self.data_dir.join("admin-password")).expect("the password was written");
        text.trim().to_owned()
    }

    /// A logged-in client.
    pub(crate) async fn client(&self) -> Client {
        Client::login(&self.url(), "admin", &self.password()).await
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a process id");
        kill_process(pid, signal).expect("the process can be signalled");
    }

    /// `kill -9`, and waits until the process is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the process can be killed");
            child.wait().expect("the process can be waited for");
        }
    }

    /// Asks it to stop and waits; answers whether it ended with exit code 0.
    pub(crate) async fn stop(&mut self) -> bool {
        self.signal(Signal::TERM);
        self.wait_exit().await.success()
    }

    /// Waits until the process has ended by itself.
    pub(crate) async fn wait_exit(&mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().expect("it runs");
        tokio::task::spawn_blocking(move || child.wait())
            .await
            .expect("no panic")
            .expect("the process can be waited for")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "a failed test shows what its server said")]
            {
                eprintln!("--- log of the server on port {}:\n{}", self.port, self.log());
            }
        }
    }
}

/// Starts a server that is expected to refuse to start; answers its exit code and what it printed.
pub(crate) fn start_refused(data_dir: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let listen = format!("127.0.0.1:{}", free_port());
    let output = Command::new(binary())
        .args(["standalone", "--listen", &listen, "--data-dir"])
        .arg(data_dir)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it has an address").port()
}
