//! Listing, making, changing and deleting pools.

use ports::control::{ControlError, NewPool, PoolPatch};
use ports::query::PoolRow;

use crate::asker::Asker;
use crate::inbox::{DagOp, Message, PoolOp};
use crate::shared::{Shared, query_failed};

pub(super) async fn list(shared: &Shared) -> Result<Vec<PoolRow>, ControlError> {
    shared.store.pools().await.map_err(query_failed)
}

pub(crate) async fn create(shared: &Shared, pool: NewPool, by: Asker) -> Result<PoolRow, ControlError> {
    ask(shared, PoolOp::Create(pool), by).await.and_then(known)
}

pub(crate) async fn change(shared: &Shared, name: &str, patch: PoolPatch, by: Asker) -> Result<PoolRow, ControlError> {
    let name = name.to_owned();
    ask(shared, PoolOp::Change { name, patch }, by).await.and_then(known)
}

pub(crate) async fn delete(shared: &Shared, name: &str, by: Asker) -> Result<(), ControlError> {
    let name = name.to_owned();
    ask(shared, PoolOp::Delete { name }, by).await.map(drop)
}

async fn ask(shared: &Shared, op: PoolOp, by: Asker) -> Result<Option<PoolRow>, ControlError> {
    shared.ask(|reply| Message::Dag(DagOp::Pool { op, by, reply })).await
}

fn known(pool: Option<PoolRow>) -> Result<PoolRow, ControlError> {
    pool.ok_or_else(|| ControlError::Internal("a pool that was written is not there".into()))
}
