//! A database in memory: for `airtight dags test`, simulation and tests. It checks what a real one would check (unique
//! names, rows that must exist, the lease's epoch) and applies a tick whole or not at all.

mod apply;
mod callback;
mod inbox;
mod read;
mod tables;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use model::{DagId, DagRunKey, DagRunState, Digest, MapIndex, RunId, TaskId, TaskIndex, TiKey, Timestamp};
use ports::between::ChildRun;
use ports::callback::{CallbackRow, CallbackRun, DueCallbacks};
use ports::deploy::DagVersion;
use ports::inbox::InboxRow;
use ports::intent::Intent;
use ports::payload::XcomValue;
use ports::query::{PoolRow, QueryError, RunRow, TiRow};
use ports::store::{
    AuditWrite, CheckpointSave, CommitError, HitlAnswer, HitlRequest, Lease, LeaseError, SchedulerStore, StoredBefore,
    StoredDag, StoredRun, TiWrite, TickWrite,
};
use std::sync::Arc;
use uuid::Uuid;

use tables::{MemoryRun, Tables};

/// The store. Share it by `Arc`; it outlives the schedulers that use it.
#[derive(Debug, Default)]
pub struct MemoryStore {
    tables: Mutex<Tables>,
}

impl MemoryStore {
    /// An empty store with one pool, `default_pool`, of 128 slots.
    pub fn new() -> Self {
        Self::default()
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many ticks were committed.
    pub fn commits(&self) -> u64 {
        self.tables().commits
    }

    /// All runs, by key.
    pub fn runs(&self) -> Vec<RunRow> {
        let tables = self.tables();
        tables.runs.values().filter_map(|run| tables.run_row(run)).collect()
    }

    /// The runs of a DAG, by key.
    pub fn runs_of(&self, dag_id: &DagId) -> Vec<RunRow> {
        let mut runs = self.runs();
        runs.retain(|run| run.dag_id == *dag_id);
        runs
    }

    /// The task instances of a run as they are stored.
    pub fn task_instances(&self, run: DagRunKey) -> Vec<TiWrite> {
        let tables = self.tables();
        tables
            .runs
            .get(&run)
            .map(|run| run.task_instances.values().cloned().collect())
            .unwrap_or_default()
    }

    /// A task instance as it is stored.
    pub fn task_instance(&self, ti: TiKey) -> Option<TiWrite> {
        let tables = self.tables();
        let rows = &tables.runs.get(&ti.run)?.task_instances;
        rows.get(&(ti.task, ti.map_index)).cloned()
    }

    /// The ended tries of a run, by task instance and try.
    pub fn tries(&self, run: DagRunKey) -> Vec<TiWrite> {
        let tables = self.tables();
        tables
            .runs
            .get(&run)
            .map(|run| run.tries.values().cloned().collect())
            .unwrap_or_default()
    }

    /// All XComs of a run.
    pub fn xcoms_of(&self, run: DagRunKey) -> Vec<(TaskIndex, MapIndex, String, XcomValue)> {
        let tables = self.tables();
        let Some(run) = tables.runs.get(&run) else {
            return Vec::new();
        };
        run.xcoms
            .iter()
            .map(|((task, map_index, key), value)| (*task, *map_index, key.clone(), value.clone()))
            .collect()
    }

    /// The questions of a run to people, by task instance and try, with their answers.
    pub fn hitl_of(&self, run: DagRunKey) -> Vec<(HitlRequest, Option<HitlAnswer>)> {
        let tables = self.tables();
        let Some(run) = tables.runs.get(&run) else {
            return Vec::new();
        };
        run.hitl_requests
            .iter()
            .map(|(key, request)| (request.clone(), run.hitl_answers.get(key).cloned()))
            .collect()
    }

    /// The callbacks of a run, oldest first.
    pub fn callbacks_of(&self, run: DagRunKey) -> Vec<CallbackRow> {
        self.tables().callback_rows(run)
    }

    /// The audit log, oldest first.
    pub fn audit_log(&self) -> Vec<AuditWrite> {
        self.tables().audit.clone()
    }

    /// Whether a DAG is paused, and why where the scheduler paused it.
    pub fn paused(&self, dag_id: &DagId) -> Option<(bool, Option<String>)> {
        let tables = self.tables();
        let dag = tables.dags.get(dag_id)?;
        Some((dag.paused, dag.paused_reason.clone()))
    }

    /// The pools by name.
    pub fn all_pools(&self) -> Vec<PoolRow> {
        self.tables().pools.values().cloned().collect()
    }

    /// Changes the slots of a pool behind the scheduler's back, as somebody with access to a database can.
    pub fn set_slots(&self, pool: &str, slots: i32) {
        if let Some(pool) = self.tables().pools.get_mut(pool) {
            pool.slots = slots;
        }
    }

    /// The slots of all dispatched task instances by pool, counted from their rows.
    pub fn dispatched_slots(&self) -> BTreeMap<String, i64> {
        self.tables().dispatched_slots()
    }

    /// Who holds the lease.
    pub fn lease(&self) -> Option<Lease> {
        self.tables().lease.as_ref().map(|held| held.lease.clone())
    }
}

#[async_trait]
impl SchedulerStore for MemoryStore {
    async fn acquire_lease(
        &self,
        scheduler_id: Uuid,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Lease, LeaseError> {
        self.tables().acquire_lease(scheduler_id, now, expires_at)
    }

    async fn renew_lease(&self, lease: &Lease, now: Timestamp, expires_at: Timestamp) -> Result<(), CommitError> {
        let mut tables = self.tables();
        tables.check_lease(lease)?;
        if let Some(held) = &mut tables.lease {
            held.renewed_at = now;
            held.expires_at = expires_at;
        }
        Ok(())
    }

    async fn release_lease(&self, lease: &Lease) -> Result<(), QueryError> {
        let mut tables = self.tables();
        if tables.check_lease(lease).is_ok() {
            tables.lease = None;
        }
        Ok(())
    }

    async fn reserve_run_keys(&self, lease: &Lease, count: u32) -> Result<DagRunKey, CommitError> {
        let mut tables = self.tables();
        tables.check_lease(lease)?;
        let first = tables.next_run_key + 1;
        tables.next_run_key += i64::from(count);
        Ok(DagRunKey(first))
    }

    async fn commit_tick(&self, lease: &Lease, tick: &TickWrite) -> Result<(), CommitError> {
        let mut tables = self.tables();
        tables.check_lease(lease)?;
        tables.commit(tick)
    }

    async fn tick_committed(&self, tick_id: Uuid) -> Result<bool, QueryError> {
        Ok(self.tables().knows_tick(tick_id))
    }

    async fn load_dags(&self) -> Result<Vec<StoredDag>, QueryError> {
        Ok(self.tables().stored_dags())
    }

    async fn load_version(&self, version: Uuid) -> Result<Option<Arc<DagVersion>>, QueryError> {
        Ok(self.tables().versions.get(&version).cloned())
    }

    async fn find_version(&self, dag_id: &DagId, digest: Digest) -> Result<(Option<Arc<DagVersion>>, u32), QueryError> {
        Ok(self.tables().find_version(dag_id, digest))
    }

    async fn active_runs(&self) -> Result<Vec<DagRunKey>, QueryError> {
        let tables = self.tables();
        Ok(tables
            .runs
            .iter()
            .filter(|(_, run)| !run.state.is_finished())
            .map(|(key, _)| *key)
            .collect())
    }

    async fn run_before(&self, dag_id: &DagId, logical_date: Timestamp) -> Result<Option<StoredBefore>, QueryError> {
        Ok(self.tables().run_before(dag_id, logical_date))
    }

    async fn has_task_before(
        &self,
        dag_id: &DagId,
        logical_date: Timestamp,
        task_id: &TaskId,
    ) -> Result<bool, QueryError> {
        Ok(self.tables().has_task_before(dag_id, logical_date, task_id))
    }

    async fn latest_runs(
        &self,
        dag_id: &DagId,
        limit: u32,
    ) -> Result<Vec<(DagRunKey, Timestamp, DagRunState)>, QueryError> {
        Ok(self.tables().latest_runs(dag_id, limit))
    }

    async fn load_run(&self, key: DagRunKey) -> Result<Option<StoredRun>, QueryError> {
        Ok(self.tables().stored_run(key))
    }

    async fn find_run(&self, dag_id: &DagId, run_id: &RunId) -> Result<Option<DagRunKey>, QueryError> {
        Ok(self.tables().find_run(dag_id, run_id))
    }

    async fn find_run_by_logical_date(
        &self,
        dag_id: &DagId,
        logical_date: Timestamp,
    ) -> Result<Option<RunId>, QueryError> {
        Ok(self.tables().find_run_by_logical_date(dag_id, logical_date))
    }

    async fn runs_between(
        &self,
        dag_id: &DagId,
        start: Option<Timestamp>,
        end: Option<Timestamp>,
        limit: u32,
    ) -> Result<Vec<DagRunKey>, QueryError> {
        Ok(self.tables().runs_between(dag_id, start, end, limit))
    }

    async fn children(&self, run: DagRunKey) -> Result<Vec<ChildRun>, QueryError> {
        Ok(self.tables().children(run))
    }

    async fn xcoms(
        &self,
        run: DagRunKey,
        task: TaskIndex,
        indexes: RangeInclusive<MapIndex>,
        key: &str,
    ) -> Result<Vec<(MapIndex, XcomValue)>, QueryError> {
        let mut values = self.tables().xcoms(run, task, key);
        values.retain(|(index, _)| indexes.contains(index));
        Ok(values)
    }

    async fn xcom_sizes(
        &self,
        run: DagRunKey,
        task: TaskIndex,
        indexes: RangeInclusive<MapIndex>,
        key: &str,
        limit: u32,
    ) -> Result<Vec<(MapIndex, u64)>, QueryError> {
        let values = self.xcoms(run, task, indexes, key).await?;
        let sizes = values
            .into_iter()
            .map(|(index, value)| (index, value.value.len() as u64));
        Ok(sizes.take(limit as usize).collect())
    }

    async fn xcom_keys(&self, ti: TiKey) -> Result<Vec<(String, u64)>, QueryError> {
        let tables = self.tables();
        let xcoms = tables.runs.get(&ti.run).into_iter().flat_map(|run| &run.xcoms);
        let own = xcoms.filter(|((task, map_index, _), _)| (*task, *map_index) == (ti.task, ti.map_index));
        Ok(own
            .map(|((.., key), value)| (key.clone(), value.value.len() as u64))
            .collect())
    }

    async fn load_checkpoint(&self, ti: TiKey) -> Result<Option<Vec<u8>>, QueryError> {
        let tables = self.tables();
        Ok(tables
            .runs
            .get(&ti.run)
            .and_then(|run| run.checkpoints.get(&(ti.task, ti.map_index)))
            .map(|checkpoint| checkpoint.bytes.clone()))
    }

    async fn save_checkpoints(
        &self,
        lease: &Lease,
        saves: &[CheckpointSave],
        _now: Timestamp,
    ) -> Result<Vec<bool>, CommitError> {
        let mut tables = self.tables();
        tables.check_lease(lease)?;
        Ok(saves.iter().map(|save| tables.save_checkpoint(save)).collect())
    }

    async fn intents(&self) -> Result<Vec<Intent>, QueryError> {
        let mut intents = self.tables().intents.clone();
        intents.sort_by_key(|intent| (intent.created_at, intent.id));
        Ok(intents)
    }

    async fn readable_blobs(&self, digests: &[Digest]) -> Result<Vec<(Digest, u64)>, QueryError> {
        Ok(self.tables().readable_blobs(digests))
    }

    async fn inbox(&self, except: &[Uuid], limit: u32) -> Result<Vec<InboxRow>, QueryError> {
        Ok(self.tables().inbox_left(except, limit))
    }

    async fn answer_inbox(&self, lease: &Lease, answers: &[(Uuid, String)], now: Timestamp) -> Result<(), CommitError> {
        let mut tables = self.tables();
        tables.check_lease(lease)?;
        tables.answer_inbox(answers, now);
        Ok(())
    }

    async fn sweep_inbox(&self, lease: &Lease, answered_before: Timestamp) -> Result<(), CommitError> {
        let mut tables = self.tables();
        tables.check_lease(lease)?;
        tables.sweep_inbox(answered_before);
        Ok(())
    }

    async fn due_callbacks(&self, now: Timestamp, limit: u32) -> Result<DueCallbacks, QueryError> {
        Ok(self.tables().due_callbacks(now, limit))
    }

    async fn callback_run(&self, run: DagRunKey) -> Result<Option<CallbackRun>, QueryError> {
        let tables = self.tables();
        Ok(tables.runs.get(&run).map(|run| CallbackRun {
            context: Arc::clone(&run.new.context),
            version: run.new.version,
        }))
    }

    async fn has_rows(&self, runs: &[DagRunKey]) -> Result<bool, QueryError> {
        let tables = self.tables();
        let has_rows = |key| {
            let run = tables.runs.get(key).or_else(|| tables.gone.get(key));
            run.is_some_and(MemoryRun::has_rows)
        };
        Ok(runs.iter().any(has_rows))
    }

    async fn old_versions(&self, dag_id: &DagId) -> Result<u64, QueryError> {
        let tables = self.tables();
        let current = tables.dags.get(dag_id).map(|dag| dag.current);
        let versions = tables.versions.values();
        let old = versions.filter(|version| version.dag.id == *dag_id && Some(version.uuid) != current);
        Ok(old.count() as u64)
    }

    async fn ti_rows(&self, run: DagRunKey) -> Result<Vec<TiRow>, QueryError> {
        Ok(self.tables().ti_rows(run))
    }

    async fn run_row(&self, key: DagRunKey) -> Result<Option<RunRow>, QueryError> {
        let tables = self.tables();
        Ok(tables.runs.get(&key).and_then(|run| tables.run_row(run)))
    }

    async fn pools(&self) -> Result<Vec<PoolRow>, QueryError> {
        Ok(self.all_pools())
    }

    async fn recount_slots(&self, lease: &Lease) -> Result<Vec<PoolRow>, CommitError> {
        let mut tables = self.tables();
        tables.check_lease(lease)?;
        tables.recount_slots();
        Ok(tables.pools.values().cloned().collect())
    }
}
