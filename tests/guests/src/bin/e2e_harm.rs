//! Tasks that mean harm: each takes as much as it can of one thing that tries share.

use std::io::Write as _;

use airtight_sdk::prelude::*;

/// Keeps a core busy without end.
#[task]
fn spin() {
    loop {
        std::hint::spin_loop();
    }
}

/// Takes memory until there is no more, and touches all of it.
#[task]
fn memory() -> usize {
    let mut all = Vec::new();
    loop {
        all.push(vec![1_u8; 1 << 20]);
        std::hint::black_box(&all);
    }
}

#[data]
struct Times {
    times: u32,
}

/// Logs records without a text.
#[task]
fn empty_records(input: Times) {
    for _ in 0..input.times {
        airtight_sdk::log::write(airtight_sdk::log::Level::Info, "", None);
    }
}

/// Logs records that are little text and large fields.
#[task]
fn large_fields(input: Times) {
    let text = "f".repeat(60_000);
    for _ in 0..input.times {
        info!(text = text, "x");
    }
}

/// Prints line ends.
#[task]
fn line_ends(input: Times) -> Result<()> {
    let lines = [b'\n'; 4096];
    for _ in 0..input.times {
        std::io::stdout().write_all(&lines)?;
    }
    Ok(())
}

/// Opens a blob again and again and keeps what it is given; answers how often that went well.
#[task]
fn readers(input: Times) -> Result<usize> {
    let mut writer = Blob::writer("text/plain")?;
    writer.write_all(b"one blob, many readers")?;
    let blob = writer.finish()?;
    let readers: Vec<_> = (0..input.times).map_while(|_| blob.reader().ok()).collect();
    Ok(readers.len())
}

/// Begins blobs and keeps them open; answers how often that went well.
#[task]
fn writers(input: Times) -> Result<usize> {
    let mut writers = Vec::new();
    for _ in 0..input.times {
        let Ok(mut writer) = Blob::writer("text/plain") else {
            break;
        };
        if writer.write_all(b"begun and never finished").is_err() {
            break;
        }
        writers.push(writer);
    }
    Ok(writers.len())
}

/// Publishes as much as it may, and more.
#[task]
fn xcoms(input: Times) -> u32 {
    let text = "x".repeat(500_000);
    (0..input.times)
        .filter(|number| xcom::push(&format!("key-{number}"), &text).is_ok())
        .count() as u32
}

/// Saves its checkpoint as often as it can.
#[task]
fn checkpoints(input: Times) -> u32 {
    let bytes = vec![7; 200_000];
    (0..input.times)
        .filter(|_| checkpoint::save_bytes(&bytes).is_ok())
        .count() as u32
}

/// Reports its progress as often as it can.
#[task]
fn reports(input: Times) {
    for number in 0..input.times {
        progress(f64::from(number) / f64::from(input.times), &"n".repeat(1000));
    }
}

/// Answers what no XCom may be.
#[task]
fn large_answer() -> String {
    "a".repeat(20 << 20)
}

#[data]
struct Text {
    text: String,
}

/// Takes a text; the harm is done while it is made.
#[task]
fn text(input: Text) -> usize {
    input.text.len()
}

/// Panics at once.
#[task]
fn panics() {
    panic!("no reason");
}

fn main() {}
