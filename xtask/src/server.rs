//! Starting a real server in a fresh data directory.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::client::{self, Client};

/// A running `airtight standalone` or `airtight api-server`. It is stopped when this is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    pub(crate) data_dir: PathBuf,
    /// From the start of the process to the first healthy answer.
    pub(crate) started_in: Duration,
}

impl Server {
    /// Starts the server and waits until it is ready.
    pub(crate) fn start(binary: &Path, data_dir: &Path, port: u16) -> Result<Self> {
        Self::start_as("standalone", binary, data_dir, port)
    }

    /// Starts an API server beside it.
    pub(crate) fn beside(&self, binary: &Path) -> Result<Self> {
        Self::start_as("api-server", binary, &self.data_dir, free_port(0)?)
    }

    fn start_as(command: &str, binary: &Path, data_dir: &Path, port: u16) -> Result<Self> {
        let listen = format!("127.0.0.1:{port}");
        let url = format!("http://{listen}");
        let log = data_dir.with_extension(format!("{command}.log"));
        let output = std::fs::File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let begin = Instant::now();
        let mut child = Command::new(binary)
            .args([command, "--listen", &listen, "--data-dir"])
            .arg(data_dir)
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("cannot share the log file")?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let health = format!("{url}/api/v2/monitor/health");
        let http = client::agent();
        loop {
            if http
                .get(&health)
                .call()
                .is_ok_and(|answer| answer.status().is_success())
            {
                break;
            }
            if let Some(status) = child.try_wait().context("cannot watch the server")? {
                bail!("the server stopped ({status}); its output is in {}", log.display());
            }
            if begin.elapsed() > Duration::from_secs(60) {
                let _ = child.kill();
                bail!(
                    "the server was not ready within a minute; its output is in {}",
                    log.display()
                );
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(Self {
            child,
            url,
            data_dir: data_dir.to_owned(),
            started_in: begin.elapsed(),
        })
    }

    /// Logs in as the administrator.
    pub(crate) fn login(&self) -> Result<Client> {
        let path = self.data_dir.join("admin-password");
        let password = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Client::login(&self.url, "admin", password.trim())
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the server ends by itself (`--keep`).
    pub(crate) fn wait(mut self) -> Result<()> {
        self.child.wait().context("cannot wait for the server")?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM lets it hand back what runs; the standard library only knows SIGKILL.
        let pid = self.child.id().to_string();
        let asked = Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .is_ok_and(|status| status.success());
        let begin = Instant::now();
        while asked && begin.elapsed() < Duration::from_secs(20) {
            if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The port that people expect, or any free one.
pub(crate) fn free_port(preferred: u16) -> Result<u16> {
    if preferred != 0 && TcpListener::bind(("127.0.0.1", preferred)).is_ok() {
        return Ok(preferred);
    }
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no port is free on the loopback address")?;
    Ok(listener.local_addr().context("the listener has no address")?.port())
}
