//! `task_instance_heartbeat`: when the executor of a dispatch was heard of last.

use ports::store::HeartbeatWrite;

use crate::sql::{Dialect, Kind, Statement, Upsert};

static HEARTBEAT: Upsert = Upsert::new(
    "task_instance_heartbeat",
    &[
        ("dag_run", Kind::Int),
        ("task_index", Kind::Int),
        ("map_index", Kind::Int),
        ("dispatch", Kind::Int),
        ("heartbeat_at", Kind::Int),
    ],
    3,
);

/// Writes heartbeats. The rows are sorted by key and without repeats.
pub(crate) fn upsert(dialect: Dialect, rows: &[&HeartbeatWrite]) -> Statement {
    let mut batch = HEARTBEAT.batch(dialect, rows.len());
    for row in rows {
        batch.int(row.ti.run.0);
        batch.int(i64::from(row.ti.task.0));
        batch.int(i64::from(row.ti.map_index.0));
        batch.int(i64::from(row.dispatch.0));
        batch.int(row.at.0);
    }
    HEARTBEAT.statement(batch)
}
