//! `checkpoint`: bytes that survive retries and crashes of a task instance.

use model::{DispatchNumber, TiKey, Timestamp};

use super::task_instance::delete_by_key;
use crate::sql::{Dialect, Statement};

pub(crate) fn load(ti: TiKey) -> Statement {
    Statement::new("SELECT bytes FROM checkpoint WHERE dag_run = ? AND task_index = ? AND map_index = ?")
        .arg(ti.run.0)
        .arg(ti.task.0)
        .arg(ti.map_index.0)
}

/// Replaces the checkpoint if the task instance is still at this dispatch.
pub(crate) fn save(ti: TiKey, dispatch: DispatchNumber, bytes: &[u8], now: Timestamp) -> Statement {
    Statement::new(
        "INSERT INTO checkpoint (dag_run, task_index, map_index, bytes, updated_at) \
         SELECT dag_run, task_index, map_index, ?, ? FROM task_instance \
         WHERE dag_run = ? AND task_index = ? AND map_index = ? AND dispatch = ? \
         ON CONFLICT (dag_run, task_index, map_index) \
         DO UPDATE SET bytes = excluded.bytes, updated_at = excluded.updated_at",
    )
    .arg(bytes.to_vec())
    .arg(now)
    .arg(ti.run.0)
    .arg(ti.task.0)
    .arg(ti.map_index.0)
    .arg(dispatch.0)
}

/// Whether the task instance is at this dispatch.
pub(crate) fn is_current(ti: TiKey, dispatch: DispatchNumber) -> Statement {
    Statement::new(
        "SELECT 1 FROM task_instance WHERE dag_run = ? AND task_index = ? AND map_index = ? AND dispatch = ?",
    )
    .arg(ti.run.0)
    .arg(ti.task.0)
    .arg(ti.map_index.0)
    .arg(dispatch.0)
}

pub(crate) fn delete(dialect: Dialect, keys: &[TiKey]) -> Statement {
    delete_by_key(
        "DELETE FROM checkpoint WHERE (dag_run, task_index, map_index) IN (",
        dialect,
        keys,
    )
}
