//! What people do to runs: clear, mark, answer, note, delete. Applied to drafts, as everything in a tick is.

use std::sync::Arc;

use model::run::Event;
use model::{DagRunKey, DagRunState, TiKey};
use ports::control::ControlError;
use ports::intent::{Intent, IntentWork};
use ports::store::TiNote;
use uuid::Uuid;

use crate::audit;
use crate::core::Core;
use crate::human;
use crate::inbox::RunOp;
use crate::mark;
use crate::run::Place;
use crate::selection::Selection;
use crate::tick::Tick;

impl Core {
    pub(crate) fn apply_op(&mut self, tick: &mut Tick, key: DagRunKey, op: &RunOp) -> Result<(), ControlError> {
        let now = tick.now;
        let Some(draft) = tick.draft(&self.runs, key) else {
            return Ok(());
        };
        if let RunOp::Respond { task, map_index, .. } = op {
            human::check_waits(draft, (*task, *map_index))?;
        }
        let to_mark = match op {
            RunOp::SetTaskInstanceState { work, state, .. } => mark::select(draft, work, *state)?,
            _ => Vec::new(),
        };
        // Whatever a person does to a run that was set aside gives it another chance.
        if draft.meta.set_aside.take().is_some() {
            draft.run_changed = true;
        }
        let context = Arc::clone(&draft.live.context);
        match op {
            RunOp::Clear { work, by, .. } => {
                let selected = Selection::new(draft.live.version.dag(), work).of(draft);
                let extra = format!("{{\"task_instances\":{}}}", selected.len());
                draft
                    .audit
                    .push(audit::run("clear_task_instances", by, &context, Some(extra)));
                self.clear(tick, key, selected);
            }
            RunOp::CarryOut { intent, work, .. } => {
                draft.intents_done.push(*intent);
                let (selected, state) = match &**work {
                    IntentWork::Clear(work) => (Selection::new(draft.live.version.dag(), work).of(draft), None),
                    // Where there is nothing to set, nothing is done.
                    IntentWork::SetState { work, state } => {
                        (mark::select(draft, work, *state).unwrap_or_default(), Some(*state))
                    }
                    IntentWork::DeleteRuns | IntentWork::DeleteDag => (Vec::new(), None),
                };
                tick.transitions += 1;
                match state {
                    _ if selected.is_empty() => {}
                    Some(state) => self.mark(tick, key, &selected, state),
                    None => self.clear(tick, key, selected),
                }
            }
            RunOp::SetState { state, by, .. } => {
                let extra = format!("{{\"state\":\"{state}\"}}");
                draft.audit.push(audit::run("patch_dag_run", by, &context, Some(extra)));
                self.step(tick, key, Event::SetRunState { state: *state });
            }
            RunOp::SetTaskInstanceState { work, state, by, .. } => {
                let extra = mark::audit_extra(work, *state, to_mark.len());
                draft
                    .audit
                    .push(audit::run("patch_task_instance", by, &context, Some(extra)));
                self.mark(tick, key, &to_mark, *state);
            }
            RunOp::Respond {
                task,
                map_index,
                at,
                verdict,
                by,
                ..
            } => {
                let answer = match verdict {
                    Ok(answer) => answer,
                    Err(refused) => return Err(human::copy(refused)),
                };
                let place = (*task, *map_index);
                let extra = human::audit_extra(draft, place);
                draft
                    .audit
                    .push(audit::run("update_hitl_detail", by, &context, Some(extra)));
                if let Some(end) = draft.answer(place, answer, *at, Some(&by.user)) {
                    let event = Event::Answered {
                        task: *task,
                        map_index: *map_index,
                        end,
                    };
                    self.step(tick, key, event);
                }
            }
            RunOp::Note { note, by, .. } => {
                draft.meta.note = Some(note.clone());
                draft.new_note = true;
                draft.run_changed = true;
                draft.audit.push(audit::run("patch_dag_run", by, &context, None));
                tick.transitions += 1;
            }
            RunOp::TaskInstanceNote { work, note, by, .. } => {
                let selected = Selection::new(draft.live.version.dag(), work).of(draft);
                let extra = format!("{{\"task_instances\":{}}}", selected.len());
                draft
                    .audit
                    .push(audit::run("patch_task_instance", by, &context, Some(extra)));
                let notes = selected.into_iter().map(|place| TiNote {
                    ti: draft.ti(place),
                    content: note.clone(),
                    user: by.user.clone(),
                });
                let notes: Vec<TiNote> = notes.collect();
                draft.notes.extend(notes);
                tick.transitions += 1;
            }
            RunOp::Delete { by, .. } => {
                draft.audit.push(audit::run("delete_dag_run", by, &context, None));
                // A run that this very tick creates has no rows.
                if !draft.new_run {
                    draft.rest = Some(Arc::new(Intent {
                        id: Uuid::new_v4(),
                        dag_id: context.dag_id.clone(),
                        user: by.user.clone(),
                        created_at: now,
                        runs: vec![key],
                        work: IntentWork::DeleteRuns,
                    }));
                }
                self.delete_run(tick, key);
            }
        }
        Ok(())
    }

    pub(crate) fn clear(&mut self, tick: &mut Tick, key: DagRunKey, task_instances: Vec<Place>) {
        let Some(draft) = tick.draft(&self.runs, key) else {
            return;
        };
        for place in &task_instances {
            let ti = draft.ti(*place);
            draft.checkpoint_deletes.push(ti);
        }
        self.step(tick, key, Event::Clear { task_instances });
    }

    fn delete_run(&mut self, tick: &mut Tick, key: DagRunKey) {
        self.step(
            tick,
            key,
            Event::SetRunState {
                state: DagRunState::Failed,
            },
        );
        let Some(draft) = tick.draft(&self.runs, key) else {
            return;
        };
        // Teardowns may still be out, or on their way.
        for (task, map_index, ti) in draft.state.dispatched() {
            draft.cancels.push(((task, map_index), ti.dispatch));
            draft.over.push((task, map_index));
            self.slots.release(TiKey {
                run: key,
                task,
                map_index,
            });
        }
        self.slots.run_gone(key);
        draft.deleted = true;
        tick.transitions += 1;
    }
}
