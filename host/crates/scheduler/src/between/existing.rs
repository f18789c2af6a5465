//! A task asks for a run that is there already (`if_exists`): it is taken as it is, or cleared and taken over.
//!
//! A run that is *reset* becomes the child of the dispatch that resets it, as if that had made it. One that is *reused* stays what it is:
//! whoever waits for it says so in its own row, and is told of its end like a sensor. So any number may wait for one run, and it outlives all of them.

use std::collections::HashSet;
use std::sync::Arc;

use model::between::TriggerDag;
use model::{DagId, DagRunKey, DispatchNumber, RunId, TiKey};
use ports::between::{ChildRun, RunParent, RunSelector};
use ports::executor::RunContext;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::children::{Ended, gone};
use super::sensors::{Watch, find};
use super::trigger::Refusal;
use super::{BetweenMessage, patiently, send, waits};
use crate::asker::Asker;
use crate::audit;
use crate::control::trigger::Existing;
use crate::core::Core;
use crate::inbox::Item;
use crate::run::{Draft, Place};
use crate::shared::query_failed;
use crate::tick::Tick;

/// What a deferred task says of the run that it waits for: details of its row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Waited {
    pub(super) dag_id: DagId,
    pub(super) run_id: RunId,
    /// Whether the run is not its own child.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) reused: bool,
}

impl Waited {
    pub(super) fn of(context: &RunContext) -> Self {
        Self {
            dag_id: context.dag_id.clone(),
            run_id: context.run_id.clone(),
            reused: false,
        }
    }

    pub(super) fn reused(existing: &Existing) -> Self {
        Self {
            dag_id: existing.dag_id.clone(),
            run_id: existing.run_id.clone(),
            reused: true,
        }
    }

    pub(super) fn to_text(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }

    fn is_of(&self, context: &RunContext) -> bool {
        self.run_id == context.run_id && self.dag_id == context.dag_id
    }
}

/// The run that a task instance reuses, by what its row says.
fn reuses(details: Option<&str>) -> Option<Waited> {
    serde_json::from_str::<Waited>(details?)
        .ok()
        .filter(|waited| waited.reused)
}

impl Core {
    /// A run that a report resets must be in memory. One that is not is read first, and the report comes again when it is there.
    pub(crate) fn reads_first(&mut self, tick: &mut Tick, item: Item) -> Option<Item> {
        let target = match &item {
            Item::Triggered(triggered) => triggered.resets(),
            _ => None,
        };
        let Some(target) = target else { return Some(item) };
        // The draft of a run that was read for this lets go of it with the tick, whatever becomes of the report.
        if tick.draft(&self.runs, target).is_some() || tick.drafts.contains_key(&target) {
            return Some(item);
        }
        self.load(target, item);
        None
    }

    /// Clears a run that is there and makes it the child of who asked for it.
    pub(super) fn reset(
        &mut self,
        tick: &mut Tick,
        step: &TriggerDag,
        existing: &Existing,
        conf: &Value,
        parent: RunParent,
        by: &Asker,
    ) -> Result<Waited, Refusal> {
        self.allows(&existing.dag_id, parent.depth)?;
        self.check_waits(tick, parent.run, existing)?;
        let (key, waiter) = (existing.key, parent.run);
        let Some(draft) = tick.draft(&self.runs, key) else {
            return Err(Refusal::new(
                "trigger_run_exists",
                format!(
                    "the run `{}` of DAG `{}` is being deleted",
                    existing.run_id, existing.dag_id
                ),
            ));
        };
        let context = Arc::clone(&draft.live.context);
        let has_conf = conf.as_object().is_some_and(|members| !members.is_empty());
        if has_conf && *conf != context.conf {
            return Err(Refusal::new(
                "trigger_conf_differs",
                format!(
                    "the run `{}` of DAG `{}` is there with another `conf`, and would run again with that; delete it, or give this one another `run_id`",
                    existing.run_id, existing.dag_id
                ),
            ));
        }
        if let Some(task) = &step.result
            && draft.live.version.dag().index_of(task.as_str()).is_none()
        {
            return Err(Refusal::result_unknown(&existing.dag_id, task.as_str()));
        }
        let before = draft.meta.parent.replace(Arc::new(parent));
        draft.reparented = Some(before.as_ref().map(|parent| parent.run));
        if draft.meta.set_aside.take().is_some() {
            draft.run_changed = true;
        }
        let all: Vec<Place> = draft
            .state
            .tis()
            .map(|(task, map_index, _)| (task, map_index))
            .collect();
        let extra = format!("{{\"task_instances\":{}}}", all.len());
        draft
            .audit
            .push(audit::run("clear_task_instances", by, &context, Some(extra)));
        tick.ties.push((waiter, key));
        self.clear(tick, key, all);
        if let Some(before) = before {
            self.only_waits(tick, &before, existing);
        }
        Ok(Waited::of(&context))
    }

