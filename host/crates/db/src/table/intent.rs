//! `intent` and `intent_run`: what was promised and is not done yet, and which runs it has still to deal with.

use std::collections::HashMap;
use std::sync::Arc;

use model::DagRunKey;
use ports::intent::{Intent, IntentWork};
use uuid::Uuid;

use super::dag_version::EncodeError;
use crate::sql::{Batch, Dialect, Kind, Row, Statement, Upsert, source};

static INTENT: Upsert = Upsert::new(
    "intent",
    &[
        ("id", Kind::Text),
        ("dag_id", Kind::Text),
        ("user_name", Kind::Text),
        ("created_at", Kind::Int),
        ("kind", Kind::Text),
        ("payload", Kind::Text),
    ],
    0,
);

const RUN: &[(&str, Kind)] = &[("dag_run", Kind::Int), ("intent", Kind::Text)];

static INTENT_RUN: Upsert = Upsert::new("intent_run", RUN, 0);

fn kind(work: &IntentWork) -> &'static str {
    match work {
        IntentWork::Clear(_) => "clear",
        // Of task instances or of a run, or a note: the payload says which.
        IntentWork::SetState { .. } | IntentWork::EndRun { .. } | IntentWork::Note { .. } => "set_state",
        IntentWork::DeleteRuns => "delete_runs",
        IntentWork::DeleteDag => "delete_dag",
    }
}

/// Inserts intents with their runs.
pub(crate) fn begin(dialect: Dialect, intents: &[Arc<Intent>]) -> Result<Vec<Statement>, EncodeError> {
    let mut rows = INTENT.batch(dialect, intents.len());
    let mut runs = INTENT_RUN.batch(dialect, intents.iter().map(|intent| intent.runs.len()).sum());
    for intent in intents {
        let id = intent.id.to_string();
        rows.text(&*id);
        rows.text(intent.dag_id.as_str());
        rows.text(&*intent.user);
        rows.int(intent.created_at.0);
        rows.text(kind(&intent.work));
        rows.text(&*serde_json::to_string(&intent.work)?);
        for run in &intent.runs {
            runs.int(run.0);
            runs.text(&*id);
        }
    }
    let mut statements = vec![INTENT.statement(rows)];
    if runs.rows() > 0 {
        statements.push(INTENT_RUN.statement(runs));
    }
    Ok(statements)
}

/// The intents have dealt with these runs.
pub(crate) fn runs_done(dialect: Dialect, done: &[(Uuid, DagRunKey)]) -> Statement {
    let mut batch = Batch::new(RUN, dialect, done.len());
    for (intent, run) in done {
        batch.int(run.0);
        batch.text(&*intent.to_string());
    }
    let mut statement = Statement::new("DELETE FROM intent_run WHERE (dag_run, intent) IN (");
    statement
        .push(&source(RUN, dialect))
        .append(batch.into_statement(""))
        .push(")");
    statement
}

/// Removes an intent, with the runs that it could do nothing about.
pub(crate) fn end(id: Uuid) -> [Statement; 2] {
    [
        Statement::new("DELETE FROM intent_run WHERE intent = ?").arg(id),
        Statement::new("DELETE FROM intent WHERE id = ?").arg(id),
    ]
}

/// All intents without their runs, oldest first.
pub(crate) fn all() -> Statement {
    Statement::new("SELECT id, dag_id, user_name, created_at, payload FROM intent ORDER BY created_at, id")
}

pub(crate) fn read(row: &Row) -> Result<Intent, sqlx::Error> {
    let mut columns = row.columns();
    Ok(Intent {
        id: columns.uuid()?,
        dag_id: columns.parse()?,
        user: columns.text()?,
        created_at: columns.time()?,
        runs: Vec::new(),
        work: columns.json()?,
    })
}

/// The runs of all intents.
pub(crate) fn all_runs() -> Statement {
    Statement::new("SELECT intent, dag_run FROM intent_run ORDER BY intent, dag_run")
}

/// Gives the intents their runs.
pub(crate) fn with_runs(mut intents: Vec<Intent>, rows: &[Row]) -> Result<Vec<Intent>, sqlx::Error> {
    let mut runs: HashMap<Uuid, Vec<DagRunKey>> = HashMap::new();
    for row in rows {
        let mut columns = row.columns();
        let intent = columns.uuid()?;
        runs.entry(intent).or_default().push(DagRunKey(columns.int()?));
    }
    for intent in &mut intents {
        intent.runs = runs.remove(&intent.id).unwrap_or_default();
    }
    Ok(intents)
}
