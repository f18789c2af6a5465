//! `xcom` and `blob_ref`: what tasks published, and which blobs that refers to.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use model::{DagRunKey, Digest, MapIndex, TaskIndex, TiKey, Timestamp};
use ports::executor::BlobRef;
use ports::payload::XcomValue;
use ports::store::{NewRun, XcomWrite};

use super::task_instance::delete_by_key;
use crate::sql::{Batch, Database, Dialect, Kind, Row, Statement, Upsert, source};

/// Values of one statement, in bytes: a tick of many large values is written in pieces, so that the text of one stays small.
const MAX_STATEMENT_BYTES: usize = 8 << 20;

static XCOM: Upsert = Upsert::new(
    "xcom",
    &[
        ("dag_run", Kind::Int),
        ("task_index", Kind::Int),
        ("map_index", Kind::Int),
        ("key", Kind::Text),
        ("at", Kind::Int),
        ("blob_count", Kind::Int),
        ("bytes", Kind::Int),
        ("value", Kind::Text),
    ],
    4,
);

static BLOB_REF: Upsert = Upsert::new(
    "blob_ref",
    &[
        ("dag_run", Kind::Int),
        ("task_index", Kind::Int),
        ("map_index", Kind::Int),
        ("key", Kind::Text),
        ("ordinal", Kind::Int),
        ("digest", Kind::Text),
        ("size", Kind::Int),
        ("media_type", Kind::Text),
    ],
    5,
);

/// The place of references that belong to a run and to none of its tasks.
const OF_THE_RUN: TaskIndex = TaskIndex(u32::MAX);

fn key_columns(batch: &mut Batch, ti: TiKey) {
    batch.int(ti.run.0);
    batch.int(i64::from(ti.task.0));
    batch.int(i64::from(ti.map_index.0));
}

