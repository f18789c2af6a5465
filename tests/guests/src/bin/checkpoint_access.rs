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
