//! What the handle and the loop share. Every lock here is held for a few instructions and never across an await.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use model::{Clock, DagId, DagRunKey, RunId, Timestamp};
use ports::control::{ControlError, Room, RunEvent};
use ports::query::QueryError;
use ports::store::{Lease, SchedulerStore};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};
use uuid::Uuid;

use crate::callback::flight::Flights;
use crate::config::Config;
use crate::drain::Drain;
use crate::inbox::{Message, Reply};
use crate::intent;
use crate::keys::RunKeys;
use crate::live::Active;
use crate::marks::Marks;
use crate::metrics::Metrics;
use crate::names::KeyedLocks;
use crate::saves::Saves;
use crate::version::{Version, VersionCache};
use crate::xcom_cache::XcomCache;
use crate::xcom_lists::XcomLists;

/// How far a generated name may lie ahead of the clock.
const NAMES_AHEAD: Duration = Duration::from_secs(1);

/// What a request locks while it checks that a name is free and creates what bears it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Name {
    RunId(DagId, RunId),
    LogicalDate(DagId, Timestamp),
    Dag(DagId),
    /// What is done to a run in several steps takes turns.
    Run(DagRunKey),
}

/// A DAG as the handle knows it: what is committed.
#[derive(Clone, Debug)]
pub(crate) struct KnownDag {
    pub(crate) version: Arc<Version>,
}

/// How commits are going.
#[derive(Clone, Debug, Default)]
pub(crate) struct Condition {
    pub(crate) problem: Option<String>,
    pub(crate) failing_since: Option<Timestamp>,
    pub(crate) heartbeat: Option<Timestamp>,
    pub(crate) set_aside: Vec<(model::DagRunKey, String)>,
}

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) store: Arc<dyn SchedulerStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) inbox: mpsc::UnboundedSender<Message>,
    pub(crate) lease: OnceLock<Lease>,
    pub(crate) metrics: Metrics,
    /// Start marks that the loop has not seen.
    pub(crate) marks: Marks,
    pub(crate) names: KeyedLocks<Name>,
    pub(crate) keys: RunKeys,
    pub(crate) events: broadcast::Sender<RunEvent>,
    /// Whether requests are refused because commits fail.
    pub(crate) refusing: AtomicBool,
    /// Whether requests are refused because the scheduler stops (or has not started).
    pub(crate) stopping: AtomicBool,
    /// True once the loop has ended.
    pub(crate) ended: watch::Sender<bool>,
    last_run_after: AtomicI64,
    active: RwLock<Active>,
    dags: RwLock<HashMap<DagId, KnownDag>>,
    versions: Mutex<VersionCache>,
    xcoms: Mutex<XcomCache>,
    xcom_lists: Mutex<XcomLists>,
    /// The intents that are being carried out; each ends when its sender is dropped.
    carried: Mutex<HashMap<Uuid, watch::Receiver<()>>>,
    /// Turns of steps of intents.
    pub(crate) steps: Semaphore,
    /// Callbacks that are out.
    pub(crate) flights: Flights,
    /// What others ask by rows of the inbox.
    pub(crate) drain: Drain,
    /// Checkpoints that wait for a transaction.
    pub(crate) saves: Saves,
    condition: Mutex<Condition>,
    room: Mutex<Room>,
}

impl Shared {
    pub(crate) fn new(
        config: Config,
        store: Arc<dyn SchedulerStore>,
        clock: Arc<dyn Clock>,
        inbox: mpsc::UnboundedSender<Message>,
    ) -> Self {
        Self {
            keys: RunKeys::new(config.run_key_block),
            drain: Drain::default(),
            saves: Saves::default(),
            flights: Flights::new(config.callback_slots.max(1)),
            events: broadcast::Sender::new(config.event_buffer.max(1)),
            config,
            store,
            clock,
            inbox,
            lease: OnceLock::new(),
            metrics: Metrics::default(),
            marks: Marks::default(),
            names: KeyedLocks::default(),
            refusing: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            ended: watch::Sender::new(false),
            last_run_after: AtomicI64::new(i64::MIN),
            active: RwLock::default(),
            dags: RwLock::default(),
            versions: Mutex::default(),
            xcoms: Mutex::default(),
            xcom_lists: Mutex::default(),
            carried: Mutex::default(),
            steps: Semaphore::new(intent::STEPS),
            condition: Mutex::default(),
            room: Mutex::default(),
        }
    }

    pub(crate) fn active(&self) -> RwLockReadGuard<'_, Active> {
        self.active.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn active_mut(&self) -> RwLockWriteGuard<'_, Active> {
        self.active.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn dag(&self, dag_id: &DagId) -> Option<KnownDag> {
        self.dags
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(dag_id)
            .cloned()
    }

    pub(crate) fn dags_mut(&self) -> RwLockWriteGuard<'_, HashMap<DagId, KnownDag>> {
        self.dags.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn versions(&self) -> MutexGuard<'_, VersionCache> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn xcom_lists(&self) -> MutexGuard<'_, XcomLists> {
        self.xcom_lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn xcoms(&self) -> MutexGuard<'_, XcomCache> {
        self.xcoms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn carried(&self) -> MutexGuard<'_, HashMap<Uuid, watch::Receiver<()>>> {
        self.carried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn condition(&self) -> MutexGuard<'_, Condition> {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For whom slots are kept, as of the last tick.
    pub(crate) fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A version from memory or from the database.
    pub(crate) async fn version(&self, uuid: Uuid) -> Result<Option<Arc<Version>>, QueryError> {
        if let Some(version) = self.versions().get(uuid) {
            return Ok(Some(version));
        }
        let stored = self.store.load_version(uuid).await?;
        Ok(stored.map(|stored| self.versions().insert(stored)))
    }

    /// The time now, moved forward by microseconds where needed so that it was never answered before. After the clock was set back it
    /// may have been: runs that are due now are not to lie in a future that is no longer near.
    pub(crate) fn unique_now(&self) -> Timestamp {
        let now = self.clock.now();
        let next = |last: i64| match last.saturating_add(1) {
            after if after > now.plus(NAMES_AHEAD).0 => now.0,
            after => now.0.max(after),
        };
        let before = self
            .last_run_after
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| Some(next(last)));
        // The update always answers something, so it never fails.
        Timestamp(before.map_or(now.0, next))
    }

    /// Whether new requests are taken.
    pub(crate) fn check_open(&self) -> Result<(), ControlError> {
        if self.stopping.load(Ordering::Acquire) {
            return Err(ControlError::Stopping);
        }
        if self.refusing.load(Ordering::Acquire) {
            return Err(ControlError::Unavailable);
        }
        Ok(())
    }

    /// Sends a request to the loop and waits for its answer, which comes after the commit.
    pub(crate) async fn ask<T>(&self, message: impl FnOnce(Reply<T>) -> Message) -> Result<T, ControlError> {
        self.check_open()?;
        let (reply, answer) = oneshot::channel();
        self.inbox.send(message(reply)).map_err(|_| ControlError::Stopping)?;
        answer.await.map_err(|_| ControlError::Stopping)?
    }
}

/// A read that failed, as an answer to a request.
pub(crate) fn query_failed(error: QueryError) -> ControlError {
    match error {
        QueryError::Unavailable(_) => ControlError::Unavailable,
        QueryError::Internal(source) => ControlError::Internal(source),
    }
}
