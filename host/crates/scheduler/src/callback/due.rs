//! What has become due, as rows.

use std::sync::Arc;

use model::callback::{Callback, CallbackAction, CallbackEvent, CallbackState, RunEndReason};
use model::{MapIndex, TaskIndex, TaskInstanceState, Timestamp, TryNumber};
use ports::callback::{CallbackOf, CallbackWrite, Standing};
use serde_json::{Value, json};

use crate::run::{Draft, Place};

/// How many callbacks of one run are kept: a run that is cleared again and again, or that has very many task instances, must not fill
/// the database.
const MAX_OF_RUN: u32 = 10_000;
/// The longest message that a callback is told, in bytes.
const MAX_MESSAGE_BYTES: usize = 8 << 10;
/// How many failed tasks a callback is told by name.
const MAX_FAILED: usize = 100;
/// The largest [`Standing`] that is kept, in bytes of JSON.
const MAX_STANDING_BYTES: usize = 1 << 20;

impl Draft {
    /// Callbacks of a task are due. Its try has just been noted as ended.
    pub(crate) fn call_back_task(&mut self, event: CallbackEvent, place: Place, try_number: TryNumber) {
        let (task, map_index) = place;
        let version = Arc::clone(&self.live.version);
        let Some(definition) = version.dag().task(task) else {
            return;
        };
        let facts: Arc<str> = self.facts_of_try(event, place, try_number).to_string().into();
        let standing = self.standing(place);
        let of = CallbackOf {
            task,
            task_id: definition.id.clone(),
            map_index,
            try_number,
        };
        self.due(event, &definition.callbacks, Some(&of), &facts, standing.as_ref());
    }

    /// Callbacks of the DAG are due.
    pub(crate) fn call_back_dag(&mut self, event: CallbackEvent, reason: RunEndReason) {
        let version = Arc::clone(&self.live.version);
        let facts: Arc<str> = self.facts_of_run(event, reason).to_string().into();
        self.due(event, &version.dag().callbacks, None, &facts, None);
    }

    fn due(
        &mut self,
        event: CallbackEvent,
        callbacks: &[Callback],
        of: Option<&CallbackOf>,
        facts: &Arc<str>,
        standing: Option<&Arc<str>>,
    ) {
        for (ordinal, callback) in (0_u32..).zip(callbacks) {
            if callback.event != event {
                continue;
            }
            if self.meta.callbacks >= MAX_OF_RUN {
                // Said once, not for each.
                if self.meta.callbacks == MAX_OF_RUN {
                    self.meta.callbacks += 1;
                    let context = &self.live.context;
                    tracing::warn!(dag.id = %context.dag_id, run.id = %context.run_id, %event, "callbacks are left out: the run has {MAX_OF_RUN}");
                }
                return;
            }
            self.meta.callbacks += 1;
            let text = callback.plain_text();
            self.callbacks.push(CallbackWrite {
                run: self.key(),
                of: of.cloned(),
                ordinal,
                event,
                kind: callback.kind(),
                name: name(callback),
                level: callback.level(),
                state: text.map_or(CallbackState::Queued, |_| CallbackState::Success),
                text: text.map(str::to_owned),
                facts: Arc::clone(facts),
                standing: standing.cloned(),
            });
        }
    }

