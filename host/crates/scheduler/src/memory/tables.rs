//! The tables of the store in memory, and the lease.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use model::dag::DEFAULT_POOL;
use model::{DagId, DagRunKey, DagRunState, MapIndex, RunId, TaskIndex, Timestamp, TryNumber};
use ports::callback::{CallbackChange, CallbackId, CallbackWrite};
use ports::deploy::DagVersion;
use ports::intent::Intent;
use ports::payload::{Checkpoint, XcomValue};
use ports::query::{HiddenFailure, PoolRow};
use ports::inbox::InboxRow;
use ports::store::{AuditWrite, CommitError, HitlAnswer, HitlRequest, Lease, LeaseError, NewRun, TiWrite};
use uuid::Uuid;

/// How many tick ids are remembered; only the last is ever asked for.
const TICKS: usize = 1_024;

#[derive(Debug)]
pub(super) struct Tables {
    pub(super) commits: u64,
    pub(super) lease: Option<HeldLease>,
    epoch: i64,
    pub(super) next_run_key: i64,
    pub(super) last_callback: i64,
    pub(super) dags: BTreeMap<DagId, MemoryDag>,
    pub(super) versions: HashMap<Uuid, Arc<DagVersion>>,
    pub(super) runs: BTreeMap<DagRunKey, MemoryRun>,
    /// Runs that are deleted, with what of their rows is not removed yet.
    pub(super) gone: BTreeMap<DagRunKey, MemoryRun>,
    pub(super) intents: Vec<Intent>,
    pub(super) inbox: BTreeMap<Uuid, MemoryRequest>,
    pub(super) names: HashMap<(DagId, RunId), DagRunKey>,
    pub(super) logical_dates: HashMap<(DagId, Timestamp), DagRunKey>,
    pub(super) audit: Vec<AuditWrite>,
    pub(super) pools: BTreeMap<String, PoolRow>,
    ticks: HashSet<Uuid>,
    tick_order: VecDeque<Uuid>,
}

/// A row of the inbox.
#[derive(Debug)]
pub(super) struct MemoryRequest {
    pub(super) row: InboxRow,
    pub(super) answer: Option<(Timestamp, String)>,
}

#[derive(Debug)]
pub(super) struct HeldLease {
    pub(super) lease: Lease,
    pub(super) since: Timestamp,
    pub(super) renewed_at: Timestamp,
    pub(super) expires_at: Timestamp,
}

#[derive(Debug)]
pub(super) struct MemoryDag {
    pub(super) paused: bool,
    pub(super) paused_reason: Option<String>,
    pub(super) current: Uuid,
    pub(super) deleting: bool,
}

#[derive(Debug)]
pub(super) struct MemoryRun {
    pub(super) new: NewRun,
    pub(super) state: DagRunState,
    pub(super) queued_at: Timestamp,
    pub(super) start_date: Option<Timestamp>,
    pub(super) end_date: Option<Timestamp>,
    pub(super) note: Option<String>,
    pub(super) set_aside: Option<String>,
    pub(super) hidden_failures: Vec<HiddenFailure>,
    pub(super) task_instances: BTreeMap<(TaskIndex, MapIndex), TiWrite>,
    pub(super) tries: BTreeMap<(TaskIndex, MapIndex, TryNumber), TiWrite>,
    pub(super) xcoms: BTreeMap<(TaskIndex, MapIndex, String), XcomValue>,
    pub(super) hitl_requests: BTreeMap<(TaskIndex, MapIndex, TryNumber), HitlRequest>,
    pub(super) hitl_answers: BTreeMap<(TaskIndex, MapIndex, TryNumber), HitlAnswer>,
    pub(super) checkpoints: BTreeMap<(TaskIndex, MapIndex), Checkpoint>,
    pub(super) callbacks: BTreeMap<CallbackId, MemoryCallback>,
    pub(super) notes: BTreeMap<(TaskIndex, MapIndex), String>,
}

/// A callback, as it became due and as it is now.
#[derive(Clone, Debug)]
pub(super) struct MemoryCallback {
    pub(super) due: CallbackWrite,
    pub(super) now: CallbackChange,
    pub(super) created_at: Timestamp,
}

impl MemoryRun {
    /// Whether any rows belong to it.
    pub(super) fn has_rows(&self) -> bool {
        !(self.task_instances.is_empty()
            && self.tries.is_empty()
            && self.xcoms.is_empty()
            && self.hitl_requests.is_empty()
            && self.hitl_answers.is_empty()
            && self.notes.is_empty()
            && self.checkpoints.is_empty()
            && self.callbacks.is_empty())
    }

