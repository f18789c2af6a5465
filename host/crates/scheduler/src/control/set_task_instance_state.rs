//! Setting the state of task instances by hand.

use std::collections::HashSet;
use std::sync::Arc;

use model::TaskInstanceState;
use ports::control::{ControlError, SetStateRequest};
use ports::intent::ClearWork;
use ports::query::TiRow;

use super::clear::check_tasks;
use super::resolve::run_key;
use super::respond::dag_of;
use super::show::overlay;
use crate::inbox::{Message, RunOp};
use crate::run::Place;
use crate::selection::Selection;
use crate::shared::{Shared, query_failed};

pub(super) async fn set_task_instance_state(
    shared: &Arc<Shared>,
    request: SetStateRequest,
) -> Result<Vec<TiRow>, ControlError> {
    let SetStateRequest {
        dag_id,
        run_id,
        tasks,
        include_upstream,
        include_downstream,
        state,
        dry_run,
        user,
    } = request;
    if !matches!(
        state,
        TaskInstanceState::Success | TaskInstanceState::Failed | TaskInstanceState::Skipped
    ) {
        return Err(ControlError::Conflict(format!(
            "the state of a task instance can be set to `success`, `failed` or `skipped`, not to `{state}`"
        )));
    }
    let work = Arc::new(ClearWork {
        tasks: Some(tasks),
        include_upstream,
        include_downstream,
        only_failed: false,
        only_running: false,
    });
    let key = run_key(shared, &dag_id, &run_id).await?;
    let dag = dag_of(shared, &dag_id, &run_id).await?;
    check_tasks(&dag, &work)?;
    let selection = Selection::new(&dag, &work);
    let read = async || -> Result<Vec<TiRow>, ControlError> {
        let mut rows = shared.store.ti_rows(key).await.map_err(query_failed)?;
        overlay(shared, key, &mut rows);
        rows.retain(|row| selection.contains(row.key.task, row.key.map_index, row.state));
        Ok(rows)
    };
    let place = |row: &TiRow| -> Place { (row.key.task, row.key.map_index) };
    let mut rows = read().await?;
    if dry_run {
        rows.retain(|row| row.state != state && row.state != TaskInstanceState::Removed);
        return Ok(rows);
    }
    let had_it: HashSet<Place> = rows.iter().filter(|row| row.state == state).map(place).collect();
    shared
        .ask(|reply| {
            Message::Run(
                key,
                RunOp::SetTaskInstanceState {
                    work: Arc::clone(&work),
                    state,
                    user,
                    reply,
                },
            )
        })
        .await?;
    rows = read().await?;
    rows.retain(|row| row.state == state && !had_it.contains(&place(row)));
    Ok(rows)
}