    fn facts_of_try(&self, event: CallbackEvent, place: Place, try_number: TryNumber) -> Value {
        let context = &self.live.context;
        let task_id = self.live.version.dag().task(place.0).map(|task| task.id.to_string());
        let ti = self.ti(place);
        let row = self
            .tries
            .iter()
            .rfind(|row| row.key == ti && row.try_number == try_number);
        let next_at = self.state.ti(place.0, place.1).and_then(|ti| ti.next_at);
        let log_path = format!(
            "/api/v2/dags/{}/dagRuns/{}/taskInstances/{}/logs/{}?map_index={}",
            escaped(context.dag_id.as_str()),
            escaped(context.run_id.as_str()),
            escaped(task_id.as_deref().unwrap_or_default()),
            try_number.0,
            place.1.0
        );
        json!({
            "event": event,
            "dag_id": context.dag_id,
            "run_id": context.run_id,
            "task_id": task_id,
            "map_index": place.1.0,
            "try_number": try_number.0,
            "max_tries": row.map(|row| row.max_tries),
            "state": event.ti_state(),
            "cause": row.and_then(|row| row.cause),
            "code": row.and_then(|row| row.code.as_deref()),
            "message": row.and_then(|row| row.message.as_deref()).map(short),
            "start_date": time(row.and_then(|row| row.start_date)),
            "end_date": time(row.and_then(|row| row.end_date)),
            "next_retry_at": time(next_at.filter(|_| event == CallbackEvent::Retry)),
            "rendered_map_index": row.and_then(|row| row.rendered_map_index.as_deref()),
            "log_path": log_path,
            "run_state": self.state.state(),
            "run_start_date": time(self.state.start_date()),
            "run_end_date": time(self.state.end_date()),
        })
    }

    fn facts_of_run(&self, event: CallbackEvent, reason: RunEndReason) -> Value {
        let context = &self.live.context;
        let mut failed: Vec<TaskIndex> = self
            .state
            .tis()
            .filter(|(_, _, ti)| matches!(ti.state, TaskInstanceState::Failed | TaskInstanceState::UpstreamFailed))
            .map(|(task, _, _)| task)
            .collect();
        failed.sort_unstable();
        failed.dedup();
        let dag = self.live.version.dag();
        let names = failed.iter().take(MAX_FAILED).filter_map(|task| dag.task(*task));
        json!({
            "event": event,
            "dag_id": context.dag_id,
            "run_id": context.run_id,
            "reason": reason,
            "run_state": self.state.state(),
            "run_start_date": time(self.state.start_date()),
            "run_end_date": time(self.state.end_date()),
            "failed_tasks": names.map(|task| task.id.as_str()).collect::<Vec<_>>(),
            "failed_count": failed.len(),
        })
    }

    /// Where the task instance stands, if its task is repeated.
    fn standing(&self, place: Place) -> Option<Arc<str>> {
        let version = &self.live.version;
        let repeats = &version.repeats;
        let sight = repeats.sight(&self.state, place.0, place.1);
        let mut known = model::run::Known::default();
        let position = repeats.position(&self.state, place, &self.live.context.params, &mut known);
        if position.is_none() && sight.now.is_empty() && sight.before.is_empty() {
            return None;
        }
        let sorted = |of: std::collections::HashMap<TaskIndex, Vec<MapIndex>>| {
            let mut of: Vec<_> = of.into_iter().collect();
            of.sort_unstable_by_key(|(task, _)| *task);
            of
        };
        let standing = Standing {
            position,
            now: sorted(sight.now),
            before: sorted(sight.before),
        };
        let text = serde_json::to_string(&standing).ok()?;
        (text.len() <= MAX_STANDING_BYTES).then(|| text.into())
    }
}

fn name(callback: &Callback) -> String {
    match &callback.action {
        CallbackAction::Task { component, .. } => format!("{} {}", component.reference, component.entry),
        CallbackAction::Notify { .. } => String::new(),
    }
}

fn time(time: Option<Timestamp>) -> Option<String> {
    time.map(|time| time.to_string())
}

fn short(message: &str) -> &str {
    message
        .get(..message.floor_char_boundary(MAX_MESSAGE_BYTES))
        .unwrap_or_default()
}

/// An id as a part of a path.
fn escaped(id: &str) -> String {
    use std::fmt::Write as _;
    let mut path = String::with_capacity(id.len());
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            let _ = write!(path, "%{byte:02X}");
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_become_parts_of_paths() {
        assert_eq!(
            escaped("manual__2026-01-31T04:00:00+00:00"),
            "manual__2026-01-31T04%3A00%3A00%2B00%3A00"
        );
        assert_eq!(escaped("größe/x"), "gr%C3%B6%C3%9Fe%2Fx");
    }
}
