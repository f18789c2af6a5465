//! Slots, and who holds them.

use std::collections::HashMap;

use crate::dag::Task;
use crate::id::{DagId, DagRunKey, TiKey};

/// All limits on dispatched task instances, and what is in use.
///
/// Every task instance whose dispatch is out holds its slots by name: taking and releasing are idempotent, so that a late or
/// repeated message cannot leak or double-free.
#[derive(Clone, Debug)]
pub struct Capacity {
    parallelism: u32,
    pools: HashMap<String, PoolSlots>,
    dags: HashMap<DagId, DagSlots>,
    held: HashMap<TiKey, Held>,
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
            held: HashMap::new(),
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

    /// Takes slots without asking, for a dispatch that is out already (recovery).
    pub fn occupy(&mut self, key: TiKey, dag: &DagId, task: &Task) {
        self.take(key, dag, &task.pool, task.pool_slots);
    }

    /// Gives back what a task instance holds, if it holds anything.
    pub fn release(&mut self, key: TiKey) {
        let Some(Held { dag, pool, slots }) = self.held.remove(&key) else {
            return;
        };
        if let Some(pool) = self.pools.get_mut(&pool) {
            pool.used -= i64::from(slots);
        }
        if let Some(dag) = self.dags.get_mut(&dag) {
            dag.used = dag.used.saturating_sub(1);
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

    pub(super) fn take(&mut self, key: TiKey, dag: &DagId, pool: &str, slots: u32) {
        let slots = slots.max(1);
        if self.held.contains_key(&key) {
            return;
        }
        self.pools.entry(pool.to_owned()).or_default().used += i64::from(slots);
        let entry = self.dags.entry(dag.clone()).or_default();
        entry.used = entry.used.saturating_add(1);
        self.held.insert(
            key,
            Held {
                dag: dag.clone(),
                pool: pool.to_owned(),
                slots,
            },
        );
    }
}