    /// A run has another parent from now on: who made it, and still waits for it, waits on as one who reuses it.
    fn only_waits(&mut self, tick: &mut Tick, before: &RunParent, existing: &Existing) {
        let place = (before.task, before.map_index);
        if !self.still_waits(tick, before.run, place, before.dispatch) {
            return;
        }
        let known = self
            .runs
            .get(&before.run)
            .and_then(|run| run.details.get(&place).cloned());
        let Some(draft) = tick.draft(&self.runs, before.run) else {
            return;
        };
        let mut details = match draft.details.get(&place) {
            Some(changed) => changed.clone(),
            None => known,
        }
        .unwrap_or_default();
        details.details = Waited::reused(existing).to_text();
        draft.details.insert(place, Some(details));
        draft.changed.push(place);
        draft.deferred.push(place);
        tick.ties.push((before.run, existing.key));
    }

    fn still_waits(&self, tick: &Tick, run: DagRunKey, place: Place, dispatch: DispatchNumber) -> bool {
        match (tick.drafts.get(&run), self.runs.get(&run)) {
            (Some(draft), _) => !draft.deleted && waits(draft.state.ti(place.0, place.1), dispatch),
            (None, Some(run)) => waits(run.state.ti(place.0, place.1), dispatch),
            (None, None) => false,
        }
    }

    /// Refuses to let a run wait for one that waits for it, directly or through others: neither would ever end.
    pub(super) fn check_waits(&self, tick: &Tick, run: DagRunKey, existing: &Existing) -> Result<(), Refusal> {
        let (mut seen, mut open) = (HashSet::from([run]), vec![run]);
        while let Some(key) = open.pop() {
            if key == existing.key {
                let message = format!(
                    "the run `{}` of DAG `{}` waits for this very run, so that neither would ever end",
                    existing.run_id, existing.dag_id
                );
                return Err(Refusal::fatal("trigger_waits_for_itself", message));
            }
            open.extend(
                self.who_waits(tick, key)
                    .into_iter()
                    .filter(|waiter| seen.insert(*waiter)),
            );
        }
        Ok(())
    }

    /// The active runs that wait for a run.
    fn who_waits(&self, tick: &Tick, key: DagRunKey) -> Vec<DagRunKey> {
        let (context, parent) = match (tick.drafts.get(&key), self.runs.get(&key)) {
            (Some(draft), _) => (&draft.live.context, draft.meta.parent.as_deref()),
            (None, Some(run)) => (&run.live.context, run.meta.parent.as_deref()),
            (None, None) => return Vec::new(),
        };
        let parent = parent
            .filter(|of| self.still_waits(tick, of.run, (of.task, of.map_index), of.dispatch))
            .map(|of| of.run);
        let watching = self.between.watchers.of(context).map(|(waiter, _)| waiter.run);
        // Those that begin to wait in this very tick.
        let begins = |draft: &&Draft| {
            draft.deferred.iter().any(|place| {
                let details = draft.details.get(place).and_then(Option::as_ref);
                reuses(details.and_then(|details| details.details.as_deref())).is_some_and(|of| of.is_of(context))
            })
        };
        let beginning = tick.drafts.values().filter(begins).map(Draft::key);
        parent.into_iter().chain(watching).chain(beginning).collect()
    }

