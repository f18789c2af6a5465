//! The end of a run that another one triggered and waits for, and the other way round.

use std::sync::Arc;

use model::between::{RUN_DELETED, RUN_FAILED, TriggerDag};
use model::dag::{Measured, Task};
use model::run::{Event, TryEnd};
use model::template::mapped_length;
use model::{Cause, DagRunKey, DagRunState, DispatchNumber, MapIndex, TaskIndex, TaskInstanceState};
use ports::between::{ChildRun, RunParent};
use ports::control::ControlError;
use ports::payload::XcomValue;
use serde_json::json;

use super::{BetweenMessage, RETURN_VALUE, Resolution, TRIGGER_RUN_ID, patiently, send, waits};
use crate::asker::Asker;
use crate::audit;
use crate::core::Core;
use crate::run::{Draft, Place};
use crate::shared::{Shared, query_failed};
use crate::tick::Tick;

/// The code of a try that cannot publish what the other run did.
const RESULT_INVALID: &str = "triggered_result_invalid";

/// A run that has ended, or is gone.
pub(super) struct Ended {
    pub(super) child: ChildRun,
    pub(super) deleted: bool,
}

impl Ended {
    /// Of a draft that names who triggered it.
    pub(super) fn of(draft: &Draft) -> Self {
        let context = &draft.live.context;
        let parent = draft.meta.parent.as_deref();
        Self {
            child: ChildRun {
                key: context.key,
                dag_id: context.dag_id.clone(),
                run_id: context.run_id.clone(),
                version: draft.live.version.uuid(),
                state: draft.state.state(),
                task: parent.map_or(TaskIndex(0), |parent| parent.task),
                map_index: parent.map_or(MapIndex::UNMAPPED, |parent| parent.map_index),
                dispatch: parent.map(|parent| parent.dispatch).unwrap_or_default(),
            },
            deleted: draft.deleted,
        }
    }
}

impl Core {
    /// A run has ended that another one triggered.
    pub(super) fn child_ended(&mut self, parent: &RunParent, ended: Ended) {
        self.end_wait(parent.run, ended);
    }

    /// A run that was taken over is told what became of the runs that it waits for.
    pub(super) fn compare_children(&mut self, run: DagRunKey, children: &[ChildRun]) {
        let Some(parent) = self.runs.get(&run) else { return };
        let dag = Arc::clone(parent.live.version.dag());
        let waiting: Vec<(Place, DispatchNumber)> = parent
            .state
            .unfinished()
            .filter(|(task, _, ti)| {
                let triggers = dag.task(*task).is_some_and(|task| task.work.trigger_dag().is_some());
                triggers && ti.state == TaskInstanceState::Deferred
            })
            .filter(|(task, map_index, _)| !self.is_reusing(run, (*task, *map_index)))
            .map(|(task, map_index, ti)| ((task, map_index), ti.dispatch))
            .collect();
        for (place, dispatch) in waiting {
            let child = children
                .iter()
                .find(|child| (child.task, child.map_index) == place && child.dispatch == dispatch);
            match child {
                Some(child) if child.state.is_finished() => self.end_wait(
                    run,
                    Ended {
                        child: child.clone(),
                        deleted: false,
                    },
                ),
                // It is active, or set aside: its end will be told.
                Some(_) => {}
                None => self.resolve(run, Box::new(gone(place, dispatch))),
            }
        }
    }

