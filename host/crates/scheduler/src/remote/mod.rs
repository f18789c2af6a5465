//! The scheduler of another process: what is asked of it is committed as a row of the inbox, which it drains.

mod control;
mod progress;
mod service;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::Clock;
use ports::control::{ControlError, RunEvent};
use ports::inbox::{Answer, InboxStore, Request, SeenScheduler};
use ports::query::Metadata;
use ports::store::CommitError;
use tokio::sync::{Notify, broadcast, oneshot, watch};
use uuid::Uuid;

use progress::Progress;
pub use service::RemoteService;

/// How many events a slow subscriber may lag behind.
const EVENT_BUFFER: usize = 4_096;

/// Settings of a [`Remote`].
#[derive(Clone, Debug)]
pub struct RemoteConfig {
    /// The scheduler of the data directory. One of another directory would run tasks whose logs and values are not here.
    pub scheduler_id: Uuid,
    /// How long a request waits for a scheduler to be there; it is not committed before.
    pub scheduler_patience: Duration,
    /// How long a request that is committed waits for its answer.
    pub answer_patience: Duration,
    /// The first pause between two looks for answers; it doubles up to `longest_pause`.
    pub first_pause: Duration,
    /// The longest pause between two looks for answers.
    pub longest_pause: Duration,
    /// How often it is looked who schedules.
    pub watch_every: Duration,
}

impl RemoteConfig {
    /// The defaults.
    pub const fn new(scheduler_id: Uuid) -> Self {
        Self {
            scheduler_id,
            scheduler_patience: Duration::from_secs(10),
            answer_patience: Duration::from_secs(30),
            first_pause: Duration::from_millis(1),
            longest_pause: Duration::from_millis(50),
            watch_every: Duration::from_secs(1),
        }
    }
}

/// A scheduler in another process. It implements `Control`; the [`RemoteService`] must run beside it.
#[derive(Clone)]
pub struct Remote {
    inner: Arc<Inner>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}

/// What a [`Remote`] and its service share.
struct Inner {
    config: RemoteConfig,
    inbox: Arc<dyn InboxStore>,
    metadata: Arc<dyn Metadata>,
    clock: Arc<dyn Clock>,
    bell: Box<dyn Fn() + Send + Sync>,
    waiting: Mutex<HashMap<Uuid, oneshot::Sender<String>>>,
    /// Somebody waits who did not before.
    asked: Notify,
    seen: watch::Sender<Option<SeenScheduler>>,
    events: broadcast::Sender<RunEvent>,
    progress: Progress,
}

impl Remote {
    /// A scheduler that is asked through this inbox. `bell` is rung after each request that is committed: the scheduler then looks at once.
    pub fn new(
        config: RemoteConfig,
        inbox: Arc<dyn InboxStore>,
        metadata: Arc<dyn Metadata>,
        clock: Arc<dyn Clock>,
        bell: impl Fn() + Send + Sync + 'static,
    ) -> (Self, RemoteService) {
        let inner = Arc::new(Inner {
            config,
            inbox,
            metadata,
            clock,
            bell: Box::new(bell),
            waiting: Mutex::default(),
            asked: Notify::new(),
            seen: watch::Sender::new(None),
            events: broadcast::Sender::new(EVENT_BUFFER),
            progress: Progress::default(),
        });
        let remote = Self {
            inner: Arc::clone(&inner),
        };
        (remote, RemoteService { inner })
    }

    /// Tells what the scheduler has told of its runs.
    pub fn publish(&self, event: RunEvent) {
        self.inner.progress.note(&event);
        // An error means that nobody listens.
        let _ = self.inner.events.send(event);
    }

    async fn ask(&self, request: Request) -> Answer {
        let inner = Arc::clone(&self.inner);
        // In a task of its own: a caller who leaves does not leave the answer behind.
        tokio::spawn(async move { inner.ask(&request).await })
            .await
            .map_err(|error| ControlError::Internal(Box::new(error)))?
    }
}

impl Inner {
    fn waiting(&self) -> MutexGuard<'_, HashMap<Uuid, oneshot::Sender<String>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, request: &Request) -> Answer {
        self.await_scheduler().await?;
        let text = serde_json::to_string(request).map_err(|error| ControlError::Internal(Box::new(error)))?;
        let id = Uuid::now_v7();
        let (sender, answer) = oneshot::channel();
        self.waiting().insert(id, sender);
        let waits = Waits { inner: self, id };
        match self.inbox.ask(id, &text, self.clock.now()).await {
            // Where the outcome is not known, an answer tells.
            Ok(()) | Err(CommitError::Unknown(_)) => {}
            Err(CommitError::Data(error)) => return Err(ControlError::Internal(error)),
            Err(error) => {
                tracing::warn!(%error, "a request could not be committed");
                return Err(ControlError::Unavailable);
            }
        }
        (self.bell)();
        self.asked.notify_one();
        let answer = tokio::time::timeout(self.config.answer_patience, answer).await;
        drop(waits);
        match answer {
            Ok(Ok(text)) => serde_json::from_str(&text).map_err(|error| ControlError::Internal(Box::new(error)))?,
            Ok(Err(_)) => Err(ControlError::Stopping),
            Err(_) => Err(ControlError::Pending(format!(
                "the request is stored as `{id}` and is carried out as soon as the scheduler gets to it; it has not answered for {} s",
                self.config.answer_patience.as_secs()
            ))),
        }
    }

    /// Why nobody can be asked now, if so.
    fn absence(&self) -> Option<String> {
        self.absence_in(self.seen.borrow().as_ref())
    }

    /// Why nobody could be asked when this was seen. It takes no second look: who holds what was seen must not wait for it once more, for the writer
    /// that may have come between the two looks waits as well.
    fn absence_in(&self, seen: Option<&SeenScheduler>) -> Option<String> {
        let Some(seen) = seen else {
            return Some("it is not known yet which scheduler is running".to_owned());
        };
        match seen.scheduler_id {
            Some(_) if seen.expires_at <= self.clock.now() => Some(format!(
                "the scheduler does not answer, it was last seen at {}",
                seen.renewed_at
            )),
            Some(id) if id != self.config.scheduler_id => Some(format!(
                "the database is scheduled from another data directory, by scheduler {id}"
            )),
            Some(_) => None,
            None => Some("no scheduler is running".to_owned()),
        }
    }

    async fn await_scheduler(&self) -> Result<(), ControlError> {
        let mut changes = self.seen.subscribe();
        let there = changes.wait_for(|seen| self.absence_in(seen.as_ref()).is_none());
        match tokio::time::timeout(self.config.scheduler_patience, there).await {
            Ok(_) => Ok(()),
            Err(_) => {
                let why = self.absence().unwrap_or_default();
                Err(ControlError::NoScheduler(format!("{why}; nothing was changed")))
            }
        }
    }
}

/// Somebody waits for an answer, until this is dropped.
struct Waits<'a> {
    inner: &'a Inner,
    id: Uuid,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.inner.waiting().remove(&self.id);
    }
}
