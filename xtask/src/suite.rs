//! `cargo xtask test` and `cargo xtask lint`.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use crate::process::{self, cargo};
use crate::setup::{self, Missing};

/// From what random cases are made (proptest's own variable).
const PROPTEST_SEED: &str = "PROPTEST_RNG_SEED";

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only tests whose name contains this; the formatting is not checked then.
    filter: Option<String>,
}

/// Checks the formatting, sets up and runs all tests; closes with one line that counts them.
///
/// The lints stay in `cargo xtask lint`: Clippy shares nothing with the build, and checks all dependencies once more before it begins.
pub(crate) fn run(options: &Options) -> Result<()> {
    // First, for it takes a second.
    let unformatted = if options.filter.is_none() { formatting()? } else { None };
    setup::wasm_target()?;
    let mut optional = setup::optional();
    optional.missing.extend(unformatted);
    let binary = setup::build_host(setup::Build::Test)?;
    let skip_log = tempfile::NamedTempFile::new().context("cannot create a temporary file")?;

    let mut command = cargo(&["test", "--workspace", "--no-fail-fast"]);
    if let Some(filter) = &options.filter {
        command.arg(filter);
    }
    command
        .env("AIRTIGHT_BIN", &binary)
        .env("AIRTIGHT_SKIP_LOG", skip_log.path())
        .stdout(Stdio::piped());
    // The same cases each time: what is new is looked for by `cargo xtask soak`, and by a plain `cargo test`.
    if std::env::var_os(PROPTEST_SEED).is_none() {
        command.env(PROPTEST_SEED, "1");
    }
    if let Some(python) = &optional.python {
        command.env("AIRTIGHT_PYTHON", python);
    }
    eprintln!("$ cargo test --workspace --no-fail-fast");
    let mut child = command.spawn().context("cannot start cargo")?;
    let mut counts = Counts::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.context("cannot read the output of cargo")?;
            println!("{line}");
            counts.add(&line);
        }
    }
    let status = child.wait().context("cannot wait for cargo")?;

    println!();
    let skips = std::fs::read_to_string(skip_log.path()).context("cannot read the list of skipped tests")?;
    let mut skipped = counts.ignored;
    for line in skips.lines() {
        println!("skipped: {line}");
        skipped += 1;
    }
    for missing in &optional.missing {
        println!(
            "not available: {}; skipped: {}; to run them: {}",
            missing.what, missing.skipped, missing.remedy
        );
        skipped += 1;
    }
    println!("{} passed, {} failed, {skipped} skipped", counts.passed, counts.failed);
    if !status.success() || counts.failed > 0 {
        bail!("not all tests passed");
    }
    if counts.passed == 0 {
        bail!("no test ran");
    }
    Ok(())
}

/// Fails where a file is not formatted; answers what is missing where that cannot be checked.
fn formatting() -> Result<Option<Missing>> {
    let missing = setup::component("rustfmt", "the check of the formatting");
    if missing.is_none() {
        process::run(cargo(&["fmt", "--all", "--check"]))
            .context("not everything is formatted; run `cargo fmt --all`")?;
    }
    Ok(missing)
}

/// Formatting and lints, as warnings that fail.
pub(crate) fn lint() -> Result<()> {
    setup::wasm_target()?;
    let missing = formatting()?.or_else(|| setup::component("clippy", "all lints"));
    if let Some(missing) = missing {
        bail!("{} is not installed; {}", missing.what, missing.remedy);
    }
    process::run(cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))
}

/// What libtest's closing lines add up to.
#[derive(Default)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Counts {
    fn add(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix("test result: ") else {
            return;
        };
        for part in rest.split(['.', ';']) {
            let mut words = part.split_whitespace();
            let (Some(number), Some(word)) = (words.next(), words.next()) else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else { continue };
            match word {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_added_up() {
        let mut counts = Counts::default();
        counts.add("running 5 tests");
        counts.add("test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.02s");
        counts.add("test result: FAILED. 7 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.02s");
        assert_eq!((counts.passed, counts.failed, counts.ignored), (12, 2, 1));
    }
}
