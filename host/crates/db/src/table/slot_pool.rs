//! `slot_pool`: the pools, their slots, and how many of them are in use.

use model::TaskInstanceState;
use ports::query::{PoolRow, PoolUse};
use ports::store::{PoolWrite, SlotChange, SlotSum};

use crate::sql::{Row, Statement};

pub(crate) fn list() -> Statement {
    Statement::new("SELECT name, slots, description, include_deferred, used FROM slot_pool ORDER BY name")
}

pub(crate) fn read(row: &Row) -> Result<PoolRow, sqlx::Error> {
    let mut columns = row.columns();
    Ok(PoolRow {
        name: columns.text()?,
        slots: columns.number()?,
        description: columns.opt_text()?,
        include_deferred: columns.flag()?,
        used: columns.int()?,
    })
}

/// The statement of one change.
pub(crate) fn write(change: &PoolWrite) -> Statement {
    match change {
        PoolWrite::Create(pool) => Statement::new(
            "INSERT INTO slot_pool (name, slots, description, include_deferred, used) VALUES (?, ?, ?, ?, ?)",
        )
        .arg(&pool.name)
        .arg(pool.slots)
        .arg(pool.description.as_deref())
        .arg(pool.include_deferred)
        .arg(pool.used.max(0)),
        PoolWrite::Change { name, pool } => Statement::new(
            "UPDATE slot_pool SET name = ?, slots = ?, description = ?, include_deferred = ? WHERE name = ?",
        )
        .arg(&pool.name)
        .arg(pool.slots)
        .arg(pool.description.as_deref())
        .arg(pool.include_deferred)
        .arg(name),
        PoolWrite::Delete { name } => Statement::new("DELETE FROM slot_pool WHERE name = ?").arg(name),
    }
}

/// Takes and gives back slots, pools in the order of their names. What does not fit ends the transaction (`Class::SlotsTaken`).
pub(crate) fn take(changes: &[SlotChange]) -> Vec<Statement> {
    let mut statements = Vec::new();
    for (name, SlotSum { change, unchecked }) in SlotSum::of(changes) {
        if change <= unchecked {
            let give_back =
                "UPDATE slot_pool SET used = CASE WHEN used + ? < 0 THEN 0 ELSE used + ? END WHERE name = ?";
            statements.push(Statement::new(give_back).arg(change).arg(change).arg(name));
            continue;
        }
        // An update of a pool that is gone would change nothing and say nothing.
        statements.push(
            Statement::new(
                "INSERT INTO slot_pool (name, slots, description, include_deferred, used) \
                 SELECT CAST(? AS TEXT), 0, NULL, 0, -1 WHERE NOT EXISTS (SELECT 1 FROM slot_pool WHERE name = ?)",
            )
            .arg(name)
            .arg(name),
        );
        statements.push(
            Statement::new(
                "UPDATE slot_pool SET used = CASE WHEN slots < 0 OR used + ? <= slots THEN used + ? ELSE -1 END WHERE name = ?",
            )
            .arg(change)
            .arg(change)
            .arg(name),
        );
    }
    statements
}

/// What the task instances of active runs in these states hold or want, by pool and state.
macro_rules! by_pool {
    ($columns:literal, $states:literal, $group:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM dag_run r JOIN task_instance t ON t.dag_run = r.id \
             JOIN dag_version_task v ON v.version = r.version AND v.task_index = t.task_index \
             WHERE r.state IN ('queued', 'running') AND r.set_aside IS NULL AND t.state IN (",
            $states,
            ") GROUP BY ",
            $group
        )
    };
}

/// Counts the slots in use anew.
pub(crate) fn recount() -> Statement {
    Statement::new(concat!(
        "WITH held AS MATERIALIZED (",
        by_pool!(
            "v.pool AS pool, SUM(v.pool_slots) AS slots",
            "'queued', 'running', 'restarting'",
            "v.pool"
        ),
        ") UPDATE slot_pool SET used = \
         COALESCE((SELECT CAST(held.slots AS BIGINT) FROM held WHERE held.pool = slot_pool.name), 0)"
    ))
}

/// See `Metadata::pool_use`.
pub(crate) fn in_use() -> Statement {
    Statement::new(by_pool!(
        "v.pool, t.state, CAST(SUM(v.pool_slots) AS BIGINT)",
        "'scheduled', 'queued', 'running', 'restarting', 'deferred'",
        "v.pool, t.state"
    ))
}

pub(crate) fn read_use(row: &Row) -> Result<PoolUse, sqlx::Error> {
    let mut columns = row.columns();
    Ok(PoolUse {
        pool: columns.text()?,
        state: columns.parse::<TaskInstanceState>()?,
        slots: columns.number()?,
    })
}
