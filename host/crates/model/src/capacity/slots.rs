//! Slots, and who holds them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::dag::Task;
use crate::id::{DagId, DagRunKey, TaskId, TaskIndex, TiKey};

/// All limits on dispatched task instances, and what is in use.
///
/// Every task instance whose dispatch is out holds its slots by name: taking and releasing are idempotent, so that a late or
/// repeated message cannot leak or double-free.
#[derive(Clone, Debug)]
pub struct Capacity {
    parallelism: u32,
    pools: HashMap<String, PoolSlots>,
    dags: HashMap<DagId, DagSlots>,
    /// Dispatched task instances of each task, in all runs of its DAG and in one run.
    tasks: HashMap<Group, u32>,
    held: HashMap<TiKey, Held>,
    /// The number of those that are dispatched; the others are deferred.
    dispatched: usize,
    /// By pool: what its free slots are kept for. Made anew by each admission.
    kept: BTreeMap<String, (Kept, DagId)>,
    /// Runs of which nothing is admitted for now.
    waiting_runs: BTreeSet<DagRunKey>,
    /// Groups that got smaller since the last admission: somebody may wait for that.
    freed: BTreeSet<Group>,
}

/// Task instances that are counted together, for `max_active_tis_per_dag` and `max_active_tis_per_dagrun`. Over runs a task is
/// known by its id: its position may differ from version to version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Group {
    /// Those of a task in all runs of its DAG.
    Dag(DagId, TaskId),
    /// Those of a task in one run.
    Run(DagRunKey, TaskIndex),
}

/// The most urgent task instance of a pool that does not fit: what becomes free there is kept for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Which.
    pub key: TiKey,
    /// The slots that it needs.
    pub slots: u32,
}

/// Whether a task instance may be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Now.
    Now,
    /// Nothing but free slots of its pool is missing, of which there are some, and all that it needs will be free once those have
    /// ended that run there. Nobody else has them kept.
    Later,
    /// Not now.
    No,
}

/// What a dispatched task instance takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand<'a> {
    pub(super) dag: &'a DagId,
    pub(super) task: &'a TaskId,
    pub(super) pool: &'a str,
    pub(super) slots: u32,
}

#[derive(Clone, Debug, Default)]
struct PoolSlots {
    /// Negative: without bound. A pool that does not exist has none.
    slots: i64,
    /// By dispatched task instances.
    used: i64,
    /// By deferred ones, whether they count or not.
    deferred: i64,
    include_deferred: bool,
    /// For whom what becomes free is kept.
    kept: i64,
}

impl PoolSlots {
    /// What those hold that wait elsewhere: nobody can say when they give it back.
    fn stays(&self) -> i64 {
        if self.include_deferred { self.deferred } else { 0 }
    }

    fn free(&self) -> i64 {
        self.slots.saturating_sub(self.used).saturating_sub(self.stays())
    }
}

#[derive(Clone, Debug)]
struct DagSlots {
    max_active_tasks: u32,
    paused: bool,
    used: u32,
    /// For task instances for which slots of a pool are kept, too.
    kept: u32,
}

impl Default for DagSlots {
    fn default() -> Self {
        Self {
            max_active_tasks: u32::MAX,
            paused: false,
            used: 0,
            kept: 0,
        }
    }
}

#[derive(Clone, Debug)]
struct Held {
    dag: DagId,
    task: TaskId,
    pool: String,
    slots: u32,
    /// It waits elsewhere; whether it is counted for the limits of its task meanwhile.
    deferred: Option<bool>,
}

impl Capacity {
    /// Room for this many dispatched task instances, without any pool.
    pub fn new(parallelism: u32) -> Self {
        Self {
            parallelism,
            pools: HashMap::new(),
            dags: HashMap::new(),
            tasks: HashMap::new(),
            held: HashMap::new(),
            dispatched: 0,
            kept: BTreeMap::new(),
            waiting_runs: BTreeSet::new(),
            freed: BTreeSet::new(),
        }
    }

    /// Changes the global bound. What is in use stays in use.
    pub fn set_parallelism(&mut self, parallelism: u32) {
        self.parallelism = parallelism;
    }

    /// Adds a pool or changes its slots; negative is without bound. Tasks of a pool that does not exist wait (Airflow too).
    pub fn set_pool(&mut self, name: &str, slots: i64) {
        self.pools.entry(name.to_owned()).or_default().slots = slots;
    }

