//! What memory knows beyond the database: running marks, progress, health.

use std::sync::atomic::Ordering;

use model::{DagId, DagRunKey, MapIndex, RunId, TaskId, TaskInstanceState};
use ports::control::SchedulerHealth;
use ports::query::TiRow;

use crate::shared::Shared;

/// Lays start marks that are not written yet over rows just read.
pub(super) fn overlay(shared: &Shared, run: DagRunKey, rows: &mut [TiRow]) {
    let Some(run) = shared.active().get(run).cloned() else {
        return;
    };
    let tries = run.tries();
    if tries.is_empty() {
        return;
    }
    for row in rows {
        let Some(live) = tries.get(&(row.key.task, row.key.map_index)) else {
            continue;
        };
        if row.dispatch == live.dispatch
            && row.state == TaskInstanceState::Queued
            && let Some(started_at) = live.started_at
        {
            row.state = TaskInstanceState::Running;
            row.start_date = row.start_date.or(Some(started_at));
        }
    }
}

/// How the scheduler is.
pub(super) fn health(shared: &Shared) -> SchedulerHealth {
    let active_runs = shared.active().len();
    let stopping = shared.stopping.load(Ordering::Acquire);
    let condition = shared.condition().clone();
    let problem = condition
        .problem
        .or_else(|| stopping.then(|| "the scheduler is not running".to_owned()));
    SchedulerHealth {
        healthy: problem.is_none(),
        problem,
        latest_heartbeat: condition.heartbeat.unwrap_or_else(|| shared.clock.now()),
        active_runs,
        set_aside_runs: condition.set_aside.into_iter().map(|(_, name)| name).collect(),
    }
}

/// What running task instances say of their progress.
pub(super) fn progress(
    shared: &Shared,
    dag_id: &DagId,
    run_id: &RunId,
) -> Vec<(TaskId, MapIndex, Option<f64>, String)> {
    let Some(run) = shared.active().find(dag_id, run_id).cloned() else {
        return Vec::new();
    };
    let mut progress: Vec<_> = {
        let tries = run.tries();
        tries
            .iter()
            .filter_map(|((task, map_index), live)| {
                let (fraction, note) = live.progress.clone()?;
                Some((*task, *map_index, fraction, note))
            })
            .collect()
    };
    progress.sort_by_key(|(task, map_index, ..)| (*task, *map_index));
    progress
        .into_iter()
        .filter_map(|(task, map_index, fraction, note)| {
            let task = run.version.dag().task(task)?;
            Some((task.id.clone(), map_index, fraction, note))
        })
        .collect()
}
