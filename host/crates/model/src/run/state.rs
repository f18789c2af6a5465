//! The state of one run, its counters, and the one place that keeps them right.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::chunked::{Chunked, TiTable};
use super::ti::{Slot, Ti};
use crate::dag::{Dag, Task};
use crate::id::{DagRunKey, DispatchNumber, MapIndex, TaskIndex};
use crate::state::{DagRunState, TaskInstanceState};
use crate::time::Timestamp;
use crate::trigger_rule::Upstream;

/// One run. Cloning it costs a few dozen bytes for each 64 task instances.
#[derive(Clone, Debug)]
pub struct RunState {
    pub(super) key: DagRunKey,
    pub(super) dag: Arc<Dag>,
    pub(super) run_after: Timestamp,
    pub(super) state: DagRunState,
    pub(super) queued_at: Timestamp,
    pub(super) start_date: Option<Timestamp>,
    pub(super) end_date: Option<Timestamp>,
    pub(super) tis: TiTable,
    pub(super) nodes: Chunked<Node>,
    pub(super) totals: Totals,
}

/// What is counted for a task. All instances of a mapped task share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// Where its instances are in the table.
    pub(super) first: u32,
    pub(super) count: u32,
    /// How many of them wait for the trigger rule.
    pub(super) waiting: u32,
    /// The direct upstream task instances.
    pub(super) upstream: Upstream,
    /// The setups that count for it, see `Dag::setup_watchers`.
    pub(super) setups: Upstream,
    /// Branches and short-circuits right before it that succeeded and did not choose it.
    pub(super) not_chosen: u32,
}

/// Counts over all task instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    by_state: [u32; TaskInstanceState::ALL.len()],
    /// Those with a `next_at`.
    timers: u32,
    /// Leaves that failed or could not run.
    pub(super) failed_leaves: u32,
    pub(super) unfinished: u32,
}

impl Totals {
    /// How many task instances something will still happen to without another one's doing.
    pub(super) fn moving(&self) -> u32 {
        use TaskInstanceState::{AwaitingInput, Deferred, Queued, Restarting, Running, Scheduled};
        let of = |state: TaskInstanceState| self.by_state.get(state as usize).copied().unwrap_or(0);
        self.timers
            + [Scheduled, Queued, Running, Restarting, Deferred, AwaitingInput]
                .into_iter()
                .map(of)
                .sum::<u32>()
    }

    fn count(&mut self, ti: &Ti, leaf: bool, by: fn(u32) -> u32) {
        use TaskInstanceState::{Failed, UpstreamFailed};
        if let Some(count) = self.by_state.get_mut(ti.state as usize) {
            *count = by(*count);
        }
        if ti.next_at.is_some() {
            self.timers = by(self.timers);
        }
        if !ti.state.is_finished() {
            self.unfinished = by(self.unfinished);
        }
        if leaf && matches!(ti.state, Failed | UpstreamFailed) {
            self.failed_leaves = by(self.failed_leaves);
        }
    }
}

fn one_more(count: u32) -> u32 {
    count.saturating_add(1)
}

fn one_less(count: u32) -> u32 {
    count.saturating_sub(1)
}

impl RunState {
    /// A new run: queued, with nothing done.
    pub fn new(key: DagRunKey, dag: Arc<Dag>, run_after: Timestamp, queued_at: Timestamp) -> Self {
        let slots = dag.tasks.iter().enumerate().map(|(at, task)| Slot {
            task: index(at),
            map_index: MapIndex::UNMAPPED,
            ti: Ti::new(task.retry.retries),
        });
        let tis: TiTable = slots.collect();
        let mut nodes: Vec<Node> = dag
            .tasks
            .iter()
            .enumerate()
            .map(|(at, task)| Node {
                first: index(at).0,
                count: 1,
                waiting: 1,
                upstream: Upstream {
                    total: u32::try_from(task.upstream.len()).unwrap_or(u32::MAX),
                    ..Upstream::default()
                },
                ..Node::default()
            })
            .collect();
        for at in 0..dag.tasks.len() {
            for watcher in dag.setup_watchers(index(at)) {
                if let Some(node) = nodes.get_mut(watcher.at()) {
                    node.setups.total += 1;
                }
            }
        }
        let mut totals = Totals::default();
        for (_, slot) in tis.iter() {
            totals.count(&slot.ti, dag.is_leaf(slot.task), one_more);
        }
        Self {
            key,
            dag,
            run_after,
            state: DagRunState::Queued,
            queued_at,
            start_date: None,
            end_date: None,
            tis,
            nodes: nodes.into_iter().collect(),
            totals,
        }
    }

