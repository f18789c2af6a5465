//! `task_instance` and `task_instance_try`: task instances as they are, and their tries as they ended. Both have the same columns.

use std::num::{NonZeroU8, NonZeroU32};

use model::run::raised_memory_bytes;
use model::{DagRunKey, DispatchNumber, MapIndex, RunUuid, TaskIndex, TaskInstanceState, TiKey, Timestamp, TryNumber};
use ports::deploy::DagVersion;
use ports::executor::TryUsage;
use ports::query::TiRow;
use ports::store::TiWrite;
use uuid::Uuid;

use crate::sql::{Batch, Columns, Dialect, Kind, Row, Statement, Upsert, source};

const WRITTEN: &[(&str, Kind)] = &[
    ("dag_run", Kind::Int),
    ("task_index", Kind::Int),
    ("map_index", Kind::Int),
    ("try_number", Kind::Int),
    ("task_id", Kind::Text),
    ("state", Kind::Text),
    ("max_tries", Kind::Int),
    ("dispatch", Kind::Int),
    ("infra_losses", Kind::Int),
    ("acknowledged", Kind::Int),
    ("updated_at", Kind::Int),
    ("cause", Kind::Text),
    ("message", Kind::Text),
    ("code", Kind::Text),
    ("details", Kind::Text),
    ("scheduled_at", Kind::Int),
    ("queued_at", Kind::Int),
    ("start_date", Kind::Int),
    ("end_date", Kind::Int),
    ("next_at", Kind::Int),
    ("retry_rule", Kind::Int),
    ("raised_memory_kib", Kind::Int),
    ("cpu_us", Kind::Int),
    ("peak_memory_bytes", Kind::Int),
    ("log_bytes", Kind::Int),
    ("facts", Kind::Text),
    ("rendered_map_index", Kind::Text),
];

static CURRENT: Upsert = Upsert::new("task_instance", WRITTEN, 3);
static TRIES: Upsert = Upsert::new("task_instance_try", WRITTEN, 4);

