//! One step of a run: an event is judged, its consequences are followed to their end.

use std::collections::VecDeque;
use std::sync::Arc;

use super::event::Event;
use super::state::RunState;
use super::ti::Ti;
use super::transition::Transition;
use super::tries::Answer;
use crate::callback::{CallbackEvent, RunEndReason};
use crate::cause::Cause;
use crate::state::{DagRunState, TaskInstanceState};
use crate::time::Timestamp;

/// Applies an event to a run and answers everything that it changes, in order. An event that does not fit the state that it
/// finds (a stale result, a timer that was overtaken, an unknown task) changes nothing and answers nothing.
pub fn advance(run: &mut RunState, event: Event, now: Timestamp) -> Vec<Transition> {
    advance_within(run, event, now, usize::MAX)
}

/// Like [`advance`], but ends after about `most` transitions. What follows and is not done then is left for [`Event::GoOn`], as long as
/// [`RunState::has_more`]; where a person ends a run or sets a state, and [`RunState::is_cut_short`], for the same event.
pub fn advance_within(run: &mut RunState, event: Event, now: Timestamp, most: usize) -> Vec<Transition> {
    run.cut_short = false;
    let mut step = Step {
        run,
        now,
        most: most.max(1),
        looks: 0,
        transitions: Vec::new(),
        to_evaluate: VecDeque::new(),
    };
    match event {
        Event::GoOn => {}
        Event::Start => step.start(),
        Event::Admit { task, map_index } => step.admit(task, map_index),
        Event::TryStarted {
            task,
            map_index,
            dispatch,
            at,
        } => step.try_started(task, map_index, dispatch, at),
        Event::TryFinished {
            task,
            map_index,
            dispatch,
            end,
            measured,
            started_at,
            ended_at,
        } => step.try_finished(
            task,
            map_index,
            dispatch,
            Answer { end, measured },
            (started_at, ended_at),
        ),
        Event::Answered { task, map_index, end } => step.answered(task, map_index, end),
        Event::Resolved {
            task,
            map_index,
            dispatch,
            end,
            measured,
        } => step.resolved((task, map_index), dispatch, Answer { end, measured }),
        Event::TryLost {
            task,
            map_index,
            dispatch,
            loss,
        } => step.try_lost(task, map_index, dispatch, loss),
        Event::Past { met } => step.past(met),
        Event::GiveWay => step.give_way(),
        Event::Resume => step.evaluate_all(),
        Event::Timer => step.timer(),
        Event::Clear { task_instances } => step.clear(&task_instances),
        Event::SetRunState { state } => step.set_run_state(state),
        Event::SetTaskInstanceState { task, map_index, state } => step.set_ti_state(task, map_index, state),
    }
    step.settle();
    step.transitions
}

/// The work on one event.
pub(super) struct Step<'a> {
    pub(super) run: &'a mut RunState,
    pub(super) now: Timestamp,
    /// After about so many transitions the step ends.
    pub(super) most: usize,
    /// How much was looked at.
    pub(super) looks: usize,
    pub(super) transitions: Vec<Transition>,
    /// What has to be looked at, since what it waits for changed.
    pub(super) to_evaluate: VecDeque<Look>,
}

/// What has to be looked at.
#[derive(Clone, Copy, Debug)]
pub(super) enum Look {
    /// All instances that a node counts.
    Node(usize),
    /// The instances of a node from the n-th on.
    Rest(usize, u32),
    /// One task instance, by its place.
    Slot(usize),
}

/// So many looks that change nothing cost as much as a transition.
const LOOKS: usize = 16;

