//! What the run knows of the run before it. It sees no other run: what it may do comes as an event.

use std::sync::Arc;

use super::advance::{Look, Step};
use super::scope::Node;
use super::state::RunState;
use crate::dag::Dag;
use crate::id::{MapIndex, TaskIndex};
use crate::past::{RunBefore, is_successful};
use crate::state::DagRunState;

/// A run in memory, as the run after it sees it.
pub struct LiveBefore<'a, F> {
    /// The run.
    pub run: &'a RunState,
    /// Whether a run older than it had a task of this name.
    pub older: F,
}

impl<F: Fn(&crate::dag::Task) -> bool> RunBefore for LiveBefore<'_, F> {
    fn dag(&self) -> &Dag {
        &self.run.dag
    }

    fn unsuccessful(&self, task: TaskIndex) -> u64 {
        u64::from(self.run.first_unsuccessful(task).is_some())
    }

    fn was_there_before(&self, task: &crate::dag::Task) -> bool {
        (self.older)(task)
    }
}

impl RunState {
    /// The first instance of a task that has neither succeeded nor been skipped.
    pub fn first_unsuccessful(&self, task: TaskIndex) -> Option<MapIndex> {
        let def = self.dag.scopes().of_task(task).0;
        let nodes = self.within(0, def).into_iter();
        let nodes = nodes.filter_map(|scope| self.nodes.get(self.node_in(scope, task)?));
        let slots = nodes.flat_map(Node::slots).filter_map(|at| self.tis.get(at));
        let mut waiting = slots.filter(|slot| !is_successful(slot.ti.state));
        waiting.next().map(|slot| slot.map_index)
    }

    /// Whether it is known that the run before lets a task run.
    pub(super) fn past_is_met(&self, task: TaskIndex) -> bool {
        let met = self.past_met.as_deref();
        met.is_some_and(|met| met.binary_search(&task).is_ok())
    }

    /// The tasks that the run before lets run, ascending; nothing where that is not known yet.
    pub fn past_met(&self) -> Option<&[TaskIndex]> {
        self.past_met.as_deref()
    }

    /// Whether something that has not ended looks back at what has not come to pass, or is not known yet, so that the run has to wait for
    /// another one.
    ///
    /// Airflow: `DagRun.update_state` finds no deadlock where an unfinished task has `depends_on_past`, whether that is met or not: a run that
    /// is deadlocked for other reasons never ends there.
    pub(super) fn waits_for_the_past(&self) -> bool {
        let looks_back = self.dag.looking_back();
        !looks_back.is_empty()
            && self
                .tis
                .unfinished()
                .any(|(_, slot)| looks_back.binary_search(&slot.task).is_ok() && !self.past_is_met(slot.task))
    }
}

impl RunState {
    /// Whether the run is running and nothing can happen in it before something happens to the run before.
    pub fn waits_for_the_past_alone(&self) -> bool {
        self.state == DagRunState::Running
            && self.past_met.is_some()
            && self.totals.unfinished > 0
            && self.totals.moving() == 0
            && self.waits_for_the_past()
    }
}

impl Step<'_> {
    /// The run does not need its slot as long as it waits for the past alone.
    pub(super) fn give_way(&mut self) {
        if self.run.waits_for_the_past_alone() {
            self.change_run(DagRunState::Queued);
        }
    }

    /// What the run before lets run is known, or has changed. What runs already goes on.
    pub(super) fn past(&mut self, met: Vec<TaskIndex>) {
        let known = self.run.past_met.take();
        let dag = Arc::clone(&self.run.dag);
        for task in &met {
            if known.as_ref().is_some_and(|known| known.binary_search(task).is_ok()) {
                continue;
            }
            let def = dag.scopes().of_task(*task).0;
            let nodes = self.run.within(0, def).into_iter();
            self.to_evaluate
                .extend(nodes.filter_map(|scope| self.run.node_in(scope, *task)).map(Look::Node));
        }
        self.run.past_met = Some(met.into());
    }
}
