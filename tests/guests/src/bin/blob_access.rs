//! Blobs in both directions, and what is refused.

use std::io::{Read as _, Write as _};

use airtight_sdk::prelude::*;

#[data]
struct Size {
    bytes: usize,
}

/// Writes a blob in pieces, reads it back, and returns it.
#[task]
fn write_and_read_back(input: Size) -> Result<Blob> {
    let piece: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let mut writer = Blob::writer("application/x-numbers")?;
    let mut left = input.bytes;
    while left > 0 {
        let now = left.min(piece.len());
        writer.write_all(&piece[..now])?;
        left -= now;
    }
    let blob = writer.finish()?;
    let read = blob.bytes()?;
    if read.len() != input.bytes || !read.chunks(piece.len()).all(|chunk| chunk == &piece[..chunk.len()]) {
        return Err(Failure::fatal("it reads back differently"));
    }
    Ok(blob)
}

#[data]
struct Given {
    blob: Blob,
}

/// Reads a blob that its input refers to.
#[task]
fn read_input(input: Given) -> Result<String> {
    let mut text = String::new();
    input.blob.reader()?.read_to_string(&mut text)?;
    Ok(text)
}

#[data]
struct Named {
    digest: String,
}

/// Opens a blob of which it only knows the name; answers the code of the error.
#[task]
fn open_by_name(input: Named) -> Result<String> {
    let blob: Blob = serde_json::from_value(json!({"$blob": input.digest, "size": 1}))?;
    Ok(match blob.reader() {
        Ok(_) => "opened".to_owned(),
        Err(error) => error.code().to_owned(),
    })
}

/// Returns a reference that it has no right to.
#[task]
fn return_foreign(input: Named) -> serde_json::Value {
    json!({"$blob": input.digest, "size": 1})
}

/// Reads a blob when there is hardly any memory left; answers how that went.
#[task]
fn read_when_full(input: Given) -> Result<String> {
    let mut piece = vec![0; 64 << 10];
    let full = test_guests::fill_memory(128 << 10);
    let read = input.blob.reader()?.read(&mut piece);
    drop(full);
    Ok(read.map_or_else(|error| error.to_string(), |_| "read".to_owned()))
}

#[data]
struct Handles {
    handles: usize,
}

/// Begins so many blobs and keeps them; answers their number.
#[task]
fn keep_writers(input: Handles) -> Result<usize> {
    let mut kept = Vec::new();
    for _ in 0..input.handles {
        kept.push(Blob::writer(None)?);
    }
    Ok(kept.len())
}

/// Writes so many blobs, one after the other, and leaves every other one.
#[task]
fn write_one_by_one(input: Handles) -> Result<usize> {
    for number in 0..input.handles {
        let writer = Blob::writer(None)?;
        if number % 2 == 0 {
            writer.finish()?;
        }
    }
    Ok(input.handles)
}

/// Begins so many blobs and writes a mebibyte into each.
#[task]
fn keep_full_writers(input: Handles) -> Result<usize> {
    let mut kept = Vec::new();
    let piece = vec![7; 64 << 10];
    for _ in 0..input.handles {
        let mut writer = Blob::writer(None)?;
        for _ in 0..16 {
            writer.write_all(&piece)?;
        }
        kept.push(writer);
    }
    Ok(kept.len())
}

#[data]
struct Readers {
    blob: Blob,
    handles: usize,
}

/// Opens a blob so many times, reads a byte by each handle and keeps them; answers their number.
#[task]
fn keep_readers(input: Readers) -> Result<usize> {
    let mut kept = Vec::new();
    for _ in 0..input.handles {
        let mut reader = input.blob.reader()?;
        reader.read_exact(&mut [0])?;
        kept.push(reader);
    }
    Ok(kept.len())
}

/// Opens as many blobs as it gets in both directions, keeps them, and never ends.
#[task]
fn hoard() -> Result<()> {
    let mut own = Blob::writer(None)?;
    own.write_all(&vec![7; 2 << 20])?;
    let blob = own.finish()?;
    let (mut writers, mut readers) = (Vec::new(), Vec::new());
    while let Ok(writer) = Blob::writer(None) {
        writers.push(writer);
    }
    for _ in 0..60 {
        let mut reader = blob.reader()?;
        reader.read_exact(&mut [0])?;
        readers.push(reader);
    }
    println!("hoarding {} and {}", writers.len(), readers.len());
    loop {
        std::thread::sleep(std::time::Duration::from_secs(60));
        std::hint::black_box((&writers, &readers));
    }
}

/// Starts a blob and leaves it.
#[task]
fn abandon() -> Result<()> {
    let mut writer = Blob::writer(None)?;
    writer.write_all(&[7; 300_000])?;
    Ok(())
}

#[data]
struct Through {
    task: String,
}

/// Pulls a reference from an upstream task and reads the blob.
#[task]
fn read_pulled(input: Through) -> Result<String> {
    let blob: Blob = xcom::pull_return(&input.task)?.ok_or_else(|| Failure::fatal("nothing there"))?;
    Ok(blob.text()?)
}

/// Keeps a foreign reference in its checkpoint; answers the code of the error.
#[task]
fn launder_through_checkpoint(input: Named) -> String {
    match checkpoint::save(&json!({"$blob": input.digest, "size": 1})) {
        Ok(()) => "saved".to_owned(),
        Err(error) => error.code().to_owned(),
    }
}

/// Writes a blob and keeps it in its checkpoint alone; a later try reads it from there.
#[task]
fn keep_in_checkpoint() -> Result<Option<String>> {
    if let Some(kept) = checkpoint::load::<Blob>()? {
        return Ok(Some(kept.text()?));
    }
    let mut writer = Blob::writer(None)?;
    writer.write_all(b"half of the work")?;
    checkpoint::save(&writer.finish()?)?;
    Ok(None)
}

fn main() {}
