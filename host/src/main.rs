//! The `airtight` binary: command line and wiring.

mod author;
mod cli;
mod client;
mod clock;
mod failure;
mod local;
mod server;
mod ui;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::failure::{Exit, OrFail, Result};

/// glibc gives each thread an arena of its own, and each keeps its high tide: after a large run that is several times what is in use.
#[cfg(target_env = "gnu")]
fn share_arenas() {
    #[expect(unsafe_code, reason = "glibc has no other way to be told")]
    // SAFETY: it sets a number, before there is a second thread.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

#[cfg(not(target_env = "gnu"))]
fn share_arenas() {}

fn main() -> ExitCode {
    share_arenas();
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == runtime::INTERNAL_COMPILE) {
        return runtime::compile_child_main(args);
    }
    let cli = Cli::parse();
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn start(cli: Cli) -> Result<()> {
    let Cli { global, command } = cli;
    let log_level = global.log_level.as_deref();
    match command {
        Command::Standalone(args) => {
            server::logging::init(log_level, "info", args.server.log_json)?;
            block_on(server::run_standalone(args, global))
        }
        Command::ApiServer(args) => {
            server::logging::init(log_level, "info", args.server.log_json)?;
            block_on(server::run_api_server(args, global))
        }
        command => {
            server::logging::init(log_level, "warn", false)?;
            block_on(cli::run(global, command))
        }
    }
}

fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .or_fail(Exit::Broken, || "cannot start the program's threads".to_owned())?;
    let result = runtime.block_on(work);
    // Whatever still blocks a thread (a read from the terminal, a file) must not hold the program up.
    runtime.shutdown_background();
    result
}
