//! The compile queue: takes digests, has each compiled outside of this process, stores what the compiler said.

use std::sync::Arc;

use model::Digest;
use ports::component::{ComponentState, Inspected, Refusal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::inner::Inner;

/// Compiles what was uploaded, until it is told to stop.
pub struct CompileService {
    inner: Arc<Inner>,
    queue: mpsc::UnboundedReceiver<Digest>,
}

impl CompileService {
    pub(crate) fn new(inner: Arc<Inner>, queue: mpsc::UnboundedReceiver<Digest>) -> Self {
        Self { inner, queue }
    }

    /// Runs until `shutdown`. A compilation that is under way then is dropped; the next start takes it up again.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let slots = self.inner.config.compile_slots.max(1);
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(ended) = running.join_next(), if !running.is_empty() => {
                    if let Err(failure) = ended {
                        error!("a compilation ended with a bug: {failure}");
                    }
                }
                Some(digest) = self.queue.recv(), if running.len() < slots => {
                    running.spawn(compile(self.inner.clone(), digest));
                }
            }
        }
        running.shutdown().await;
    }
}

async fn compile(inner: Arc<Inner>, digest: Digest) {
    inner.begin(digest);
    let started = std::time::Instant::now();
    let result = compile_with_retries(&inner, digest).await;
    store_result(&inner, digest, &result).await;
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    match &result {
        Ok(inspected) => info!(
            component.digest = %digest, duration_ms, tasks = inspected.descriptor.tasks.len(),
            "component {digest} is ready"
        ),
        Err(refusal) => info!(
            component.digest = %digest, duration_ms, code = %refusal.code,
            "component {digest} was refused: {}", refusal.message
        ),
    }
    let asked_again = inner.settle(digest);
    match inner.parts.store.component(digest).await {
        // Uploaded again while its refusal was being stored.
        Ok(Some(component)) if asked_again && component.state == ComponentState::Compiling => inner.enqueue(digest),
        // Deleted while it was being compiled.
        Ok(None) => inner.parts.compiler.evict(digest).await,
        Ok(Some(_)) => {}
        Err(failure) => debug!(component.digest = %digest, "cannot look at {digest} again: {failure}"),
    }
}

async fn compile_with_retries(inner: &Inner, digest: Digest) -> Result<Inspected, Refusal> {
    let mut delay = inner.config.compile_retry_delay;
    let mut retries = inner.config.compile_retries;
    loop {
        let attempt = match inner.parts.files.path(digest).await {
            Ok(path) => inner.parts.compiler.compile(digest, &path).await,
            Err(failure) => Err(failure),
        };
        match attempt {
            Ok(result) => return result,
            Err(failure) if retries > 0 => {
                warn!(component.digest = %digest, "cannot compile {digest} right now, trying again: {failure}");
                retries -= 1;
                tokio::time::sleep(delay).await;
                delay = delay.saturating_mul(2);
            }
            Err(failure) => {
                error!(component.digest = %digest, "cannot compile {digest}: {failure}");
                return Err(Refusal {
                    code: "component_compiler_failed".to_owned(),
                    message: format!(
                        "this server could not compile the component ({failure}); upload it again to have another attempt"
                    ),
                });
            }
        }
    }
}

/// Keeps trying: a result that is not stored would leave the component `compiling` for as long as this process lives.
async fn store_result(inner: &Inner, digest: Digest, result: &Result<Inspected, Refusal>) {
    let mut delay = inner.config.compile_retry_delay;
    while let Err(failure) = inner.parts.store.finish_component(digest, result).await {
        warn!(component.digest = %digest, "cannot store what the compiler said of {digest}, trying again: {failure}");
        tokio::time::sleep(delay).await;
        delay = delay.saturating_mul(2).min(std::time::Duration::from_secs(30));
    }
}
