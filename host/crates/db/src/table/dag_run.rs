//! `dag_run`: the runs. What belongs to a run lies in other tables under its key; see `purge` for how that goes.

use std::sync::Arc;

use model::{DagId, DagRunKey, DagRunState, DispatchNumber, MapIndex, RunId, RunUuid, TaskId, TaskIndex, Timestamp};
use ports::between::{ChildRun, RunParent};
use ports::executor::RunContext;
use ports::query::RunRow;
use ports::store::{Lease, NewRun, ParentWrite, RunWrite, StoredBefore};

use crate::sql::{Batch, Dialect, Kind, Row, Statement, Upsert, source};

static INSERT: Upsert = Upsert::new(
    "dag_run",
    &[
        ("id", Kind::Int),
        ("uuid", Kind::Text),
        ("dag_id", Kind::Text),
        ("run_id", Kind::Text),
        ("version", Kind::Text),
        ("state", Kind::Text),
        ("run_type", Kind::Text),
        ("logical_date", Kind::Int),
        ("data_interval_start", Kind::Int),
        ("data_interval_end", Kind::Int),
        ("run_after", Kind::Int),
        ("queued_at", Kind::Int),
        ("conf", Kind::Text),
        ("params", Kind::Text),
        ("note", Kind::Text),
        ("triggering_user", Kind::Text),
        ("parent_run", Kind::Int),
        ("parent_dag_id", Kind::Text),
        ("parent_run_id", Kind::Text),
        ("parent_task", Kind::Int),
        ("parent_task_id", Kind::Text),
        ("parent_map_index", Kind::Int),
        ("parent_dispatch", Kind::Int),
        ("depth", Kind::Int),
        ("owner_epoch", Kind::Int),
        ("updated_at", Kind::Int),
    ],
    0,
);

/// Inserts runs; one that exists, by key, name or logical date, fails the transaction.
pub(crate) fn insert(dialect: Dialect, lease: &Lease, runs: &[NewRun], now: Timestamp) -> Statement {
    let mut batch = INSERT.batch(dialect, runs.len());
    for run in runs {
        let context = &*run.context;
        batch.int(context.key.0);
        batch.text(&*context.uuid.to_string());
        batch.text(context.dag_id.as_str());
        batch.text(context.run_id.as_str());
        batch.text(&*run.version.to_string());
        batch.text(model::DagRunState::Queued.as_str());
        batch.text(run.run_type.as_str());
        batch.int(context.logical_date.map(|time| time.0));
        batch.int(context.data_interval_start.map(|time| time.0));
        batch.int(context.data_interval_end.map(|time| time.0));
        batch.int(context.run_after.0);
        batch.int(run.queued_at.0);
        batch.text(&*run.conf);
        batch.text(&*run.params);
        batch.text(run.note.as_deref());
        batch.text(run.triggering_user.as_deref());
        let parent = run.parent.as_deref();
        batch.int(parent.map(|parent| parent.run.0));
        batch.text(parent.map(|parent| parent.dag_id.as_str()));
        batch.text(parent.map(|parent| parent.run_id.as_str()));
        batch.int(parent.map(|parent| i64::from(parent.task.0)));
        batch.text(parent.map(|parent| parent.task_id.as_str()));
        batch.int(parent.map(|parent| i64::from(parent.map_index.0)));
        batch.int(parent.map(|parent| i64::from(parent.dispatch.0)));
        batch.int(parent.map(|parent| i64::from(parent.depth)));
        batch.int(lease.epoch);
        batch.int(now.0);
    }
    INSERT.statement(batch)
}

const CHANGES: &[(&str, Kind)] = &[
    ("id", Kind::Int),
    ("state", Kind::Text),
    ("queued_at", Kind::Int),
    ("start_date", Kind::Int),
    ("end_date", Kind::Int),
    ("note", Kind::Text),
    ("set_aside", Kind::Text),
    ("hidden_failures", Kind::Text),
    ("owner_epoch", Kind::Int),
    ("updated_at", Kind::Int),
];

