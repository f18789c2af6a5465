//! `dag_version` and `dag_version_task`: versions of DAGs, compiled and as they were written. A version never changes.

use std::sync::Arc;

use model::callback::{CallbackAction, CallbackEvent};
use model::dag::DEFAULT_POOL;
use model::work::ComponentTask;
use model::{Dag, DagId, Digest};
use ports::deploy::DagVersion;
use ports::query::Page;
use uuid::Uuid;

use crate::sql::{Batch, Dialect, Kind, Row, Statement, source};

const COLUMNS: &str = "SELECT uuid, digest, number, source, dag, created_at FROM dag_version";

const TASK_COLUMNS: &[(&str, Kind)] = &[
    ("task_index", Kind::Int),
    ("task_id", Kind::Text),
    ("component", Kind::Text),
    ("component_digest", Kind::Text),
    ("pool", Kind::Text),
    ("pool_slots", Kind::Int),
];

/// Why a version or an intent could not be turned into a row.
#[derive(Debug, thiserror::Error)]
#[error("cannot write a row as JSON")]
pub(crate) struct EncodeError(#[from] serde_json::Error);

/// Inserts the version with its tasks; nothing happens where the DAG has a version with this digest.
pub(crate) fn insert(dialect: Dialect, version: &DagVersion) -> Result<[Statement; 2], EncodeError> {
    let dag_id = version.dag.id.as_str();
    let insert = Statement::new(
        "INSERT INTO dag_version (uuid, dag_id, number, digest, source, dag, created_at) VALUES (?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (dag_id, digest) DO NOTHING",
    )
    .arg(version.uuid)
    .arg(dag_id)
    .arg(version.number)
    .arg(version.digest)
    .arg(&*version.source)
    .arg(serde_json::to_string(&*version.dag)?)
    .arg(version.created_at);

    let mut batch = Batch::new(TASK_COLUMNS, dialect, version.dag.tasks.len());
    for (index, task) in version.dag.tasks.iter().enumerate() {
        batch.int(i64::try_from(index).unwrap_or(i64::MAX));
        batch.text(task.id.as_str());
        let component = task.work.component();
        batch.text(component.map(|component| component.reference.as_str()));
        batch.text(component.map(|component| component.digest.to_string()).as_deref());
        batch.text(&*task.pool);
        batch.int(i64::from(task.pool_slots));
    }
    // What callbacks run is in use as well. These rows have numbers that no task instance has.
    for (index, (event, component)) in (version.dag.tasks.len()..).zip(callback_tasks(&version.dag)) {
        batch.int(i64::try_from(index).unwrap_or(i64::MAX));
        batch.text(event.as_str());
        batch.text(&*component.reference);
        batch.text(&*component.digest.to_string());
        batch.text(DEFAULT_POOL);
        batch.int(0);
    }
    let mut tasks = Statement::new(
        "INSERT INTO dag_version_task (version, task_index, task_id, component, component_digest, pool, pool_slots) SELECT v.uuid, b.* FROM (",
    );
    tasks.push(&source(TASK_COLUMNS, dialect));
    tasks.append(batch.into_statement(""));
    tasks
        .push(") b CROSS JOIN dag_version v WHERE v.dag_id = ")
        .bind(dag_id);
    tasks.push(" AND v.digest = ").bind(version.digest);
    tasks.push(" ON CONFLICT DO NOTHING");
    Ok([insert, tasks])
}

/// The tasks of components that callbacks run, each once.
fn callback_tasks(dag: &Dag) -> Vec<(CallbackEvent, &ComponentTask)> {
    let callbacks = dag.tasks.iter().flat_map(|task| &task.callbacks).chain(&dag.callbacks);
    let mut found: Vec<(CallbackEvent, &ComponentTask)> = Vec::new();
    for callback in callbacks {
        if let CallbackAction::Task { component, .. } = &callback.action
            && !found
                .iter()
                .any(|(_, known)| known.digest == component.digest && known.reference == component.reference)
        {
            found.push((callback.event, component));
        }
    }
    found
}

pub(crate) fn by_uuids(uuids: impl IntoIterator<Item = Uuid>) -> Statement {
    let mut statement = Statement::new(COLUMNS);
    statement.push(" WHERE uuid IN ").bind_list(uuids);
    statement
}

pub(crate) fn by_digest(dag_id: &DagId, digest: Digest) -> Statement {
    let mut statement = Statement::new(COLUMNS);
    statement.push(" WHERE dag_id = ").bind(dag_id.as_str());
    statement.push(" AND digest = ").bind(digest);
    statement
}

pub(crate) fn by_number(dag_id: &DagId, number: u32) -> Statement {
    let mut statement = Statement::new(COLUMNS);
    statement.push(" WHERE dag_id = ").bind(dag_id.as_str());
    statement.push(" AND number = ").bind(number);
    statement.push(" AND dag_id NOT IN (SELECT dag_id FROM dag WHERE deleting = 1)");
    statement
}

pub(crate) fn highest_number(dag_id: &DagId) -> Statement {
    Statement::new("SELECT COALESCE(MAX(number), 0) FROM dag_version WHERE dag_id = ?").arg(dag_id.as_str())
}

/// How many there are beside the current one.
pub(crate) fn count_old(dag_id: &DagId) -> Statement {
    Statement::new(
        "SELECT COUNT(*) FROM dag_version v JOIN dag d ON d.dag_id = v.dag_id WHERE v.dag_id = ? AND v.uuid <> d.current_version",
    )
    .arg(dag_id.as_str())
}

pub(crate) fn count(dag_id: &DagId) -> Statement {
    Statement::new("SELECT COUNT(*) FROM dag_version WHERE dag_id = ?").arg(dag_id.as_str())
}

/// Newest first.
pub(crate) fn list(dag_id: &DagId, page: Page) -> Statement {
    let mut statement = Statement::new(COLUMNS);
    statement.push(" WHERE dag_id = ").bind(dag_id.as_str());
    statement.push(" ORDER BY number DESC");
    crate::query::limit(&mut statement, page);
    statement
}

pub(crate) fn read(row: &Row) -> Result<DagVersion, sqlx::Error> {
    let mut columns = row.columns();
    Ok(DagVersion {
        uuid: columns.uuid()?,
        digest: columns.digest()?,
        number: columns.number()?,
        source: columns.shared()?,
        dag: Arc::new(columns.json::<Dag>()?),
        created_at: columns.time()?,
    })
}
