//! `airtight standalone`: the whole server in one process.

mod args;
pub(crate) mod data_dir;
mod listen;
pub(crate) mod logging;
mod memory;
mod own_thread;
mod signals;
mod sweep;
mod wiring;

pub(crate) use args::Args;
pub(crate) use wiring::run;
