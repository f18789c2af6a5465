//! What a guest prints and logs.

use std::io::Write as _;

use airtight_sdk::prelude::*;

/// Writes in every way.
#[task]
fn all_ways() {
    println!("one");
    eprintln!("two");
    info!(rows = 3, "three {}", "words");
    warn!("four");
    print!("no line end");
}

/// Writes what is no text, and a line that is very long.
#[task]
fn odd_bytes() -> Result<()> {
    std::io::stdout().write_all(b"bad \xff byte\n")?;
    println!("{}", "é".repeat(20_000));
    println!("\u{1b}[31mred\u{7}");
    Ok(())
}

/// Reports its progress far too often.
#[task]
fn progress_often() {
    for step in 0..=1000 {
        progress(f64::from(step) / 1000.0, &format!("step {step}"));
    }
}

/// Reports twice at once, and does not come to an answer.
#[task]
fn progress_then(end: String) {
    progress(0.25, "first");
    progress(0.75, "last");
    println!("reported");
    match end.as_str() {
        "trap" => panic!("no answer"),
        _ => loop {
            std::hint::spin_loop();
        },
    }
}

/// Says something without an end, and goes on for ever.
#[task]
fn unfinished() -> Result<()> {
    print!("10 %\r20 %");
    std::io::stdout().flush()?;
    loop {
        std::hint::spin_loop();
    }
}

/// Prints so many numbered lines, then answers.
#[task]
fn chatty(lines: u32) -> u32 {
    for line in 0..lines {
        println!("row {line} is odd");
    }
    lines
}

fn main() {}