/// SQLite would scan all runs for each change if this were an `UPDATE … FROM jsonb_each(…)`, see `sql::batch`. `CROSS JOIN` fixes
/// the order: for each change the run is looked up by its key, and "inserted" over itself.
const UPDATE_SQLITE: &str = "\
    INSERT INTO dag_run (id, uuid, dag_id, run_id, version, state, run_type, logical_date, data_interval_start, \
        data_interval_end, run_after, queued_at, start_date, end_date, conf, params, note, triggering_user, set_aside, \
        hidden_failures, owner_epoch, updated_at) \
    SELECT r.id, r.uuid, r.dag_id, r.run_id, r.version, c.value ->> 1, r.run_type, r.logical_date, r.data_interval_start, \
        r.data_interval_end, r.run_after, c.value ->> 2, c.value ->> 3, c.value ->> 4, r.conf, r.params, \
        COALESCE(c.value ->> 5, r.note), r.triggering_user, c.value ->> 6, c.value ->> 7, c.value ->> 8, c.value ->> 9 \
    FROM jsonb_each(?) c CROSS JOIN dag_run r WHERE r.id = c.value ->> 0 \
    ON CONFLICT (id) DO UPDATE SET state = excluded.state, queued_at = excluded.queued_at, \
        start_date = excluded.start_date, end_date = excluded.end_date, note = excluded.note, \
        set_aside = excluded.set_aside, hidden_failures = excluded.hidden_failures, owner_epoch = excluded.owner_epoch, \
        updated_at = excluded.updated_at";

const UPDATE_POSTGRES: &str = "\
    UPDATE dag_run r SET state = c.state, queued_at = c.queued_at, start_date = c.start_date, end_date = c.end_date, \
        note = COALESCE(c.note, r.note), set_aside = c.set_aside, hidden_failures = c.hidden_failures, \
        owner_epoch = c.owner_epoch, updated_at = c.updated_at \
    FROM unnest(?::bigint[], ?::text[], ?::bigint[], ?::bigint[], ?::bigint[], ?::text[], ?::text[], ?::text[], ?::bigint[], \
        ?::bigint[]) \
        AS c (id, state, queued_at, start_date, end_date, note, set_aside, hidden_failures, owner_epoch, updated_at) \
    WHERE r.id = c.id";

/// Changes runs. The rows are sorted and without repeats.
pub(crate) fn update(dialect: Dialect, lease: &Lease, runs: &[&RunWrite], now: Timestamp) -> Statement {
    let mut batch = Batch::new(CHANGES, dialect, runs.len());
    for run in runs {
        batch.int(run.key.0);
        batch.text(run.state.as_str());
        batch.int(run.queued_at.0);
        batch.int(run.start_date.map(|time| time.0));
        batch.int(run.end_date.map(|time| time.0));
        batch.text(run.note.as_deref());
        batch.text(run.set_aside.as_deref());
        // Texts and short lists: this cannot fail.
        let hidden = (!run.hidden_failures.is_empty()).then(|| serde_json::to_string(&run.hidden_failures));
        batch.text(hidden.and_then(Result::ok).as_deref());
        batch.int(lease.epoch);
        batch.int(now.0);
    }
    batch.into_statement(match dialect {
        Dialect::Sqlite => UPDATE_SQLITE,
        Dialect::Postgres => UPDATE_POSTGRES,
    })
}

const PARENTS: &[(&str, Kind)] = &[
    ("id", Kind::Int),
    ("parent_run", Kind::Int),
    ("parent_dag_id", Kind::Text),
    ("parent_run_id", Kind::Text),
    ("parent_task", Kind::Int),
    ("parent_task_id", Kind::Text),
    ("parent_map_index", Kind::Int),
    ("parent_dispatch", Kind::Int),
    ("depth", Kind::Int),
];

