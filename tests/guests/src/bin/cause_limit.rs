//! Every way to run into a limit.

use std::time::{Duration, Instant};

use airtight_sdk::prelude::*;

/// Takes memory until there is no more.
#[task]
fn eat_memory() -> usize {
    let mut all: Vec<Vec<u8>> = Vec::new();
    loop {
        all.push(vec![1; 1 << 20]);
        std::hint::black_box(&all);
    }
}

/// Takes memory until there is no more, and takes no harm from that.
#[task]
fn probe_memory() -> u64 {
    let mut all: Vec<Vec<u8>> = Vec::new();
    loop {
        let mut piece = Vec::new();
        if piece.try_reserve_exact(1 << 20).is_err() {
            return all.len() as u64;
        }
        piece.push(1);
        all.push(piece);
    }
}

/// Computes without end.
#[task]
fn spin() {
    println!("spinning");
    loop {
        std::hint::spin_loop();
    }
}

/// Calls the host without end.
#[task]
fn call_forever() {
    println!("calling");
    loop {
        std::hint::black_box(context::try_number());
    }
}

/// Asks the clock without end.
#[task]
fn ask_clock_forever() {
    println!("asking");
    loop {
        std::hint::black_box(Instant::now());
    }
}

/// Fills much memory again and again: one instruction each time, which nothing interrupts.
#[task]
fn fill_forever(input: Size) {
    let mut memory = vec![1_u8; input.bytes];
    println!("filling");
    for value in (0..=255).cycle() {
        memory.fill(value);
        std::hint::black_box(&mut memory);
    }
}

/// What `fill_forever` does before it says anything.
#[task]
fn fill_once(input: Size) -> usize {
    let memory = vec![1_u8; input.bytes];
    std::hint::black_box(&memory).len()
}

/// Waits in the host.
#[task]
fn sleep_long() {
    println!("sleeping");
    std::thread::sleep(Duration::from_secs(3600));
}

/// Prints without end.
#[task]
fn flood_log() {
    loop {
        println!("{}", "all work and no play ".repeat(20));
    }
}

/// Logs records without end.
#[task]
fn flood_records() {
    loop {
        info!(number = 1, "all work and no play");
    }
}

#[data]
struct Size {
    bytes: usize,
}

/// Returns a long text.
#[task]
fn return_text(input: Size) -> String {
    "x".repeat(input.bytes)
}

/// Computes for a while, then answers.
#[task]
fn compute(input: Size) -> u64 {
    let mut sum = 0_u64;
    for i in 0..input.bytes as u64 {
        sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(i));
    }
    sum
}

#[data]
struct Pollables {
    pollables: usize,
}

/// Waits for the same thing so many times at once; answers how many of them came.
#[task]
fn poll_many(input: Pollables) -> usize {
    let now = wasip2::clocks::monotonic_clock::subscribe_duration(0);
    let all = vec![&now; input.pollables];
    wasip2::io::poll::poll(&all).len()
}

/// Writes so many bytes to standard output in one call, past the standard library.
#[task]
fn write_at_once(input: Size) -> usize {
    let line = vec![b'x'; input.bytes];
    wasip2::cli::stdout::get_stdout().write(&line).expect("it is open");
    line.len()
}

fn main() {}