fn saturate(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn write(table: &'static Upsert, dialect: Dialect, rows: &[&TiWrite], now: Timestamp) -> Statement {
    let mut batch = table.batch(dialect, rows.len());
    for row in rows {
        batch.int(row.key.run.0);
        batch.int(i64::from(row.key.task.0));
        batch.int(i64::from(row.key.map_index.0));
        batch.int(i64::from(row.try_number.0));
        batch.text(row.task_id.as_str());
        batch.text(row.state.as_str());
        batch.int(i64::from(row.max_tries));
        batch.int(i64::from(row.dispatch.0));
        batch.int(i64::from(row.infra_losses));
        batch.int(i64::from(row.acknowledged));
        batch.int(now.0);
        batch.text(row.cause.map(model::Cause::as_str));
        batch.text(row.message.as_deref());
        batch.text(row.code.as_deref());
        batch.text(row.details.as_deref());
        batch.int(row.scheduled_at.map(|time| time.0));
        batch.int(row.queued_at.map(|time| time.0));
        batch.int(row.start_date.map(|time| time.0));
        batch.int(row.end_date.map(|time| time.0));
        batch.int(row.next_at.map(|time| time.0));
        batch.int(row.retry_rule.map(|rule| i64::from(rule.get())));
        batch.int(row.raised_memory_kib.map(|kib| i64::from(kib.get())));
        let usage = row.usage.as_ref();
        batch.int(usage.map(|usage| i64::try_from(usage.cpu.as_micros()).unwrap_or(i64::MAX)));
        batch.int(usage.map(|usage| saturate(usage.peak_memory_bytes)));
        batch.int(usage.map(|usage| saturate(usage.log_bytes)));
        let facts = row.facts.as_ref().and_then(|facts| serde_json::to_string(facts).ok());
        batch.text(facts.as_deref());
        batch.text(row.rendered_map_index.as_deref());
    }
    table.statement(batch)
}

/// Writes task instances. The rows are sorted by key and without repeats.
pub(crate) fn upsert(dialect: Dialect, rows: &[&TiWrite], now: Timestamp) -> Statement {
    write(&CURRENT, dialect, rows, now)
}

/// Writes ended tries. The rows are sorted by key and try, and without repeats.
pub(crate) fn upsert_tries(dialect: Dialect, rows: &[&TiWrite], now: Timestamp) -> Statement {
    write(&TRIES, dialect, rows, now)
}

/// Deletes rows of task instances.
pub(crate) fn delete(dialect: Dialect, keys: &[TiKey]) -> Statement {
    delete_by_key(
        "DELETE FROM task_instance WHERE (dag_run, task_index, map_index) IN (",
        dialect,
        keys,
    )
}

/// `delete` ends in `(dag_run, task_index, map_index) IN (`.
pub(crate) fn delete_by_key(delete: &'static str, dialect: Dialect, keys: &[TiKey]) -> Statement {
    const KEY: &[(&str, Kind)] = &[
        ("dag_run", Kind::Int),
        ("task_index", Kind::Int),
        ("map_index", Kind::Int),
    ];
    let mut batch = Batch::new(KEY, dialect, keys.len());
    for key in keys {
        batch.int(key.run.0);
        batch.int(i64::from(key.task.0));
        batch.int(i64::from(key.map_index.0));
    }
    let mut statement = Statement::new(delete);
    statement
        .push(&source(KEY, dialect))
        .append(batch.into_statement(""))
        .push(")");
    statement
}

/// The columns of [`read`]; `t` is the task instance.
const COLUMNS: &str = "SELECT t.dag_run, t.task_index, t.map_index, t.try_number, t.task_id, t.state, t.max_tries, t.dispatch, \
    t.infra_losses, t.acknowledged, t.cause, t.message, t.code, t.details, t.scheduled_at, t.queued_at, t.start_date, t.end_date, \
    t.next_at, t.retry_rule, t.raised_memory_kib, t.cpu_us, t.peak_memory_bytes, t.log_bytes, t.facts, t.rendered_map_index";

/// The columns of [`read_shown`]; `t` is the task instance or the try, and `r` its run.
pub(crate) const SHOWN: &str = "SELECT t.dag_run, t.task_index, t.map_index, t.try_number, t.task_id, t.state, t.max_tries, t.dispatch, \
    t.infra_losses, t.acknowledged, t.cause, t.message, t.code, t.details, t.scheduled_at, t.queued_at, t.start_date, t.end_date, \
    t.next_at, t.retry_rule, t.raised_memory_kib, t.cpu_us, t.peak_memory_bytes, t.log_bytes, t.facts, t.rendered_map_index, \
    r.uuid, r.dag_id, r.run_id, r.logical_date, r.run_after, r.version, \
    (SELECT n.content FROM task_instance_note n WHERE n.dag_run = t.dag_run AND n.task_index = t.task_index \
    AND n.map_index = t.map_index AND n.content <> ''), \
    (SELECT h.heartbeat_at FROM task_instance_heartbeat h WHERE h.dag_run = t.dag_run AND h.task_index = t.task_index \
    AND h.map_index = t.map_index AND h.dispatch = t.dispatch)";

pub(crate) const FROM: &str = " FROM task_instance t JOIN dag_run r ON r.id = t.dag_run";

const FROM_TRIES: &str = " FROM task_instance_try t JOIN dag_run r ON r.id = t.dag_run";

fn read_columns(columns: &mut Columns<'_>) -> Result<TiWrite, sqlx::Error> {
    Ok(TiWrite {
        key: TiKey {
            run: DagRunKey(columns.int()?),
            task: TaskIndex(columns.number()?),
            map_index: MapIndex(columns.number()?),
        },
        try_number: TryNumber(columns.number()?),
        task_id: columns.parse()?,
        state: columns.parse()?,
        max_tries: columns.number()?,
        dispatch: DispatchNumber(columns.number()?),
        infra_losses: columns.number()?,
        acknowledged: columns.flag()?,
        cause: columns.opt_parse()?,
        message: columns.opt_text()?,
        code: columns.opt_text()?,
        details: columns.opt_text()?,
        scheduled_at: columns.opt_time()?,
        queued_at: columns.opt_time()?,
        start_date: columns.opt_time()?,
        end_date: columns.opt_time()?,
        next_at: columns.opt_time()?,
        retry_rule: columns.opt_number::<u8>()?.and_then(NonZeroU8::new),
        raised_memory_kib: columns.opt_number::<u32>()?.and_then(NonZeroU32::new),
        usage: {
            let cpu: Option<u64> = columns.opt_number()?;
            let (peak_memory_bytes, log_bytes) = (columns.opt_number()?, columns.opt_number()?);
            cpu.map(|cpu| TryUsage {
                cpu: std::time::Duration::from_micros(cpu),
                peak_memory_bytes: peak_memory_bytes.unwrap_or_default(),
                log_bytes: log_bytes.unwrap_or_default(),
            })
        },
        facts: columns.opt_json()?,
        rendered_map_index: columns.opt_text()?,
    })
}

pub(crate) fn read(row: &Row) -> Result<TiWrite, sqlx::Error> {
    read_columns(&mut row.columns())
}

/// All rows of a run, ordered by key.
/// How many task instances of a run are in which state, by task.
pub(crate) fn states(run: DagRunKey) -> Statement {
    Statement::new(
        "SELECT task_index, state, COUNT(*) FROM task_instance WHERE dag_run = ? \
         GROUP BY task_index, state ORDER BY task_index, state",
    )
    .arg(run.0)
}

/// Reads what [`states`] selected.
pub(crate) fn read_states(row: &Row) -> Result<(TaskIndex, TaskInstanceState, u64), sqlx::Error> {
    let mut columns = row.columns();
    Ok((TaskIndex(columns.number()?), columns.parse()?, columns.number()?))
}

pub(crate) fn of_run(run: DagRunKey) -> Statement {
    let mut statement = Statement::new(COLUMNS);
    statement
        .push(" FROM task_instance t WHERE t.dag_run = ")
        .bind(run.0)
        .push(" ORDER BY t.task_index, t.map_index");
    statement
}

/// What a row that is shown needs to know of its run.
pub(crate) struct RunPart {
    pub(crate) uuid: RunUuid,
    pub(crate) dag_id: model::DagId,
    pub(crate) run_id: model::RunId,
    pub(crate) logical_date: Option<Timestamp>,
    pub(crate) run_after: Timestamp,
    pub(crate) version: Uuid,
    /// What a person noted about the task instance itself.
    pub(crate) note: Option<String>,
    /// When an executor of its dispatch was last heard of.
    pub(crate) last_heartbeat_at: Option<Timestamp>,
}

/// All rows of a run as they are shown, ordered by key.
pub(crate) fn shown_of_run(run: DagRunKey) -> Statement {
    let mut statement = Statement::new(SHOWN);
    statement.push(FROM).push(" WHERE t.dag_run = ").bind(run.0);
    statement.push(" ORDER BY t.task_index, t.map_index");
    statement
}

/// The row of a task instance, then its ended tries, oldest first.
pub(crate) fn shown_tries(key: TiKey) -> [Statement; 2] {
    [(FROM, ""), (FROM_TRIES, " ORDER BY t.try_number")].map(|(from, order)| {
        let mut statement = Statement::new(SHOWN);
        statement.push(from).push(" WHERE t.dag_run = ").bind(key.run.0);
        statement.push(" AND t.task_index = ").bind(key.task.0);
        statement.push(" AND t.map_index = ").bind(key.map_index.0).push(order);
        statement
    })
}

/// Reads [`SHOWN`].
pub(crate) fn read_shown(row: &Row) -> Result<(TiWrite, RunPart), sqlx::Error> {
    read_shown_columns(&mut row.columns())
}

/// Reads [`SHOWN`]; more columns may follow.
pub(crate) fn read_shown_columns(columns: &mut Columns<'_>) -> Result<(TiWrite, RunPart), sqlx::Error> {
    let ti = read_columns(columns)?;
    let run = RunPart {
        uuid: RunUuid(columns.uuid()?),
        dag_id: columns.parse()?,
        run_id: columns.parse()?,
        logical_date: columns.opt_time()?,
        run_after: columns.time()?,
        version: columns.uuid()?,
        note: columns.opt_text()?,
        last_heartbeat_at: columns.opt_time()?,
    };
    Ok((ti, run))
}

/// A row as the API shows it: with what its version says about the task.
pub(crate) fn show(ti: TiWrite, run: &RunPart, version: &DagVersion) -> Result<TiRow, sqlx::Error> {
    let task = version.dag.task(ti.key.task).ok_or_else(|| {
        sqlx::Error::Decode(format!("task {} is not in version {}", ti.key.task.0, version.uuid).into())
    })?;
    Ok(TiRow {
        key: ti.key,
        run_uuid: run.uuid,
        dag_id: run.dag_id.clone(),
        run_id: run.run_id.clone(),
        logical_date: run.logical_date,
        run_after: run.run_after,
        version_uuid: version.uuid,
        version_number: version.number,
        task_id: ti.task_id,
        state: ti.state,
        try_number: ti.try_number,
        max_tries: ti.max_tries,
        dispatch: ti.dispatch,
        cause: ti.cause,
        message: ti.message,
        code: ti.code,
        details: ti.details,
        scheduled_at: ti.scheduled_at,
        queued_at: ti.queued_at,
        start_date: ti.start_date,
        end_date: ti.end_date,
        next_at: ti.next_at,
        retry_reason: ti.retry_rule.and_then(|rule| task.retry.reason(rule)),
        memory_limit_bytes: raised_memory_bytes(ti.raised_memory_kib).unwrap_or(task.limits.memory_bytes),
        usage: ti.usage,
        rendered_map_index: ti.rendered_map_index,
        pool: task.pool.clone(),
        pool_slots: task.pool_slots,
        priority_weight: task.queueing.weight,
        queue: task.queueing.queue.clone(),
        operator: task.work.operator().to_owned(),
        operator_name: task.work.operator_name().to_owned(),
        component_digest: task.work.component().map(|component| component.digest),
        note: run.note.clone(),
        last_heartbeat_at: run.last_heartbeat_at,
    })
}
