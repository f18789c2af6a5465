//! Deleting a DAG with its versions and ended runs. It is gone for everybody once that is committed; its rows follow.

use std::sync::Arc;

use model::DagId;
use ports::control::ControlError;
use ports::intent::{Intent, IntentWork};
use uuid::Uuid;

use crate::asker::Asker;
use crate::inbox::{DagOp, Message};
use crate::intent;
use crate::shared::{Name, Shared};

pub(crate) async fn delete_dag(shared: &Shared, dag_id: &DagId, by: Asker) -> Result<(), ControlError> {
    let intent = Arc::new(Intent {
        id: Uuid::new_v4(),
        dag_id: dag_id.clone(),
        user: by.user.clone(),
        created_at: shared.clock.now(),
        runs: Vec::new(),
        work: IntentWork::DeleteDag,
    });
    let id = intent.id;
    {
        let _deploys = shared.names.lock(Name::Dag(dag_id.clone())).await;
        shared
            .ask(|reply| Message::Dag(DagOp::Delete { intent, by, reply }))
            .await?;
    }
    // A small one is wholly gone when the answer comes, so that its name is free.
    intent::wait(shared, id).await;
    Ok(())
}
