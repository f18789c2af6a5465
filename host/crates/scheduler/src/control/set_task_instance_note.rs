//! Noting something about task instances.

use std::sync::Arc;

use ports::control::{ControlError, SetNoteRequest};
use ports::intent::ClearWork;
use ports::query::TiRow;
use uuid::Uuid;

use super::clear::check_tasks;
use super::resolve::run_key;
use super::respond::dag_of;
use super::show::overlay;
use crate::asker::Asker;
use crate::inbox::{Message, RunOp};
use crate::intent;
use crate::selection::Selection;
use crate::shared::{Shared, query_failed};

pub(crate) async fn set_task_instance_note(
    shared: &Arc<Shared>,
    request: SetNoteRequest,
    row: Option<Uuid>,
) -> Result<Vec<TiRow>, ControlError> {
    let SetNoteRequest {
        dag_id,
        run_id,
        tasks,
        groups,
        note,
        user,
    } = request;
    let by = Asker { user, row };
    let work = Arc::new(ClearWork {
        tasks: (!tasks.is_empty()).then_some(tasks),
        groups,
        ..ClearWork::default()
    });
    let key = run_key(shared, &dag_id, &run_id).await?;
    let dag = dag_of(shared, &dag_id, &run_id).await?;
    check_tasks(&dag, &work)?;
    let promise = Uuid::new_v4();
    shared
        .ask(|reply| {
            Message::Run(
                key,
                RunOp::TaskInstanceNote {
                    work: Arc::clone(&work),
                    note,
                    promise,
                    by,
                    reply,
                },
            )
        })
        .await?;
    intent::wait(shared, promise).await;
    let selection = Selection::new(&dag, &work);
    let mut rows = shared.store.ti_rows(key).await.map_err(query_failed)?;
    overlay(shared, key, &mut rows);
    rows.retain(|row| selection.contains(row.key.task, row.key.map_index, row.state));
    Ok(rows)
}
