//! Running tasks and whole DAGs from local files in this process: no server, no database. The same scheduler, runtime and
//! state machine as in the server, on a store in memory and a temporary directory; compiled code is kept in the user's cache.

mod ask;
mod dags_test;
mod digest;
mod find;
mod report;
mod session;
mod source;
mod tasks_test;
mod workshop;

pub(crate) use dags_test::{TestArgs, dags_test};
pub(crate) use digest::digest_of_file;
pub(crate) use find::{Overrides, beside};
pub(crate) use report::instance_name;
pub(crate) use source::{Renamed, in_file};
pub(crate) use tasks_test::{TaskTestArgs, tasks_test};
pub(crate) use workshop::Workshop;
