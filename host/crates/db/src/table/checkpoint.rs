//! `checkpoint` and `checkpoint_blob_ref`: bytes that survive retries and crashes of a task instance, and the blobs that they refer
//! to.

use model::{Digest, DispatchNumber, TiKey, Timestamp};
use ports::executor::BlobRef;

use super::task_instance::delete_by_key;
use crate::sql::{Dialect, Kind, Statement, Upsert};

static BLOB_REF: Upsert = Upsert::new(
    "checkpoint_blob_ref",
    &[
        ("dag_run", Kind::Int),
        ("task_index", Kind::Int),
        ("map_index", Kind::Int),
        ("digest", Kind::Text),
    ],
    0,
);

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

/// Replaces the references of a checkpoint. They live as long as the checkpoint does, which outlives the XComs of a try.
pub(crate) fn refer(dialect: Dialect, ti: TiKey, blobs: &[BlobRef]) -> Vec<Statement> {
    let mut digests: Vec<Digest> = blobs.iter().map(|blob| blob.digest).collect();
    digests.sort_unstable();
    digests.dedup();
    let mut statements = vec![delete_references(dialect, &[ti])];
    if !digests.is_empty() {
        let mut batch = BLOB_REF.batch(dialect, digests.len());
        for digest in digests {
            batch.int(ti.run.0);
            batch.int(i64::from(ti.task.0));
            batch.int(i64::from(ti.map_index.0));
            batch.text(&*digest.to_string());
        }
        statements.push(BLOB_REF.statement(batch));
    }
    statements
}

/// Of these digests, those that a checkpoint refers to.
pub(crate) fn referenced(digests: &[Digest]) -> Statement {
    let mut statement = Statement::new("SELECT DISTINCT digest FROM checkpoint_blob_ref WHERE digest IN ");
    statement.bind_list(digests.iter().copied());
    statement
}

/// Deletes checkpoints with their references.
pub(crate) fn delete(dialect: Dialect, keys: &[TiKey]) -> [Statement; 2] {
    [
        delete_by_key(
            "DELETE FROM checkpoint WHERE (dag_run, task_index, map_index) IN (",
            dialect,
            keys,
        ),
        delete_references(dialect, keys),
    ]
}

fn delete_references(dialect: Dialect, keys: &[TiKey]) -> Statement {
    delete_by_key(
        "DELETE FROM checkpoint_blob_ref WHERE (dag_run, task_index, map_index) IN (",
        dialect,
        keys,
    )
}
