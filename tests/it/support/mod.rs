//! Starting servers and talking to them.

mod client;
mod database;
mod server;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

pub(crate) use client::Client;
pub(crate) use database::Database;
pub(crate) use server::{Server, binary, run_cli, start_refused};

/// Random numbers for a test that kills servers. The seed is printed: a failure is looked into with it.
pub(crate) fn seeded() -> StdRng {
    let seed: u64 = rand::random();
    #[expect(clippy::print_stderr, reason = "a failure is repeated with this seed")]
    {
        eprintln!("seed {seed}");
    }
    StdRng::seed_from_u64(seed)
}

/// Notes a skipped test loudly: on standard error, and in the file that the test command counts.
pub(crate) fn skip(test: &str, reason: &str) {
    use std::io::Write as _;
    let line = format!("{test}: {reason}");
    let _ = writeln!(std::io::stderr(), "skipped: {line}");
    if let Some(path) = std::env::var_os("AIRTIGHT_SKIP_LOG") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        let mut file = file.expect("the list of skipped tests can be written");
        writeln!(file, "{line}").expect("the list of skipped tests can be written");
    }
}
