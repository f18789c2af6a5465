//! Task logs in files, one a try: `<dir>/<run uuid>/<task>.<map index>.<try>.jsonl`, a JSON line a log line.
//!
//! One thread writes all logs, in the order in which it gets them. The queue in front of it is bounded in bytes: lines that do
//! not fit are dropped, counted, and the log says so. So it is with lines that cannot be written: once they can, the log says how many are missing, and why. Logs are not synced: a crash of the machine may lose the last of them.
//!
//! [`FileLogStore`] writes and reads, in the process that runs tasks. [`SharedLogs`] reads what another process writes.

mod complaint;
mod file;
mod shared;
mod store;
mod writer;

pub use shared::SharedLogs;
pub use store::FileLogStore;
