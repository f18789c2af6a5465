//! The server's side of compiling: starts the child with limits, reads its answer, keeps the code.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use model::Digest;
use ports::component::{ComponentCompiler, EngineNeeds, Inspected, Refusal};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::sync::Semaphore;

use super::protocol::{Answer, Job, refusal};
use crate::code::CodeCache;
use crate::outcome::bytes;

/// The longest answer of a child: the descriptor has at most 1 MiB, and may grow when it is written again.
const MAX_ANSWER_BYTES: u64 = 16 << 20;
/// How much of the child's standard error is kept for the log.
const MAX_STDERR_BYTES: u64 = 16 << 10;

/// CPU time that compiling a component may take, unless told otherwise: an interpreter of 20 MB takes half a minute.
pub const CPU_TIME: Duration = Duration::from_secs(120);

/// How components are compiled.
#[derive(Clone, Debug)]
pub struct CompilerConfig {
    /// The executable of the child: an absolute path.
    pub program: PathBuf,
    /// Its first arguments, which lead it to [`super::compile_child_main`].
    pub args: Vec<OsString>,
    /// Private writable memory of a child, in bytes.
    pub memory_bytes: u64,
    /// CPU time of a child, over all its threads.
    pub cpu_time: Duration,
    /// Wall time of a child.
    pub timeout: Duration,
    /// How many children there may be at a time.
    pub parallel: usize,
}

impl CompilerConfig {
    /// The running executable with [`super::INTERNAL_COMPILE`], and limits that a 20 MB interpreter component stays under.
    pub fn this_executable() -> io::Result<Self> {
        Ok(Self::new(
            std::env::current_exe()?,
            vec![super::INTERNAL_COMPILE.into()],
        ))
    }

    /// Another executable, with the same limits.
    pub fn new(program: PathBuf, args: Vec<OsString>) -> Self {
        Self {
            program,
            args,
            memory_bytes: 4 << 30,
            cpu_time: CPU_TIME,
            timeout: Duration::from_secs(300),
            parallel: 2,
        }
    }
}

/// Compiles in child processes.
pub struct ChildCompiler {
    config: CompilerConfig,
    code: Arc<CodeCache>,
    children: Semaphore,
}

impl ChildCompiler {
    /// A compiler whose code goes into `code`.
    pub fn new(config: CompilerConfig, code: Arc<CodeCache>) -> Self {
        let children = Semaphore::new(config.parallel.max(1));
        Self { config, code, children }
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&CodeCache) -> T + Send + 'static) -> io::Result<T> {
        let code = Arc::clone(&self.code);
        tokio::task::spawn_blocking(move || work(&code))
            .await
            .map_err(io::Error::other)
    }

    async fn run_child(&self, job: &Job) -> io::Result<Result<Inspected, Refusal>> {
        let mut child = Command::new(&self.config.program)
            .args(&self.config.args)
            .args(job.to_args())
            .env_clear()
            // Cranelift's worker threads recurse on deeply nested code.
            .env("RUST_MIN_STACK", (16 << 20).to_string())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        // Its end tells the child that this process is gone.
        let _stdin = child.stdin.take();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let talk = async {
            let (answer, complaint) = tokio::join!(
                read_up_to(stdout, MAX_ANSWER_BYTES),
                read_up_to(stderr, MAX_STDERR_BYTES)
            );
            io::Result::Ok((answer?, complaint?, child.wait().await?))
        };
        let Ok(ended) = tokio::time::timeout(self.config.timeout, talk).await else {
            // Dropping the child kills it.
            return Ok(Err(refusal(
                "component_not_compilable",
                format!(
                    "compiling the component took longer than {} s",
                    self.config.timeout.as_secs()
                ),
            )));
        };
        let (answer, complaint, status) = ended?;
        if !status.success() {
            return self.died(status, &String::from_utf8_lossy(&complaint));
        }
        match serde_json::from_slice(&answer)? {
            Answer::Ready(inspected) => Ok(Ok(inspected)),
            Answer::Refused(refusal) => Ok(Err(refusal)),
            Answer::Failed { message } => Err(io::Error::other(message)),
        }
    }

    fn died(&self, status: ExitStatus, complaint: &str) -> io::Result<Result<Inspected, Refusal>> {
        tracing::debug!(%status, complaint, "the compiler child died");
        let message = match status.signal() {
            Some(libc::SIGXCPU) => format!(
                "compiling the component took more than {} s of CPU time; make it smaller, or start the server with a larger `--compile-cpu-time`",
                self.config.cpu_time.as_secs()
            ),
            Some(libc::SIGABRT) if complaint.contains("memory allocation of") => format!(
                "compiling the component took more than {} of memory",
                bytes(self.config.memory_bytes)
            ),
            Some(libc::SIGABRT | libc::SIGSEGV | libc::SIGBUS) => "the compiler crashed on this component".to_owned(),
            // Killed from outside (SIGKILL by the kernel or a person): not the component's fault for all we know.
            _ => {
                let last = complaint.lines().last().unwrap_or("it said nothing");
                return Err(io::Error::other(format!(
                    "the compiler process ended with {status}: {last}"
                )));
            }
        };
        Ok(Err(refusal("component_not_compilable", message)))
    }
}

#[async_trait]
impl ComponentCompiler for ChildCompiler {
    async fn compile(&self, digest: Digest, wasm: &Path) -> io::Result<Result<Inspected, Refusal>> {
        // A closed semaphore cannot be: nobody closes it.
        let _child = self.children.acquire().await.map_err(io::Error::other)?;
        if let Some(inspected) = self.blocking(move |code| code.inspected(digest)).await? {
            return Ok(Ok(inspected));
        }
        let compiled = self.code.temporary()?;
        let job = Job {
            wasm: std::path::absolute(wasm)?,
            code: std::path::absolute(&compiled)?,
            memory: self.config.memory_bytes,
            cpu: self.config.cpu_time,
        };
        let inspected = match self.run_child(&job).await? {
            Ok(inspected) => inspected,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let stored = inspected.clone();
        self.blocking(move |code| code.store(digest, compiled, &stored))
            .await??;
        Ok(Ok(inspected))
    }

    async fn needs(&self, digest: Digest) -> Option<EngineNeeds> {
        let inspected = self.blocking(move |code| code.inspected(digest)).await.ok()??;
        Some(inspected.needs)
    }

    async fn evict(&self, digest: Digest) {
        if let Err(error) = self.blocking(move |code| code.remove(digest)).await {
            tracing::warn!(%digest, %error, "cannot forget the compiled code of a component");
        }
    }
}

async fn read_up_to(from: Option<impl AsyncRead + Unpin>, limit: u64) -> io::Result<Vec<u8>> {
    let mut read = Vec::new();
    if let Some(from) = from {
        from.take(limit).read_to_end(&mut read).await?;
    }
    Ok(read)
}
