//! Callbacks in memory.

use model::{DagRunKey, MapIndex, Timestamp};
use ports::callback::{CallbackChange, CallbackId, CallbackRow, CallbackWrite, DueCallback, DueCallbacks};

use super::tables::{MemoryCallback, Tables};

impl Tables {
    pub(super) fn insert_callback(&mut self, due: &CallbackWrite, now: Timestamp) {
        self.last_callback += 1;
        let id = CallbackId(self.last_callback);
        if let Some(run) = self.runs.get_mut(&due.run) {
            let callback = MemoryCallback {
                now: CallbackChange {
                    id,
                    state: due.state,
                    attempt: 0,
                    next_at: None,
                    started_at: None,
                    ended_at: due.state.is_finished().then_some(now),
                    cause: None,
                    code: None,
                    message: None,
                    text: due.text.clone(),
                },
                due: due.clone(),
                created_at: now,
            };
            run.callbacks.insert(id, callback);
        }
    }

    pub(super) fn due_callbacks(&self, now: Timestamp, limit: u32) -> DueCallbacks {
        let mut found = DueCallbacks::default();
        let listed = |dag: &model::DagId| self.dags.get(dag).is_some_and(|dag| !dag.deleting);
        let runs = self.runs.values().filter(|run| listed(&run.new.context.dag_id));
        for MemoryCallback { due, now: state, .. } in runs.flat_map(|run| run.callbacks.values()) {
            if state.state.is_finished() {
                continue;
            }
            match state.next_at {
                Some(at) if at > now => found.next_at = Some(found.next_at.map_or(at, |next| next.min(at))),
                _ => found.due.push(DueCallback {
                    id: state.id,
                    run: due.run,
                    of: due.of.clone(),
                    ordinal: due.ordinal,
                    state: state.state,
                    attempt: state.attempt,
                    facts: due.facts.clone(),
                    standing: due.standing.clone(),
                }),
            }
        }
        found.due.sort_by_key(|due| due.id);
        found.due.truncate(limit as usize);
        found
    }

    pub(super) fn callback_rows(&self, run: DagRunKey) -> Vec<CallbackRow> {
        let Some(run) = self.runs.get(&run) else {
            return Vec::new();
        };
        let context = &run.new.context;
        let rows = run.callbacks.values().map(|callback| {
            let MemoryCallback { due, now, created_at } = callback;
            CallbackRow {
                id: now.id,
                dag_id: context.dag_id.clone(),
                run_id: context.run_id.clone(),
                run_uuid: context.uuid,
                task_id: due.of.as_ref().map(|of| of.task_id.clone()),
                map_index: due.of.as_ref().map_or(MapIndex::UNMAPPED, |of| of.map_index),
                try_number: due.of.as_ref().map(|of| of.try_number),
                event: due.event,
                kind: due.kind,
                name: due.name.clone(),
                level: due.level,
                state: now.state,
                attempt: now.attempt,
                created_at: *created_at,
                next_at: now.next_at,
                started_at: now.started_at,
                ended_at: now.ended_at,
                cause: now.cause,
                code: now.code.clone(),
                message: now.message.clone(),
                text: now.text.clone(),
                facts: due.facts.to_string(),
            }
        });
        rows.collect()
    }
}