    /// Its key.
    pub fn key(&self) -> DagRunKey {
        self.key
    }

    /// Its DAG version.
    pub fn dag(&self) -> &Arc<Dag> {
        &self.dag
    }

    /// Not before this time it may start.
    pub fn run_after(&self) -> Timestamp {
        self.run_after
    }

    /// Its state.
    pub fn state(&self) -> DagRunState {
        self.state
    }

    /// When it was queued last.
    pub fn queued_at(&self) -> Timestamp {
        self.queued_at
    }

    /// When it started.
    pub fn start_date(&self) -> Option<Timestamp> {
        self.start_date
    }

    /// When it ended.
    pub fn end_date(&self) -> Option<Timestamp> {
        self.end_date
    }

    /// One task instance.
    pub fn ti(&self, task: TaskIndex, map_index: MapIndex) -> Option<&Ti> {
        self.tis.get(self.slot_of(task, map_index)?).map(|slot| &slot.ti)
    }

    /// All task instances, in the order of the tasks.
    pub fn tis(&self) -> impl Iterator<Item = (TaskIndex, MapIndex, &Ti)> {
        self.tis.iter().map(named)
    }

    /// Those that have not ended.
    pub fn unfinished(&self) -> impl Iterator<Item = (TaskIndex, MapIndex, &Ti)> {
        self.tis.unfinished().map(named)
    }

    /// Those that wait for capacity. Put them all into the ready queue when the run starts or is taken over.
    pub fn ready(&self) -> impl Iterator<Item = (TaskIndex, MapIndex, &Ti)> {
        self.tis.scheduled().map(named)
    }

    /// Those with a dispatch that is out. After a crash each of them is lost, acknowledged or not.
    pub fn dispatched(&self) -> impl Iterator<Item = (TaskIndex, MapIndex, &Ti)> {
        self.tis.dispatched().map(named)
    }

    /// Whether the end of this dispatch counts. If not, nothing of what the try published does either.
    pub fn accepts_result(&self, task: TaskIndex, map_index: MapIndex, dispatch: DispatchNumber) -> bool {
        self.ti(task, map_index).is_some_and(|ti| {
            ti.dispatch == dispatch && matches!(ti.state, TaskInstanceState::Queued | TaskInstanceState::Running)
        })
    }

    /// When `Event::Timer` is due next.
    pub fn next_timer(&self) -> Option<Timestamp> {
        if self.state != DagRunState::Running {
            return None;
        }
        self.tis.next_at().into_iter().chain(self.deadline()).min()
    }