    /// A task begins to wait for a run that it reuses, or its run was taken over. False where it waits for a child of its own.
    pub(super) fn watch_reused(&mut self, waiter: TiKey, dispatch: DispatchNumber) -> bool {
        let place = (waiter.task, waiter.map_index);
        let Some(run) = self.runs.get(&waiter.run) else {
            return true;
        };
        let said = run.details.get(&place).and_then(|details| details.details.as_deref());
        let Some(Waited { dag_id, run_id, .. }) = reuses(said) else {
            return false;
        };
        let selector = RunSelector::RunId(run_id);
        self.between
            .watchers
            .insert(waiter, Watch::new(dag_id.clone(), selector.clone(), dispatch));
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let message = match patiently(&shared, || find(&shared, &dag_id, &selector)).await {
                Ok(Some(run)) => BetweenMessage::Found { waiter, dispatch, run },
                Ok(None) => BetweenMessage::Resolved(waiter.run, Box::new(gone(place, dispatch))),
                Err(_) => return,
            };
            send(&shared, message);
        });
        true
    }

    /// Whether a task instance waits for a run that it reuses.
    pub(super) fn is_reusing(&self, run: DagRunKey, place: Place) -> bool {
        let details = self.runs.get(&run).and_then(|run| run.details.get(&place));
        reuses(details.and_then(|details| details.details.as_deref())).is_some()
    }

    /// The run that a task reuses exists: it may have ended before the wait began.
    pub(super) fn found_reused(&mut self, waiter: TiKey, dispatch: DispatchNumber, key: DagRunKey) {
        if let Some(other) = self.runs.get(&key) {
            if other.state.state().is_finished() {
                let context = &other.live.context;
                let child = ChildRun {
                    key,
                    dag_id: context.dag_id.clone(),
                    run_id: context.run_id.clone(),
                    version: other.live.version.uuid(),
                    state: other.state.state(),
                    task: waiter.task,
                    map_index: waiter.map_index,
                    dispatch,
                };
                self.end_wait(waiter.run, Ended { child, deleted: false });
            }
            return;
        }
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let read = patiently(&shared, || async {
                shared.store.run_row(key).await.map_err(query_failed)
            });
            let place = (waiter.task, waiter.map_index);
            let message = match read.await {
                Ok(Some(row)) if row.state.is_finished() => {
                    let child = ChildRun {
                        key,
                        dag_id: row.dag_id,
                        run_id: row.run_id,
                        version: row.version_uuid,
                        state: row.state,
                        task: waiter.task,
                        map_index: waiter.map_index,
                        dispatch,
                    };
                    BetweenMessage::ReusedEnded(waiter.run, Box::new(child))
                }
                // It is active, or set aside: its end will be told.
                Ok(Some(_)) | Err(_) => return,
                Ok(None) => BetweenMessage::Resolved(waiter.run, Box::new(gone(place, dispatch))),
            };
            send(&shared, message);
        });
    }

    /// A run that somebody reuses has ended, as it was read.
    pub(super) fn reused_ended(&mut self, waiter: DagRunKey, child: ChildRun) {
        // Somebody may have cleared it since.
        if self
            .runs
            .get(&child.key)
            .is_some_and(|run| !run.state.state().is_finished())
        {
            return;
        }
        self.end_wait(waiter, Ended { child, deleted: false });
    }

    /// The waits of those who reuse a run that ends, or goes, with a draft.
    pub(super) fn reused_by(&self, draft: &Draft) -> Vec<(DagRunKey, Ended)> {
        let waiters = self.between.watchers.of(&draft.live.context);
        let waiters = waiters.filter(|(waiter, _)| self.is_reusing(waiter.run, (waiter.task, waiter.map_index)));
        waiters
            .map(|(waiter, dispatch)| {
                let mut ended = Ended::of(draft);
                ended.child.task = waiter.task;
                ended.child.map_index = waiter.map_index;
                ended.child.dispatch = dispatch;
                (waiter.run, ended)
            })
            .collect()
    }
}
