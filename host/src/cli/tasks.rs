//! `airtight tasks …`

use clap::Subcommand;

use super::common::Context;
use crate::failure::Result;
use crate::local;

/// Commands about single tasks.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one task of a local `.wasm` in this process, without server or manifest
    Test(local::TaskTestArgs),
}

pub(super) async fn run(context: &Context, command: Command) -> Result<()> {
    match command {
        Command::Test(args) => local::tasks_test(context.output(), args).await,
    }
}
