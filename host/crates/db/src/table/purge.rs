//! What belongs to a run that is deleted, or to a DAG that is being deleted, is removed a bounded number of rows at a time.

use model::{DagId, DagRunKey};

use crate::sql::{Dialect, Statement};

/// A table whose rows belong to runs.
struct Part {
    table: &'static str,
    key: &'static str,
    /// Whether a row may hold a megabyte.
    large: bool,
}

const PARTS: &[Part] = &[
    Part {
        table: "task_instance",
        key: "dag_run, task_index, map_index",
        large: false,
    },
    Part {
        table: "task_instance_try",
        key: "dag_run, task_index, map_index, try_number",
        large: false,
    },
    Part {
        table: "xcom",
        key: "dag_run, task_index, map_index, key",
        large: true,
    },
    Part {
        table: "blob_ref",
        key: "dag_run, task_index, map_index, key, ordinal",
        large: false,
    },
    Part {
        table: "hitl_detail",
        key: "dag_run, task_index, map_index, try_number",
        large: false,
    },
    Part {
        table: "callback",
        key: "id",
        large: true,
    },
    Part {
        table: "task_instance_heartbeat",
        key: "dag_run, task_index, map_index",
        large: false,
    },
    Part {
        table: "task_instance_note",
        key: "dag_run, task_index, map_index",
        large: false,
    },
    Part {
        table: "checkpoint",
        key: "dag_run, task_index, map_index",
        large: true,
    },
    Part {
        table: "checkpoint_blob_ref",
        key: "dag_run, task_index, map_index, digest",
        large: false,
    },
];

/// Of a table with large values, this part of the bound.
const LARGE: u32 = 8;

/// Removes at most `rows` rows of each table, then the runs that have no row left.
pub(crate) fn runs(dialect: Dialect, runs: &[DagRunKey], rows: u32) -> Vec<Statement> {
    let mut statements: Vec<Statement> = PARTS.iter().map(|part| some(dialect, part, runs, rows)).collect();
    let mut emptied = Statement::new("DELETE FROM dag_run WHERE id IN ");
    emptied.bind_list(keys(runs));
    for part in PARTS {
        emptied
            .push(" AND NOT EXISTS (SELECT 1 FROM ")
            .push(part.table)
            .push(" p WHERE p.dag_run = dag_run.id)");
    }
    statements.push(emptied);
    statements
}

fn some(dialect: Dialect, part: &Part, runs: &[DagRunKey], rows: u32) -> Statement {
    let Part { table, key, large } = *part;
    let mut statement = Statement::new("DELETE FROM ");
    statement.push(table);
    // PostgreSQL may join the whole table with keys that were chosen from it; rows by their place are found at once.
    let end = match dialect {
        Dialect::Sqlite => {
            statement.push(" WHERE (").push(key).push(") IN (SELECT ").push(key);
            ")"
        }
        Dialect::Postgres => {
            statement.push(" WHERE ctid = ANY (ARRAY(SELECT ctid");
            "))"
        }
    };
    statement.push(" FROM ").push(table).push(" WHERE dag_run IN ");
    statement.bind_list(keys(runs)).push(" LIMIT ");
    let rows = if large { rows / LARGE } else { rows };
    statement.bind(rows.max(1)).push(end);
    statement
}

/// Answers a row if any rows belong to the runs.
pub(crate) fn left(runs: &[DagRunKey]) -> Statement {
    let mut statement = Statement::new("SELECT 1 WHERE ");
    for (index, part) in PARTS.iter().enumerate() {
        statement.push(if index == 0 { "" } else { " OR " });
        statement.push("EXISTS (SELECT 1 FROM ").push(part.table);
        statement.push(" WHERE dag_run IN ").bind_list(keys(runs)).push(")");
    }
    statement
}

/// Removes at most so many versions of a DAG that is being deleted, with their tasks.
pub(crate) fn versions(dag_id: &DagId, versions: u32) -> Statement {
    Statement::new(
        "DELETE FROM dag_version WHERE uuid IN (\
         SELECT v.uuid FROM dag_version v JOIN dag d ON d.dag_id = v.dag_id \
         WHERE v.dag_id = ? AND d.deleting = 1 AND v.uuid <> d.current_version \
         AND NOT EXISTS (SELECT 1 FROM dag_run r WHERE r.version = v.uuid) LIMIT ?)",
    )
    .arg(dag_id.as_str())
    .arg(versions)
}

fn keys(runs: &[DagRunKey]) -> impl Iterator<Item = i64> {
    runs.iter().map(|run| run.0)
}
