//! The metadata database, on SQLite (embedded) or PostgreSQL, by the same SQL where the dialects agree.
//!
//! [`Db`] gives the traits of `ports`: `SchedulerStore`, `InboxStore`, `ComponentStore`, `BlobRefs` and `Metadata`. Ticks are written in one
//! transaction that first checks the scheduler's lease; see `docs/architecture.md`, "Durability". Tables have one module each in
//! `table`, lists are built in `query`, and `sql` is the only place that knows sqlx's types.

mod component_store;
mod db;
mod error;
mod inbox_store;
mod metadata;
mod open;
mod query;
mod scheduler_store;
mod sql;
mod table;
mod tick;
mod version_cache;

pub use db::Db;
pub use open::{OpenError, Options};