    /// Says whether deferred task instances keep their slots of a pool (Airflow: `include_deferred`).
    pub fn set_include_deferred(&mut self, name: &str, include_deferred: bool) {
        self.pools.entry(name.to_owned()).or_default().include_deferred = include_deferred;
    }

    /// Removes a pool.
    pub fn remove_pool(&mut self, name: &str) {
        self.set_pool(name, 0);
    }

    /// The limits of a DAG. No task instance of a paused DAG is admitted; those that are out go on (Airflow).
    pub fn set_dag(&mut self, dag: &DagId, max_active_tasks: u32, paused: bool) {
        let entry = self.dags.entry(dag.clone()).or_default();
        entry.max_active_tasks = max_active_tasks;
        entry.paused = paused;
    }

    /// Forgets the limits of a DAG that was deleted.
    pub fn remove_dag(&mut self, dag: &DagId) {
        if self.dags.get(dag).is_some_and(|entry| entry.used == 0) {
            self.dags.remove(dag);
        }
    }

    /// Lets nothing of a run be admitted, or lets it again. What is out goes on.
    pub fn hold_run(&mut self, run: DagRunKey, held: bool) {
        if held {
            self.waiting_runs.insert(run);
        } else {
            self.waiting_runs.remove(&run);
        }
    }

    /// Whether nothing of a run may be admitted.
    pub(super) fn is_on_hold(&self, run: DagRunKey) -> bool {
        self.waiting_runs.contains(&run)
    }

    /// Takes slots without asking, for a dispatch that is out already (recovery).
    pub fn occupy(&mut self, key: TiKey, dag: &DagId, task: &Task) {
        let demand = Demand {
            dag,
            task: &task.id,
            pool: &task.pool,
            slots: task.pool_slots,
        };
        self.take(key, demand);
    }

    /// The task instance waits elsewhere from now on: it gives back what it holds but the slots of a pool that includes deferred
    /// ones. Where `counts` it still is one for the limits of its task (it waits for a run of its own).
    pub fn defer(&mut self, key: TiKey, counts: bool) {
        let Some(held) = self.held.get_mut(&key).filter(|held| held.deferred.is_none()) else {
            return;
        };
        held.deferred = Some(counts);
        self.dispatched = self.dispatched.saturating_sub(1);
        if let Some(pool) = self.pools.get_mut(&held.pool) {
            pool.used -= i64::from(held.slots);
            pool.deferred += i64::from(held.slots);
        }
        if let Some(dag) = self.dags.get_mut(&held.dag) {
            dag.used = dag.used.saturating_sub(1);
        }
        if !counts {
            let (dag, task) = (held.dag.clone(), held.task.clone());
            self.uncount(key, &dag, &task);
        }
    }

    /// A task instance that waits elsewhere already (recovery).
    pub fn occupy_deferred(&mut self, key: TiKey, dag: &DagId, task: &Task, counts: bool) {
        self.occupy(key, dag, task);
        self.defer(key, counts);
    }

    /// Gives back what a task instance holds, if it holds anything.
    pub fn release(&mut self, key: TiKey) {
        let Some(Held {
            dag: dag_id,
            task,
            pool,
            slots,
            deferred,
        }) = self.held.remove(&key)
        else {
            return;
        };
        if let Some(pool) = self.pools.get_mut(&pool) {
            match deferred {
                None => pool.used -= i64::from(slots),
                Some(_) => pool.deferred -= i64::from(slots),
            }
        }
        if deferred.is_none() {
            self.dispatched = self.dispatched.saturating_sub(1);
            if let Some(dag) = self.dags.get_mut(&dag_id) {
                dag.used = dag.used.saturating_sub(1);
            }
        }
        if deferred != Some(false) {
            self.uncount(key, &dag_id, &task);
        }
    }

