//! `slot_pool`: the pools and their slots.

use ports::query::PoolRow;

use crate::sql::{Row, Statement};

pub(crate) fn list() -> Statement {
    Statement::new("SELECT name, slots, description FROM slot_pool ORDER BY name")
}

pub(crate) fn read(row: &Row) -> Result<PoolRow, sqlx::Error> {
    let mut columns = row.columns();
    Ok(PoolRow {
        name: columns.text()?,
        slots: columns.number()?,
        description: columns.opt_text()?,
    })
}
