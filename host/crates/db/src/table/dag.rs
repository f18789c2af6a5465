//! `dag` and `dag_tag`: the DAGs and their current versions.

use std::collections::BTreeSet;

use model::{DagId, Timestamp};
use ports::intent::IntentWrite;
use ports::store::{DagPause, DagWrite};
use uuid::Uuid;

use super::dag_version::{self, EncodeError};
use super::{callback, intent, purge};
use crate::sql::{Dialect, Row, Statement};

/// A row, without its version.
pub(crate) struct Stored {
    pub(crate) dag_id: DagId,
    pub(crate) paused: bool,
    pub(crate) paused_reason: Option<String>,
    pub(crate) version: Uuid,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
}

pub(crate) const COLUMNS: &str =
    "SELECT d.dag_id, d.paused, d.paused_reason, d.current_version, d.created_at, d.updated_at";

pub(crate) fn read(row: &Row) -> Result<Stored, sqlx::Error> {
    let mut columns = row.columns();
    Ok(Stored {
        dag_id: columns.parse()?,
        paused: columns.flag()?,
        paused_reason: columns.opt_text()?,
        version: columns.uuid()?,
        created_at: columns.time()?,
        updated_at: columns.time()?,
    })
}

pub(crate) fn all() -> Statement {
    let mut statement = Statement::new(COLUMNS);
    statement.push(" FROM dag d WHERE d.deleting = 0 ORDER BY d.dag_id");
    statement
}

pub(crate) fn one(dag_id: &DagId) -> Statement {
    let mut statement = Statement::new(COLUMNS);
    statement.push(" FROM dag d WHERE d.deleting = 0 AND d.dag_id = ");
    statement.bind(dag_id.as_str());
    statement
}

pub(crate) fn tags() -> Statement {
    Statement::new("SELECT DISTINCT name FROM dag_tag ORDER BY name")
}

/// Pauses a DAG whose runs fail.
pub(crate) fn pause(pause: &DagPause) -> Statement {
    Statement::new("UPDATE dag SET paused = 1, paused_reason = ? WHERE dag_id = ?")
        .arg(&pause.reason)
        .arg(pause.dag_id.as_str())
}

/// The statements of one change.
pub(crate) fn write(dialect: Dialect, change: &DagWrite, now: Timestamp) -> Result<Vec<Statement>, EncodeError> {
    Ok(match change {
        DagWrite::Deploy { version, paused } => {
            let dag_id = version.dag.id.as_str();
            let mut statements = vec![
                // `paused` holds only where the DAG is new. The version's foreign key is checked at the commit.
                Statement::new(
                    "INSERT INTO dag (dag_id, paused, current_version, owner, created_at, updated_at) \
                     VALUES (?, ?, ?, ?, ?, ?) \
                     ON CONFLICT (dag_id) DO UPDATE SET owner = excluded.owner, updated_at = excluded.updated_at",
                )
                .arg(dag_id)
                .arg(paused.unwrap_or(false))
                .arg(version.uuid)
                .arg(&version.dag.owner)
                .arg(now)
                .arg(now),
            ];
            statements.extend(dag_version::insert(dialect, version)?);
            statements.push(
                Statement::new(
                    "UPDATE dag SET current_version = (SELECT uuid FROM dag_version WHERE dag_id = ? AND digest = ?) \
                     WHERE dag_id = ?",
                )
                .arg(dag_id)
                .arg(version.digest)
                .arg(dag_id),
            );
            statements.push(Statement::new("DELETE FROM dag_tag WHERE dag_id = ?").arg(dag_id));
            for tag in version.dag.tags.iter().collect::<BTreeSet<_>>() {
                statements.push(
                    Statement::new("INSERT INTO dag_tag (dag_id, name) VALUES (?, ?)")
                        .arg(dag_id)
                        .arg(tag),
                );
            }
            statements
        }
        DagWrite::SetPaused { dag_id, paused } => vec![
            Statement::new("UPDATE dag SET paused = ?, paused_reason = NULL WHERE dag_id = ?")
                .arg(*paused)
                .arg(dag_id.as_str()),
        ],
        DagWrite::Delete { dag_id, intent } => {
            let mut statements = vec![
                Statement::new("UPDATE dag SET deleting = 1 WHERE dag_id = ?").arg(dag_id.as_str()),
                Statement::new("DELETE FROM dag_tag WHERE dag_id = ?").arg(dag_id.as_str()),
            ];
            statements.extend(intent::begin(dialect, std::slice::from_ref(intent))?);
            statements
        }
        DagWrite::Callback(change) => vec![callback::change(change)],
        DagWrite::Intent(IntentWrite::Begin(intent)) => intent::begin(dialect, std::slice::from_ref(intent))?,
        DagWrite::Intent(IntentWrite::Purge { runs, rows }) => purge::runs(dialect, runs, *rows),
        DagWrite::Intent(IntentWrite::PurgeVersions { dag_id, versions }) => vec![purge::versions(dag_id, *versions)],
        DagWrite::Intent(IntentWrite::End { id, dag_id }) => {
            let mut statements = Vec::from(intent::end(*id));
            if let Some(dag_id) = dag_id {
                // The current version and its tasks go with it.
                statements
                    .push(Statement::new("DELETE FROM dag WHERE deleting = 1 AND dag_id = ?").arg(dag_id.as_str()));
            }
            statements
        }
    })
}
