//! Runs cases with known results through the run state machine and compares the ends.
//!
//! A case is a small workflow with the behaviour of each task and the states that Apache Airflow gives it; `README.md` beside this
//! crate describes the format. Each case is driven under several orders of execution, since its result depends on none.

mod case;
mod compile;
mod drive;
mod simulate;

use std::fmt;

pub use case::Case;
pub use compile::{Unsupported, compile};
pub use drive::{Observed, POLICIES, Policy, drive};
pub use simulate::simulate;

/// What came of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every policy led to the known result.
    Passed,
    /// At least one did not.
    Failed(Vec<Mismatch>),
    /// It uses something that is not built yet.
    Skipped(Unsupported),
}

/// A difference between a result and the known one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The case.
    pub case: String,
    /// Under which policy.
    pub policy: &'static str,
    /// What differs.
    pub what: String,
    /// What Airflow says.
    pub expected: String,
    /// What the state machine says.
    pub found: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            case,
            policy,
            what,
            expected,
            found,
        } = self;
        write!(f, "{case} ({policy}): {what} is {found}, expected {expected}")
    }
}

/// A line of a case file could not be read.
#[derive(Debug, thiserror::Error)]
#[error("line {line} is not a case")]
pub struct ReadError {
    /// Counted from 1.
    pub line: usize,
    #[source]
    source: serde_json::Error,
}

/// Reads a case file: one JSON object a line; empty lines are left out.
pub fn read(text: &str) -> Result<Vec<Case>, ReadError> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(at, line)| serde_json::from_str(line).map_err(|source| ReadError { line: at + 1, source }))
        .collect()
}

/// Runs a case under every policy.
pub fn check(case: &Case) -> Verdict {
    let plan = match compile(case) {
        Ok(plan) => plan,
        Err(unsupported) => return Verdict::Skipped(unsupported),
    };
    let mismatches: Vec<Mismatch> = POLICIES
        .iter()
        .flat_map(|policy| {
            let observed = drive(&plan, *policy);
            compare(case, policy.name(), &observed)
        })
        .collect();
    if mismatches.is_empty() {
        Verdict::Passed
    } else {
        Verdict::Failed(mismatches)
    }
}

fn compare(case: &Case, policy: &'static str, observed: &Observed) -> Vec<Mismatch> {
    let mut mismatches = Vec::new();
    let mut expect = |what: String, expected: &str, found: &str| {
        if expected != found {
            mismatches.push(Mismatch {
                case: case.id.clone(),
                policy,
                what,
                expected: expected.to_owned(),
                found: found.to_owned(),
            });
        }
    };
    expect("run state".to_owned(), &case.run_state, &observed.run_state);
    let none = || "absent".to_owned();
    for (instance, state) in &case.end {
        let found = observed.end.get(instance).cloned().unwrap_or_else(none);
        expect(format!("state of {instance}"), state, &found);
    }
    for (instance, tries) in &case.tries {
        let found = observed.tries.get(instance).map_or_else(none, u32::to_string);
        expect(format!("tries of {instance}"), &tries.to_string(), &found);
    }
    for (instance, state) in &observed.end {
        if !case.end.contains_key(instance) {
            expect(format!("state of {instance}"), "absent", state);
        }
    }
    if let Some(broken) = &observed.broken {
        expect("order of events".to_owned(), "sound", broken);
    }
    mismatches
}
