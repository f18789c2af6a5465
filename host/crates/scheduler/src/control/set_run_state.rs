//! Setting the state of a run by hand.

use model::{DagId, DagRunState, RunId};
use ports::control::ControlError;
use ports::query::RunRow;
use uuid::Uuid;

use super::resolve::{run_key, run_row};
use crate::asker::Asker;
use crate::inbox::{Message, RunOp};
use crate::intent;
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
    let promise = Uuid::new_v4();
    let op = |reply| RunOp::SetState {
        state,
        promise,
        by,
        reply,
    };
    shared.ask(|reply| Message::Run(key, op(reply))).await?;
    intent::wait(shared, promise).await;
    run_row(shared, key, dag_id, run_id).await
}
