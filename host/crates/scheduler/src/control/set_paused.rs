//! Pausing and unpausing a DAG.

use model::DagId;
use ports::control::ControlError;

use crate::asker::Asker;
use crate::inbox::{DagOp, Message};
use crate::shared::Shared;

pub(crate) async fn set_paused(shared: &Shared, dag_id: &DagId, paused: bool, by: Asker) -> Result<(), ControlError> {
    let dag_id = dag_id.clone();
    shared
        .ask(|reply| {
            Message::Dag(DagOp::SetPaused {
                dag_id,
                paused,
                by,
                reply,
            })
        })
        .await
}
