//! `cargo xtask …`: the tasks of this repository. Each does all the set-up that it needs.

mod bench;
mod client;
mod demo;
mod escape;
mod process;
mod server;
mod setup;
mod soak;
mod suite;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "The tasks of this repository; each does all the set-up that it needs."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Set up, start a server and run the example pipeline on it, over REST.
    Demo(demo::Options),
    /// Check the formatting, set up and run all tests.
    Test(suite::Options),
    /// Check the formatting and the lints.
    Lint,
    /// Build the example components for WebAssembly.
    Guests,
    /// Measure, each figure beside its floor.
    Bench(bench::Options),
    /// Play many random runs through the scheduler and the run state machine; takes long.
    Soak(soak::Options),
    /// Run a file of cases with known results through the run state machine.
    Oracle {
        /// One JSON object a line, see `tests/oracle/README.md`.
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Test(options) => suite::run(&options),
        Command::Lint => suite::lint(),
        Command::Guests => setup::wasm_target()
            .and_then(|()| setup::build_components())
            .map(|built| {
                for (name, path) in built {
                    println!("{name:<28} {}", path.display());
                }
            }),
        Command::Bench(options) => bench::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::Oracle { file } => oracle(&file),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a file of cases, by a program of its own: it carries the whole model, which no other task here needs.
fn oracle(file: &Path) -> anyhow::Result<()> {
    let file = std::path::absolute(file).context("there is no working directory")?;
    let mut command = process::cargo(&["run", "--quiet", "--package", "oracle", "--"]);
    command.arg(file);
    process::run(command)
}

/// The root of the repository.
fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map_or(manifest.clone(), PathBuf::from)
}

/// Where cargo puts what it builds.
fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}
