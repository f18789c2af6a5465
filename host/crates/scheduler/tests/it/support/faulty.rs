//! A store whose commits fail as a test says.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use model::{DagId, DagRunKey, DagRunState, Digest, MapIndex, RunId, TaskId, TaskIndex, TiKey, Timestamp};
use ports::between::ChildRun;
use ports::callback::{CallbackRun, DueCallbacks};
use ports::deploy::DagVersion;
use ports::inbox::InboxRow;
use ports::intent::Intent;
use ports::payload::XcomValue;
use ports::query::{PoolRow, QueryError, RunRow, TiRow};
use ports::store::{
    CheckpointSave, CommitError, Lease, LeaseError, SchedulerStore, StoredBefore, StoredDag, StoredRun, TickWrite,
};
use scheduler::MemoryStore;
use std::sync::Arc;
use tokio::sync::watch;
use uuid::Uuid;

/// What happens to a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Refused for a passing reason.
    Passing,
    /// Refused because of its data.
    Data,
    /// Written, but the answer is lost.
    UnknownWritten,
    /// Not written, and the answer is lost.
    UnknownLost,
    /// The process dies before anything is written: the call never returns.
    CrashBefore,
    /// The process dies after everything is written: the call never returns.
    CrashAfter,
}

/// A checkpoint that the database refuses to store.
pub(crate) const BAD_CHECKPOINT: &[u8] = b"bad";

type Plan = dyn FnMut(u64, &TickWrite) -> Fault + Send;

/// Wraps a store. The plan sees the number of each attempt to commit, from 0, and what it writes.
pub(crate) struct FaultyStore {
    pub(crate) inner: Arc<MemoryStore>,
    plan: Mutex<Box<Plan>>,
    attempts: AtomicU64,
    committed: Mutex<Vec<TickWrite>>,
    saved: Mutex<Vec<Vec<CheckpointSave>>>,
    /// Real time spent in commits.
    micros: AtomicU64,
    pub(crate) crashed: watch::Sender<bool>,
    /// What each pool had in use after the last commit.
    last_used: Mutex<HashMap<String, i64>>,
    recounts: AtomicU64,
    /// Whether leases cannot be renewed either.
    pub(crate) is_full: AtomicBool,
}

impl FaultyStore {
    pub(crate) fn new(
        inner: Arc<MemoryStore>,
        plan: impl FnMut(u64, &TickWrite) -> Fault + Send + 'static,
    ) -> Arc<Self> {
        let used = inner.all_pools().into_iter().map(|pool| (pool.name, pool.used));
        Arc::new(Self {
            last_used: Mutex::new(used.collect()),
            inner,
            plan: Mutex::new(Box::new(plan)),
            attempts: AtomicU64::new(0),
            committed: Mutex::default(),
            saved: Mutex::default(),
            micros: AtomicU64::new(0),
            crashed: watch::Sender::new(false),
            recounts: AtomicU64::new(0),
            is_full: AtomicBool::new(false),
        })
    }

    pub(crate) fn micros(&self) -> u64 {
        self.micros.load(Ordering::SeqCst)
    }

    pub(crate) fn attempts(&self) -> u64 {
        self.attempts.load(Ordering::SeqCst)
    }

    /// How often the slots were counted anew.
    pub(crate) fn recounts(&self) -> u64 {
        self.recounts.load(Ordering::SeqCst)
    }

    /// Every tick that was written, in order.
    pub(crate) fn committed(&self) -> Vec<TickWrite> {
        self.committed.lock().unwrap().clone()
    }

    /// Every transaction of checkpoints that was tried, in order.
    pub(crate) fn saved(&self) -> Vec<Vec<CheckpointSave>> {
        self.saved.lock().unwrap().clone()
    }

    async fn write(&self, lease: &Lease, tick: &TickWrite) -> Result<(), CommitError> {
        let began = Instant::now();
        let result = self.inner.commit_tick(lease, tick).await;
        if result.is_ok() {
            self.check_slots(tick.slots.iter().any(|change| change.unchecked));
            self.committed.lock().unwrap().push(tick.clone());
        }
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap();
        self.micros.fetch_add(micros, Ordering::SeqCst);
        result
    }

