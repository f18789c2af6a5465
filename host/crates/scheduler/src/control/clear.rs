//! Clearing: which task instances of which runs, then one request a run. Many runs are carried out in bounded ticks.

use std::collections::HashSet;
use std::sync::Arc;

use futures::StreamExt as _;
use model::{Dag, DagId, DagRunKey, MapIndex, TaskIndex, TaskInstanceState};
use ports::control::{ClearRequest, ControlError};
use ports::query::TiRow;

use super::resolve::{not_found, run_key};
use super::show::overlay;
use crate::inbox::{Message, RunOp};
use crate::shared::{Shared, query_failed};

/// How many runs one request may clear.
const MAX_RUNS: u32 = 10_000;
/// How many runs are cleared side by side.
const AT_A_TIME: usize = 32;

pub(super) async fn clear(
    shared: &Arc<Shared>,
    dag_id: &DagId,
    request: ClearRequest,
) -> Result<Vec<TiRow>, ControlError> {
    let dag = shared
        .dag(dag_id)
        .ok_or_else(|| ControlError::DagNotFound(dag_id.clone()))?;
    let runs = match &request.run_id {
        Some(run_id) => vec![run_key(shared, dag_id, run_id).await?],
        None => {
            for (task, _) in request.tasks.iter().flatten() {
                check_task(dag.version.dag(), task.as_str())?;
            }
            shared
                .store
                .runs_between(dag_id, request.start_date, request.end_date, MAX_RUNS)
                .await
                .map_err(query_failed)?
        }
    };
    let one = request.run_id.is_some();
    let request = &request;
    let mut cleared = Vec::new();
    let mut results = futures::stream::iter(runs)
        .map(|key| clear_run(shared, dag_id, key, request, one))
        .buffered(AT_A_TIME);
    while let Some(rows) = results.next().await {
        cleared.extend(rows?);
    }
    Ok(cleared)
}

fn check_task(dag: &Dag, task: &str) -> Result<(), ControlError> {
    match dag.index_of(task) {
        Some(_) => Ok(()),
        None => Err(ControlError::TaskNotFound {
            dag_id: dag.id.clone(),
            task_id: task.to_owned(),
        }),
    }
}

async fn clear_run(
    shared: &Arc<Shared>,
    dag_id: &DagId,
    key: DagRunKey,
    request: &ClearRequest,
    one: bool,
) -> Result<Vec<TiRow>, ControlError> {
    let mut rows = shared.store.ti_rows(key).await.map_err(query_failed)?;
    let Some(uuid) = rows.first().map(|row| row.version_uuid) else {
        return Ok(rows);
    };
    let Some(version) = shared.version(uuid).await.map_err(query_failed)? else {
        return Err(match &request.run_id {
            Some(run_id) => not_found(shared, dag_id, run_id),
            None => ControlError::DagNotFound(dag_id.clone()),
        });
    };
    if one {
        for (task, _) in request.tasks.iter().flatten() {
            check_task(version.dag(), task.as_str())?;
        }
    }
    overlay(shared, key, &mut rows);
    let selection = Selection::new(version.dag(), request);
    rows.retain(|row| {
        selection.contains(row.key.task, row.key.map_index)
            && state_matches(row.state, request.only_failed, request.only_running)
    });
    if request.dry_run || rows.is_empty() {
        return Ok(rows);
    }
    let selected: Vec<_> = rows.iter().map(|row| (row.key.task, row.key.map_index)).collect();
    let task_instances = selected.clone();
    shared
        .ask(|reply| {
            Message::Run(
                key,
                RunOp::Clear {
                    task_instances,
                    only_failed: request.only_failed,
                    only_running: request.only_running,
                    user: request.user.clone(),
                    reply,
                },
            )
        })
        .await?;
    let selected: HashSet<_> = selected.into_iter().collect();
    let mut rows = shared.store.ti_rows(key).await.map_err(query_failed)?;
    rows.retain(|row| selected.contains(&(row.key.task, row.key.map_index)));
    overlay(shared, key, &mut rows);
    Ok(rows)
}

/// Whether a state is among those to clear.
pub(crate) fn state_matches(state: TaskInstanceState, only_failed: bool, only_running: bool) -> bool {
    use TaskInstanceState::{Failed, Queued, Restarting, Running, UpstreamFailed};
    match (only_failed, only_running) {
        (false, false) => true,
        (failed, running) => {
            (failed && matches!(state, Failed | UpstreamFailed))
                || (running && matches!(state, Queued | Running | Restarting))
        }
    }
}

/// Which task instances a request names, whatever their state.
struct Selection {
    /// By task index: not at all, some map indexes, all.
    tasks: Vec<Chosen>,
}

#[derive(Clone, PartialEq, Eq)]
enum Chosen {
    None,
    Some(Vec<MapIndex>),
    All,
}

impl Selection {
    fn new(dag: &Dag, request: &ClearRequest) -> Self {
        let mut tasks = vec![Chosen::None; dag.tasks.len()];
        let Some(named) = &request.tasks else {
            tasks.fill(Chosen::All);
            return Self { tasks };
        };
        let mut starts = Vec::new();
        for (task, map_index) in named {
            let Some(index) = dag.index_of(task.as_str()) else {
                continue;
            };
            starts.push(index);
            if let Some(chosen) = tasks.get_mut(index.at()) {
                match (chosen, map_index) {
                    (chosen, None) => *chosen = Chosen::All,
                    (Chosen::All, Some(_)) => {}
                    (Chosen::Some(indexes), Some(index)) => indexes.push(*index),
                    (chosen @ Chosen::None, Some(index)) => *chosen = Chosen::Some(vec![*index]),
                }
            }
        }
        let mut spread = |next: fn(&model::dag::Task) -> &[TaskIndex]| {
            let mut open = starts.clone();
            let mut seen: HashSet<TaskIndex> = HashSet::new();
            while let Some(task) = open.pop() {
                for &next in dag.task(task).map(next).unwrap_or_default() {
                    if seen.insert(next) {
                        open.push(next);
                        if let Some(chosen) = tasks.get_mut(next.at()) {
                            *chosen = Chosen::All;
                        }
                    }
                }
            }
        };
        if request.include_upstream {
            spread(|task| &task.upstream);
        }
        if request.include_downstream {
            spread(|task| &task.downstream);
        }
        Self { tasks }
    }

    fn contains(&self, task: TaskIndex, map_index: MapIndex) -> bool {
        match self.tasks.get(task.at()) {
            Some(Chosen::All) => true,
            Some(Chosen::Some(indexes)) => indexes.contains(&map_index),
            Some(Chosen::None) | None => false,
        }
    }
}
