//! Pushes a value and reads it back in the same try.

use airtight_sdk::prelude::*;

/// Pushes its input under `value` and returns what it then reads under that key.
#[task]
fn round_trip(input: serde_json::Value) -> Result<serde_json::Value> {
    xcom::push("value", &input)?;
    let task = context::task_id();
    xcom::pull(&task, "value")?.ok_or_else(|| Failure::fatal("what was pushed is not there"))
}

fn main() {}
