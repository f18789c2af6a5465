//! Another component than `e2e_workload`, for tests about tags and content.

use airtight_sdk::prelude::*;

/// Does nothing.
#[task]
fn noop() {}

fn main() {}