/// As in [`UPDATE_SQLITE`].
const REPARENT_SQLITE: &str = "\
    INSERT INTO dag_run (id, uuid, dag_id, run_id, version, state, run_type, run_after, queued_at, conf, params, owner_epoch, \
        updated_at, parent_run, parent_dag_id, parent_run_id, parent_task, parent_task_id, parent_map_index, parent_dispatch, depth) \
    SELECT r.id, r.uuid, r.dag_id, r.run_id, r.version, r.state, r.run_type, r.run_after, r.queued_at, r.conf, r.params, \
        r.owner_epoch, r.updated_at, c.value ->> 1, c.value ->> 2, c.value ->> 3, c.value ->> 4, c.value ->> 5, c.value ->> 6, \
        c.value ->> 7, c.value ->> 8 \
    FROM jsonb_each(?) c CROSS JOIN dag_run r WHERE r.id = c.value ->> 0 \
    ON CONFLICT (id) DO UPDATE SET parent_run = excluded.parent_run, parent_dag_id = excluded.parent_dag_id, \
        parent_run_id = excluded.parent_run_id, parent_task = excluded.parent_task, parent_task_id = excluded.parent_task_id, \
        parent_map_index = excluded.parent_map_index, parent_dispatch = excluded.parent_dispatch, depth = excluded.depth";

const REPARENT_POSTGRES: &str = "\
    UPDATE dag_run r SET parent_run = c.parent_run, parent_dag_id = c.parent_dag_id, parent_run_id = c.parent_run_id, \
        parent_task = c.parent_task, parent_task_id = c.parent_task_id, parent_map_index = c.parent_map_index, \
        parent_dispatch = c.parent_dispatch, depth = c.depth \
    FROM unnest(?::bigint[], ?::bigint[], ?::text[], ?::text[], ?::bigint[], ?::text[], ?::bigint[], ?::bigint[], ?::bigint[]) \
        AS c (id, parent_run, parent_dag_id, parent_run_id, parent_task, parent_task_id, parent_map_index, parent_dispatch, depth) \
    WHERE r.id = c.id";

/// Gives runs other parents. The rows are sorted and without repeats.
pub(crate) fn update_parents(dialect: Dialect, rows: &[&ParentWrite]) -> Statement {
    let mut batch = Batch::new(PARENTS, dialect, rows.len());
    for ParentWrite { run, parent } in rows {
        batch.int(run.0);
        batch.int(parent.run.0);
        batch.text(parent.dag_id.as_str());
        batch.text(parent.run_id.as_str());
        batch.int(i64::from(parent.task.0));
        batch.text(parent.task_id.as_str());
        batch.int(i64::from(parent.map_index.0));
        batch.int(i64::from(parent.dispatch.0));
        batch.int(i64::from(parent.depth));
    }
    batch.into_statement(match dialect {
        Dialect::Sqlite => REPARENT_SQLITE,
        Dialect::Postgres => REPARENT_POSTGRES,
    })
}

/// Deletes runs. What belongs to them stays, and is found by their keys, which are never used again.
pub(crate) fn delete(dialect: Dialect, keys: &[DagRunKey]) -> Statement {
    const KEY: &[(&str, Kind)] = &[("id", Kind::Int)];
    let mut batch = Batch::new(KEY, dialect, keys.len());
    for key in keys {
        batch.int(key.0);
    }
    let mut statement = Statement::new("DELETE FROM dag_run WHERE id IN (");
    statement
        .push(&source(KEY, dialect))
        .append(batch.into_statement(""))
        .push(")");
    statement
}

/// True of runs whose DAG is not being deleted; `r` is the run.
pub(crate) const LISTED: &str = "r.dag_id NOT IN (SELECT dag_id FROM dag WHERE deleting = 1)";

pub(crate) fn active() -> Statement {
    Statement::new("SELECT id FROM dag_run WHERE state IN ('queued', 'running') ORDER BY id")
}

/// How many active runs the scheduler owns that took the lease last.
pub(crate) fn count_owned() -> Statement {
    Statement::new(
        "SELECT COUNT(*) FROM dag_run WHERE state IN ('queued', 'running') \
         AND owner_epoch = (SELECT epoch FROM scheduler_lease WHERE id = 1)",
    )
}

/// Whoever takes the lease owns the active runs from then on.
pub(crate) fn take_over(epoch: i64) -> Statement {
    Statement::new("UPDATE dag_run SET owner_epoch = ? WHERE state IN ('queued', 'running')").arg(epoch)
}

/// The active runs that were set aside: DAG and name.
pub(crate) fn set_aside() -> Statement {
    Statement::new(
        "SELECT dag_id, run_id FROM dag_run WHERE state IN ('queued', 'running') AND set_aside IS NOT NULL ORDER BY id LIMIT 1000",
    )
}

