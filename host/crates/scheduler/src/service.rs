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

use crate::config::Config;
use crate::error::{StartError, Stopped};
use crate::handle::Handle;
use crate::inbox::Message;
use crate::shared::Shared;

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

    /// Takes the lease, recovers the stored runs and starts the loop.
    pub async fn start(self, executor: Arc<dyn Executor>) -> Result<Running, StartError> {
        let Self { shared, mut inbox } = self;
        let now = shared.clock.now();
        let lease = shared
            .store
            .acquire_lease(shared.config.scheduler_id, now, now.plus(shared.config.lease_ttl))
            .await?;
        let lease = shared.lease.get_or_init(|| lease);
        shared
            .keys
            .refill(&*shared.store, lease)
            .await
            .map_err(StartError::Reserve)?;
        let task = tokio::spawn(async move {
            while let Some(message) = inbox.recv().await {
                if let Message::Shutdown { grace } = message {
                    executor.shutdown(grace).await;
                    shared.ended.send_replace(true);
                    break;
                }
            }
            Ok(())
        });
        Ok(Running { task })
    }
}