    pub(super) fn end_wait(&mut self, waiter: DagRunKey, ended: Ended) {
        let Ended { child, deleted } = ended;
        let place = (child.task, child.map_index);
        let Some(run) = self.runs.get(&waiter) else { return };
        if !waits(run.state.ti(place.0, place.1), child.dispatch) {
            return;
        }
        let version = Arc::clone(&run.live.version);
        let Some(task) = version.dag().task(place.0) else {
            return;
        };
        let Some(step) = task.work.trigger_dag() else { return };
        if deleted {
            return self.resolve(waiter, Box::new(gone(place, child.dispatch)));
        }
        if !step.allowed_states.contains(&child.state) {
            return self.resolve(waiter, Box::new(failed(&child)));
        }
        if step.result.is_none() {
            return self.resolve(waiter, Box::new(succeeded(task, &child, None)));
        }
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let Some(task) = version.dag().task(place.0) else {
                return;
            };
            let Some(step) = task.work.trigger_dag() else { return };
            // Given up only where the scheduler stops: the next one looks again.
            let limit = task.limits.xcom_value_bytes;
            if let Ok(result) = patiently(&shared, || result_of(&shared, step, &child, limit)).await {
                let resolution = match result {
                    Some(result) => succeeded(task, &child, Some(result)),
                    None => too_large(&child, limit),
                };
                send(&shared, BetweenMessage::Resolved(waiter, Box::new(resolution)));
            }
        });
    }

    /// These task instances do not wait any more, for whatever reason but the end of the run that they waited for: nobody needs that run, and
    /// a retry triggers another one. It is cancelled in the same commit.
    pub(crate) fn cancel_children(&mut self, tick: &mut Tick, parent: DagRunKey, given_up: &[Place]) {
        let mut children = self.between.children.get(&parent).cloned().unwrap_or_default();
        children.extend(
            tick.ties
                .iter()
                .filter(|(of, _)| *of == parent)
                .map(|(_, child)| *child),
        );
        children.sort_unstable();
        children.dedup();
        let mut given_up = given_up.to_vec();
        given_up.sort_unstable();
        for child in children {
            let of = match tick.drafts.get(&child) {
                Some(draft) => draft.meta.parent.clone(),
                None => self.runs.get(&child).and_then(|run| run.meta.parent.clone()),
            };
            let Some(of) = of.filter(|of| of.run == parent && given_up.binary_search(&(of.task, of.map_index)).is_ok())
            else {
                continue;
            };
            let waited = tick
                .draft(&self.runs, parent)
                .and_then(|draft| draft.state.ti(of.task, of.map_index))
                .is_some_and(|ti| ti.dispatch == of.dispatch);
            let Some(draft) = tick.draft(&self.runs, child) else {
                continue;
            };
            if !waited || draft.state.state().is_finished() {
                continue;
            }
            let extra = json!({"state": DagRunState::Failed, "waited_for_by": of.run_id}).to_string();
            let line = audit::run(
                "patch_dag_run",
                &Asker::here("airtight"),
                &draft.live.context,
                Some(extra),
            );
            draft.audit.push(line);
            tick.ties.push((parent, child));
            let state = DagRunState::Failed;
            if !self.promise_end(tick, child, state) {
                self.step(tick, child, Event::SetRunState { state });
            }
        }
    }
}

/// What the task named in `result` returned: JSON text, and the blobs that it refers to. Nothing, where that is larger than `limit`, in
/// bytes: it is not even read.
async fn result_of(
    shared: &Shared,
    step: &TriggerDag,
    child: &ChildRun,
    limit: u64,
) -> Result<Option<XcomValue>, ControlError> {
    let nothing = || XcomValue {
        value: "null".into(),
        blobs: Vec::new(),
    };
    let version = shared.version(child.version).await.map_err(query_failed)?;
    let Some((version, name)) = version.zip(step.result.as_ref()) else {
        return Ok(Some(nothing()));
    };
    let Some(task) = version.dag().index_of(name.as_str()) else {
        return Ok(Some(nothing()));
    };
    let (store, all) = (&shared.store, MapIndex(i32::MIN)..=MapIndex(i32::MAX));
    let sizes = store.xcom_sizes(child.key, task, all, RETURN_VALUE, u32::MAX).await;
    let mut sizes = sizes.map_err(query_failed)?;
    let is_mapped = version.dag().is_mapped(task);
    if !is_mapped {
        // Of a loop the last iteration counts.
        sizes.drain(..sizes.len().saturating_sub(1));
    }
    let (Some((first, _)), Some((last, _))) = (sizes.first(), sizes.last()) else {
        let mut none = nothing();
        if is_mapped {
            none.value = "[]".into();
        }
        return Ok(Some(none));
    };
    if sizes.iter().map(|(_, bytes)| bytes).sum::<u64>() > limit {
        return Ok(None);
    }
    let found = store.xcoms(child.key, task, *first..=*last, RETURN_VALUE).await;
    let mut found = found.map_err(query_failed)?;
    if !is_mapped {
        return Ok(Some(found.pop().map_or_else(nothing, |(_, value)| value)));
    }
    let values: Vec<&str> = found.iter().map(|(_, value)| &*value.value).collect();
    Ok(Some(XcomValue {
        value: format!("[{}]", values.join(",")).into(),
        blobs: found
            .iter()
            .flat_map(|(_, value)| value.blobs.iter().cloned())
            .collect(),
    }))
}

