//! What the transitions of a step mean for a draft: rows to write, slots taken and freed, dispatches and cancels to send.

use model::run::{TooMany, Transition};
use model::{Cause, DispatchNumber, TaskInstanceState, Timestamp, TryNumber};
use ports::store::TiWrite;

use crate::between;
use crate::outcome::Details;
use crate::run::{Dispatch, Draft, Place, Run, may_wait};
use crate::slots::Slots;

/// The code of what is more task instances than there may be.
const TOO_MANY: &str = "too_many_task_instances";

impl Draft {
    pub(crate) fn note(&mut self, base: Option<&Run>, transition: Transition, now: Timestamp, slots: &mut Slots) {
        match transition {
            Transition::Run { to, .. } => {
                self.run_changed = true;
                slots.run_changed(&self.live, to);
            }
            Transition::TaskInstance {
                task,
                map_index,
                from,
                to,
            } => {
                if to == TaskInstanceState::Failed {
                    self.explain_too_many((task, map_index));
                }
                self.note_state((task, map_index), from, to, now, slots);
            }
            Transition::Renumbered { task, from, to } => {
                self.renumbered.push(self.ti((task, from)));
                self.move_notes(self.ti((task, from)), to);
                // It may have ended already: as what could not run, or was skipped, before anybody knew how many there are.
                self.changed.push((task, to));
            }
            Transition::RowDue { task, map_index } => self.changed.push((task, map_index)),
            Transition::Dispatch {
                task,
                map_index,
                try_number,
                dispatch,
                first_of_try,
            } => {
                let place = (task, map_index);
                if first_of_try {
                    self.begin_try(place, try_number);
                }
                self.dispatches.push(Dispatch {
                    place,
                    try_number,
                    dispatch,
                    first_of_try,
                });
            }
            Transition::TryEnded {
                task,
                map_index,
                try_number,
                dispatch,
                state,
                cause,
            } => {
                self.explain((task, map_index), cause, now);
                let row = self.ended_try(base, (task, map_index), try_number, dispatch, state, cause, now);
                self.tries.extend(row);
            }
            Transition::TaskCallbacks {
                event,
                task,
                map_index,
                try_number,
            } => self.call_back_task(event, (task, map_index), try_number),
            Transition::DagCallbacks { event, reason } => self.call_back_dag(event, reason),
            Transition::DefaultsTaken { task, map_index } => self.take_defaults((task, map_index), now),
            Transition::Cancel {
                task,
                map_index,
                dispatch,
            } => {
                self.cancels.push(((task, map_index), dispatch));
                self.over.push((task, map_index));
            }
        }
    }

    fn note_state(
        &mut self,
        place: Place,
        from: TaskInstanceState,
        to: TaskInstanceState,
        now: Timestamp,
        slots: &mut Slots,
    ) {
        use TaskInstanceState::{Deferred, NoStatus, Queued, Removed, Scheduled, Success};
        if may_wait(from, to) {
            self.lazy.push(place);
        } else {
            self.changed.push(place);
        }
        match (from, to) {
            (Scheduled, Scheduled | Queued) => {}
            (_, Scheduled) => slots.ready(&self.live, place, now),
            (Scheduled, _) => slots.not_ready(self.ti(place)),
            _ => {}
        }
        if to == Removed {
            // What it published is not part of any list any more.
            let ti = self.ti(place);
            self.xcoms.retain(|xcom| xcom.ti != ti);
            self.xcom_deletes.push(ti);
        }
        if from != NoStatus && to == NoStatus {
            // It begins from nothing.
            self.checkpoint_deletes.push(self.ti(place));
        }
        match (from == Deferred, to == Deferred) {
            (false, true) => self.deferred.push(place),
            (true, false) => self.undeferred.push(place),
            _ => {}
        }
        if from == Deferred && to != Deferred && !to.is_dispatched() {
            slots.release(self.ti(place));
        }
        if from.is_dispatched() && !to.is_dispatched() {
            self.over.push(place);
            let ti = self.ti(place);
            if to == Deferred {
                slots.defer(&self.live, ti);
            } else {
                slots.release(ti);
            }
            if to == Success && self.has_checkpoint(place) {
                self.checkpoint_deletes.push(ti);
            }
        }
    }

