//! `callback`: what is due, or was, when tries and runs ended.

use std::sync::Arc;

use model::{DagRunKey, MapIndex, TaskIndex, Timestamp, TryNumber};
use ports::callback::{CallbackChange, CallbackId, CallbackOf, CallbackWrite, DueCallback};

use crate::sql::{Dialect, Kind, Row, Statement, Upsert};

static INSERT: Upsert = Upsert::new(
    "callback",
    &[
        ("dag_run", Kind::Int),
        ("task_index", Kind::Int),
        ("task_id", Kind::Text),
        ("map_index", Kind::Int),
        ("try_number", Kind::Int),
        ("ordinal", Kind::Int),
        ("event", Kind::Text),
        ("kind", Kind::Text),
        ("name", Kind::Text),
        ("level", Kind::Text),
        ("state", Kind::Text),
        ("attempt", Kind::Int),
        ("created_at", Kind::Int),
        ("ended_at", Kind::Int),
        ("text", Kind::Text),
        ("facts", Kind::Text),
        ("standing", Kind::Text),
    ],
    0,
);

/// The rows get their ids here, in their order.
pub(crate) fn insert(dialect: Dialect, rows: &[CallbackWrite], now: Timestamp) -> Statement {
    let mut batch = INSERT.batch(dialect, rows.len());
    for row in rows {
        let of = row.of.as_ref();
        batch.int(row.run.0);
        batch.int(of.map(|of| i64::from(of.task.0)));
        batch.text(of.map(|of| of.task_id.as_str()));
        batch.int(of.map_or(-1, |of| i64::from(of.map_index.0)));
        batch.int(of.map(|of| i64::from(of.try_number.0)));
        batch.int(i64::from(row.ordinal));
        batch.text(row.event.as_str());
        batch.text(row.kind.as_str());
        batch.text(&*row.name);
        batch.text(row.level.map(|level| level.as_str()));
        batch.text(row.state.as_str());
        batch.int(0);
        batch.int(now.0);
        batch.int(row.state.is_finished().then_some(now.0));
        batch.text(row.text.as_deref());
        batch.text(&*row.facts);
        batch.text(row.standing.as_deref());
    }
    INSERT.statement(batch)
}

/// Changes one. Changes come one by one, a few at a time.
pub(crate) fn change(change: &CallbackChange) -> Statement {
    let mut statement = Statement::new("UPDATE callback SET state = ");
    statement.bind(change.state.as_str());
    statement.push(", attempt = ").bind(change.attempt);
    statement.push(", next_at = ").bind(change.next_at);
    statement.push(", started_at = ").bind(change.started_at);
    statement.push(", ended_at = ").bind(change.ended_at);
    statement
        .push(", cause = ")
        .bind(change.cause.map(|cause| cause.as_str()));
    statement.push(", code = ").bind(change.code.as_deref());
    statement.push(", message = ").bind(change.message.as_deref());
    statement.push(", text = ").bind(change.text.as_deref());
    statement.push(" WHERE id = ").bind(change.id.0);
    statement
}

/// What is left to do, of runs that exist.
const LEFT: &str = " FROM callback c JOIN dag_run r ON r.id = c.dag_run WHERE c.state IN ('queued', 'running') AND ";

pub(crate) fn due(now: Timestamp, limit: u32) -> Statement {
    let mut statement = Statement::new(
        "SELECT c.id, c.dag_run, c.task_index, c.task_id, c.map_index, c.try_number, c.ordinal, c.state, c.attempt, c.facts, c.standing",
    );
    statement.push(LEFT).push(super::dag_run::LISTED);
    statement.push(" AND (c.next_at IS NULL OR c.next_at <= ").bind(now);
    statement.push(") ORDER BY c.id LIMIT ").bind(limit);
    statement
}

pub(crate) fn next_due(now: Timestamp) -> Statement {
    let mut statement = Statement::new("SELECT MIN(c.next_at)");
    statement.push(LEFT).push(super::dag_run::LISTED);
    statement.push(" AND c.next_at > ").bind(now);
    statement
}

pub(crate) fn read_due(row: &Row) -> Result<DueCallback, sqlx::Error> {
    let mut columns = row.columns();
    let (id, run) = (CallbackId(columns.int()?), DagRunKey(columns.int()?));
    let (task, task_id) = (columns.opt_number::<u32>()?, columns.opt_parse()?);
    let (map_index, try_number) = (columns.number()?, columns.opt_number()?);
    let of = task
        .zip(task_id)
        .zip(try_number)
        .map(|((task, task_id), try_number)| CallbackOf {
            task: TaskIndex(task),
            task_id,
            map_index: MapIndex(map_index),
            try_number: TryNumber(try_number),
        });
    Ok(DueCallback {
        id,
        run,
        of,
        ordinal: columns.number()?,
        state: columns.parse()?,
        attempt: columns.number()?,
        facts: columns.shared()?,
        standing: columns.opt_text()?.map(Arc::from),
    })
}

/// How many a run has.
pub(crate) fn count(run: DagRunKey) -> Statement {
    Statement::new("SELECT COUNT(*) FROM callback WHERE dag_run = ?").arg(run.0)
}
