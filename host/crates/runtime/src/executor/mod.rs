//! The local executor: runs tries in this process, on threads of their own.

mod attempt;
mod backends;
mod between;
mod compute;
mod guest;
mod input;
mod local;
mod measure;
mod slots;
mod when;

pub use local::{ExecutorConfig, LocalExecutor, Services};
