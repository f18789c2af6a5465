//! Pausing and unpausing a DAG.

use model::DagId;
use ports::control::ControlError;

use crate::inbox::{DagOp, Message};
use crate::shared::Shared;

pub(super) async fn set_paused(shared: &Shared, dag_id: &DagId, paused: bool, user: &str) -> Result<(), ControlError> {
    let (dag_id, user) = (dag_id.clone(), user.to_owned());
    shared
        .ask(|reply| {
            Message::Dag(DagOp::SetPaused {
                dag_id,
                paused,
                user,
                reply,
            })
        })
        .await
}
