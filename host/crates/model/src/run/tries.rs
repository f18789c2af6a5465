//! The life of tries: admitted, started, ended, lost, due again.

use std::sync::Arc;
use std::time::Duration;

use super::advance::{Look, Step};
use super::event::{Loss, TryEnd};
use super::retry::retry_delay;
use super::ti::{Facts, Ti};
use super::transition::Transition;
use crate::callback::CallbackEvent;
use crate::cause::Cause;
use crate::dag::TaskKind;
use crate::human::OnTimeout;
use crate::id::{DispatchNumber, MapIndex, TaskIndex, TryNumber};
use crate::retry_rule::RetryAction;
use crate::sensor::{MIN_POKE_INTERVAL, Poked};
use crate::state::{DagRunState, TaskInstanceState};
use crate::time::Timestamp;

/// How a try ended, and what was measured of what it published.
pub(super) struct Answer {
    pub(super) end: TryEnd,
    pub(super) measured: Vec<u32>,
}

impl Answer {
    /// Of what nothing is measured.
    const fn unmeasured(end: TryEnd) -> Self {
        Self {
            end,
            measured: Vec::new(),
        }
    }
}

impl Step<'_> {
    /// Capacity was found. A new try begins, unless an open one goes on with its next poke.
    pub(super) fn admit(&mut self, task: TaskIndex, map_index: MapIndex) {
        let Some(at) = self.run.slot_of(task, map_index) else {
            return;
        };
        let Some(slot) = self.run.tis.get(at) else { return };
        if slot.ti.state != TaskInstanceState::Scheduled || self.run.state != DagRunState::Running || self.run.is_held()
        {
            return;
        }
        let first_of_try = !slot.ti.try_is_open();
        if first_of_try {
            let dag = Arc::clone(&self.run.dag);
            let task = dag.task(task);
            self.run.edit(at, |ti| {
                let rule = ti.retry_rule.take();
                if let Some(task) = task
                    && let Some(more) = rule.and_then(|rule| task.retry.rule(rule)?.memory)
                {
                    ti.raise_memory(task, more);
                }
                ti.try_number = TryNumber(ti.try_number.0.saturating_add(1));
                ti.infra_losses = 0;
                ti.start_date = None;
                ti.end_date = None;
                ti.cause = None;
            });
        }
        self.dispatch(at, first_of_try);
    }

    /// Sends the task instance to an executor, under the next dispatch number.
    fn dispatch(&mut self, at: usize, first_of_try: bool) {
        let now = self.now;
        self.change(at, |ti| {
            ti.state = TaskInstanceState::Queued;
            ti.dispatch = DispatchNumber(ti.dispatch.0.saturating_add(1));
            ti.acknowledged = false;
            ti.queued_at = Some(now);
        });
        let Some(slot) = self.run.tis.get(at) else { return };
        self.transitions.push(Transition::Dispatch {
            task: slot.task,
            map_index: slot.map_index,
            try_number: slot.ti.try_number,
            dispatch: slot.ti.dispatch,
            first_of_try,
        });
    }

    /// The place of a dispatch, if it is the current one.
    fn current(&self, task: TaskIndex, map_index: MapIndex, dispatch: DispatchNumber) -> Option<usize> {
        let at = self.run.slot_of(task, map_index)?;
        let ti = &self.run.tis.get(at)?.ti;
        (ti.dispatch == dispatch && ti.state.is_dispatched()).then_some(at)
    }

    pub(super) fn try_started(
        &mut self,
        task: TaskIndex,
        map_index: MapIndex,
        dispatch: DispatchNumber,
        at: Timestamp,
    ) {
        let Some(place) = self.current(task, map_index, dispatch) else {
            return;
        };
        if self.state_at(place) != Some(TaskInstanceState::Queued) {
            return;
        }
        let started_at = at.min(self.now);
        self.change(place, |ti| {
            ti.state = TaskInstanceState::Running;
            ti.acknowledged = true;
            ti.start_date = ti.start_date.or(Some(started_at));
        });
    }

    pub(super) fn try_finished(
        &mut self,
        task: TaskIndex,
        map_index: MapIndex,
        dispatch: DispatchNumber,
        answer: Answer,
        (started_at, ended_at): (Timestamp, Timestamp),
    ) {
        let Answer { end, measured } = answer;
        let Some(at) = self.current(task, map_index, dispatch) else {
            return;
        };
        if self.state_at(at) == Some(TaskInstanceState::Restarting) {
            return self.restart(at);
        }
        // The start may not have been heard of: messages can be merged or lost.
        self.try_started(task, map_index, dispatch, started_at);
        let ended_at = ended_at.min(self.now);
        let Some((slot, definition)) = self.run.task(at) else {
            return;
        };
        let ended_at = slot.ti.start_date.map_or(ended_at, |start| ended_at.max(start));
        if end == TryEnd::AwaitInput
            && let Some(step) = definition.work.human()
        {
            let next_at = step.timeout.map(|timeout| self.now.plus(timeout));
            return self.change(at, |ti| {
                ti.state = TaskInstanceState::AwaitingInput;
                ti.cause = None;
                ti.next_at = next_at;
            });
        }
        let is_sensor = definition.work.wait_for_dag().is_some();
        if end == TryEnd::Defer
            && let Some(limit) = definition.work.deferred_for(definition.sensor.as_ref())
        {
            // A sensor's time counts over all tries; that of a run that is waited for is its own.
            let first = |ti: &Ti| ti.poked_since().filter(|_| is_sensor).or(ti.start_date);
            let since = self.run.tis.get(at).and_then(|slot| first(&slot.ti));
            let next_at = limit.map(|limit| since.unwrap_or(self.now).plus(limit));
            return self.change(at, |ti| {
                ti.state = TaskInstanceState::Deferred;
                ti.cause = None;
                ti.next_at = next_at;
            });
        }
        self.conclude(at, Answer { end, measured }, ended_at);
    }

    /// What a deferred try waits for has happened.
    pub(super) fn resolved(
        &mut self,
        (task, map_index): (TaskIndex, MapIndex),
        dispatch: DispatchNumber,
        answer: Answer,
    ) {
        let Some(at) = self.run.slot_of(task, map_index) else {
            return;
        };
        let waits = self
            .run
            .tis
            .get(at)
            .is_some_and(|slot| slot.ti.state == TaskInstanceState::Deferred && slot.ti.dispatch == dispatch);
        if waits {
            self.conclude(at, answer, self.now);
        }
    }

    /// It was deferred for too long. A sensor ends here, without a retry (Airflow: `AirflowSensorTimeout`); a task that waits for the
    /// run that it triggered may trigger another one.
    fn deferred_too_long(&mut self, at: usize) {
        let Some((_, definition)) = self.run.task(at) else {
            return;
        };
        if definition.work.wait_for_dag().is_none() {
            return self.fail_try(at, Cause::TimedOut, false, None, self.now);
        }
        let soft = definition.sensor.as_ref().is_some_and(|sensor| sensor.soft_fail);
        let state = if soft {
            TaskInstanceState::Skipped
        } else {
            TaskInstanceState::Failed
        };
        self.end_try(at, state, Cause::TimedOut, self.now);
    }

    /// A person answered.
    pub(super) fn answered(&mut self, task: TaskIndex, map_index: MapIndex, end: TryEnd) {
        let Some(at) = self.run.slot_of(task, map_index) else {
            return;
        };
        if self.state_at(at) == Some(TaskInstanceState::AwaitingInput) {
            self.conclude(at, Answer::unmeasured(end), self.now);
        }
    }

    /// Nobody answered in time.
    ///
    /// Airflow: `HITLOperator` takes the defaults if there are any, else it fails with `HITLTimeoutError`, and its retries ask again.
    fn input_timed_out(&mut self, at: usize) {
        let Some((slot, definition)) = self.run.task(at) else {
            return;
        };
        let (task, map_index, now) = (slot.task, slot.map_index, self.now);
        let Some(step) = definition.work.human() else { return };
        match (step.on_timeout, &step.defaults) {
            (OnTimeout::Default, Some(defaults)) => {
                let end = step.end(definition, defaults);
                self.transitions.push(Transition::DefaultsTaken { task, map_index });
                self.conclude(at, Answer::unmeasured(end), now);
            }
            (OnTimeout::Skip, _) => self.end_try(at, TaskInstanceState::Skipped, Cause::TimedOut, now),
            (OnTimeout::Fail | OnTimeout::Default, _) => self.fail_try(at, Cause::TimedOut, false, None, now),
        }
    }

    /// The end of a try, or of one poke of it.
    fn conclude(&mut self, at: usize, answer: Answer, ended_at: Timestamp) {
        let Answer { end, measured } = answer;
        let Some((_, definition)) = self.run.task(at) else {
            return;
        };
        match (end, &definition.kind) {
            (TryEnd::Done | TryEnd::DoneFalsy, TaskKind::Plain) | (TryEnd::Done, TaskKind::ShortCircuit { .. }) => {
                self.remember(at, None, measured);
                self.end_try(at, TaskInstanceState::Success, Cause::Returned, ended_at);
            }
            (TryEnd::DoneFalsy, TaskKind::ShortCircuit { .. }) => {
                self.succeed_choosing(at, Vec::new(), measured, ended_at);
            }
            (TryEnd::Branch(chosen), TaskKind::Branch { .. }) => {
                let downstream = &definition.downstream;
                let mut chosen: Vec<u32> = chosen
                    .into_iter()
                    .filter(|task| downstream.binary_search(task).is_ok())
                    .map(|task| task.0)
                    .collect();
                chosen.sort_unstable();
                chosen.dedup();
                self.succeed_choosing(at, chosen, measured, ended_at);
            }
            (TryEnd::Skip, _) => self.end_try(at, TaskInstanceState::Skipped, Cause::Returned, ended_at),
            (TryEnd::Reschedule(after), _) => self.poke_later(at, after, ended_at),
            (TryEnd::Failed { cause, fatal, code }, _) => self.fail_try(at, cause, fatal, code.as_deref(), ended_at),
            // A branch that chooses nothing by name, a choice of a task that is no branch, or a question that nobody asked for.
            (TryEnd::Done | TryEnd::DoneFalsy, TaskKind::Branch { .. })
            | (TryEnd::Branch(_) | TryEnd::AwaitInput | TryEnd::Defer, _) => {
                self.fail_try(at, Cause::ContractViolation, false, None, ended_at);
            }
        }
    }

    /// "Not yet". A sensor that has waited for too long ends here, without a retry (Airflow: `AirflowSensorTimeout`).
    fn poke_later(&mut self, at: usize, asked: Duration, ended_at: Timestamp) {
        let Some((slot, task)) = self.run.task(at) else { return };
        if slot.ti.is_outlived() {
            return self.start_afresh(at);
        }
        let elapsed = slot
            .ti
            .poked_since()
            .map_or(Duration::ZERO, |start| ended_at.since(start));
        let interval = match &task.sensor {
            Some(sensor) if elapsed > sensor.timeout => {
                let state = if sensor.soft_fail {
                    TaskInstanceState::Skipped
                } else {
                    TaskInstanceState::Failed
                };
                return self.end_try(at, state, Cause::TimedOut, ended_at);
            }
            Some(sensor) => {
                let poked = Poked {
                    dag: &self.run.dag.id,
                    task: &task.id,
                    run: self.run.key,
                    map_index: slot.map_index,
                    try_number: slot.ti.try_number,
                };
                sensor.next_interval(poked, elapsed, asked)
            }
            None => asked.max(MIN_POKE_INTERVAL),
        };
        let next_at = self.now.plus(interval);
        self.change(at, |ti| {
            ti.state = TaskInstanceState::UpForReschedule;
            ti.cause = Some(Cause::Returned);
            ti.next_at = Some(next_at);
        });
    }

    /// What is not chosen is skipped before the success lets anything run.
    fn succeed_choosing(&mut self, at: usize, chosen: Vec<u32>, measured: Vec<u32>, ended_at: Timestamp) {
        self.skip_not_chosen(at, &chosen);
        self.remember(at, Some(chosen), measured);
        self.end_try(at, TaskInstanceState::Success, Cause::Returned, ended_at);
    }

    /// Nothing refers to what a success said before the state is success: it is counted then.
    fn remember(&mut self, at: usize, chosen: Option<Vec<u32>>, measured: Vec<u32>) {
        self.run.edit(at, |ti| {
            ti.remember(|facts| {
                *facts = Facts {
                    chosen,
                    measured,
                    cancelled: facts.cancelled,
                    ..Facts::default()
                };
            });
        });
    }

    fn end_try(&mut self, at: usize, state: TaskInstanceState, cause: Cause, ended_at: Timestamp) {
        let Some(slot) = self.run.tis.get(at) else { return };
        let (task, map_index, try_number, dispatch) = (slot.task, slot.map_index, slot.ti.try_number, slot.ti.dispatch);
        self.change(at, |ti| {
            ti.state = state;
            ti.cause = Some(cause);
            ti.next_at = None;
            ti.end_date = Some(ended_at);
        });
        let event = CallbackEvent::of_try(state);
        // Airflow: `TaskInstanceHistory.record_ti` is called before a task instance becomes up_for_retry, and shows that try as failed.
        let state = match state {
            TaskInstanceState::UpForRetry => TaskInstanceState::Failed,
            ended => ended,
        };
        self.transitions.push(Transition::TryEnded {
            task,
            map_index,
            try_number,
            dispatch,
            state,
            cause: Some(cause),
        });
        if let Some(event) = event.filter(|event| self.run.dag.calls_back(Some(task), *event)) {
            self.transitions.push(Transition::TaskCallbacks {
                event,
                task,
                map_index,
                try_number,
            });
        }
    }

    /// Airflow: `TaskInstance.is_eligible_to_retry`, `next_retry_datetime`; and `_evaluate_retry_policy`: a fatal failure is not
    /// the policy's to judge, and a policy never makes more tries than there are.
    fn fail_try(&mut self, at: usize, cause: Cause, fatal: bool, code: Option<&str>, ended_at: Timestamp) {
        let Some((slot, task)) = self.run.task(at) else { return };
        let ti = &slot.ti;
        // Airflow: `BaseSensorOperator` turns `AirflowTaskTimeout` and `AirflowFailException` into a skip.
        let soft = task.sensor.as_ref().is_some_and(|sensor| sensor.soft_fail);
        if soft && (fatal || cause == Cause::TimedOut) {
            return self.end_try(at, TaskInstanceState::Skipped, cause, ended_at);
        }
        let rule = task.retry.rule_for(cause, code).filter(|_| !fatal);
        let action = rule.map_or(RetryAction::Default, |(_, rule)| rule.action);
        let ends = fatal || action == RetryAction::Fail || ti.try_number.0 >= ti.max_tries;
        let (run, dag) = (self.run.key, &self.run.dag.id);
        let delay = rule
            .filter(|_| action == RetryAction::Retry)
            .and_then(|(_, rule)| rule.delay)
            .unwrap_or_else(|| retry_delay(&task.retry, dag, &task.id, run, slot.map_index, ti.try_number));
        let decided_by = rule.map(|(number, _)| number);
        // Airflow: `BaseSensorOperator` counts from the first try since it was cleared.
        let since = ti.poked_since().filter(|_| task.sensor.is_some());
        let outlived = ti.is_outlived();
        self.run.edit(at, |ti| {
            ti.retry_rule = decided_by;
            if let Some(since) = since {
                ti.remember(|facts| facts.poked_since = Some(since.0));
            }
        });
        if ends {
            return self.end_try(at, TaskInstanceState::Failed, cause, ended_at);
        }
        if outlived {
            self.end_try(at, TaskInstanceState::UpForRetry, cause, ended_at);
            return self.start_afresh(at);
        }
        self.end_try(at, TaskInstanceState::UpForRetry, cause, ended_at);
        let next_at = ended_at.plus(delay);
        if next_at > self.now {
            self.run.edit(at, |ti| ti.next_at = Some(next_at));
        } else {
            self.evaluate_later(at);
        }
    }

    /// The executor is gone or gave the dispatch back. The slots that it holds stay its own where it is dispatched again.
    pub(super) fn try_lost(&mut self, task: TaskIndex, map_index: MapIndex, dispatch: DispatchNumber, loss: Loss) {
        let Some(at) = self.current(task, map_index, dispatch) else {
            return;
        };
        let Some((slot, definition)) = self.run.task(at) else {
            return;
        };
        if slot.ti.state == TaskInstanceState::Restarting {
            return self.restart(at);
        }
        if slot.ti.is_outlived() {
            return self.start_afresh(at);
        }
        let started = slot.ti.start_date.is_some();
        let once = !definition.rerun_on_loss;
        if once && loss == Loss::HandedBack && !slot.ti.acknowledged {
            return self.wait_again(at);
        }
        // Whoever was given a dispatch and was never heard of may have run it: a start is not stored at once.
        let is_loss = loss == Loss::Acknowledged || (once && loss == Loss::NotAcknowledged);
        let may_have_run = slot.ti.acknowledged || is_loss;
        let losses = slot.ti.infra_losses.saturating_add(u32::from(is_loss));
        // Code that must not run twice in one try does not, however gently it was stopped.
        let give_up = once || (is_loss && losses > definition.max_infra_retries);
        let now = self.now;
        self.run.edit(at, |ti| {
            ti.infra_losses = losses;
            if may_have_run {
                ti.start_date = ti.start_date.or(Some(now));
            }
        });
        if give_up {
            self.fail_try(at, Cause::InfrastructureLost, false, None, now);
        } else if self.run.is_held() {
            // What is done to the run comes first.
            self.wait_again(at);
        } else {
            self.dispatch(at, !started && !may_have_run);
        }
    }

    /// The executor says that it never began the dispatch, so the try that was to begin has not. Were another dispatch sent at once, and
    /// this process stopped before it is, nobody could tell it from one that has run.
    fn wait_again(&mut self, at: usize) {
        self.change(at, |ti| {
            if ti.start_date.is_none() {
                ti.try_number = TryNumber(ti.try_number.0.saturating_sub(1));
            }
            ti.state = TaskInstanceState::Scheduled;
            ti.queued_at = None;
        });
    }

    /// A cleared dispatch has stopped: the task instance starts from nothing.
    fn restart(&mut self, at: usize) {
        self.reset(at);
        self.evaluate_later(at);
    }

    /// Back to no status, with tries to come (Airflow: `clear_task_instances`: `max_tries = try_number + retries`).
    pub(super) fn reset(&mut self, at: usize) {
        let Some((_, task)) = self.run.task(at) else { return };
        let retries = task.retry.retries;
        self.change(at, |ti| {
            ti.state = TaskInstanceState::NoStatus;
            ti.max_tries = ti.try_number.0.saturating_add(retries).saturating_add(1);
            ti.cause = None;
            ti.acknowledged = false;
            ti.infra_losses = 0;
            ti.scheduled_at = None;
            ti.queued_at = None;
            ti.start_date = None;
            ti.end_date = None;
            ti.next_at = None;
            ti.retry_rule = None;
            ti.raised_memory_kib = None;
            ti.forget();
        });
        if let Some((task, scope)) = self.run.node_of(at) {
            self.run.mark_stale(task, scope);
        }
    }

    pub(super) fn timer(&mut self) {
        if self.run.state != DagRunState::Running {
            return;
        }
        if self.run.deadline().is_some_and(|deadline| deadline <= self.now) {
            return self.time_out_run();
        }
        self.fall_due();
    }

    /// Retries and pokes that are due wait for their trigger rule again, which mostly lets them go on at once. (It may not where
    /// an upstream task was cleared meanwhile; Airflow looks at the rule again too.)
    pub(super) fn fall_due(&mut self) {
        for at in self.run.tis.due(self.now) {
            if self.is_spent() {
                // The others are due still.
                break;
            }
            if self.state_at(at) == Some(TaskInstanceState::AwaitingInput) {
                self.input_timed_out(at);
                continue;
            }
            if self.state_at(at) == Some(TaskInstanceState::Deferred) {
                self.deferred_too_long(at);
                continue;
            }
            self.run.edit(at, |ti| ti.next_at = None);
            self.evaluate_later(at);
        }
    }

    pub(super) fn evaluate_later(&mut self, at: usize) {
        self.to_evaluate.push_back(Look::Slot(at));
    }

    pub(super) fn state_at(&self, at: usize) -> Option<TaskInstanceState> {
        self.run.tis.get(at).map(|slot| slot.ti.state)
    }
}
