//! What the rest of the crate sees of sqlx: values, statements, rows and connections that are the same on both databases.
//! Placeholders are `?` in [`Statement`]s; whatever else the dialects disagree on is the caller's to choose by [`Dialect`].

mod batch;
mod checkpointer;
mod exec;
mod row;
mod statement;

pub(crate) use batch::{Batch, Kind, Upsert, source};
pub(crate) use checkpointer::Checkpointer;
pub(crate) use exec::{Database, Failure, Postgres, Sqlite, Stage, WriteTx, Writer};
pub(crate) use row::{Columns, Row};
pub(crate) use statement::{Statement, Value};

/// Which SQL is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}
