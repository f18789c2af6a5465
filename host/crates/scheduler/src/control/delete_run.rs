//! Deleting a run.

use model::{DagId, RunId};
use ports::control::ControlError;

use super::resolve::run_key;
use crate::asker::Asker;
use crate::inbox::{Message, RunOp};
use crate::shared::Shared;

pub(crate) async fn delete_run(
    shared: &Shared,
    dag_id: &DagId,
    run_id: &RunId,
    by: Asker,
) -> Result<(), ControlError> {
    let key = run_key(shared, dag_id, run_id).await?;
    shared
        .ask(|reply| Message::Run(key, RunOp::Delete { by, reply }))
        .await
}
