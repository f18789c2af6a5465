//! Deleting a DAG with its versions and ended runs.

use model::DagId;
use ports::control::ControlError;

use crate::inbox::{DagOp, Message};
use crate::shared::{Name, Shared};

pub(super) async fn delete_dag(shared: &Shared, dag_id: &DagId, user: &str) -> Result<(), ControlError> {
    let _deploys = shared.names.lock(Name::Dag(dag_id.clone())).await;
    let (dag_id, user) = (dag_id.clone(), user.to_owned());
    shared
        .ask(|reply| Message::Dag(DagOp::Delete { dag_id, user, reply }))
        .await
}
