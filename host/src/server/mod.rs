//! `airtight standalone`: the whole server in one process.

mod args;
pub mod data_dir;
mod listen;
pub mod logging;
mod signals;
mod sweep;
mod wiring;

pub use args::Args;
pub use wiring::run;
