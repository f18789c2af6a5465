//! `cargo xtask soak`: random runs in numbers that no test can afford. The seeds are those of the scheduler's simulation
//! (`host/crates/scheduler/tests/it/mixed.rs`), then the properties of the run state machine follow with as many cases. Last, the real
//! server in its release build does small runs beside guests and requests that mean harm (`tests/it/harm`).

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::process::{self, cargo};
use crate::setup;

/// How many seeds one process plays.
const CHUNK: u64 = 500;
/// The test that plays the seeds of `AIRTIGHT_SEEDS`.
const SIMULATION: &str = "mixed::a_thousand_seeds_end_well";
/// The test of the state machine, whose cases `PROPTEST_CASES` counts.
const PROPERTY: &str = "run::tests::repeats_properties::whatever_is_repeated_the_counts_are_right_and_the_run_ends";

/// The test that does harm for `AIRTIGHT_HARM_SECONDS`.
const HARM: &str = "harm::small_runs_succeed_beside_everything_that_means_harm";

/// How often all tests of the model run.
const MODEL_ROUNDS: u32 = 20;

/// Options of `cargo xtask soak`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many seeds to play.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Minutes of small runs beside guests and requests that mean harm; 0 leaves them out.
    #[arg(long, default_value_t = 10)]
    harm_minutes: u64,
    /// The server that harm is done to, in place of a release build made now.
    #[arg(long, value_name = "PATH")]
    harm_binary: Option<PathBuf>,
    /// Only the harm, without seeds and properties.
    #[arg(long)]
    only_harm: bool,
}

/// Does what the options ask for; an error names the first that failed.
pub(crate) fn run(options: &Options) -> Result<()> {
    if !options.only_harm {
        seeds(options)?;
    }
    if options.harm_minutes > 0 {
        harm(options)?;
    }
    Ok(())
}

/// Small runs of the real server beside harm; their delay is compared with that of the quiet server.
fn harm(options: &Options) -> Result<()> {
    setup::wasm_target()?;
    let binary = match &options.harm_binary {
        Some(path) => std::path::absolute(path).context("there is no working directory")?,
        None => setup::build_host(setup::Build::Measure)?,
    };
    let mut command = cargo(&["test", "-p", "integration-tests", "--test", "it", "--", "--exact", HARM]);
    let seconds = options.harm_minutes.saturating_mul(60).to_string();
    command
        .arg("--nocapture")
        .env("AIRTIGHT_BIN", binary)
        .env("AIRTIGHT_HARM_SECONDS", seconds);
    process::run(command).context("small runs suffered beside what means harm")
}

/// Plays the seeds on all cores, then the properties of the model.
fn seeds(options: &Options) -> Result<()> {
    let end = options
        .from
        .checked_add(options.seeds)
        .context("the seeds go too far")?;
    let scheduler = build("scheduler", &["--test", "it"])?;
    let model = build("model", &["--lib"])?;
    let began = Instant::now();
    simulate(&scheduler, options.from, end)?;
    println!(
        "{} seeds of the scheduler's simulation ended well, from {} on, in {:.0} s",
        options.seeds,
        options.from,
        began.elapsed().as_secs_f64()
    );
    let began = Instant::now();
    let cases = options.seeds.to_string();
    let output = Command::new(&model)
        .args(["--exact", PROPERTY])
        .env("PROPTEST_CASES", &cases)
        .current_dir(crate::root().join("host/crates/model"))
        .output()
        .context("cannot run the properties of the model")?;
    check(&output, "the properties of the run state machine")?;
    println!(
        "{cases} random DAGs went through the run state machine in {:.0} s",
        began.elapsed().as_secs_f64()
    );
    for _ in 0..MODEL_ROUNDS {
        let output = Command::new(&model)
            .current_dir(crate::root().join("host/crates/model"))
            .output()
            .context("cannot run the tests of the model")?;
        check(&output, "a property of the model")?;
    }
    println!("the properties of the model held {MODEL_ROUNDS} times, each with cases of its own");
    Ok(())
}

/// Builds the tests of a package, optimised and with assertions, and answers where they are.
fn build(package: &str, which: &[&str]) -> Result<PathBuf> {
    let mut command = cargo(&[
        "test",
        "--profile",
        "soak",
        "--no-run",
        "--message-format",
        "json",
        "-p",
        package,
    ]);
    command.args(which).stdout(Stdio::piped());
    eprintln!("$ cargo test --profile soak --no-run -p {package}");
    let mut child = command.spawn().context("cannot start cargo")?;
    let mut built = None;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.context("cannot read the output of cargo")?;
            let message: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            let is_test = message.pointer("/profile/test").and_then(serde_json::Value::as_bool) == Some(true);
            if let Some(path) = message.get("executable").and_then(serde_json::Value::as_str)
                && is_test
            {
                built = Some(PathBuf::from(path));
            }
        }
    }
    let status = child.wait().context("cannot wait for cargo")?;
    if !status.success() {
        bail!("the tests of `{package}` do not build ({status})");
    }
    built.with_context(|| format!("cargo built no tests of `{package}`"))
}

fn simulate(binary: &PathBuf, from: u64, end: u64) -> Result<()> {
    let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} seeds, {eta} left")?;
    let bar = ProgressBar::new(end - from).with_style(style);
    let (next, failed) = (AtomicU64::new(from), AtomicBool::new(false));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let worker = || -> Result<()> {
            while !failed.load(Ordering::Relaxed) {
                let start = next.fetch_add(CHUNK, Ordering::Relaxed);
                if start >= end {
                    break;
                }
                let stop = start.saturating_add(CHUNK).min(end);
                let output = Command::new(binary)
                    .args(["--exact", SIMULATION])
                    .env("AIRTIGHT_SEEDS", format!("{start}..{stop}"))
                    .current_dir(crate::root().join("host/crates/scheduler"))
                    .output()
                    .context("cannot run the simulation")?;
                check(&output, &format!("a seed between {start} and {stop}"))
                    .inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
                bar.inc(stop - start);
            }
            Ok(())
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        let ended = workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| bail!("a worker panicked")));
        ended.collect::<Result<Vec<()>>>()
    })?;
    bar.finish_and_clear();
    Ok(())
}

fn check(output: &Output, what: &str) -> Result<()> {
    let printed = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && !printed.contains(" 0 passed") {
        return Ok(());
    }
    println!("{printed}");
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    bail!("{what} failed ({})", output.status)
}
