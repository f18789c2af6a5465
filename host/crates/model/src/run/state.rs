//! The state of one run, its counters, and the one place that keeps them right.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::chunked::{Chunked, TiTable};
use super::grow::Renumbered;
use super::later::Later;
use super::room::{MAX_TASK_INSTANCES, count_from_start};
use super::scope::{Fan, Node, Scope};
use super::ti::{Facts, Slot, Ti};
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
    pub(super) scopes: Chunked<Scope>,
    pub(super) fans: Chunked<Fan>,
    /// How long the parameters are that are mapped over, see `Dag::mapped_params`.
    pub(super) param_lengths: Arc<[u32]>,
    pub(super) totals: Totals,
    /// What the run before lets run; nothing before that is known. It is not stored: whoever takes the run over is told anew.
    pub(super) past_met: Option<Arc<[TaskIndex]>>,
    /// The number of task instances that there may be.
    pub(super) limit: u32,
    /// Whether there would have been more than may be: nothing was expanded from the start.
    pub(super) is_over: bool,
    /// What is left of earlier steps.
    pub(super) later: Later,
    /// See [`Self::hold`].
    pub(super) held: bool,
    /// Whether it has taken too long, and what is unfinished is being skipped.
    pub(super) timing_out: bool,
    /// See [`Self::is_cut_short`].
    pub(super) cut_short: bool,
    /// Within a step: nodes to look at, since a loop that they wait for is over.
    pub(super) woken: Vec<usize>,
    /// Within a step: loops whose next iteration is due.
    pub(super) due_loops: Vec<u32>,
    /// Within a step: task instances that got another map index.
    pub(super) renumbered: Vec<Renumbered>,
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
    /// Teardowns that were still to come when the run was cancelled.
    pub(super) cancelled: u32,
}

impl Totals {
    /// How many task instances something will still happen to without another one's doing.
    pub(super) fn moving(&self) -> u32 {
        use TaskInstanceState::{AwaitingInput, Deferred, Queued, Restarting, Running, Scheduled};
        self.timers
            + [Scheduled, Queued, Running, Restarting, Deferred, AwaitingInput]
                .into_iter()
                .map(|state| self.of(state))
                .sum::<u32>()
    }

    /// How many are in a state.
    pub(super) fn of(&self, state: TaskInstanceState) -> u32 {
        self.by_state.get(state as usize).copied().unwrap_or(0)
    }

