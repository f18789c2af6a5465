//! What a task author does before there is anything to deploy: a new crate (`airtight init`) and the loop of changing and
//! trying it (`airtight dev`).

mod dev;
mod init;
mod packed;
mod watch;

pub(crate) use dev::{DevArgs, dev};
pub(crate) use init::{InitArgs, init};