impl Step<'_> {
    /// Whether the step has done as much as it may.
    pub(super) fn is_spent(&self) -> bool {
        self.transitions.len() >= self.most || self.looks / LOOKS >= self.most
    }

    /// The number of transitions that are left; at least one.
    pub(super) fn left(&self) -> usize {
        self.most.saturating_sub(self.transitions.len()).max(1)
    }

    /// Changes a task instance, reports it, and notes who has to be looked at because of it.
    pub(super) fn change(&mut self, at: usize, edit: impl FnOnce(&mut Ti)) {
        let Some((task, map_index)) = self.run.tis.get(at).map(|slot| (slot.task, slot.map_index)) else {
            return;
        };
        let Some((from, to)) = self.run.edit(at, edit) else {
            return;
        };
        self.transitions.push(Transition::TaskInstance {
            task,
            map_index,
            from,
            to,
        });
        if to.is_finished() && from != to {
            let dag = Arc::clone(&self.run.dag);
            for follower in dag.awaiting(task).iter().chain(dag.setup_watchers(task)) {
                self.to_evaluate
                    .extend(self.run.met_by(at, *follower).iter().map(Look::Node));
            }
        }
        if to.is_finished() && from != to && !self.run.dag.fed_by(task).is_empty() {
            self.wake_fed(at);
        }
        self.to_evaluate.extend(self.run.woken.drain(..).map(Look::Node));
    }

    /// Changes the state of the run, with the times that go with it (Airflow: `DagRun.set_state`).
    pub(super) fn change_run(&mut self, to: DagRunState) {
        let from = self.run.state;
        match to {
            DagRunState::Queued => {
                self.run.queued_at = self.now;
                self.run.start_date = None;
                self.run.end_date = None;
            }
            DagRunState::Running => {
                self.run.start_date = Some(self.now);
                self.run.end_date = None;
            }
            DagRunState::Success | DagRunState::Failed => {
                self.run.end_date = Some(self.now);
                // Whoever lets it run again tells it anew.
                self.run.past_met = None;
            }
        }
        self.run.state = to;
        self.transitions.push(Transition::Run { from, to });
    }

    /// The run ends by itself, and not because a person says so.
    ///
    /// Airflow: `DagRun.update_state` and the timeout of `SchedulerJobRunner._schedule_dag_run` ask for the DAG's callbacks; the API,
    /// which sets the state of a run for a person, does not.
    pub(super) fn end_run(&mut self, reason: RunEndReason) {
        let to = match reason {
            RunEndReason::Success => DagRunState::Success,
            RunEndReason::TaskFailure | RunEndReason::Deadlocked | RunEndReason::TimedOut => DagRunState::Failed,
        };
        self.change_run(to);
        if let Some(event) = CallbackEvent::of_run(to).filter(|event| self.run.dag.calls_back(None, *event)) {
            self.transitions.push(Transition::DagCallbacks { event, reason });
        }
    }

    /// Ends a task instance here and now: what is with an executor is cancelled, a try that is open ends.
    pub(super) fn stop(&mut self, at: usize, state: TaskInstanceState, cause: Option<Cause>) {
        let Some(slot) = self.run.tis.get(at) else { return };
        let (task, map_index, dispatch, try_number) = (slot.task, slot.map_index, slot.ti.dispatch, slot.ti.try_number);
        let open = slot.ti.try_is_open();
        // A restarting one was cancelled when it was cleared.
        let out = matches!(slot.ti.state, TaskInstanceState::Queued | TaskInstanceState::Running);
        let now = self.now;
        self.change(at, |ti| {
            ti.state = state;
            ti.cause = if open { cause } else { ti.cause };
            ti.next_at = None;
            ti.forget();
            ti.start_date = ti.start_date.or(Some(now));
            ti.end_date = ti.end_date.filter(|_| !open).or(Some(now));
        });
        if open {
            // Airflow's history shows a try that did not end by itself as failed.
            let state = if state.is_finished() {
                state
            } else {
                TaskInstanceState::Failed
            };
            self.transitions.push(Transition::TryEnded {
                task,
                map_index,
                try_number,
                dispatch,
                state,
                cause,
            });
        }
        if out {
            self.transitions.push(Transition::Cancel {
                task,
                map_index,
                dispatch,
            });
        }
    }
}
