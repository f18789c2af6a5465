//! `hitl_detail`: questions to people, one a try, with their answers.

use model::{TiKey, Timestamp, TryNumber};
use ports::store::{HitlAnswer, HitlRequest};
use serde_json::Value;

use crate::sql::{Columns, Dialect, Kind, Row, Statement, Upsert};

static REQUEST: Upsert = Upsert::new(
    "hitl_detail",
    &[
        ("dag_run", Kind::Int),
        ("task_index", Kind::Int),
        ("map_index", Kind::Int),
        ("try_number", Kind::Int),
        ("created_at", Kind::Int),
        ("subject", Kind::Text),
        ("body", Kind::Text),
    ],
    4,
);

/// Writes questions; the same try may ask again after a loss. The rows are sorted by key and without repeats.
pub(crate) fn upsert(dialect: Dialect, rows: &[&HitlRequest], now: Timestamp) -> Statement {
    let mut batch = REQUEST.batch(dialect, rows.len());
    for row in rows {
        batch.int(row.ti.run.0);
        batch.int(i64::from(row.ti.task.0));
        batch.int(i64::from(row.ti.map_index.0));
        batch.int(i64::from(row.try_number.0));
        batch.int(now.0);
        batch.text(row.subject.as_str());
        batch.text(row.body.as_deref());
    }
    REQUEST.statement(batch)
}

/// Writes an answer. Answers come one by one, from people.
pub(crate) fn answer(answer: &HitlAnswer) -> Statement {
    let chosen = Value::from(answer.chosen_options.clone()).to_string();
    let mut statement = Statement::new("UPDATE hitl_detail SET responded_at = ");
    statement.bind(answer.at);
    statement.push(", responded_by = ").bind(answer.user.as_deref());
    statement.push(", chosen_options = ").bind(chosen);
    statement.push(", params_input = ").bind(&answer.params_input);
    of_try(&mut statement, answer.ti, answer.try_number);
    statement
}

fn of_try(statement: &mut Statement, ti: TiKey, try_number: TryNumber) {
    statement.push(" WHERE dag_run = ").bind(ti.run.0);
    statement.push(" AND task_index = ").bind(ti.task.0);
    statement.push(" AND map_index = ").bind(ti.map_index.0);
    statement.push(" AND try_number = ").bind(try_number.0);
}

/// The columns of [`read_columns`] without a table: `SELECT …`.
pub(crate) const COLUMNS: &[&str] = &[
    "subject",
    "body",
    "created_at",
    "responded_at",
    "responded_by",
    "chosen_options",
    "params_input",
];

/// The question of one try.
pub(crate) fn one(ti: TiKey, try_number: TryNumber) -> Statement {
    let mut statement = Statement::new("SELECT ");
    statement.push(&COLUMNS.join(", ")).push(" FROM hitl_detail");
    of_try(&mut statement, ti, try_number);
    statement
}

/// A row without what the DAG version says.
pub(crate) struct Stored {
    pub(crate) subject: String,
    pub(crate) body: Option<String>,
    pub(crate) created_at: Timestamp,
    pub(crate) responded_at: Option<Timestamp>,
    pub(crate) responded_by: Option<String>,
    pub(crate) chosen_options: Option<Vec<String>>,
    pub(crate) params_input: Option<Value>,
}

pub(crate) fn read_columns(columns: &mut Columns<'_>) -> Result<Stored, sqlx::Error> {
    Ok(Stored {
        subject: columns.text()?,
        body: columns.opt_text()?,
        created_at: columns.time()?,
        responded_at: columns.opt_time()?,
        responded_by: columns.opt_text()?,
        chosen_options: columns.opt_json()?,
        params_input: columns.opt_json()?,
    })
}

pub(crate) fn read(row: &Row) -> Result<Stored, sqlx::Error> {
    read_columns(&mut row.columns())
}
