//! Deleting a run.

use model::{DagId, RunId};
use ports::control::ControlError;

use super::resolve::run_key;
use crate::inbox::{Message, RunOp};
use crate::shared::Shared;

pub(super) async fn delete_run(
    shared: &Shared,
    dag_id: &DagId,
    run_id: &RunId,
    user: &str,
) -> Result<(), ControlError> {
    let key = run_key(shared, dag_id, run_id).await?;
    let user = user.to_owned();
    shared
        .ask(|reply| Message::Run(key, RunOp::Delete { user, reply }))
        .await
}
