//! What people do to a run: clear, mark, cancel. And what the run's timeout does.

use super::advance::Step;
use super::scope::Node;
use super::ti::Slot;
use super::transition::Transition;
use crate::callback::RunEndReason;
use crate::cause::Cause;
use crate::id::{MapIndex, TaskIndex};
use crate::state::{DagRunState, TaskInstanceState};

impl Step<'_> {
    /// Airflow: `clear_task_instances`.
    pub(super) fn clear(&mut self, task_instances: &[(TaskIndex, MapIndex)]) {
        let mut cleared = false;
        for (task, map_index) in task_instances {
            if let Some(at) = self.run.slot_of(*task, *map_index) {
                cleared = true;
                self.clear_one(at);
            }
        }
        if cleared {
            self.forget_cancel();
        }
        if cleared && self.run.state.is_finished() {
            self.change_run(DagRunState::Queued);
        }
    }

    fn clear_one(&mut self, at: usize) {
        match self.state_at(at) {
            None | Some(TaskInstanceState::Restarting | TaskInstanceState::Removed) => {}
            Some(TaskInstanceState::Queued | TaskInstanceState::Running) => {
                self.stop(at, TaskInstanceState::Restarting, Some(Cause::Cancelled));
            }
            Some(_) => {
                // Between two pokes a try is open: it ends here, for the history.
                if self.run.tis.get(at).is_some_and(|slot| slot.ti.try_is_open()) {
                    self.stop(at, TaskInstanceState::Failed, Some(Cause::Cancelled));
                }
                self.reset(at);
                self.evaluate_later(at);
            }
        }
        self.drop_later_iterations(at);
    }

    pub(super) fn set_run_state(&mut self, state: DagRunState) {
        if matches!(state, DagRunState::Queued | DagRunState::Success) {
            self.forget_cancel();
        }
        match state {
            DagRunState::Queued if self.run.state != DagRunState::Queued => self.change_run(DagRunState::Queued),
            DagRunState::Failed => self.fail_run(),
            DagRunState::Success => self.succeed_run(),
            DagRunState::Queued | DagRunState::Running => {}
        }
    }

    /// Airflow: `set_dag_run_state_to_failed`. What runs fails, what waits is skipped; teardowns still do their work, and the run
    /// then ends after them. It fails, whatever they come to: that is remembered in them, so that it is stored with their rows. (In
    /// Airflow the leaves decide, so that a run which is cancelled in its setup, or before, is a success.)
    fn fail_run(&mut self) {
        let teardown = |step: &Self, at: usize| step.run.task(at).is_some_and(|(_, task)| task.is_teardown());
        if !self.run.state.is_finished() {
            for at in self.unfinished(|step, at| teardown(step, at) && !step.remembers_cancel(at)) {
                if self.is_spent() {
                    self.run.cut_short = true;
                    return;
                }
                self.remember_cancel(at);
            }
        }
        for at in self.unfinished(|step, at| !teardown(step, at)) {
            if self.is_spent() {
                self.run.cut_short = true;
                return;
            }
            let Some((slot, _)) = self.run.task(at) else {
                continue;
            };
            match slot.ti.state {
                TaskInstanceState::Running
                | TaskInstanceState::Restarting
                | TaskInstanceState::Deferred
                | TaskInstanceState::AwaitingInput
                | TaskInstanceState::UpForReschedule => {
                    self.stop(at, TaskInstanceState::Failed, Some(Cause::Cancelled))
                }
                _ => self.stop(at, TaskInstanceState::Skipped, Some(Cause::Cancelled)),
            }
        }
        let teardowns = !self.unfinished(teardown).is_empty();
        if self.run.state != DagRunState::Failed && (!teardowns || self.run.state.is_finished()) {
            self.change_run(DagRunState::Failed);
        }
    }

    fn remembers_cancel(&self, at: usize) -> bool {
        let facts = self.run.tis.get(at).and_then(|slot| slot.ti.facts.as_ref());
        facts.is_some_and(|facts| facts.cancelled)
    }

    fn remember_cancel(&mut self, at: usize) {
        let Some(slot) = self.run.tis.get(at) else { return };
        let (task, map_index) = (slot.task, slot.map_index);
        self.run.edit(at, |ti| ti.remember(|facts| facts.cancelled = true));
        self.transitions.push(Transition::RowDue { task, map_index });
    }

    /// People let a cancelled run go on.
    fn forget_cancel(&mut self) {
        if self.run.totals.cancelled == 0 {
            return;
        }
        let was = |slot: &Slot| slot.ti.facts.as_ref().is_some_and(|facts| facts.cancelled);
        let all = self.run.tis.iter();
        let cancelled: Vec<usize> = all.filter(|(_, slot)| was(slot)).map(|(at, _)| at).collect();
        for at in cancelled {
            let Some(slot) = self.run.tis.get(at) else { continue };
            let (task, map_index) = (slot.task, slot.map_index);
            self.run.edit(at, |ti| ti.remember(|facts| facts.cancelled = false));
            self.transitions.push(Transition::RowDue { task, map_index });
        }
    }

    /// Airflow: `set_dag_run_state_to_success`: every task instance but those of teardowns becomes a success.
    fn succeed_run(&mut self) {
        let mut teardowns = false;
        let all: Vec<usize> = self.run.tis.iter().map(|(at, _)| at).collect();
        for at in all {
            let Some((slot, task)) = self.run.task(at) else {
                continue;
            };
            let state = slot.ti.state;
            if task.is_teardown() {
                teardowns |= !state.is_finished();
            } else if !matches!(state, TaskInstanceState::Success | TaskInstanceState::Removed) {
                if self.is_spent() {
                    self.run.cut_short = true;
                    return;
                }
                self.stop(at, TaskInstanceState::Success, Some(Cause::Cancelled));
            }
        }
        if self.run.state != DagRunState::Success && (!teardowns || self.run.state.is_finished()) {
            self.change_run(DagRunState::Success);
        }
    }

    /// Airflow: `SchedulerJobRunner._schedule_dag_run`: a run over `dagrun_timeout` fails, everything unfinished is skipped.
    pub(super) fn time_out_run(&mut self) {
        self.run.timing_out = true;
    }

    /// As much of it as fits a step.
    pub(super) fn skip_unfinished(&mut self) {
        for at in self.unfinished(|_, _| true) {
            if self.is_spent() {
                return;
            }
            self.stop(at, TaskInstanceState::Skipped, Some(Cause::TimedOut));
        }
        self.run.timing_out = false;
        self.end_run(RunEndReason::TimedOut);
    }

    /// Airflow: `DAG.set_task_instance_state`: what failed or could not run further down is cleared, so that it follows the new
    /// state. Whoever sets states clears along what that needs once all are set, see [`super::take_along`].
    pub(super) fn set_ti_state(&mut self, task: TaskIndex, map_index: MapIndex, state: TaskInstanceState) {
        let settable = matches!(
            state,
            TaskInstanceState::Success | TaskInstanceState::Failed | TaskInstanceState::Skipped
        );
        let Some(at) = self.run.slot_of(task, map_index).filter(|_| settable) else {
            return;
        };
        if self.state_at(at) == Some(state) || self.state_at(at) == Some(TaskInstanceState::Removed) {
            return;
        }
        let mut to_clear = Vec::new();
        for task in self.run.dag.descendants(&[task]) {
            let met = self.run.met_by(at, task);
            let nodes = met.iter().filter_map(|node| self.run.nodes.get(node));
            to_clear.extend(nodes.flat_map(Node::slots).filter(|at| {
                matches!(
                    self.state_at(*at),
                    Some(TaskInstanceState::Failed | TaskInstanceState::UpstreamFailed)
                )
            }));
        }
        // In several steps the new state comes last: until then it is known that the others have to follow it.
        if self.run.held && to_clear.len() > self.left() {
            to_clear.truncate(self.left());
            self.run.cut_short = true;
        } else {
            self.stop(at, state, Some(Cause::Cancelled));
        }
        for at in &to_clear {
            self.clear_one(*at);
        }
        if !to_clear.is_empty() {
            self.forget_cancel();
        }
        if !to_clear.is_empty() && self.run.state.is_finished() {
            self.change_run(DagRunState::Queued);
        }
    }

    /// Those that have not ended, and more of them than the step may change only by one.
    fn unfinished(&self, which: impl Fn(&Self, usize) -> bool) -> Vec<usize> {
        let unfinished = self.run.tis.unfinished().map(|(at, _)| at);
        let most = self.left().saturating_add(1);
        unfinished.filter(|at| which(self, *at)).take(most).collect()
    }
}
