//! Listing, making, changing and deleting pools.

use ports::control::{ControlError, NewPool, PoolPatch};
use ports::query::PoolRow;

use crate::inbox::{DagOp, Message, PoolOp};
use crate::shared::{Shared, query_failed};

pub(super) async fn list(shared: &Shared) -> Result<Vec<PoolRow>, ControlError> {
    shared.store.pools().await.map_err(query_failed)
}

pub(super) async fn create(shared: &Shared, pool: NewPool, user: &str) -> Result<PoolRow, ControlError> {
    ask(shared, PoolOp::Create(pool), user).await.and_then(known)
}

pub(super) async fn change(shared: &Shared, name: &str, patch: PoolPatch, user: &str) -> Result<PoolRow, ControlError> {
    let name = name.to_owned();
    ask(shared, PoolOp::Change { name, patch }, user).await.and_then(known)
}

pub(super) async fn delete(shared: &Shared, name: &str, user: &str) -> Result<(), ControlError> {
    let name = name.to_owned();
    ask(shared, PoolOp::Delete { name }, user).await.map(drop)
}

async fn ask(shared: &Shared, op: PoolOp, user: &str) -> Result<Option<PoolRow>, ControlError> {
    let user = user.to_owned();
    shared.ask(|reply| Message::Dag(DagOp::Pool { op, user, reply })).await
}

fn known(pool: Option<PoolRow>) -> Result<PoolRow, ControlError> {
    pool.ok_or_else(|| ControlError::Internal("a pool that was written is not there".into()))
}