    /// Removes some of them: of each table what `rows` leaves room for.
    pub(super) fn purge(&mut self, rows: &mut [usize; 4]) {
        fn some<K: Ord, V>(table: &mut BTreeMap<K, V>, room: &mut usize) {
            while *room > 0 && table.pop_first().is_some() {
                *room -= 1;
            }
        }
        let [task_instances, tries, xcoms, checkpoints] = rows;
        some(&mut self.task_instances, task_instances);
        some(&mut self.hitl_answers, tries);
        some(&mut self.hitl_requests, tries);
        some(&mut self.tries, tries);
        some(&mut self.xcoms, xcoms);
        some(&mut self.notes, tries);
        some(&mut self.checkpoints, checkpoints);
        some(&mut self.callbacks, checkpoints);
    }
}

impl Default for Tables {
    fn default() -> Self {
        let pool = PoolRow {
            name: DEFAULT_POOL.to_owned(),
            slots: 128,
            description: Some("Default pool".to_owned()),
            include_deferred: false,
            used: 0,
        };
        Self {
            commits: 0,
            lease: None,
            epoch: 0,
            next_run_key: 0,
            last_callback: 0,
            dags: BTreeMap::new(),
            versions: HashMap::new(),
            runs: BTreeMap::new(),
            gone: BTreeMap::new(),
            intents: Vec::new(),
            inbox: BTreeMap::new(),
            names: HashMap::new(),
            logical_dates: HashMap::new(),
            audit: Vec::new(),
            pools: BTreeMap::from([(pool.name.clone(), pool)]),
            ticks: HashSet::new(),
            tick_order: VecDeque::new(),
        }
    }
}

impl Tables {
    pub(super) fn acquire_lease(
        &mut self,
        scheduler_id: Uuid,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Lease, LeaseError> {
        if let Some(held) = &self.lease
            && held.lease.scheduler_id != scheduler_id
            && held.expires_at > now
        {
            return Err(LeaseError::InUse {
                scheduler_id: held.lease.scheduler_id,
                since: held.since,
                expires_at: held.expires_at,
            });
        }
        self.epoch += 1;
        let lease = Lease {
            scheduler_id,
            epoch: self.epoch,
        };
        self.lease = Some(HeldLease {
            lease: lease.clone(),
            since: now,
            renewed_at: now,
            expires_at,
        });
        self.recount_slots();
        Ok(lease)
    }

    /// The slots of dispatched task instances by pool; those of runs that are set aside hold none.
    pub(super) fn dispatched_slots(&self) -> BTreeMap<String, i64> {
        let mut slots = BTreeMap::new();
        for run in self.runs.values().filter(|run| run.set_aside.is_none()) {
            let Some(version) = self.versions.get(&run.new.version) else {
                continue;
            };
            for ti in run.task_instances.values().filter(|ti| ti.state.is_dispatched()) {
                if let Some(task) = version.dag.task(ti.key.task) {
                    *slots.entry(task.pool.clone()).or_default() += i64::from(task.pool_slots);
                }
            }
        }
        slots
    }

    pub(super) fn recount_slots(&mut self) {
        let slots = self.dispatched_slots();
        for pool in self.pools.values_mut() {
            pool.used = slots.get(&pool.name).copied().unwrap_or(0);
        }
    }

    pub(super) fn check_lease(&self, lease: &Lease) -> Result<(), CommitError> {
        match &self.lease {
            Some(held) if held.lease == *lease => Ok(()),
            _ => Err(CommitError::Fenced),
        }
    }

    pub(super) fn remember_tick(&mut self, tick: Uuid) {
        self.commits += 1;
        self.ticks.insert(tick);
        self.tick_order.push_back(tick);
        if self.tick_order.len() > TICKS
            && let Some(old) = self.tick_order.pop_front()
        {
            self.ticks.remove(&old);
        }
    }

    pub(super) fn knows_tick(&self, tick: Uuid) -> bool {
        self.ticks.contains(&tick)
    }

    pub(super) fn remove_run(&mut self, key: DagRunKey) {
        if let Some(run) = self.runs.remove(&key) {
            let context = &run.new.context;
            self.names.remove(&(context.dag_id.clone(), context.run_id.clone()));
            if let Some(date) = context.logical_date {
                self.logical_dates.remove(&(context.dag_id.clone(), date));
            }
            if run.has_rows() {
                self.gone.insert(key, run);
            }
        }
    }
}
