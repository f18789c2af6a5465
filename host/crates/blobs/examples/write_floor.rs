//! The floor of a durable 10 MB blob: sha256 + write + fdatasync, one after the other, in the given directory. Prints JSON.

use std::fs::File;
use std::io::Write as _;
use std::time::Instant;

use sha2::{Digest as _, Sha256};

#[expect(clippy::print_stdout, reason = "its output is its result")]
fn main() -> std::io::Result<()> {
    let dir = std::env::args_os()
        .nth(1)
        .ok_or_else(|| std::io::Error::other("usage: write_floor DIRECTORY"))?;
    let path = std::path::Path::new(&dir).join("write-floor");
    let content: Vec<u8> = (0..10_000_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let mut samples = Vec::new();
    for _ in 0..20 {
        let begin = Instant::now();
        std::hint::black_box(Sha256::digest(&content));
        let mut file = File::create(&path)?;
        file.write_all(&content)?;
        file.sync_data()?;
        samples.push(begin.elapsed().as_secs_f64() * 1e3);
        std::fs::remove_file(&path)?;
    }
    samples.sort_by(f64::total_cmp);
    println!("{{\"write_ms\": {}}}", samples[samples.len() / 2]);
    Ok(())
}