    /// One less for the limits of its task.
    fn uncount(&mut self, key: TiKey, dag_id: &DagId, task: &TaskId) {
        for group in groups(key, dag_id, task) {
            if let Some(count) = self.tasks.get_mut(&group) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.tasks.remove(&group);
                }
            }
            self.freed.insert(group);
        }
    }

    /// Gives back what the task instances of a run hold.
    pub fn release_run(&mut self, run: DagRunKey) {
        let keys: Vec<TiKey> = self.held.keys().filter(|key| key.run == run).copied().collect();
        for key in keys {
            self.release(key);
        }
    }

    /// Whether a task instance holds anything.
    pub fn holds(&self, key: TiKey) -> bool {
        self.held.contains_key(&key)
    }

    /// The number of task instances that are dispatched.
    pub fn used(&self) -> usize {
        self.dispatched
    }

    /// The number of task instances that may be dispatched at a time.
    pub fn parallelism(&self) -> u32 {
        self.parallelism
    }

    /// For whom the free slots of pools are kept, since the last admission.
    pub fn kept(&self) -> impl Iterator<Item = (&str, Kept)> {
        self.kept.iter().map(|(pool, (kept, _))| (pool.as_str(), *kept))
    }

    /// The slots of a pool that dispatched task instances use.
    pub fn pool_used(&self, name: &str) -> i64 {
        self.pools.get(name).map_or(0, |pool| pool.used)
    }

    /// Whether one more task instance could be admitted anywhere.
    pub(super) fn has_room(&self) -> bool {
        self.dispatched < self.parallelism as usize
    }

    /// Whether a task instance of this kind could be admitted.
    pub(super) fn room(&self, dag: &DagId, pool: &str, slots: u32) -> Room {
        let dag_fits = self
            .dags
            .get(dag)
            .is_none_or(|dag| !dag.paused && dag.used.saturating_add(dag.kept) < dag.max_active_tasks);
        let Some(pool) = self.pools.get(pool).filter(|_| dag_fits && self.has_room()) else {
            return Room::No;
        };
        if pool.slots < 0 {
            return Room::Now;
        }
        let (free, slots) = (pool.free(), i64::from(slots));
        if slots + pool.kept <= free {
            Room::Now
        } else if pool.kept == 0 && free > 0 && slots <= pool.slots - pool.stays() {
            Room::Later
        } else {
            Room::No
        }
    }

    /// What becomes free in the pool is kept for this one, as far as it needs it, and one place of its DAG: others may use the rest.
    pub(super) fn keep(&mut self, key: TiKey, dag: &DagId, pool: &str, slots: u32) {
        if let Some(pool) = self.pools.get_mut(pool) {
            pool.kept = i64::from(slots);
        }
        if let Some(dag) = self.dags.get_mut(dag) {
            dag.kept = dag.kept.saturating_add(1);
        }
        self.kept.insert(pool.to_owned(), (Kept { key, slots }, dag.clone()));
    }

    /// Who is the most urgent is about to be found out anew.
    pub(super) fn forget_kept(&mut self) {
        for (pool, (_, dag)) in std::mem::take(&mut self.kept) {
            if let Some(pool) = self.pools.get_mut(&pool) {
                pool.kept = 0;
            }
            if let Some(dag) = self.dags.get_mut(&dag) {
                dag.kept = 0;
            }
        }
    }

    /// How many task instances of a group are dispatched.
    pub(super) fn active(&self, group: &Group) -> u32 {
        self.tasks.get(group).copied().unwrap_or(0)
    }

    /// The groups that got smaller since this was asked last.
    pub(super) fn take_freed(&mut self) -> BTreeSet<Group> {
        std::mem::take(&mut self.freed)
    }

    pub(super) fn take(&mut self, key: TiKey, demand: Demand<'_>) {
        let Demand { dag, task, pool, slots } = demand;
        let slots = slots.max(1);
        match self.held.get(&key) {
            Some(held) if held.deferred.is_none() => return,
            Some(_) => self.release(key),
            None => {}
        }
        self.dispatched += 1;
        self.pools.entry(pool.to_owned()).or_default().used += i64::from(slots);
        let entry = self.dags.entry(dag.clone()).or_default();
        entry.used = entry.used.saturating_add(1);
        for group in groups(key, dag, task) {
            *self.tasks.entry(group).or_default() += 1;
        }
        self.held.insert(
            key,
            Held {
                dag: dag.clone(),
                task: task.clone(),
                pool: pool.to_owned(),
                slots,
                deferred: None,
            },
        );
    }
}

fn groups(key: TiKey, dag: &DagId, task: &TaskId) -> [Group; 2] {
    [Group::Dag(dag.clone(), task.clone()), Group::Run(key.run, key.task)]
}
