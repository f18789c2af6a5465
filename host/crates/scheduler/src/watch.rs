//! Watching over what is out. An executor says every few seconds which dispatches it has; one that nobody has spoken of for long is lost, and is
//! dispatched again (Airflow: `task_instance_heartbeat_timeout`).

use std::time::Duration;

use model::{Cause, TaskInstanceState, Timestamp};
use ports::executor::{TryFailure, TryId, TryOutcome, TryReport, TryUsage};

use crate::core::Core;
use crate::inbox::Item;

/// So often it is looked in the time that an executor may be silent.
const LOOKS: u32 = 4;

impl Core {
    /// Something was dispatched.
    pub(crate) fn begin_watch(&mut self, now: Timestamp) {
        if self.watch_due.is_none()
            && let Some(silence) = self.shared.config.heartbeat_timeout
        {
            self.watch_due = Some(now.plus(silence / LOOKS));
        }
    }

    /// Looks for what is lost, when it is time.
    pub(crate) fn watch_tries(&mut self, now: Timestamp) {
        let (Some(silence), Some(due)) = (self.shared.config.heartbeat_timeout, self.watch_due) else {
            return;
        };
        if now < due {
            return;
        }
        // This process slept, or the clock was set: nobody could be heard meanwhile.
        let slept = now.since(due) > silence / LOOKS;
        let silent_since = Timestamp(
            now.0
                .saturating_sub(i64::try_from(silence.as_micros()).unwrap_or(i64::MAX)),
        );
        let (mut any, mut lost) = self.shared.flights.lost(silent_since, now, slept);
        let mut started = Vec::new();
        for run in self.runs.values() {
            run.live.ending().retain(|(task, map_index), live| {
                let ti = run.state.ti(*task, *map_index);
                ti.is_some_and(|ti| ti.state == TaskInstanceState::Restarting && ti.dispatch == live.dispatch)
            });
            any |= !(run.live.tries().is_empty() && run.live.ending().is_empty());
            started.extend(run.live.take_silent(silent_since, now, slept));
        }
        for (id, acknowledged) in started {
            let item = Item::Lost {
                task: id.ti.task,
                map_index: id.ti.map_index,
                dispatch: id.dispatch,
                acknowledged,
            };
            self.queue.push(id.ti.run, item, now);
            lost.push(id);
        }
        for id in lost {
            tracing::warn!(
                run.uuid = %id.run_uuid.0,
                task = id.ti.task.0,
                map_index = id.ti.map_index.0,
                dispatch = id.dispatch.0,
                "no executor has spoken of a dispatch for {} s: it is lost",
                silence.as_secs()
            );
            // If somebody has it after all, it stops.
            self.executor.cancel(id);
            if id.callback.is_some() {
                self.accept_callback(id, Some(&lost_attempt(id, silence, now)), now);
            }
        }
        self.watch_due = any.then(|| now.plus(silence / LOOKS));
    }
}

/// What is said of an attempt that is lost, in the place of whoever had it.
fn lost_attempt(id: TryId, silence: Duration, now: Timestamp) -> TryReport {
    let failure = TryFailure {
        cause: Cause::InfrastructureLost,
        message: format!("its executor has said nothing for {} s", silence.as_secs()),
        fatal: false,
        code: None,
        details: None,
    };
    TryReport {
        id,
        outcome: TryOutcome::Failed(failure),
        xcoms: Vec::new(),
        measured: Vec::new(),
        started_at: now,
        ended_at: now,
        usage: TryUsage::default(),
        rendered_map_index: None,
    }
}
