//! Slots, and who holds them.

use std::collections::{BTreeSet, HashMap};

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
    used: i64,
}

#[derive(Clone, Debug)]
struct DagSlots {
    max_active_tasks: u32,
    paused: bool,
    used: u32,
}

impl Default for DagSlots {
    fn default() -> Self {
        Self {
            max_active_tasks: u32::MAX,
            paused: false,
            used: 0,
        }
    }
}

#[derive(Clone, Debug)]
struct Held {
    dag: DagId,
    task: TaskId,
    pool: String,
    slots: u32,
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

    /// Gives back what a task instance holds, if it holds anything.
    pub fn release(&mut self, key: TiKey) {
        let Some(Held {
            dag: dag_id,
            task,
            pool,
            slots,
        }) = self.held.remove(&key)
        else {
            return;
        };
        if let Some(pool) = self.pools.get_mut(&pool) {
            pool.used -= i64::from(slots);
        }
        if let Some(dag) = self.dags.get_mut(&dag_id) {
            dag.used = dag.used.saturating_sub(1);
        }
        for group in groups(key, &dag_id, &task) {
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

    /// Whether a task instance holds slots.
    pub fn holds(&self, key: TiKey) -> bool {
        self.held.contains_key(&key)
    }

    /// How many task instances hold slots.
    pub fn used(&self) -> usize {
        self.held.len()
    }

    /// The slots of a pool that are in use.
    pub fn pool_used(&self, name: &str) -> i64 {
        self.pools.get(name).map_or(0, |pool| pool.used)
    }

    /// Whether one more task instance could be admitted anywhere.
    pub(super) fn has_room(&self) -> bool {
        self.held.len() < self.parallelism as usize
    }

    /// Whether a task instance of this kind could be admitted.
    pub(super) fn fits(&self, dag: &DagId, pool: &str, slots: u32) -> bool {
        let dag_fits = self
            .dags
            .get(dag)
            .is_none_or(|dag| !dag.paused && dag.used < dag.max_active_tasks);
        let pool_fits = self
            .pools
            .get(pool)
            .is_some_and(|pool| pool.slots < 0 || pool.used + i64::from(slots) <= pool.slots);
        self.has_room() && dag_fits && pool_fits
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
        if self.held.contains_key(&key) {
            return;
        }
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
            },
        );
    }
}

fn groups(key: TiKey, dag: &DagId, task: &TaskId) -> [Group; 2] {
    [Group::Dag(dag.clone(), task.clone()), Group::Run(key.run, key.task)]
}