    /// Counts a task instance that was not there before.
    pub(super) fn count_new(&mut self, ti: &Ti, leaf: bool) {
        self.count(ti, leaf, one_more);
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
        if ti.facts.as_ref().is_some_and(|facts| facts.cancelled) {
            self.cancelled = by(self.cancelled);
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
        Self::with_params(key, dag, run_after, queued_at, &[])
    }

    /// A new run. `param_lengths` says how long the parameters are that are mapped over, in the order of `Dag::mapped_params`.
    pub fn with_params(
        key: DagRunKey,
        dag: Arc<Dag>,
        run_after: Timestamp,
        queued_at: Timestamp,
        param_lengths: &[u32],
    ) -> Self {
        Self::with_limit(key, dag, run_after, queued_at, param_lengths, MAX_TASK_INSTANCES)
    }

    /// A new run that may have so many task instances. Where it would have more from the start, nothing is expanded then: what is
    /// mapped fails when it is to run.
    pub fn with_limit(
        key: DagRunKey,
        dag: Arc<Dag>,
        run_after: Timestamp,
        queued_at: Timestamp,
        param_lengths: &[u32],
        limit: u32,
    ) -> Self {
        let is_over = count_from_start(&dag, param_lengths) > u64::from(limit);
        let mut run = Self {
            key,
            dag,
            run_after,
            state: DagRunState::Queued,
            queued_at,
            start_date: None,
            end_date: None,
            tis: TiTable::default(),
            nodes: Chunked::default(),
            scopes: Chunked::default(),
            fans: Chunked::default(),
            param_lengths: param_lengths.into(),
            totals: Totals::default(),
            past_met: None,
            limit,
            is_over,
            later: Later::default(),
            held: false,
            timing_out: false,
            cut_short: false,
            woken: Vec::new(),
            due_loops: Vec::new(),
            renumbered: Vec::new(),
        };
        run.grow_root();
        run
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
        if self.state != DagRunState::Running || self.timing_out {
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

    /// The direct downstream tasks that a branch which chose `chosen` skips: not chosen, nor downstream of a chosen one. In a repeated
    /// group it decides for its element or iteration alone: what lies outside follows its trigger rule.
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
        others.retain(|task| self.dag.scopes().is_within(*task, branch));
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
        let (task, leaf, node_at) = (slot.task, self.dag.is_leaf(slot.task), slot.node);
        let (state, waits) = (slot.ti.state, slot.ti.waits_for_rule());
        let excluded = exclusion(&slot.ti);
        self.totals.count(&slot.ti, leaf, one_less);
        self.tis.edit(at, edit);
        let slot = self.tis.get(at)?;
        self.totals.count(&slot.ti, leaf, one_more);
        let (now, waits_now) = (slot.ti.state, slot.ti.waits_for_rule());
        let excluded_now = exclusion(&slot.ti);
        let node = self.nodes.get(node_at as usize)?;
        let scope = node.scope;

        if waits != waits_now
            && let Some(node) = self.nodes.get_mut(node_at as usize)
        {
            node.waiting = if waits_now {
                one_more(node.waiting)
            } else {
                one_less(node.waiting)
            };
        }
        if state != now && (state.is_finished() || now.is_finished()) {
            self.count_downstream(task, scope, state, one_less, one_more);
            self.count_downstream(task, scope, now, one_more, one_less);
        }
        if excluded != excluded_now {
            self.count_excluded(task, scope, excluded, one_less);
            self.count_excluded(task, scope, excluded_now, one_more);
        }
        if scope != 0 && state.is_finished() != now.is_finished() {
            self.count_unfinished(scope, if now.is_finished() { -1 } else { 1 });
            self.reconsider_loops(scope);
        }
        Some((state, now))
    }

    /// Counts at all who see a task instance. One that is removed does not count as there at all.
    fn count_downstream(
        &mut self,
        task: TaskIndex,
        scope: u32,
        state: TaskInstanceState,
        by: fn(u32) -> u32,
        opposite: fn(u32) -> u32,
    ) {
        if !state.is_finished() {
            return;
        }
        let removed = state == TaskInstanceState::Removed;
        let count = |upstream: &mut Upstream| {
            if removed {
                upstream.total = opposite(upstream.total);
            } else if let Some(count) = upstream.counter(state) {
                *count = by(*count);
            }
        };
        let dag = Arc::clone(&self.dag);
        for follower in dag.awaiting(task) {
            for at in self.met(scope, task, *follower).iter() {
                self.nodes
                    .get_mut(at)
                    .map(|node| &mut node.upstream)
                    .into_iter()
                    .for_each(count);
            }
        }
        for watcher in dag.setup_watchers(task) {
            for at in self.met(scope, task, *watcher).iter() {
                if let Some(node) = self.nodes.get_mut(at) {
                    count(node.setups_mut());
                }
            }
        }
    }

    fn count_excluded(&mut self, branch: TaskIndex, scope: u32, facts: Option<Arc<Facts>>, by: fn(u32) -> u32) {
        let Some(chosen) = facts.as_ref().and_then(|facts| facts.chosen.as_deref()) else {
            return;
        };
        for task in self.not_chosen_by(branch, chosen) {
            for at in self.met(scope, branch, task).iter() {
                if let Some(node) = self.nodes.get_mut(at) {
                    node.not_chosen = by(node.not_chosen);
                }
            }
        }
    }
}

/// The choice of a branch counts while it is in success (Airflow: `NotPreviouslySkippedDep`).
pub(super) fn exclusion(ti: &Ti) -> Option<Arc<Facts>> {
    let chose = ti.state == TaskInstanceState::Success && ti.facts.as_ref().is_some_and(|facts| facts.chosen.is_some());
    ti.facts.clone().filter(|_| chose)
}

fn named((_, slot): (usize, &Slot)) -> (TaskIndex, MapIndex, &Ti) {
    (slot.task, slot.map_index, &slot.ti)
}
