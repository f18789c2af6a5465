//! From the drafts of a tick to the rows that it writes.

use std::sync::Arc;

use model::TaskInstanceState;
use ports::intent::IntentWork;
use ports::store::{AuditWrite, DagPause, ParentWrite};

use crate::audit;
use crate::core::Core;
use crate::inbox::{DagOp, PoolOp};
use crate::run::{Draft, Place, Run};
use crate::tick::{ChangeWrite, Tick};
use crate::write::{Owner, Write};

/// How many rows that may wait a tick writes for one run: a large run must not make the others wait for rows that nobody needs yet, and
/// most are overtaken by what happens to their task instances next.
const LAZY_ROWS: usize = 64;
/// The number of rows that are looked at for that.
const LOOKS: usize = 4_096;
/// The same for a new run: whoever started it looks at its task instances next.
const NEW_ROWS: usize = 1_000;

impl Core {
    /// All that the tick writes.
    pub(crate) fn write(&mut self, tick: &mut Tick) -> Write {
        let mut write = Write::new(tick.now);
        for (change, applied) in tick.dag_changes.iter().enumerate() {
            let Ok(row) = &applied.write else { continue };
            match row {
                ChangeWrite::Dag(row) => {
                    write.dags.push(change);
                    write.tick.dags.push(row.clone());
                }
                ChangeWrite::Pool(row) => {
                    write.pools.push(change);
                    write.tick.pools.push(row.clone());
                }
            }
            if let Some(line) = audit_line(&applied.op) {
                write.audit(Owner::Change(change), line);
            }
        }
        self.draft_lazy_runs(tick);
        let mut room = self
            .shared
            .config
            .max_transitions_per_tick
            .saturating_sub(tick.drafts.values().map(|draft| draft.changed.len()).sum());
        for key in &tick.order {
            if let Some(draft) = tick.drafts.get_mut(key) {
                draft.write(self.runs.get(key), &mut room, &mut write);
                write.runs.push(*key);
            }
        }
        write.tie(&tick.ties);
        write
    }

    /// Runs with rows that are still to be written take part in the tick.
    fn draft_lazy_runs(&self, tick: &mut Tick) {
        for key in &self.lazy {
            // A few a tick are enough: the others follow in the next.
            if tick.order.len() > 64 {
                break;
            }
            tick.draft(&self.runs, *key);
        }
    }
}

/// None for a step of an intent: what it does was asked for when the intent began.
fn audit_line(op: &DagOp) -> Option<AuditWrite> {
    Some(match op {
        DagOp::Deploy { version, by, .. } => audit::dag("deploy_dag", by, &version.dag.id, None),
        DagOp::SetPaused { dag_id, by, .. } => audit::dag("patch_dag", by, dag_id, None),
        DagOp::Delete { intent, by, .. } => audit::dag("delete_dag", by, &intent.dag_id, None),
        DagOp::Promise { intent, by, .. } => {
            let event = match intent.work {
                IntentWork::SetState { .. } => "patch_task_instance",
                _ => "clear_task_instances",
            };
            let extra = format!("{{\"dag_runs\":{}}}", intent.runs.len());
            audit::dag(event, by, &intent.dag_id, Some(extra))
        }
        DagOp::Intent { .. } | DagOp::Callback { .. } => return None,
        DagOp::Pool { op, by, .. } => match op {
            PoolOp::Create(pool) => audit::pool("post_pool", by, &pool.name, Some(pool.slots)),
            PoolOp::Change { name, patch } => audit::pool("patch_pool", by, name, patch.slots),
            PoolOp::Delete { name } => audit::pool("delete_pool", by, name, None),
        },
    })
}

