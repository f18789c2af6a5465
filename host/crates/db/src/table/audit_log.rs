//! `audit_log`: who changed what.

use model::{DagId, Timestamp};
use ports::query::{AuditRow, Page};
use ports::store::AuditWrite;

use crate::sql::{Dialect, Kind, Row, Statement, Upsert};

static INSERT: Upsert = Upsert::new(
    "audit_log",
    &[
        ("at", Kind::Int),
        ("event", Kind::Text),
        ("user_name", Kind::Text),
        ("dag_id", Kind::Text),
        ("run_id", Kind::Text),
        ("extra", Kind::Text),
    ],
    0,
);

pub(crate) fn insert(dialect: Dialect, lines: &[AuditWrite], now: Timestamp) -> Statement {
    let mut batch = INSERT.batch(dialect, lines.len());
    for line in lines {
        batch.int(now.0);
        batch.text(line.event);
        batch.text(&*line.user);
        batch.text(line.dag_id.as_ref().map(DagId::as_str));
        batch.text(line.run_id.as_ref().map(model::RunId::as_str));
        batch.text(line.extra.as_deref());
    }
    INSERT.statement(batch)
}

fn filter(dag_id: Option<&DagId>) -> Statement {
    let mut tail = Statement::new(" FROM audit_log");
    if let Some(dag_id) = dag_id {
        tail.push(" WHERE dag_id = ").bind(dag_id.as_str());
    }
    tail
}

pub(crate) fn count(dag_id: Option<&DagId>) -> Statement {
    let mut statement = Statement::new("SELECT COUNT(*)");
    statement.append(filter(dag_id));
    statement
}

/// Newest first.
pub(crate) fn list(dag_id: Option<&DagId>, page: Page) -> Statement {
    let mut statement = Statement::new("SELECT id, at, event, user_name, dag_id, run_id, task_id, extra");
    statement.append(filter(dag_id)).push(" ORDER BY id DESC");
    crate::query::limit(&mut statement, page);
    statement
}

pub(crate) fn read(row: &Row) -> Result<AuditRow, sqlx::Error> {
    let mut columns = row.columns();
    Ok(AuditRow {
        id: columns.int()?,
        at: columns.time()?,
        event: columns.text()?,
        user: columns.text()?,
        dag_id: columns.opt_text()?,
        run_id: columns.opt_text()?,
        task_id: columns.opt_text()?,
        extra: columns.opt_text()?,
    })
}
