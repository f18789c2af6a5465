//! Setting the state of task instances by hand.

use std::collections::HashSet;
use std::sync::Arc;

use model::TaskInstanceState;
use ports::control::{ControlError, SetStateRequest};
use ports::intent::{ClearWork, IntentWork};
use ports::query::TiRow;
use uuid::Uuid;

use super::clear::{For, carry_out, check_tasks, runs_between, select_all};
use super::resolve::{run_key, run_row};
use super::respond::dag_of;
use super::show::overlay;
use crate::asker::Asker;
use crate::inbox::{Message, RunOp};
use crate::intent;
use crate::run::Place;
use crate::selection::Selection;
use crate::shared::{Shared, query_failed};

pub(crate) async fn set_task_instance_state(
    shared: &Arc<Shared>,
    request: SetStateRequest,
    row: Option<Uuid>,
) -> Result<Vec<TiRow>, ControlError> {
    let SetStateRequest {
        dag_id,
        run_id,
        include_past,
        include_future,
        tasks,
        groups,
        include_upstream,
        include_downstream,
        state,
        dry_run,
        user,
    } = request;
    let by = Asker { user, row };
    if !matches!(
        state,
        TaskInstanceState::Success | TaskInstanceState::Failed | TaskInstanceState::Skipped
    ) {
        return Err(ControlError::Conflict(format!(
            "the state of a task instance can be set to `success`, `failed` or `skipped`, not to `{state}`"
        )));
    }
    let work = Arc::new(ClearWork {
        tasks: (!tasks.is_empty()).then_some(tasks),
        groups,
        include_upstream,
        include_downstream,
        only_failed: false,
        only_running: false,
    });
    let key = run_key(shared, &dag_id, &run_id).await?;
    let dag = dag_of(shared, &dag_id, &run_id).await?;
    check_tasks(&dag, &work)?;
    if include_past || include_future {
        let row = run_row(shared, key, &dag_id, &run_id).await?;
        let at = row.logical_date.unwrap_or(row.run_after);
        let range = ((!include_past).then_some(at), (!include_future).then_some(at));
        let runs = runs_between(shared, &dag_id, range.0, range.1).await?;
        let mut rows = select_all(shared, &runs, &work, For::Mark).await?;
        rows.retain(|row| row.state != state && row.state != TaskInstanceState::Removed);
        if dry_run {
            return Ok(rows);
        }
        if rows.is_empty() {
            return Err(ControlError::Conflict(format!(
                "there is nothing to change: the state is `{state}` already in all of these runs"
            )));
        }
        let work = IntentWork::SetState {
            work: ClearWork::clone(&work),
            state,
        };
        return carry_out(shared, &dag_id, rows, work, by).await;
    }
    let selection = Selection::to_mark(&dag, &work);
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
    let promise = Uuid::new_v4();
    let had_it: HashSet<Place> = rows.iter().filter(|row| row.state == state).map(place).collect();
    shared
        .ask(|reply| {
            Message::Run(
                key,
                RunOp::SetTaskInstanceState {
                    work: Arc::clone(&work),
                    state,
                    promise,
                    by,
                    reply,
                },
            )
        })
        .await?;
    intent::wait(shared, promise).await;
    rows = read().await?;
    rows.retain(|row| row.state == state && !had_it.contains(&place(row)));
    Ok(rows)
}
