//! Task instances that get their state from a person.

use model::run::{Event, take_along};
use model::{Dag, DagRunKey, TaskIndex, TaskInstanceState};
use ports::control::ControlError;
use ports::intent::ClearWork;

use crate::core::Core;
use crate::run::{Draft, Place};
use crate::selection::Selection;
use crate::tick::Tick;

/// What a request names and does not have the state yet: upstream first, since a new state clears what failed further down.
pub(crate) fn select(draft: &Draft, work: &ClearWork, state: TaskInstanceState) -> Result<Vec<Place>, ControlError> {
    let dag = draft.live.version.dag();
    let selection = Selection::to_mark(dag, work);
    let named: Vec<(Place, TaskInstanceState)> = draft
        .state
        .tis()
        .filter(|(task, map_index, ti)| selection.contains(*task, *map_index, ti.state))
        .map(|(task, map_index, ti)| ((task, map_index), ti.state))
        .collect();
    if named.is_empty() {
        return Err(unknown());
    }
    let places = named
        .into_iter()
        .filter(|(_, now)| !matches!(now, TaskInstanceState::Removed));
    let mut places: Vec<Place> = places
        .filter(|(_, now)| *now != state)
        .map(|(place, _)| place)
        .collect();
    if places.is_empty() {
        return Err(nothing_to_change(state));
    }
    let mut depths: Vec<Option<usize>> = vec![None; dag.tasks.len()];
    let mut depth = |task: TaskIndex| {
        depths
            .get_mut(task.at())
            .map(|known| *known.get_or_insert_with(|| dag.ancestors(&[task]).len()))
    };
    places.sort_by_cached_key(|(task, map_index)| (depth(*task), *task, *map_index));
    Ok(places)
}

/// Refuses what [`select`] does, without a look at more than it takes.
pub(crate) fn check(draft: &Draft, work: &ClearWork, state: TaskInstanceState) -> Result<(), ControlError> {
    let selection = Selection::to_mark(draft.live.version.dag(), work);
    let mut named = draft
        .state
        .tis()
        .filter(|(task, map_index, ti)| selection.contains(*task, *map_index, ti.state))
        .map(|(.., ti)| ti.state)
        .peekable();
    if named.peek().is_none() {
        return Err(unknown());
    }
    match named.any(|now| now != state && now != TaskInstanceState::Removed) {
        true => Ok(()),
        false => Err(nothing_to_change(state)),
    }
}

/// All tasks, those after which others come before them.
pub(crate) fn upstream_first(dag: &Dag) -> Vec<TaskIndex> {
    let mut waits_for: Vec<usize> = dag.tasks.iter().map(|task| task.upstream.len()).collect();
    let tasks = (0..dag.tasks.len()).filter_map(|at| u32::try_from(at).ok());
    let first = |task: &TaskIndex| waits_for.get(task.at()) == Some(&0);
    let mut order: Vec<TaskIndex> = tasks.map(TaskIndex).filter(first).collect();
    let mut at = 0;
    while let Some(task) = order.get(at).copied() {
        at += 1;
        for follower in dag.task(task).into_iter().flat_map(|task| &task.downstream) {
            if let Some(left) = waits_for.get_mut(follower.at()) {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    order.push(*follower);
                }
            }
        }
    }
    order
}

fn unknown() -> ControlError {
    ControlError::TaskInstanceNotFound("the run has no such task instance".to_owned())
}

fn nothing_to_change(state: TaskInstanceState) -> ControlError {
    ControlError::Conflict(format!(
        "there is nothing to change: the state is `{state}` already, or the task instance was removed"
    ))
}

/// What the audit log says of it.
pub(crate) fn audit_extra(work: &ClearWork, state: TaskInstanceState, changed: usize) -> String {
    let tasks: Vec<_> = work
        .tasks
        .iter()
        .flatten()
        .map(|(task, map_index)| serde_json::json!({"task_id": task, "map_index": map_index}))
        .collect();
    serde_json::json!({"tasks": tasks, "new_state": state, "task_instances": changed}).to_string()
}

fn could_not_run(state: TaskInstanceState) -> bool {
    matches!(state, TaskInstanceState::Failed | TaskInstanceState::UpstreamFailed)
}

impl Core {
    pub(crate) fn mark(&mut self, tick: &mut Tick, key: DagRunKey, places: &[Place], state: TaskInstanceState) {
        let Some(draft) = tick.draft(&self.runs, key) else {
            return;
        };
        let failed: Vec<Place> = draft
            .state
            .tis()
            .filter(|(.., ti)| could_not_run(ti.state))
            .map(|(task, map_index, _)| (task, map_index))
            .collect();
        for (task, map_index) in places {
            let event = Event::SetTaskInstanceState {
                task: *task,
                map_index: *map_index,
                state,
            };
            self.step(tick, key, event);
        }
        let Some(draft) = tick.draft(&self.runs, key) else {
            return;
        };
        draft.row_changed |= draft.state.state().is_finished();
        // What runs again begins anew, as after clearing; and not on what was torn down.
        let is_over = |place: &Place| {
            let ti = draft.state.ti(place.0, place.1);
            ti.is_some_and(|ti| ti.state.is_finished())
        };
        let mut revived: Vec<Place> = failed.into_iter().filter(|place| !is_over(place)).collect();
        let known = draft
            .state
            .tis()
            .map(|(task, map_index, ti)| (task, map_index, ti.state));
        let along = take_along(draft.state.dag(), &revived, known);
        let clears_more = !along.is_empty();
        revived.extend(along);
        for place in &revived {
            let ti = draft.ti(*place);
            draft.checkpoint_deletes.push(ti);
        }
        if clears_more {
            self.step(
                tick,
                key,
                Event::Clear {
                    task_instances: revived,
                },
            );
        }
    }
}