fn integer(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

/// Deletes the XComs of task instances with their references.
pub(crate) fn delete(dialect: Dialect, keys: &[TiKey]) -> [Statement; 2] {
    [
        delete_by_key(
            "DELETE FROM xcom WHERE (dag_run, task_index, map_index) IN (",
            dialect,
            keys,
        ),
        delete_by_key(
            "DELETE FROM blob_ref WHERE (dag_run, task_index, map_index) IN (",
            dialect,
            keys,
        ),
    ]
}

/// Writes XComs with their references; a repeat replaces. The rows are sorted by task instance and key and without repeats.
pub(crate) fn upsert(dialect: Dialect, rows: &[&XcomWrite], now: Timestamp) -> Vec<Statement> {
    const KEY: &[(&str, Kind)] = &[
        ("dag_run", Kind::Int),
        ("task_index", Kind::Int),
        ("map_index", Kind::Int),
        ("key", Kind::Text),
    ];
    let mut statements = Vec::new();

    let mut stale = Batch::new(KEY, dialect, rows.len());
    for row in rows {
        key_columns(&mut stale, row.ti);
        stale.text(&*row.key);
    }
    let mut delete = Statement::new("DELETE FROM blob_ref WHERE (dag_run, task_index, map_index, key) IN (");
    delete
        .push(&source(KEY, dialect))
        .append(stale.into_statement(""))
        .push(")");
    statements.push(delete);

    let mut batch = XCOM.batch(dialect, rows.len());
    let mut bytes = 0;
    for row in rows {
        if bytes > 0 && bytes + row.value.value.len() > MAX_STATEMENT_BYTES {
            statements.push(XCOM.statement(std::mem::replace(&mut batch, XCOM.batch(dialect, 0))));
            bytes = 0;
        }
        bytes += row.value.value.len();
        key_columns(&mut batch, row.ti);
        batch.text(&*row.key);
        batch.int(now.0);
        batch.int(integer(row.value.blobs.len()));
        batch.int(integer(row.value.value.len()));
        batch.text(&*row.value.value);
    }
    statements.push(XCOM.statement(batch));

    let mut references = BLOB_REF.batch(dialect, 0);
    for row in rows {
        for (ordinal, blob) in row.value.blobs.iter().enumerate() {
            key_columns(&mut references, row.ti);
            references.text(&*row.key);
            references.int(integer(ordinal));
            references.text(&*blob.digest.to_string());
            references.int(integer(blob.size));
            references.text(blob.media_type.as_deref());
        }
    }
    if references.rows() > 0 {
        statements.push(BLOB_REF.statement(references));
    }
    statements
}

/// The blobs that the configuration and the parameters of new runs refer to, as references of the run itself.
pub(crate) fn insert_of_runs(dialect: Dialect, runs: &[NewRun]) -> Option<Statement> {
    let mut references = BLOB_REF.batch(dialect, 0);
    for run in runs {
        let ti = TiKey {
            run: run.context.key,
            task: OF_THE_RUN,
            map_index: MapIndex::UNMAPPED,
        };
        for (key, text) in [("conf", &run.conf), ("params", &run.params)] {
            // What is no reference to a try is none here.
            let blobs = model::json::check(text, u64::MAX).unwrap_or_default();
            for (ordinal, blob) in blobs.iter().enumerate() {
                key_columns(&mut references, ti);
                references.text(key);
                references.int(integer(ordinal));
                references.text(&*blob.digest.to_string());
                references.int(integer(blob.size));
                references.text(blob.media_type.as_deref());
            }
        }
    }
    (references.rows() > 0).then(|| BLOB_REF.statement(references))
}

/// Of these digests, those that an XCom or a run refers to.
pub(crate) fn referenced(digests: &[Digest]) -> Statement {
    let mut statement = Statement::new("SELECT DISTINCT digest FROM blob_ref WHERE digest IN ");
    statement.bind_list(digests.iter().copied());
    statement
}

/// The keys of a task instance, with the sizes of the values.
pub(crate) fn keys(ti: TiKey) -> Statement {
    Statement::new("SELECT key, bytes FROM xcom WHERE dag_run = ? AND task_index = ? AND map_index = ? ORDER BY key")
        .arg(ti.run.0)
        .arg(ti.task.0)
        .arg(ti.map_index.0)
}

/// How large the values of a task under a key are, in the order of the map index.
pub(crate) fn sizes(
    run: DagRunKey,
    task: TaskIndex,
    indexes: &RangeInclusive<MapIndex>,
    key: &str,
    limit: u32,
) -> Statement {
    Statement::new(
        "SELECT map_index, bytes FROM xcom WHERE dag_run = ? AND task_index = ? AND key = ? \
         AND map_index >= ? AND map_index <= ? ORDER BY map_index LIMIT ?",
    )
    .arg(run.0)
    .arg(task.0)
    .arg(key)
    .arg(indexes.start().0)
    .arg(indexes.end().0)
    .arg(limit)
}

/// The values of a task under a key, in the order of the map index.
pub(crate) async fn values(
    database: &Database,
    run: DagRunKey,
    task: TaskIndex,
    indexes: &RangeInclusive<MapIndex>,
    key: &str,
) -> Result<Vec<(MapIndex, XcomValue)>, sqlx::Error> {
    let select = |text: &'static str, order: &str| {
        let mut statement = Statement::new(text).arg(run.0).arg(task.0).arg(key);
        if indexes.start() == indexes.end() {
            statement.push(" AND map_index = ").bind(indexes.start().0);
        } else {
            statement.push(" AND map_index >= ").bind(indexes.start().0);
            statement.push(" AND map_index <= ").bind(indexes.end().0);
        }
        statement.push(" ORDER BY map_index").push(order);
        statement
    };
    let select_values = || {
        select(
            "SELECT map_index, blob_count, value FROM xcom WHERE dag_run = ? AND task_index = ? AND key = ?",
            "",
        )
    };
    let read = |row: &Row| -> Result<(MapIndex, i64, XcomValue), sqlx::Error> {
        let mut columns = row.columns();
        let (map_index, count) = (MapIndex(columns.number()?), columns.int()?);
        let value = XcomValue {
            value: columns.shared()?,
            blobs: Vec::new(),
        };
        Ok((map_index, count, value))
    };
    let plain =
        |rows: Vec<(MapIndex, i64, XcomValue)>| rows.into_iter().map(|(index, _, value)| (index, value)).collect();

    let rows = database.fetch_all(select_values()).await?;
    let rows = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    if rows.iter().all(|(_, count, _)| *count == 0) {
        return Ok(plain(rows));
    }
    // A value and its references must be of one commit.
    let mut tx = database.read().await?;
    let rows = tx.fetch_all(select_values()).await?;
    let mut rows = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let references = select(
        "SELECT map_index, digest, size, media_type FROM blob_ref WHERE dag_run = ? AND task_index = ? AND key = ?",
        ", ordinal",
    );
    let mut blobs: HashMap<MapIndex, Vec<BlobRef>> = HashMap::new();
    for row in tx.fetch_all(references).await? {
        let mut columns = row.columns();
        let map_index = MapIndex(columns.number()?);
        blobs.entry(map_index).or_default().push(BlobRef {
            digest: columns.digest()?,
            size: columns.number()?,
            media_type: columns.opt_text()?,
        });
    }
    for (map_index, _, value) in &mut rows {
        value.blobs = blobs.remove(map_index).unwrap_or_default();
    }
    Ok(plain(rows))
}
