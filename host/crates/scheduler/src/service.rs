//! Starting and stopping: config → scheduler → handle; the loop runs in a task of its own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use model::Clock;
use ports::executor::Executor;
use ports::store::SchedulerStore;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::callback;
use crate::config::Config;
use crate::core::Core;
use crate::drain;
use crate::error::{StartError, Stopped};
use crate::handle::Handle;
use crate::inbox::Message;
use crate::lease;
use crate::saves;
use crate::shared::Shared;
use crate::slots::Slots;

/// A scheduler that has not started. Its handle works already, and refuses requests until it has.
pub struct Scheduler {
    shared: Arc<Shared>,
    inbox: mpsc::UnboundedReceiver<Message>,
}

/// A scheduler that runs. Resolves when it has stopped: `Ok` after a graceful shutdown.
#[derive(Debug)]
pub struct Running {
    task: JoinHandle<Result<(), Stopped>>,
}

impl Future for Running {
    type Output = Result<(), Stopped>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.task)
            .poll(context)
            .map(|ended| ended.unwrap_or_else(|error| Err(Stopped::Failed(error))))
    }
}

impl Running {
    /// Ends the loop where it is, as a crash would: nothing is handed back, the lease stays. For tests of recovery.
    pub fn abort(&self) {
        self.task.abort();
    }
}

impl Scheduler {
    /// A scheduler on this database.
    pub fn new(config: Config, store: Arc<dyn SchedulerStore>, clock: Arc<dyn Clock>) -> Self {
        let (sender, inbox) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::new(config, store, clock, sender));
        shared.stopping.store(true, Ordering::Release);
        Self { shared, inbox }
    }

    /// The handle; clone it freely.
    pub fn handle(&self) -> Handle {
        Handle {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Takes the lease, takes over the stored runs and starts the loop. `executor` reports to this scheduler's handle.
    pub async fn start(self, executor: Arc<dyn Executor>) -> Result<Running, StartError> {
        let Self { shared, inbox } = self;
        let now = shared.clock.now();
        let lease = shared
            .store
            .acquire_lease(shared.config.scheduler_id, now, now.plus(shared.config.lease_ttl))
            .await?;
        let lease = shared.lease.get_or_init(|| lease);
        let pools = shared.store.pools().await.map_err(StartError::Load)?;
        let parallelism = shared.config.parallelism.unwrap_or_else(|| executor.slots()).max(1);
        let mut core = Core::new(Arc::clone(&shared), executor, inbox, Slots::new(parallelism, pools));
        shared
            .keys
            .refill(&*shared.store, lease)
            .await
            .map_err(StartError::Reserve)?;
        core.recover().await?;
        shared.condition().heartbeat = Some(now);
        shared.stopping.store(false, Ordering::Release);
        let carried = Arc::clone(&core.executor);
        let guard = EndGuard {
            callbacks: tokio::spawn(callback::carry::keep(Arc::clone(&shared), carried)),
            lease: tokio::spawn(lease::keep(Arc::clone(&shared))),
            drain: tokio::spawn(drain::keep(Arc::clone(&shared))),
            saves: tokio::spawn(saves::keep(Arc::clone(&shared))),
            shared,
        };
        let task = tokio::spawn(async move {
            let _guard = guard;
            core.run().await
        });
        Ok(Running { task })
    }
}

/// However the loop ends, requests are refused from then on and nobody waits for it any more.
struct EndGuard {
    shared: Arc<Shared>,
    lease: JoinHandle<()>,
    callbacks: JoinHandle<()>,
    drain: JoinHandle<()>,
    saves: JoinHandle<()>,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.lease.abort();
        self.callbacks.abort();
        self.drain.abort();
        self.saves.abort();
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.active_mut().clear();
        self.shared.ended.send_replace(true);
    }
}
