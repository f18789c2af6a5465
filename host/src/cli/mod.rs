//! The command line: what can be typed. Each group of commands has a module with its arguments and what they do.

mod args;
mod common;
mod components;
mod dags;
mod deploy;
mod hitl;
mod logs;
mod notifications;
mod pools;
pub(crate) mod run_remarks;
mod runs;
mod session;
mod simulate;
mod tasks;
mod xcom;

use clap::Parser;

pub(crate) use args::{Cli, Global};
pub(crate) use common::{Context, conf_argument, json_argument, value_argument, warn_of_undeclared};
pub(crate) use runs::{CALLBACKS, with_callback_columns};

use crate::failure::Result;
use crate::{author, server};

/// One subcommand of `airtight`.
#[derive(Debug, Parser)]
pub(crate) enum Command {
    /// Make a new crate of tasks, with a DAG, tests and the SDK
    Init(author::InitArgs),
    /// Build and run a crate's DAG, or one of its tasks, with every change that is saved
    Dev(author::DevArgs),
    /// Run the whole server in one process: API, scheduler and workers
    Standalone(server::StandaloneArgs),
    /// Serve the API beside a standalone server, on its data directory and database
    ApiServer(server::ApiServerArgs),
    /// Upload and look after task components
    #[command(subcommand)]
    Components(components::Command),
    /// Check, test, deploy and trigger DAGs
    #[command(subcommand)]
    Dags(dags::Command),
    /// Look at dag runs, watch, cancel and clear them
    #[command(subcommand)]
    Runs(runs::Command),
    /// Work with single tasks
    #[command(subcommand)]
    Tasks(tasks::Command),
    /// Look at pools, make, change and delete them
    #[command(subcommand)]
    Pools(pools::Command),
    /// Read what tasks published
    #[command(subcommand)]
    Xcom(xcom::Command),
    /// List and answer what tasks ask people
    #[command(subcommand)]
    Hitl(hitl::Command),
    /// Read what callbacks tell people
    Notifications(notifications::Args),
    /// Print the log of a task instance
    Logs(logs::Args),
    /// Log in to a server and keep the token
    Login(session::LoginArgs),
    /// Print the version of this program and of the server
    Version(session::VersionArgs),
}

/// Runs a client command. (Servers are started by `main`: they log in another way.)
pub(crate) async fn run(global: Global, command: Command) -> Result<()> {
    let context = Context::new(global);
    match command {
        Command::Standalone(_) | Command::ApiServer(_) => unreachable!("`main` starts servers"),
        Command::Init(args) => author::init(&args),
        Command::Dev(args) => author::dev(args).await,
        Command::Components(command) => components::run(&context, command).await,
        Command::Dags(command) => dags::run(&context, command).await,
        Command::Runs(command) => runs::run(&context, command).await,
        Command::Tasks(command) => tasks::run(&context, command).await,
        Command::Pools(command) => pools::run(&context, command).await,
        Command::Xcom(command) => xcom::run(&context, command).await,
        Command::Hitl(command) => hitl::run(&context, command).await,
        Command::Notifications(args) => notifications::run(&context, args).await,
        Command::Logs(args) => logs::run(&context, args).await,
        Command::Login(args) => session::login(&context, args).await,
        Command::Version(args) => session::version(&context, args).await,
    }
}
