//! `cargo xtask oracle FILE.jsonl`: runs cases with known results through the run state machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use oracle::{Verdict, check, read};

fn main() -> anyhow::Result<()> {
    let path = std::env::args_os().nth(1).map(PathBuf::from);
    run(&path.context("usage: oracle FILE.jsonl")?)
}

/// Prints each mismatch, why cases were skipped, and a closing count; an error where anything differs.
#[expect(clippy::print_stdout, reason = "a program that reports on its standard output")]
fn run(path: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let cases = read(&text).with_context(|| format!("{} is not a case file", path.display()))?;
    if cases.is_empty() {
        bail!("{} has no cases", path.display());
    }
    let (mut passed, mut failed) = (0, 0);
    let mut skipped: BTreeMap<String, u32> = BTreeMap::new();
    for case in &cases {
        match check(case) {
            Verdict::Passed => passed += 1,
            Verdict::Failed(mismatches) => {
                failed += 1;
                for mismatch in mismatches {
                    println!("{mismatch}");
                }
            }
            Verdict::Skipped(why) => *skipped.entry(format!("{}: {why}", case.category)).or_default() += 1,
        }
    }
    for (why, count) in &skipped {
        println!("skipped {count} of {why}");
    }
    let skipped: u32 = skipped.values().sum();
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed > 0 {
        bail!("{failed} of {} cases differ from their known results", cases.len());
    }
    Ok(())
}