    /// After every commit: what the pools count is what the task instances hold, and no more than the pools have unless they were
    /// made smaller meanwhile, or a run that was set aside came back with what it has out.
    fn check_slots(&self, came_back: bool) {
        let held = self.inner.dispatched_slots();
        let mut seen = self.last_used.lock().unwrap();
        for pool in self.inner.all_pools() {
            let of_pool = held.get(&pool.name).copied().unwrap_or(0);
            assert_eq!(pool.used, of_pool, "pool `{}`", pool.name);
            let most = seen.entry(pool.name).or_insert(0);
            let over = pool.slots >= 0 && pool.used > i64::from(pool.slots);
            assert!(
                !over || came_back || pool.used <= *most,
                "{} slots of {} are taken",
                pool.used,
                pool.slots
            );
            *most = pool.used;
        }
    }

    async fn crash(&self) -> Result<(), CommitError> {
        self.crashed.send_replace(true);
        std::future::pending().await
    }
}

#[async_trait]
impl SchedulerStore for FaultyStore {
    async fn commit_tick(&self, lease: &Lease, tick: &TickWrite) -> Result<(), CommitError> {
        let attempt = self.attempts.fetch_add(1, Ordering::SeqCst);
        let fault = (self.plan.lock().unwrap())(attempt, tick);
        // A commit takes a moment: what arrives meanwhile is grouped.
        tokio::task::yield_now().await;
        match fault {
            Fault::None => self.write(lease, tick).await,
            Fault::Passing => Err(CommitError::Passing("disk full".into())),
            Fault::Data => Err(CommitError::Data("value out of range".into())),
            Fault::UnknownWritten => {
                self.write(lease, tick).await?;
                Err(CommitError::Unknown("connection lost".into()))
            }
            Fault::UnknownLost => Err(CommitError::Unknown("connection lost".into())),
            Fault::CrashBefore => self.crash().await,
            Fault::CrashAfter => {
                self.write(lease, tick).await?;
                self.crash().await
            }
        }
    }

