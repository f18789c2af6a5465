//! Setting the state of a run by hand.

use model::{DagId, DagRunState, RunId};
use ports::control::ControlError;
use ports::query::RunRow;

use super::resolve::{run_key, run_row};
use crate::asker::Asker;
use crate::inbox::{Message, RunOp};
use crate::shared::Shared;

pub(crate) async fn set_run_state(
    shared: &Shared,
    dag_id: &DagId,
    run_id: &RunId,
    state: DagRunState,
    by: Asker,
) -> Result<RunRow, ControlError> {
    if state == DagRunState::Running {
        return Err(ControlError::Conflict(
            "the state of a run can be set to `queued`, `success` or `failed`, not to `running`".to_owned(),
        ));
    }
    let key = run_key(shared, dag_id, run_id).await?;
    shared
        .ask(|reply| Message::Run(key, RunOp::SetState { state, by, reply }))
        .await?;
    run_row(shared, key, dag_id, run_id).await
}
