//! What may run at a time, as the loop uses it: `model`'s capacity, ready queue and run gate side by side. They change while
//! a tick is decided; after a tick that was not committed they are made anew from the runs.

use model::capacity::{Capacity, Kept, ReadyQueue, RunGate, admit};
use model::dag::Task;
use model::{DagId, DagRunKey, DagRunState, MapIndex, TaskIndex, TaskInstanceState, TiKey, Timestamp};
use ports::executor::RunContext;
use ports::query::PoolRow;

use crate::live::LiveRun;
use crate::pools::Pools;
use crate::run::Run;
use crate::version::Version;

/// Whether a task's deferred instances are counted by the limits of the task: what waits for a run of its own is still at work, and what
/// looks at another one's run is not.
fn counts_deferred(task: &Task) -> bool {
    task.work.trigger_dag().is_some()
}

/// Slots, who waits for them, and which queued runs may start.
pub(crate) struct Slots {
    parallelism: u32,
    pub(crate) pools: Pools,
    capacity: Capacity,
    ready: ReadyQueue,
    pub(crate) gate: RunGate,
}

impl Slots {
    pub(crate) fn new(parallelism: u32, pools: Vec<PoolRow>) -> Self {
        let mut slots = Self {
            parallelism,
            pools: Pools::new(pools),
            capacity: Capacity::new(parallelism),
            ready: ReadyQueue::new(),
            gate: RunGate::new(),
        };
        slots.set_pools();
        slots
    }

    fn set_pools(&mut self) {
        for pool in self.pools.iter() {
            self.capacity.set_pool(&pool.name, self.pools.usable(pool));
            self.capacity.set_include_deferred(&pool.name, pool.include_deferred);
        }
    }

    /// A pool is new or has changed.
    pub(crate) fn set_pool(&mut self, name: &str) {
        match self.pools.get(name) {
            Some(pool) => {
                self.capacity.set_pool(name, self.pools.usable(pool));
                self.capacity.set_include_deferred(name, pool.include_deferred);
            }
            None => self.capacity.remove_pool(name),
        }
    }

    /// The slots of a pool that are in use.
    pub(crate) fn pool_used(&self, name: &str) -> i64 {
        self.capacity.pool_used(name)
    }

    /// The pools as the database has them, just counted. What it counts and memory does not know of (a run that could not be
    /// marked as set aside) is not ours to give away.
    pub(crate) fn counted(&mut self, pools: Vec<PoolRow>) {
        let unknown = pools
            .iter()
            .map(|pool| (pool.name.clone(), pool.used - self.capacity.pool_used(&pool.name)))
            .filter(|(_, unknown)| *unknown > 0)
            .collect();
        self.pools = Pools::new(pools);
        self.pools.unknown = unknown;
        self.set_pools();
    }

    /// Forgets everything but the bounds.
    pub(crate) fn clear(&mut self) {
        self.capacity = Capacity::new(self.parallelism);
        self.ready = ReadyQueue::new();
        self.gate = RunGate::new();
        self.set_pools();
    }

    /// The limits of a DAG are those of its current version.
    pub(crate) fn set_dag(&mut self, version: &Version, paused: bool) {
        let dag = version.dag();
        self.capacity.set_dag(&dag.id, dag.max_active_tasks, paused);
        self.gate.set_dag(&dag.id, dag.max_active_runs, paused);
    }

    pub(crate) fn remove_dag(&mut self, dag_id: &DagId) {
        self.capacity.remove_dag(dag_id);
        self.gate.remove_dag(dag_id);
    }

