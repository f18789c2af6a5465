//! `task_instance_note`: what people noted about task instances.

use model::Timestamp;
use ports::store::TiNote;

use crate::sql::{Dialect, Kind, Statement, Upsert};

static NOTE: Upsert = Upsert::new(
    "task_instance_note",
    &[
        ("dag_run", Kind::Int),
        ("task_index", Kind::Int),
        ("map_index", Kind::Int),
        ("content", Kind::Text),
        ("user_name", Kind::Text),
        ("updated_at", Kind::Int),
    ],
    3,
);

/// Writes notes. The rows are sorted by key and without repeats.
pub(crate) fn upsert(dialect: Dialect, rows: &[&TiNote], now: Timestamp) -> Statement {
    let mut batch = NOTE.batch(dialect, rows.len());
    for row in rows {
        batch.int(row.ti.run.0);
        batch.int(i64::from(row.ti.task.0));
        batch.int(i64::from(row.ti.map_index.0));
        batch.text(row.content.as_str());
        batch.text(row.user.as_str());
        batch.int(now.0);
    }
    NOTE.statement(batch)
}