pub(crate) fn find(dag_id: &DagId, run_id: &RunId) -> Statement {
    Statement::new("SELECT id FROM dag_run WHERE dag_id = ? AND run_id = ?")
        .arg(dag_id.as_str())
        .arg(run_id.as_str())
}

pub(crate) fn find_by_logical_date(dag_id: &DagId, logical_date: Timestamp) -> Statement {
    Statement::new("SELECT run_id FROM dag_run WHERE dag_id = ? AND logical_date = ?")
        .arg(dag_id.as_str())
        .arg(logical_date)
}

/// The run with the latest logical date before this one.
pub(crate) fn before(dag_id: &DagId, logical_date: Timestamp) -> Statement {
    Statement::new(
        "SELECT id, version, state FROM dag_run WHERE dag_id = ? AND logical_date < ? ORDER BY logical_date DESC LIMIT 1",
    )
    .arg(dag_id.as_str())
    .arg(logical_date)
}

/// Reads what [`before`] selected; what its task instances came to is missing.
pub(crate) fn read_before(row: &Row) -> Result<StoredBefore, sqlx::Error> {
    let mut columns = row.columns();
    Ok(StoredBefore {
        key: DagRunKey(columns.int()?),
        version: columns.uuid()?,
        state: columns.parse()?,
        states: Vec::new(),
    })
}

/// A row if a run with an earlier logical date has the task.
pub(crate) fn has_task_before(dag_id: &DagId, logical_date: Timestamp, task_id: &TaskId) -> Statement {
    Statement::new(
        "SELECT r.id FROM dag_run r JOIN dag_version_task t ON t.version = r.version \
         WHERE r.dag_id = ? AND r.logical_date < ? AND t.task_id = ? LIMIT 1",
    )
    .arg(dag_id.as_str())
    .arg(logical_date)
    .arg(task_id.as_str())
}

/// The latest runs, with `run_after` and state.
pub(crate) fn latest(dag_id: &DagId, limit: u32) -> Statement {
    let mut statement = Statement::new("SELECT id, run_after, state FROM dag_run WHERE dag_id = ");
    statement.bind(dag_id.as_str());
    statement.push(" ORDER BY run_after DESC, id DESC LIMIT ").bind(limit);
    statement
}

/// Reads what [`latest`] selected.
pub(crate) fn read_latest(row: &Row) -> Result<(DagRunKey, Timestamp, DagRunState), sqlx::Error> {
    let mut columns = row.columns();
    Ok((DagRunKey(columns.int()?), columns.time()?, columns.parse()?))
}

pub(crate) fn between(dag_id: &DagId, start: Option<Timestamp>, end: Option<Timestamp>, limit: u32) -> Statement {
    let mut statement = Statement::new("SELECT id FROM dag_run WHERE dag_id = ");
    statement.bind(dag_id.as_str());
    if let Some(start) = start {
        statement.push(" AND COALESCE(logical_date, run_after) >= ").bind(start);
    }
    if let Some(end) = end {
        statement.push(" AND COALESCE(logical_date, run_after) <= ").bind(end);
    }
    statement.push(" ORDER BY id LIMIT ").bind(limit);
    statement
}

/// The columns of [`read`]; `r` is the run and `v` its version.
pub(crate) const COLUMNS: &str = "SELECT r.id, r.uuid, r.dag_id, r.run_id, r.version, v.number, r.state, r.run_type, \
    r.logical_date, r.data_interval_start, r.data_interval_end, r.run_after, r.queued_at, r.start_date, r.end_date, r.conf, \
    r.note, r.triggering_user, r.parent_run, r.parent_dag_id, r.parent_run_id, r.parent_task, r.parent_task_id, \
    r.parent_map_index, r.parent_dispatch, r.depth, r.set_aside, r.hidden_failures";

pub(crate) const FROM: &str = " FROM dag_run r JOIN dag_version v ON v.uuid = r.version";

pub(crate) fn by_key(key: DagRunKey) -> Statement {
    let mut statement = Statement::new(COLUMNS);
    statement.push(FROM).push(" WHERE r.id = ").bind(key.0);
    statement
}