    /// Airflow: the XComs of a task instance are deleted when a new try begins.
    fn begin_try(&mut self, place: Place, try_number: TryNumber) {
        self.details.insert(place, None);
        if try_number.0 <= 1 {
            return;
        }
        let ti = self.ti(place);
        // Deletions are written before insertions: what this very tick had taken from the last try must not come back.
        self.xcoms.retain(|xcom| xcom.ti != ti);
        self.xcom_deletes.push(ti);
    }

    /// Says why a try ended where no executor does.
    fn explain(&mut self, place: Place, cause: Option<Cause>, now: Timestamp) {
        // A poke that answered "not yet" has details, but no message.
        let said = self.details.get(&place).and_then(Option::as_ref);
        if said.is_some_and(|details| details.message.is_some() || cause != Some(Cause::TimedOut)) {
            return;
        }
        let sensor_timed_out = said.is_some();
        let said = said.cloned().unwrap_or_default();
        let (Some(ti), Some(task)) = (self.state.ti(place.0, place.1), self.live.version.dag().task(place.0)) else {
            return;
        };
        let message = match cause {
            Some(Cause::TimedOut) if let Some(message) = between::ran_out_of_time(task, ti, now) => message.to_owned(),
            Some(Cause::InfrastructureLost) if !task.rerun_on_loss => {
                "the server that ran this try was lost, and `rerun_on_loss` is false".to_owned()
            }
            Some(Cause::InfrastructureLost) => format!(
                "the server that ran this try was lost {} times; a try survives {} losses (`max_infra_retries`)",
                ti.infra_losses, task.max_infra_retries,
            ),
            Some(Cause::TimedOut) if self.nobody_answered(place, now) => "nobody answered in time".to_owned(),
            Some(Cause::TimedOut) if sensor_timed_out => "the sensor has waited longer than its `timeout`".to_owned(),
            Some(Cause::TimedOut) => "the run took longer than its `dagrun_timeout`".to_owned(),
            Some(Cause::Cancelled) => {
                "it was stopped: somebody cleared it, or set its state or that of its run".to_owned()
            }
            _ => return,
        };
        let details = Details {
            message: Some(message),
            ..said
        };
        self.details.insert(place, Some(details));
    }

    /// Says why a task instance failed that never ran, since what it is mapped over makes too many.
    fn explain_too_many(&mut self, place: Place) {
        let Some(ti) = self.state.ti(place.0, place.1) else {
            return;
        };
        // A try that ended has said why.
        let is_said = self.details.get(&place).is_some_and(Option::is_some);
        if ti.cause != Some(Cause::InputInvalid) || is_said {
            return;
        }
        let (code, message) = match self.state.too_many(place.0, place.1) {
            Some(TooMany::Elements { elements, limit }) => (
                "map_limit_exceeded",
                format!("there are {elements} elements to map over; `map_limit` allows {limit}"),
            ),
            Some(TooMany::TaskInstances { would_be, limit }) => (
                TOO_MANY,
                format!(
                    "the run would have {would_be} task instances; it may have {limit} \
                     (`--max-task-instances-per-run` and `--max-task-instances` of the server)"
                ),
            ),
            None if ti.try_number.0 > 0 => (
                TOO_MANY,
                "the run may not have as many task instances as another iteration of the loop needs \
                 (`--max-task-instances-per-run` and `--max-task-instances` of the server)"
                    .to_owned(),
            ),
            None => return,
        };
        let details = Details {
            message: Some(message),
            code: Some(code.to_owned()),
            ..Details::default()
        };
        self.details.insert(place, Some(details));
    }

    fn has_checkpoint(&self, place: Place) -> bool {
        self.live.tries().get(&place).is_some_and(|live| live.has_checkpoint)
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one transition")]
    fn ended_try(
        &self,
        base: Option<&Run>,
        place: Place,
        try_number: TryNumber,
        dispatch: DispatchNumber,
        state: TaskInstanceState,
        cause: Option<Cause>,
        now: Timestamp,
    ) -> Option<TiWrite> {
        let row = self.row(base, place)?;
        // A try that was ended by clearing has left its times behind already.
        let before = base.and_then(|run| run.state.ti(place.0, place.1));
        Some(TiWrite {
            state,
            try_number,
            dispatch,
            cause,
            acknowledged: true,
            scheduled_at: row.scheduled_at.or_else(|| before?.scheduled_at),
            queued_at: row.queued_at.or_else(|| before?.queued_at),
            start_date: row.start_date.or_else(|| before?.start_date),
            end_date: row.end_date.or(Some(now)),
            next_at: None,
            ..row
        })
    }
}