impl Draft {
    fn write(&mut self, base: Option<&Run>, room: &mut usize, write: &mut Write) {
        let key = self.key();
        for line in self.audit.drain(..) {
            write.audit(Owner::Run(key), line);
        }
        let rows = &mut write.tick;
        if self.deleted {
            rows.slots.extend(self.slot_changes(base));
            if self.new.is_none() {
                rows.run_deletes.push(key);
                rows.intents.extend(self.rest.clone());
            }
            return;
        }
        let is_new = self.new.is_some();
        rows.new_runs.extend(self.new.take());
        if self.run_changed || self.row_changed {
            rows.runs.push(self.run_write());
        }
        if let (Some(parent), Some(_)) = (&self.meta.parent, self.reparented) {
            rows.parents.push(ParentWrite {
                run: key,
                parent: Arc::clone(parent),
            });
        }
        rows.pauses.extend(self.pause.as_ref().map(|reason| DagPause {
            run: key,
            dag_id: self.live.context.dag_id.clone(),
            reason: reason.clone(),
        }));
        rows.intents.extend(self.promised.iter().cloned());
        let done = self.intents_done.drain(..);
        rows.intent_runs_done.extend(done.map(|intent| (intent, key)));
        self.changed.sort_unstable();
        self.changed.dedup();
        rows.slots.extend(self.slot_changes(base));
        self.lazy.sort_unstable();
        self.lazy.dedup();
        self.collect_lazy(base, room);
        // One row a task instance: some databases refuse to write a row twice in one statement.
        let mut places = self.changed.clone();
        places.extend(self.lazy_done.iter().copied().filter(|place| self.waits(*place)));
        places.extend(&self.listed);
        places.sort_unstable();
        places.dedup();
        rows.task_instances.reserve(places.len());
        for place in places {
            rows.task_instances.extend(self.row(base, place));
        }
        rows.tries.append(&mut self.tries);
        rows.task_instance_deletes.append(&mut self.renumbered);
        rows.note_moves.append(&mut self.note_moves);
        if !is_new {
            rows.xcom_deletes.append(&mut self.xcom_deletes);
            self.checkpoint_deletes.sort_unstable();
            self.checkpoint_deletes.dedup();
            rows.checkpoint_deletes.append(&mut self.checkpoint_deletes);
        }
        rows.xcoms.append(&mut self.xcoms);
        rows.hitl_requests.append(&mut self.hitl_requests);
        rows.hitl_answers.append(&mut self.hitl_answers);
        // Kept: those who watch are told of them after the commit.
        rows.callbacks.extend(self.callbacks.iter().cloned());
        rows.notes.append(&mut self.notes);
        rows.heartbeats.append(&mut self.heartbeats);
    }

    fn collect_lazy(&mut self, base: Option<&Run>, room: &mut usize) {
        let most = if self.new_run { NEW_ROWS } else { LAZY_ROWS };
        let mut left = most.min(*room);
        let looks = self.unlisted.len().min(LOOKS);
        for at in self.unlisted.by_ref().take(looks) {
            let Some((task, map_index, ti)) = self.state.at(at) else {
                continue;
            };
            // What was overtaken is among the changed rows, now or before.
            if matches!(ti.state, TaskInstanceState::NoStatus | TaskInstanceState::Scheduled) {
                self.listed.push((task, map_index));
                left = left.saturating_sub(1);
                *room = room.saturating_sub(1);
            }
            if left == 0 {
                break;
            }
        }
        // What is scheduled and comes later anyway.
        let comes = |place: &Place| {
            self.state
                .place_of(place.0, place.1)
                .is_some_and(|at| self.unlisted.contains(&at))
        };
        if !self.unlisted.is_empty() {
            let mut lazy = std::mem::take(&mut self.lazy);
            lazy.retain(|place| !comes(place));
            self.lazy = lazy;
        }
        let old = base.into_iter().flat_map(|run| run.lazy.iter().copied());
        for place in old.chain(self.lazy.iter().copied()) {
            // What was overtaken is among the changed rows, now or before, and costs nothing here.
            if self.waits(place) {
                if left == 0 {
                    break;
                }
                left -= 1;
                *room -= 1;
            }
            self.lazy_done.push(place);
        }
    }

    /// Whether the row of a task instance is still one that may be written later.
    fn waits(&self, (task, map_index): Place) -> bool {
        let ti = self.state.ti(task, map_index);
        ti.is_some_and(|ti| matches!(ti.state, TaskInstanceState::NoStatus | TaskInstanceState::Scheduled))
    }
}