    async fn acquire_lease(&self, id: Uuid, now: Timestamp, expires_at: Timestamp) -> Result<Lease, LeaseError> {
        self.inner.acquire_lease(id, now, expires_at).await
    }
    async fn renew_lease(&self, lease: &Lease, now: Timestamp, expires_at: Timestamp) -> Result<(), CommitError> {
        if self.is_full.load(Ordering::SeqCst) {
            return Err(CommitError::Passing("disk full".into()));
        }
        self.inner.renew_lease(lease, now, expires_at).await
    }
    async fn release_lease(&self, lease: &Lease) -> Result<(), QueryError> {
        self.inner.release_lease(lease).await
    }
    async fn reserve_run_keys(&self, lease: &Lease, count: u32) -> Result<DagRunKey, CommitError> {
        self.inner.reserve_run_keys(lease, count).await
    }
    async fn tick_committed(&self, tick_id: Uuid) -> Result<bool, QueryError> {
        self.inner.tick_committed(tick_id).await
    }
    async fn load_dags(&self) -> Result<Vec<StoredDag>, QueryError> {
        self.inner.load_dags().await
    }
    async fn load_version(&self, version: Uuid) -> Result<Option<Arc<DagVersion>>, QueryError> {
        self.inner.load_version(version).await
    }
    async fn find_version(&self, dag_id: &DagId, digest: Digest) -> Result<(Option<Arc<DagVersion>>, u32), QueryError> {
        self.inner.find_version(dag_id, digest).await
    }
    async fn active_runs(&self) -> Result<Vec<DagRunKey>, QueryError> {
        self.inner.active_runs().await
    }
    async fn load_run(&self, key: DagRunKey) -> Result<Option<StoredRun>, QueryError> {
        self.inner.load_run(key).await
    }
    async fn find_run(&self, dag_id: &DagId, run_id: &RunId) -> Result<Option<DagRunKey>, QueryError> {
        self.inner.find_run(dag_id, run_id).await
    }
    async fn find_run_by_logical_date(&self, dag_id: &DagId, date: Timestamp) -> Result<Option<RunId>, QueryError> {
        self.inner.find_run_by_logical_date(dag_id, date).await
    }
    async fn runs_between(
        &self,
        dag_id: &DagId,
        start: Option<Timestamp>,
        end: Option<Timestamp>,
        limit: u32,
    ) -> Result<Vec<DagRunKey>, QueryError> {
        self.inner.runs_between(dag_id, start, end, limit).await
    }
    async fn children(&self, run: DagRunKey) -> Result<Vec<ChildRun>, QueryError> {
        self.inner.children(run).await
    }
    async fn xcoms(
        &self,
        run: DagRunKey,
        task: TaskIndex,
        indexes: RangeInclusive<MapIndex>,
        key: &str,
    ) -> Result<Vec<(MapIndex, XcomValue)>, QueryError> {
        self.inner.xcoms(run, task, indexes, key).await
    }
    async fn xcom_sizes(
        &self,
        run: DagRunKey,
        task: TaskIndex,
        indexes: RangeInclusive<MapIndex>,
        key: &str,
        limit: u32,
    ) -> Result<Vec<(MapIndex, u64)>, QueryError> {
        self.inner.xcom_sizes(run, task, indexes, key, limit).await
    }
    async fn run_before(&self, dag_id: &DagId, logical_date: Timestamp) -> Result<Option<StoredBefore>, QueryError> {
        self.inner.run_before(dag_id, logical_date).await
    }
    async fn has_task_before(
        &self,
        dag_id: &DagId,
        logical_date: Timestamp,
        task_id: &TaskId,
    ) -> Result<bool, QueryError> {
        self.inner.has_task_before(dag_id, logical_date, task_id).await
    }
    async fn latest_runs(
        &self,
        dag_id: &DagId,
        limit: u32,
    ) -> Result<Vec<(DagRunKey, Timestamp, DagRunState)>, QueryError> {
        self.inner.latest_runs(dag_id, limit).await
    }
    async fn xcom_keys(&self, ti: TiKey) -> Result<Vec<(String, u64)>, QueryError> {
        self.inner.xcom_keys(ti).await
    }
    async fn load_checkpoint(&self, ti: TiKey) -> Result<Option<Vec<u8>>, QueryError> {
        self.inner.load_checkpoint(ti).await
    }
    async fn save_checkpoints(
        &self,
        lease: &Lease,
        saves: &[CheckpointSave],
        now: Timestamp,
    ) -> Result<Vec<bool>, CommitError> {
        // What arrives meanwhile is grouped, as with ticks.
        tokio::task::yield_now().await;
        self.saved.lock().unwrap().push(saves.to_vec());
        let is_bad = |save: &CheckpointSave| {
            save.checkpoint
                .as_ref()
                .is_some_and(|saved| saved.bytes == BAD_CHECKPOINT)
        };
        if saves.iter().any(is_bad) {
            return Err(CommitError::Data("value out of range".into()));
        }
        self.inner.save_checkpoints(lease, saves, now).await
    }
    async fn intents(&self) -> Result<Vec<Intent>, QueryError> {
        self.inner.intents().await
    }
    async fn readable_blobs(&self, digests: &[Digest]) -> Result<Vec<(Digest, u64)>, QueryError> {
        self.inner.readable_blobs(digests).await
    }
    async fn inbox(&self, except: &[Uuid], limit: u32) -> Result<Vec<InboxRow>, QueryError> {
        self.inner.inbox(except, limit).await
    }
    async fn answer_inbox(&self, lease: &Lease, answers: &[(Uuid, String)], now: Timestamp) -> Result<(), CommitError> {
        self.inner.answer_inbox(lease, answers, now).await
    }
    async fn sweep_inbox(&self, lease: &Lease, answered_before: Timestamp) -> Result<(), CommitError> {
        self.inner.sweep_inbox(lease, answered_before).await
    }
    async fn due_callbacks(&self, now: Timestamp, limit: u32) -> Result<DueCallbacks, QueryError> {
        self.inner.due_callbacks(now, limit).await
    }
    async fn callback_run(&self, run: DagRunKey) -> Result<Option<CallbackRun>, QueryError> {
        self.inner.callback_run(run).await
    }
    async fn has_rows(&self, runs: &[DagRunKey]) -> Result<bool, QueryError> {
        self.inner.has_rows(runs).await
    }
    async fn old_versions(&self, dag_id: &DagId) -> Result<u64, QueryError> {
        self.inner.old_versions(dag_id).await
    }
    async fn ti_rows(&self, run: DagRunKey) -> Result<Vec<TiRow>, QueryError> {
        self.inner.ti_rows(run).await
    }
    async fn run_row(&self, key: DagRunKey) -> Result<Option<RunRow>, QueryError> {
        self.inner.run_row(key).await
    }
    async fn pools(&self) -> Result<Vec<PoolRow>, QueryError> {
        self.inner.pools().await
    }
    async fn recount_slots(&self, lease: &Lease) -> Result<Vec<PoolRow>, CommitError> {
        self.recounts.fetch_add(1, Ordering::SeqCst);
        let pools = self.inner.recount_slots(lease).await;
        self.check_slots(false);
        pools
    }
}