pub(super) fn gone(place: Place, dispatch: DispatchNumber) -> Resolution {
    let message = "the run that this task waited for was deleted; clear the task to trigger another one";
    Resolution::failed(place, dispatch, Cause::Failed, RUN_DELETED, message.to_owned())
}

fn failed(child: &ChildRun) -> Resolution {
    let ChildRun {
        dag_id, run_id, state, ..
    } = child;
    Resolution::failed(
        (child.task, child.map_index),
        child.dispatch,
        Cause::Failed,
        RUN_FAILED,
        format!(
            "the run `{run_id}` of DAG `{dag_id}`, which this task waited for, ended as `{state}`; see `airtight runs show {dag_id} {run_id}`"
        ),
    )
}

fn too_large(child: &ChildRun, limit: u64) -> Resolution {
    let ChildRun { dag_id, run_id, .. } = child;
    let message = format!(
        "what the run `{run_id}` of DAG `{dag_id}` returned is larger than {limit} bytes (`limits.xcom_value`)"
    );
    let place = (child.task, child.map_index);
    Resolution::failed(place, child.dispatch, Cause::ContractViolation, RESULT_INVALID, message)
}

fn succeeded(task: &Task, child: &ChildRun, result: Option<XcomValue>) -> Resolution {
    let ChildRun {
        dag_id,
        run_id,
        state,
        dispatch,
        ..
    } = child;
    let place = (child.task, child.map_index);
    let invalid = |message| Resolution::failed(place, *dispatch, Cause::ContractViolation, RESULT_INVALID, message);
    let mut value = json!({"dag_id": dag_id, "run_id": run_id, "state": state}).to_string();
    let mut blobs = Vec::new();
    if let Some(result) = result {
        // As text: what the other task returned arrives digit for digit.
        value.truncate(value.len().saturating_sub(1));
        value.push_str(",\"result\":");
        value.push_str(&result.value);
        value.push('}');
        blobs = result.blobs;
    }
    let limit = task.limits.xcom_value_bytes;
    if u64::try_from(value.len()).unwrap_or(u64::MAX) > limit {
        return too_large(child, limit);
    }
    let mut measured = Vec::with_capacity(task.measures.len());
    for measure in &task.measures {
        let published = measure.key == RETURN_VALUE;
        measured.push(match &measure.what {
            Measured::Length { limit } if published => match mapped_length(&value, &measure.path).map(u32::try_from) {
                Ok(Ok(length)) if length <= *limit => length,
                Ok(_) => {
                    return invalid(format!(
                        "other tasks are mapped over what run `{run_id}` of DAG `{dag_id}` returned, and it has more than {limit} elements"
                    ));
                }
                Err(error) => {
                    return invalid(format!(
                        "other tasks are mapped over what run `{run_id}` of DAG `{dag_id}` returned: {error}"
                    ));
                }
            },
            _ => u32::from(published || measure.key == TRIGGER_RUN_ID),
        });
    }
    let name = XcomValue {
        value: json!(run_id).to_string().into(),
        blobs: Vec::new(),
    };
    let value = XcomValue {
        value: value.into(),
        blobs,
    };
    Resolution {
        measured,
        xcoms: vec![(RETURN_VALUE, value), (TRIGGER_RUN_ID, name)],
        ..Resolution::plain(place, *dispatch, TryEnd::Done)
    }
}
