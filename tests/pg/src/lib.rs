//! A PostgreSQL server for tests: the one that `AIRTIGHT_TEST_POSTGRES` names, else a private one in a temporary directory, started
//! once a process and gone with it. Each test gets a database of its own. Where neither is to be had, tests skip loudly.

mod database;
mod server;

pub use database::{TestDatabase, database, skipped};
