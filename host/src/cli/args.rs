//! The top of the command line and the options that every command takes.

use std::path::PathBuf;

use clap::{Args, Parser};

use super::Command;
use crate::ui::output::Output;

/// Airflow-style DAGs whose tasks are sealed WebAssembly components.
#[derive(Debug, Parser)]
#[command(
    name = "airtight",
    version,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The server to talk to [default: the one of the data directory, else http://127.0.0.1:8080]
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "AIRTIGHT_SERVER",
        hide_env_values = true
    )]
    pub server: Option<String>,
    /// The token to show to the server [default: what `airtight login` saved, else the data directory's password]
    #[arg(
        long,
        global = true,
        value_name = "TOKEN",
        env = "AIRTIGHT_TOKEN",
        hide_env_values = true
    )]
    pub token: Option<String>,
    /// Where the server of this machine keeps its data [default: ~/.local/share/airtight]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "AIRTIGHT_DATA_DIR",
        hide_env_values = true
    )]
    pub data_dir: Option<PathBuf>,
    /// How to print answers
    #[arg(long, short, global = true, value_name = "FORMAT", default_value = "table")]
    pub output: Output,
    /// What to log on standard error, as in RUST_LOG [default: info for the server, warn otherwise]
    #[arg(long, global = true, value_name = "FILTER")]
    pub log_level: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_lists_what_there_is() {
        insta::assert_snapshot!(Cli::command().term_width(100).render_help().to_string(), @r"
        Airflow-style DAGs whose tasks are sealed WebAssembly components

        Usage: airtight [OPTIONS] <COMMAND>

        Commands:
          init           Make a new crate of tasks, with a DAG, tests and the SDK
          dev            Build and run a crate's DAG, or one of its tasks, with every change that is saved
          standalone     Run the whole server in one process: API, scheduler and workers
          api-server     Serve the API beside a standalone server, on its data directory and database
          components     Upload and look after task components
          dags           Check, test, deploy and trigger DAGs
          runs           Look at dag runs, watch, cancel and clear them
          tasks          Work with single tasks
          pools          Look at pools, make, change and delete them
          xcom           Read what tasks published
          hitl           List and answer what tasks ask people
          notifications  Read what callbacks tell people
          logs           Print the log of a task instance
          login          Log in to a server and keep the token
          version        Print the version of this program and of the server
          help           Print this message or the help of the given subcommand(s)

        Options:
          -h, --help     Print help (see more with '--help')
          -V, --version  Print version

        Global options:
              --server <URL>        The server to talk to [default: the one of the data directory, else
                                    http://127.0.0.1:8080] [env: AIRTIGHT_SERVER]
              --token <TOKEN>       The token to show to the server [default: what `airtight login` saved,
                                    else the data directory's password] [env: AIRTIGHT_TOKEN]
              --data-dir <DIR>      Where the server of this machine keeps its data [default:
                                    ~/.local/share/airtight] [env: AIRTIGHT_DATA_DIR]
          -o, --output <FORMAT>     How to print answers [default: table] [possible values: table, json,
                                    yaml]
              --log-level <FILTER>  What to log on standard error, as in RUST_LOG [default: info for the
                                    server, warn otherwise]
        ");
    }
}
