//! Changing the note of a run.

use model::{DagId, RunId};
use ports::control::ControlError;
use ports::query::RunRow;

use super::resolve::{run_key, run_row};
use crate::asker::Asker;
use crate::inbox::{Message, RunOp};
use crate::shared::Shared;

pub(crate) async fn set_run_note(
    shared: &Shared,
    dag_id: &DagId,
    run_id: &RunId,
    note: &str,
    by: Asker,
) -> Result<RunRow, ControlError> {
    let key = run_key(shared, dag_id, run_id).await?;
    let note = note.to_owned();
    shared
        .ask(|reply| Message::Run(key, RunOp::Note { note, by, reply }))
        .await?;
    run_row(shared, key, dag_id, run_id).await
}
