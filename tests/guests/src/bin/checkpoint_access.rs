//! Checkpoints: saved, loaded, cleared, refused.

use airtight_sdk::prelude::*;

/// Counts its tries.
#[task]
fn count() -> Result<u32> {
    let count = checkpoint::load::<u32>()?.unwrap_or(0) + 1;
    checkpoint::save(&count)?;
    Ok(count)
}

/// Removes it.
#[task]
fn clear() -> Result<bool> {
    checkpoint::clear()?;
    Ok(checkpoint::load_bytes()?.is_none())
}

#[data]
struct Size {
    bytes: usize,
}

/// Saves bytes; answers how that went.
#[task]
fn save_code(input: Size) -> String {
    match checkpoint::save_bytes(vec![7; input.bytes]) {
        Ok(()) => "ok".to_owned(),
        Err(error) => error.code().to_owned(),
    }
}

/// Saves, then saves and loads when there is hardly any memory left; answers how that went.
#[task]
fn save_and_load_when_full(input: Size) -> [String; 3] {
    fn said<T>(result: std::result::Result<T, airtight_sdk::Error>) -> String {
        result.map_or_else(|error| error.to_string(), |_| "ok".to_owned())
    }
    let bytes = vec![7; input.bytes];
    let saved = checkpoint::save_bytes(bytes.clone());
    let full = test_guests::fill_memory(128 << 10);
    let again = checkpoint::save_bytes(bytes);
    let loaded = checkpoint::load_bytes();
    drop(full);
    [said(saved), said(again), said(loaded)]
}

/// Saves, computes for as long as it may, and saves again.
#[task]
fn save_spin_save() -> Result<()> {
    checkpoint::save(&"first")?;
    println!("saved");
    loop {
        checkpoint::save(&"again")?;
    }
}

fn main() {}
