//! What `cargo xtask bench` runs: tasks that cost as little as a task can.

use std::io::{Read, Write};

use airtight_sdk::prelude::*;

/// Does nothing and returns `null`, which publishes no XCom.
#[task]
fn noop() {}

/// Does nothing with its input and returns `null`.
#[task]
fn ignore(input: serde_json::Value) {
    let _ = input;
}

#[data]
struct Count {
    /// How many elements the list gets.
    count: u32,
}

/// Returns the list 0, 1, 2, …
#[task]
fn list(input: Count) -> Vec<u32> {
    (0..input.count).collect()
}

/// Is not ready, for an hour at a time.
#[task]
fn wait(input: serde_json::Value) -> Outcome<()> {
    let _ = input;
    Outcome::reschedule(std::time::Duration::from_secs(3600))
}

/// Returns its input.
#[task]
fn echo(input: serde_json::Value) -> serde_json::Value {
    input
}

/// Keeps a core busy for so many rounds and returns a number that depends on all of them.
#[task]
fn spin(input: Spin) -> u64 {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for round in 0..input.rounds {
        state = (state ^ round).wrapping_mul(0xBF58_476D_1CE4_E5B9).rotate_left(31);
    }
    state
}

#[data]
struct Spin {
    rounds: u64,
}

#[data]
struct Size {
    /// How many bytes the blob gets.
    size: u64,
}

/// Writes a blob of so many bytes, streamed.
#[task]
fn blob_make(input: Size) -> Result<Blob> {
    let chunk: Vec<u8> = (0..256 << 10).map(byte_at).collect();
    let mut out = Blob::writer("application/octet-stream")?;
    let mut left = input.size;
    while left > 0 {
        let take = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        out.write_all(&chunk[..take])?;
        left -= take as u64;
    }
    Ok(out.finish()?)
}

/// Cheap to make, and not so regular that a shift by a few bytes goes unseen.
fn byte_at(index: u64) -> u8 {
    (index.wrapping_mul(2_654_435_761) >> 16) as u8
}

#[data]
struct Source {
    blob: Blob,
}

#[data]
#[derive(Debug, PartialEq)]
struct Content {
    /// How many bytes were read.
    size: u64,
    /// The sum of all bytes.
    sum: u64,
}

/// Reads a blob to its end and returns its size and the sum of its bytes.
#[task]
fn blob_read(input: Source) -> Result<Content> {
    let mut reader = input.blob.reader()?;
    let mut chunk = vec![0; 1 << 20];
    let (mut size, mut sum) = (0_u64, 0_u64);
    loop {
        let read = reader.read(&mut chunk)?;
        if read == 0 {
            return Ok(Content { size, sum });
        }
        size += read as u64;
        sum += chunk[..read].iter().map(|byte| u64::from(*byte)).sum::<u64>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let size = (600 << 10) + 7;
        let sum = (0..size).map(|index| u64::from(byte_at(index % (256 << 10)))).sum();
        let blob = blob_make(Size { size }).unwrap();
        assert_eq!(blob.size(), size);
        assert_eq!(blob_read(Source { blob }).unwrap(), Content { size, sum });
    }
}
