//! `scheduler_lease` and `run_key_counter`: who may schedule, and which run keys are free. Each has exactly one row.

use model::{DagRunKey, Timestamp};
use ports::inbox::SeenScheduler;
use ports::store::{Lease, LeaseError};
use uuid::Uuid;

use crate::error::{query_error, query_failure};
use crate::sql::{Database, Dialect, Row, Statement};

/// Takes the lease if it is free, ran out, or is the caller's own, takes over the active runs and counts the slots in use anew.
pub(crate) async fn acquire(
    database: &Database,
    scheduler_id: Uuid,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<Lease, LeaseError> {
    let mut tx = database.write().await.map_err(query_error)?;
    let mut select =
        Statement::new("SELECT scheduler_id, epoch, acquired_at, expires_at FROM scheduler_lease WHERE id = 1");
    if database.dialect() == Dialect::Postgres {
        select.push(" FOR UPDATE");
    }
    let row = tx.fetch_optional(select).await.map_err(query_error)?;
    let row = row.ok_or(sqlx::Error::RowNotFound).map_err(query_error)?;
    let (holder, epoch, since, until) = {
        let mut columns = row.columns();
        (|| {
            Ok((
                columns.opt_parse::<Uuid>()?,
                columns.int()?,
                columns.time()?,
                columns.time()?,
            ))
        })()
        .map_err(query_error)?
    };
    if let Some(holder) = holder
        && holder != scheduler_id
        && until > now
    {
        return Err(LeaseError::InUse {
            scheduler_id: holder,
            since,
            expires_at: until,
        });
    }
    let epoch = epoch + 1;
    let update = Statement::new(
        "UPDATE scheduler_lease SET scheduler_id = ?, epoch = ?, acquired_at = ?, renewed_at = ?, expires_at = ? WHERE id = 1",
    )
    .arg(scheduler_id)
    .arg(epoch)
    .arg(now)
    .arg(now)
    .arg(expires_at);
    tx.execute(update).await.map_err(query_error)?;
    let taken = tx.execute(super::dag_run::take_over(epoch)).await;
    taken.map_err(query_error)?;
    // What the last scheduler had out is what this one takes over.
    tx.execute(super::slot_pool::recount()).await.map_err(query_error)?;
    tx.commit().await.map_err(query_failure)?;
    Ok(Lease { scheduler_id, epoch })
}

/// Fails the transaction (`Class::Fenced`) unless the lease is still held, locks its row until the end of the transaction, and
/// writes down the tick.
pub(crate) fn check_for_tick(lease: &Lease, tick_id: Uuid) -> Statement {
    Statement::new(
        "UPDATE scheduler_lease SET tick_id = ?, epoch = CASE WHEN scheduler_id = ? AND epoch = ? THEN epoch ELSE -1 END \
         WHERE id = 1",
    )
    .arg(tick_id)
    .arg(lease.scheduler_id)
    .arg(lease.epoch)
}

/// Like [`check_for_tick`], outside of ticks.
pub(crate) fn check(lease: &Lease) -> Statement {
    Statement::new(
        "UPDATE scheduler_lease SET epoch = CASE WHEN scheduler_id = ? AND epoch = ? THEN epoch ELSE -1 END WHERE id = 1",
    )
    .arg(lease.scheduler_id)
    .arg(lease.epoch)
}

pub(crate) fn renew(lease: &Lease, now: Timestamp, expires_at: Timestamp) -> Statement {
    Statement::new(
        "UPDATE scheduler_lease SET renewed_at = ?, expires_at = ?, \
         epoch = CASE WHEN scheduler_id = ? AND epoch = ? THEN epoch ELSE -1 END WHERE id = 1",
    )
    .arg(now)
    .arg(expires_at)
    .arg(lease.scheduler_id)
    .arg(lease.epoch)
}

/// Does nothing where somebody else holds it.
pub(crate) fn release(lease: &Lease) -> Statement {
    Statement::new(
        "UPDATE scheduler_lease SET scheduler_id = NULL, expires_at = 0 WHERE id = 1 AND scheduler_id = ? AND epoch = ?",
    )
    .arg(lease.scheduler_id)
    .arg(lease.epoch)
}

/// Who schedules, for everybody.
pub(crate) fn seen() -> Statement {
    Statement::new("SELECT scheduler_id, renewed_at, expires_at FROM scheduler_lease WHERE id = 1")
}

/// The answer of [`seen`], without the runs.
pub(crate) fn read_seen(row: &Row) -> Result<SeenScheduler, sqlx::Error> {
    let mut columns = row.columns();
    Ok(SeenScheduler {
        scheduler_id: columns.opt_parse()?,
        renewed_at: columns.time()?,
        expires_at: columns.time()?,
        active_runs: 0,
        set_aside_runs: Vec::new(),
    })
}

/// The last committed tick. A transaction whose connection was lost may still be about to commit on the server; it holds the row's
/// lock, so the answer waits for its end.
pub(crate) fn last_tick(dialect: Dialect) -> Statement {
    Statement::new(match dialect {
        Dialect::Sqlite => "SELECT tick_id FROM scheduler_lease WHERE id = 1",
        Dialect::Postgres => "SELECT tick_id FROM scheduler_lease WHERE id = 1 FOR SHARE",
    })
}

/// Reserves keys; answers the first through `RETURNING`.
pub(crate) fn reserve_run_keys(count: u32) -> Statement {
    Statement::new("UPDATE run_key_counter SET next_key = next_key + ? WHERE id = 1 RETURNING next_key - ?")
        .arg(count)
        .arg(count)
}

/// The answer of [`reserve_run_keys`].
pub(crate) fn first_key(row: &Row) -> Result<DagRunKey, sqlx::Error> {
    row.columns().int().map(DagRunKey)
}