    /// When the run has taken too long.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        Some(self.start_date?.plus(self.dag.dagrun_timeout?))
    }

    /// What the task's definition says.
    pub(super) fn task(&self, at: usize) -> Option<(&Slot, &Task)> {
        let slot = self.tis.get(at)?;
        Some((slot, self.dag.task(slot.task)?))
    }

    pub(super) fn slot_of(&self, task: TaskIndex, map_index: MapIndex) -> Option<usize> {
        let node = self.nodes.get(task.at())?;
        let offset = u32::try_from(map_index.0).unwrap_or(0);
        let at = node.first.checked_add(offset).filter(|_| offset < node.count)? as usize;
        self.tis.get(at).filter(|slot| slot.map_index == map_index)?;
        Some(at)
    }

    /// The direct downstream tasks that a branch which chose `chosen` skips: not chosen, nor downstream of a chosen one.
    ///
    /// Airflow: `SkipMixin.skip_all_except`, and `skip` for a short-circuit (which never skips a teardown).
    pub(super) fn not_chosen_by(&self, branch: TaskIndex, chosen: &[u32]) -> Vec<TaskIndex> {
        let Some(task) = self.dag.task(branch) else {
            return Vec::new();
        };
        let chosen: BTreeSet<TaskIndex> = chosen.iter().copied().map(TaskIndex).collect();
        let mut others: Vec<TaskIndex> = task
            .downstream
            .iter()
            .copied()
            .filter(|task| !chosen.contains(task))
            .collect();
        if matches!(task.kind, crate::dag::TaskKind::ShortCircuit { .. }) {
            others.retain(|task| self.dag.task(*task).is_some_and(|task| !task.is_teardown()));
        }
        if !others.is_empty() && !chosen.is_empty() {
            let followed = self.dag.descendants(&chosen.into_iter().collect::<Vec<_>>());
            others.retain(|task| !followed.contains(task));
        }
        others
    }

    /// Changes a task instance and everything that is counted about it. Answers the states before and after.
    pub(super) fn edit(
        &mut self,
        at: usize,
        edit: impl FnOnce(&mut Ti),
    ) -> Option<(TaskInstanceState, TaskInstanceState)> {
        let slot = self.tis.get(at)?;
        let (task, leaf) = (slot.task, self.dag.is_leaf(slot.task));
        let (state, waits) = (slot.ti.state, slot.ti.waits_for_rule());
        let excluded = exclusion(&slot.ti);
        self.totals.count(&slot.ti, leaf, one_less);
        self.tis.edit(at, edit);
        let slot = self.tis.get(at)?;
        self.totals.count(&slot.ti, leaf, one_more);
        let (now, waits_now) = (slot.ti.state, slot.ti.waits_for_rule());
        let excluded_now = exclusion(&slot.ti);

        if waits != waits_now
            && let Some(node) = self.nodes.get_mut(task.at())
        {
            node.waiting = if waits_now {
                one_more(node.waiting)
            } else {
                one_less(node.waiting)
            };
        }
        if state.is_finished() || now.is_finished() {
            self.count_downstream(task, state, one_less);
            self.count_downstream(task, now, one_more);
        }
        if excluded != excluded_now {
            self.count_excluded(task, excluded, one_less);
            self.count_excluded(task, excluded_now, one_more);
        }
        Some((state, now))
    }

    fn count_downstream(&mut self, task: TaskIndex, state: TaskInstanceState, by: fn(u32) -> u32) {
        if !state.is_finished() {
            return;
        }
        let dag = Arc::clone(&self.dag);
        for follower in dag.task(task).into_iter().flat_map(|task| &task.downstream) {
            if let Some(count) = self
                .nodes
                .get_mut(follower.at())
                .and_then(|node| node.upstream.counter(state))
            {
                *count = by(*count);
            }
        }
        for watcher in dag.setup_watchers(task) {
            if let Some(count) = self
                .nodes
                .get_mut(watcher.at())
                .and_then(|node| node.setups.counter(state))
            {
                *count = by(*count);
            }
        }
    }

    fn count_excluded(&mut self, branch: TaskIndex, chosen: Option<Arc<[u32]>>, by: fn(u32) -> u32) {
        let Some(chosen) = chosen else { return };
        for task in self.not_chosen_by(branch, &chosen) {
            if let Some(node) = self.nodes.get_mut(task.at()) {
                node.not_chosen = by(node.not_chosen);
            }
        }
    }
}

/// The choice of a branch counts while it is in success (Airflow: `NotPreviouslySkippedDep`).
fn exclusion(ti: &Ti) -> Option<Arc<[u32]>> {
    ti.chosen.clone().filter(|_| ti.state == TaskInstanceState::Success)
}

fn named((_, slot): (usize, &Slot)) -> (TaskIndex, MapIndex, &Ti) {
    (slot.task, slot.map_index, &slot.ti)
}

fn index(at: usize) -> TaskIndex {
    TaskIndex(u32::try_from(at).unwrap_or(u32::MAX))
}
