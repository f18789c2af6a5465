//! Clearing. One run is cleared by one request to the loop. Several are an intent: it is committed, answered, and carried out
//! over bounded ticks.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use model::run::take_along;
use model::{Dag, DagId, DagRunKey, RunId, Timestamp};
use ports::control::{ClearRequest, ControlError};
use ports::intent::{ClearWork, Intent, IntentWork};
use ports::query::TiRow;
use uuid::Uuid;

use super::resolve::{not_found, run_key};
use super::show::overlay;
use crate::asker::Asker;
use crate::inbox::{DagOp, Message, RunOp};
use crate::intent;
use crate::run::Place;
use crate::selection::Selection;
use crate::shared::{Shared, query_failed};
use crate::version::Version;

/// How many runs one request may clear.
const MAX_RUNS: u32 = 10_000;
/// How many runs are read side by side.
const AT_A_TIME: usize = 32;

pub(crate) async fn clear(
    shared: &Arc<Shared>,
    dag_id: &DagId,
    request: ClearRequest,
    row: Option<Uuid>,
) -> Result<Vec<TiRow>, ControlError> {
    let dag = shared
        .dag(dag_id)
        .ok_or_else(|| ControlError::DagNotFound(dag_id.clone()))?;
    let ClearRequest {
        run_id,
        start_date,
        end_date,
        tasks,
        groups,
        include_upstream,
        include_downstream,
        only_failed,
        only_running,
        dry_run,
        user,
    } = request;
    let by = Asker { user, row };
    let work = ClearWork {
        tasks,
        groups,
        include_upstream,
        include_downstream,
        only_failed,
        only_running,
    };
    if let Some(run_id) = run_id {
        return clear_run(shared, dag_id, &run_id, work, dry_run, by).await;
    }
    check_tasks(dag.version.dag(), &work)?;
    let runs = runs_between(shared, dag_id, start_date, end_date).await?;
    let rows = select_all(shared, &runs, &work, For::Clear).await?;
    if dry_run || rows.is_empty() {
        return Ok(rows);
    }
    carry_out(shared, dag_id, rows, IntentWork::Clear(work), by).await
}

/// The runs of a DAG in a range of time, as many as one request may be about.
pub(super) async fn runs_between(
    shared: &Shared,
    dag_id: &DagId,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
) -> Result<Vec<DagRunKey>, ControlError> {
    let runs = shared.store.runs_between(dag_id, start, end, MAX_RUNS + 1).await;
    let runs = runs.map_err(query_failed)?;
    if runs.len() > MAX_RUNS as usize {
        return Err(ControlError::Conflict(format!(
            "more than {MAX_RUNS} runs of DAG `{dag_id}` are in this range of time; name several ranges, one after the other"
        )));
    }
    Ok(runs)
}

pub(super) fn check_tasks(dag: &Dag, work: &ClearWork) -> Result<(), ControlError> {
    for (task, _) in work.tasks.iter().flatten() {
        if dag.index_of(task.as_str()).is_none() {
            return Err(ControlError::TaskNotFound {
                dag_id: dag.id.clone(),
                task_id: task.to_string(),
            });
        }
    }
    for group in &work.groups {
        if dag.tasks_of_group(group).is_none() {
            return Err(ControlError::TaskGroupNotFound {
                dag_id: dag.id.clone(),
                group_id: group.chars().take(250).collect(),
            });
        }
    }
    Ok(())
}

async fn clear_run(
    shared: &Arc<Shared>,
    dag_id: &DagId,
    run_id: &RunId,
    work: ClearWork,
    dry_run: bool,
    by: Asker,
) -> Result<Vec<TiRow>, ControlError> {
    let key = run_key(shared, dag_id, run_id).await?;
    let rows = shared.store.ti_rows(key).await.map_err(query_failed)?;
    let Some(version) = version_of(shared, &rows).await? else {
        return match rows.is_empty() {
            true => Ok(rows),
            false => Err(not_found(shared, dag_id, run_id)),
        };
    };
    check_tasks(version.dag(), &work)?;
    let rows = selected(shared, key, &version, rows, &work, For::Clear);
    if dry_run || rows.is_empty() {
        return Ok(rows);
    }
    let places: Vec<Place> = rows.iter().map(|row| (row.key.task, row.key.map_index)).collect();
    drop(rows);
    let work = Arc::new(work);
    let asked = Arc::clone(&work);
    let promise = Uuid::new_v4();
    let op = |reply| RunOp::Clear {
        work: asked,
        promise,
        by,
        reply,
    };
    shared.ask(|reply| Message::Run(key, op(reply))).await?;
    intent::wait(shared, promise).await;
    if work.only_failed || work.only_running {
        return reread(shared, key, &places).await;
    }
    // What was expanded meanwhile is cleared, too.
    let mut rows = shared.store.ti_rows(key).await.map_err(query_failed)?;
    overlay(shared, key, &mut rows);
    let selection = Selection::new(version.dag(), &work);
    rows.retain(|row| {
        let place = (row.key.task, row.key.map_index);
        selection.names(place.0, place.1) || places.binary_search(&place).is_ok()
    });
    Ok(rows)
}