    /// Takes a committed run into account.
    pub(crate) fn add_run(&mut self, run: &Run) {
        let (key, dag_id, run_after) = (run.key(), &run.live.context.dag_id, run.state.run_after());
        match run.state.state() {
            DagRunState::Queued => self.gate.queue(key, dag_id, run_after),
            DagRunState::Running => self.gate.running(key, dag_id, run_after),
            DagRunState::Success | DagRunState::Failed => {}
        }
        self.hold_run(key, run.state.is_held());
        for (task, map_index, _) in run.state.dispatched() {
            if let Some(definition) = run.live.version.dag().task(task) {
                let ti = TiKey {
                    run: key,
                    task,
                    map_index,
                };
                self.capacity.occupy(ti, dag_id, definition);
            }
        }
        let dag = run.live.version.dag();
        if dag.tasks.iter().any(|task| task.work.may_defer()) {
            let deferred = run.state.unfinished();
            for (task, map_index, _) in deferred.filter(|(_, _, ti)| ti.state == TaskInstanceState::Deferred) {
                if let Some(definition) = dag.task(task) {
                    let ti = TiKey {
                        run: key,
                        task,
                        map_index,
                    };
                    let counts = counts_deferred(definition);
                    self.capacity.occupy_deferred(ti, dag_id, definition, counts);
                }
            }
        }
        if run.state.state() == DagRunState::Running {
            for (task, map_index, ti) in run.state.ready() {
                self.ready(&run.live, (task, map_index), ti.scheduled_at.unwrap_or(run_after));
            }
        }
    }

    /// Nothing of a run is admitted while it is held.
    pub(crate) fn hold_run(&mut self, key: DagRunKey, held: bool) {
        self.capacity.hold_run(key, held);
    }

    /// A new run waits until it is due.
    pub(crate) fn run_created(&mut self, context: &RunContext, due: Timestamp) {
        self.gate.queue(context.key, &context.dag_id, due);
    }

    /// A run changed its state.
    pub(crate) fn run_changed(&mut self, live: &LiveRun, to: DagRunState) {
        let context = &live.context;
        match to {
            DagRunState::Queued => {
                self.ready.remove_run(context.key);
                self.gate.queue(context.key, &context.dag_id, context.run_after);
            }
            DagRunState::Running => self.gate.running(context.key, &context.dag_id, context.run_after),
            DagRunState::Success | DagRunState::Failed => self.run_gone(context.key),
        }
    }

    /// A run has ended or is deleted. What is still dispatched keeps its slots until it stops.
    pub(crate) fn run_gone(&mut self, key: DagRunKey) {
        self.gate.remove(key);
        self.ready.remove_run(key);
        self.capacity.hold_run(key, false);
    }

    /// A task instance waits for capacity.
    pub(crate) fn ready(&mut self, live: &LiveRun, (task, map_index): (TaskIndex, MapIndex), since: Timestamp) {
        if let Some(definition) = live.version.dag().task(task) {
            let ti = TiKey {
                run: live.context.key,
                task,
                map_index,
            };
            self.ready.push(ti, &live.context.dag_id, definition, since);
        }
    }

    /// A task instance no longer waits, but was not admitted.
    pub(crate) fn not_ready(&mut self, ti: TiKey) {
        self.ready.remove(ti);
    }

    /// A try waits elsewhere from now on.
    pub(crate) fn defer(&mut self, live: &LiveRun, ti: TiKey) {
        let definition = live.version.dag().task(ti.task);
        self.capacity.defer(ti, definition.is_some_and(counts_deferred));
    }

    /// The number of task instances that may be dispatched at a time.
    pub(crate) fn parallelism(&self) -> u32 {
        self.parallelism
    }

    /// For whom free slots of pools are kept.
    pub(crate) fn kept(&self) -> impl Iterator<Item = (&str, Kept)> {
        self.capacity.kept().filter(|(_, kept)| self.ready.contains(kept.key))
    }

    /// A dispatch is over, or what it was deferred for.
    pub(crate) fn release(&mut self, ti: TiKey) {
        self.capacity.release(ti);
    }

    /// Those that run next; their slots are taken.
    pub(crate) fn admit(&mut self, now: Timestamp) -> Vec<TiKey> {
        admit(&mut self.capacity, &mut self.ready, now)
            .into_iter()
            .map(|admitted| admitted.key)
            .collect()
    }
}
