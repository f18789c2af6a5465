//! Task logs in files, one a try: `<dir>/<run uuid>/<task>.<map index>.<try>.jsonl`, a JSON line a log line.
//!
//! One thread writes all logs, in the order in which it gets them. The queue in front of it is bounded in bytes: lines that do
//! not fit are dropped, counted, and the log says so. Logs are not synced: a crash of the machine may lose the last of them.

mod file;
mod store;
mod writer;

pub use store::FileLogStore;