/// Promises to do something to several runs, and waits for it a moment. `rows` are the task instances that it is about.
pub(super) async fn carry_out(
    shared: &Arc<Shared>,
    dag_id: &DagId,
    rows: Vec<TiRow>,
    work: IntentWork,
    by: Asker,
) -> Result<Vec<TiRow>, ControlError> {
    let mut places: HashMap<DagRunKey, Vec<Place>> = HashMap::new();
    for row in &rows {
        let of_run = places.entry(row.key.run).or_default();
        of_run.push((row.key.task, row.key.map_index));
    }
    drop(rows);
    let mut runs: Vec<DagRunKey> = places.keys().copied().collect();
    runs.sort_unstable();
    let intent = Arc::new(Intent {
        id: Uuid::new_v4(),
        dag_id: dag_id.clone(),
        user: by.user.clone(),
        created_at: shared.clock.now(),
        runs: runs.clone(),
        work,
    });
    let id = intent.id;
    shared
        .ask(|reply| Message::Dag(DagOp::Promise { intent, by, reply }))
        .await?;
    intent::wait(shared, id).await;
    let rows: Vec<Vec<TiRow>> = futures::stream::iter(runs)
        .map(|run| reread(shared, run, places.get(&run).map_or(&[], Vec::as_slice)))
        .buffered(AT_A_TIME)
        .try_collect()
        .await?;
    Ok(rows.into_iter().flatten().collect())
}

/// What is named of several runs, in their order.
pub(super) async fn select_all(
    shared: &Arc<Shared>,
    runs: &[DagRunKey],
    work: &ClearWork,
    what_for: For,
) -> Result<Vec<TiRow>, ControlError> {
    let rows: Vec<Vec<TiRow>> = futures::stream::iter(runs.iter().copied())
        .map(|run| async move {
            let rows = shared.store.ti_rows(run).await.map_err(query_failed)?;
            let version = version_of(shared, &rows).await?;
            // A run that is gone has no rows, and no version.
            Ok::<_, ControlError>(version.map_or_else(Vec::new, |version| {
                selected(shared, run, &version, rows, work, what_for)
            }))
        })
        .buffered(AT_A_TIME)
        .try_collect()
        .await?;
    Ok(rows.into_iter().flatten().collect())
}

async fn version_of(shared: &Shared, rows: &[TiRow]) -> Result<Option<Arc<Version>>, ControlError> {
    match rows.first() {
        Some(row) => shared.version(row.version_uuid).await.map_err(query_failed),
        None => Ok(None),
    }
}

/// What becomes of the task instances that are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// They are cleared, with what goes along.
    Clear,
    /// They get another state.
    Mark,
}

fn selected(
    shared: &Shared,
    run: DagRunKey,
    version: &Version,
    mut rows: Vec<TiRow>,
    work: &ClearWork,
    what_for: For,
) -> Vec<TiRow> {
    overlay(shared, run, &mut rows);
    let selection = match what_for {
        For::Clear => Selection::new(version.dag(), work),
        For::Mark => Selection::to_mark(version.dag(), work),
    };
    let place = |row: &TiRow| -> Place { (row.key.task, row.key.map_index) };
    let is_named = |row: &&TiRow| selection.contains(row.key.task, row.key.map_index, row.state);
    let mut chosen: Vec<Place> = rows.iter().filter(is_named).map(place).collect();
    if what_for == For::Clear {
        let known = rows.iter().map(|row| (row.key.task, row.key.map_index, row.state));
        chosen.extend(take_along(version.dag(), &chosen, known));
    }
    let chosen: HashSet<Place> = chosen.into_iter().collect();
    rows.retain(|row| chosen.contains(&place(row)));
    rows
}

/// What was selected, as it is now. `places` are in the order of the rows.
async fn reread(shared: &Shared, run: DagRunKey, places: &[Place]) -> Result<Vec<TiRow>, ControlError> {
    let mut rows = shared.store.ti_rows(run).await.map_err(query_failed)?;
    rows.retain(|row| places.binary_search(&(row.key.task, row.key.map_index)).is_ok());
    overlay(shared, run, &mut rows);
    Ok(rows)
}
