//! Every kind of answer.

use std::time::Duration;

use airtight_sdk::prelude::*;

/// Returns its input.
#[task]
fn echo(input: serde_json::Value) -> serde_json::Value {
    input
}

#[data]
struct Typed {
    count: u32,
}

/// Takes a typed input.
#[task]
fn typed(input: Typed) -> u32 {
    input.count
}

/// Publishes and skips.
#[task]
fn skip() -> Result<Outcome<()>> {
    xcom::push("before", "skip")?;
    Ok(Outcome::skip("nothing to do today"))
}

/// Not yet.
#[task]
fn not_yet() -> Outcome<()> {
    Outcome::reschedule(Duration::from_millis(1500))
}

#[derive(Labels)]
enum Way {
    Accept,
    Reject,
}

/// Chooses.
#[task]
fn choose(input: Typed) -> Branch<Way> {
    Branch::to(if input.count > 0 { Way::Accept } else { Way::Reject })
}

/// Publishes a report and fails.
#[task]
fn fail_with_report() -> Result<()> {
    xcom::push("report", &json!({"bad_rows": 7}))?;
    Err(Failure::fatal("7 bad rows")
        .code("quality_failed")
        .details(json!({"rows": 7})))
}

/// Fails by an ordinary error.
#[task]
fn fail_by_question_mark() -> Result<i64> {
    Ok("seven".parse::<i64>()?)
}

fn main() {}