pub(crate) fn by_name(dag_id: &DagId, run_id: &RunId) -> Statement {
    let mut statement = Statement::new(COLUMNS);
    statement.push(FROM).push(" WHERE r.dag_id = ").bind(dag_id.as_str());
    statement.push(" AND r.run_id = ").bind(run_id.as_str());
    statement.push(" AND ").push(LISTED);
    statement
}

/// Like [`by_key`], with the parameters as the last column.
pub(crate) fn for_recovery(key: DagRunKey) -> Statement {
    let mut statement = Statement::new(COLUMNS);
    statement
        .push(", r.params")
        .push(FROM)
        .push(" WHERE r.id = ")
        .bind(key.0);
    statement
}

fn read_columns(columns: &mut crate::sql::Columns<'_>) -> Result<RunRow, sqlx::Error> {
    Ok(RunRow {
        key: DagRunKey(columns.int()?),
        uuid: RunUuid(columns.uuid()?),
        dag_id: columns.parse()?,
        run_id: columns.parse()?,
        version_uuid: columns.uuid()?,
        version_number: columns.number()?,
        state: columns.parse()?,
        run_type: columns.parse()?,
        logical_date: columns.opt_time()?,
        data_interval_start: columns.opt_time()?,
        data_interval_end: columns.opt_time()?,
        run_after: columns.time()?,
        queued_at: columns.time()?,
        start_date: columns.opt_time()?,
        end_date: columns.opt_time()?,
        conf: columns.shared()?,
        note: columns.opt_text()?,
        triggering_user: columns.opt_text()?,
        parent: read_parent(columns)?,
        set_aside: columns.opt_text()?,
        hidden_failures: columns.opt_json()?.unwrap_or_default(),
    })
}

/// Reads the eight columns of the task instance that triggered a run.
fn read_parent(columns: &mut crate::sql::Columns<'_>) -> Result<Option<Arc<RunParent>>, sqlx::Error> {
    let Some(run) = columns.opt_int()? else {
        columns.skip(7);
        return Ok(None);
    };
    Ok(Some(Arc::new(RunParent {
        run: DagRunKey(run),
        dag_id: columns.parse()?,
        run_id: columns.parse()?,
        task: TaskIndex(columns.number()?),
        task_id: columns.parse()?,
        map_index: MapIndex(columns.number()?),
        dispatch: DispatchNumber(columns.number()?),
        depth: columns.number()?,
    })))
}

/// The runs that a run triggered.
pub(crate) fn children(run: DagRunKey) -> Statement {
    let mut statement = Statement::new(
        "SELECT id, dag_id, run_id, version, state, parent_task, parent_map_index, parent_dispatch FROM dag_run \
         WHERE parent_run = ",
    );
    statement.bind(run.0).push(" ORDER BY id");
    statement
}

/// Reads what [`children`] selected.
pub(crate) fn read_child(row: &Row) -> Result<ChildRun, sqlx::Error> {
    let mut columns = row.columns();
    Ok(ChildRun {
        key: DagRunKey(columns.int()?),
        dag_id: columns.parse()?,
        run_id: columns.parse()?,
        version: columns.uuid()?,
        state: columns.parse()?,
        task: TaskIndex(columns.number()?),
        map_index: MapIndex(columns.number()?),
        dispatch: DispatchNumber(columns.number()?),
    })
}

pub(crate) fn read(row: &Row) -> Result<RunRow, sqlx::Error> {
    read_columns(&mut row.columns())
}

/// Reads what [`for_recovery`] selected.
pub(crate) fn read_for_recovery(row: &Row) -> Result<(RunRow, Arc<RunContext>), sqlx::Error> {
    let mut columns = row.columns();
    let run = read_columns(&mut columns)?;
    let conf = serde_json::from_str(&run.conf).map_err(|error| sqlx::Error::Decode(error.into()))?;
    let context = RunContext {
        key: run.key,
        uuid: run.uuid,
        dag_id: run.dag_id.clone(),
        run_id: run.run_id.clone(),
        run_type: run.run_type,
        logical_date: run.logical_date,
        data_interval_start: run.data_interval_start,
        data_interval_end: run.data_interval_end,
        run_after: run.run_after,
        params: columns.json()?,
        conf,
    };
    Ok((run, Arc::new(context)))
}
