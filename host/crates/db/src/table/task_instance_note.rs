//! `task_instance_note`: what people noted about task instances.

use model::{MapIndex, TiKey, Timestamp};
use ports::store::TiNote;

use super::task_instance::delete_by_key;
use crate::sql::{Batch, Dialect, Kind, Statement, Upsert, source};

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

const MOVES: &[(&str, Kind)] = &[
    ("dag_run", Kind::Int),
    ("task_index", Kind::Int),
    ("map_index", Kind::Int),
    ("to_index", Kind::Int),
];

/// Notes move to other map indexes. Where there is one already, that one stays.
pub(crate) fn renumber(dialect: Dialect, moves: &[(TiKey, MapIndex)]) -> [Statement; 2] {
    let mut batch = Batch::new(MOVES, dialect, moves.len());
    for (ti, to) in moves {
        batch.int(ti.run.0);
        batch.int(i64::from(ti.task.0));
        batch.int(i64::from(ti.map_index.0));
        batch.int(i64::from(to.0));
    }
    let mut copy = Statement::new(
        "INSERT INTO task_instance_note (dag_run, task_index, map_index, content, user_name, updated_at) \
         SELECT n.dag_run, n.task_index, m.to_index, n.content, n.user_name, n.updated_at FROM (",
    );
    copy.push(&named_source(dialect)).append(batch.into_statement(
        ") m CROSS JOIN task_instance_note n WHERE n.dag_run = m.dag_run AND n.task_index = m.task_index \
         AND n.map_index = m.map_index ON CONFLICT (dag_run, task_index, map_index) DO NOTHING",
    ));
    let from: Vec<TiKey> = moves.iter().map(|(ti, _)| *ti).collect();
    let delete = delete_by_key(
        "DELETE FROM task_instance_note WHERE (dag_run, task_index, map_index) IN (",
        dialect,
        &from,
    );
    [copy, delete]
}

/// The moves as a table with names.
fn named_source(dialect: Dialect) -> String {
    match dialect {
        Dialect::Sqlite => "SELECT value ->> 0 AS dag_run, value ->> 1 AS task_index, value ->> 2 AS map_index, \
             value ->> 3 AS to_index FROM jsonb_each(?)"
            .to_owned(),
        Dialect::Postgres => format!(
            "SELECT * FROM ({}) AS c (dag_run, task_index, map_index, to_index)",
            source(MOVES, dialect)
        ),
    }
}
