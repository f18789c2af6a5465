//! The tasks of the end-to-end tests: one for each way in which a try can go on or end.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use airtight_sdk::prelude::*;

#[data]
struct Spin {
    /// How long to keep a core busy.
    ms: u64,
    value: i64,
}

/// Keeps a core busy and returns its value.
#[task]
fn spin(input: Spin) -> i64 {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(input.ms) {}
    input.value
}

#[data]
struct Values {
    values: Vec<i64>,
}

/// Adds up.
#[task]
fn sum(input: Values) -> i64 {
    input.values.iter().sum()
}

#[data]
struct Mapped {
    task: String,
}

/// Adds up what the instances of a task returned, one value after the other; answers how many there are, too.
#[task]
fn sum_items(input: Mapped) -> Result<(u32, i64)> {
    let mut sum = 0;
    for item in xcom::items::<i64>(&input.task, xcom::RETURN_VALUE) {
        sum += item?.1;
    }
    Ok((xcom::count(&input.task, xcom::RETURN_VALUE)?, sum))
}

#[data]
struct Count {
    count: i64,
}

/// Lists the numbers from 0 on.
#[task]
fn numbers(input: Count) -> Vec<i64> {
    (0..input.count).collect()
}

/// Answers a number that no 64 bits hold.
#[task]
fn huge(input: Count) -> u128 {
    123_456_789_012_345_678_901_234_567_890 + u128::from(input.count.unsigned_abs())
}

#[data]
struct Climb {
    /// Where the last iteration came to.
    from: i64,
    by: i64,
    to: i64,
    ms: u64,
}

#[data]
struct Height {
    value: i64,
    done: bool,
}

/// Goes one step on, and says whether that was far enough.
#[task]
fn climb(input: Climb) -> Height {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(input.ms) {}
    let value = input.from + input.by;
    Height {
        value,
        done: value >= input.to,
    }
}

#[data]
struct Fail {
    message: String,
    fatal: bool,
}

/// Returns a failure.
#[task]
fn fail(input: Fail) -> Result<()> {
    let failure = if input.fatal {
        Failure::fatal(input.message)
    } else {
        Failure::retryable(input.message)
    };
    Err(failure.code("asked_for"))
}

#[data]
struct Until {
    try_number: u32,
}

/// Fails until its try has this number.
#[task]
fn fail_until(input: Until) -> Result<u32> {
    let number = context::try_number();
    println!("this is try {number}");
    if number < input.try_number {
        return Err(Failure::retryable(format!("try {number} fails")));
    }
    Ok(number)
}

/// Panics.
#[task]
fn panic() {
    println!("the last words before the panic");
    panic!("this task panics");
}

/// Never ends.
#[task]
fn endless() {
    loop {
        std::hint::spin_loop();
    }
}

#[data]
struct Talk {
    lines: u32,
    endless: bool,
}

/// Says so many lines, and then ends or does not.
#[task]
fn talk(input: Talk) {
    for number in 1..=input.lines {
        println!("line {number}");
    }
    if input.endless {
        loop {
            std::hint::spin_loop();
        }
    }
}

/// Takes memory until it gets no more.
#[task]
fn eat_memory() -> usize {
    let mut all = Vec::new();
    loop {
        all.push(vec![1_u8; 1 << 20]);
        std::hint::black_box(&all);
    }
}

/// Prints without end.
#[task]
fn flood_log() {
    loop {
        println!("{}", "all work and no play ".repeat(10));
    }
}

/// Skips itself.
#[task]
fn skip() -> Outcome<()> {
    Outcome::skip("asked to")
}

#[data]
struct Choice {
    left: bool,
}

#[derive(Labels)]
enum Side {
    Left,
    Right,
}

/// Goes left or right.
#[task]
fn choose(input: Choice) -> Branch<Side> {
    Branch::to(if input.left { Side::Left } else { Side::Right })
}

#[data]
struct Size {
    bytes: usize,
}

/// Writes a blob.
#[task]
fn make_blob(input: Size) -> Result<Blob> {
    let mut writer = Blob::writer("application/octet-stream")?;
    let chunk: Vec<u8> = (0..=250).collect();
    let mut left = input.bytes;
    while left > 0 {
        let now = left.min(chunk.len());
        writer.write_all(chunk.get(..now).unwrap_or(&chunk))?;
        left -= now;
    }
    Ok(writer.finish()?)
}

#[data]
struct Source {
    blob: Blob,
}

#[data]
struct Content {
    digest: String,
    size: u64,
}

/// Reads a blob to its end.
#[task]
fn read_blob(input: Source) -> Result<Content> {
    let mut reader = input.blob.reader()?;
    let (mut chunk, mut size) = (vec![0; 100_000], 0);
    loop {
        match reader.read(&mut chunk)? {
            0 => {
                return Ok(Content {
                    digest: input.blob.digest().to_owned(),
                    size,
                });
            }
            read => size += read as u64,
        }
    }
}

#[data]
struct Stolen {
    digest: String,
}

/// Tries to open a blob of which it only knows the digest; returns the code of the error.
#[task]
fn steal_blob(input: Stolen) -> Result<String> {
    let blob: Blob = serde_json::from_value(json!({"$blob": input.digest, "size": 1000}))?;
    match blob.reader() {
        Ok(_) => Ok("opened".to_owned()),
        Err(error) => Ok(error.code().to_owned()),
    }
}

#[data]
struct Goal {
    to: u32,
}

/// Counts one up a try, and fails until it is there.
#[task]
fn count_with_checkpoint(input: Goal) -> Result<u32> {
    let count = checkpoint::load::<u32>()?.unwrap_or(0) + 1;
    checkpoint::save(&count)?;
    if count < input.to {
        return Err(Failure::retryable(format!("counted to {count}")));
    }
    Ok(count)
}

/// A sensor that is content with the third poke.
#[task]
fn third_poke() -> Result<Outcome<u32>> {
    let pokes = checkpoint::load::<u32>()?.unwrap_or(0) + 1;
    checkpoint::save(&pokes)?;
    Ok(if pokes < 3 {
        Outcome::reschedule(Duration::from_millis(5))
    } else {
        Outcome::Done(pokes)
    })
}

/// A sensor that publishes what it sees while it is not yet content, and goes on from there.
#[task]
fn collect() -> Result<Outcome<u32>> {
    let me = context::task_id();
    let mut seen: Vec<u32> = xcom::pull(&me, "seen")?.unwrap_or_default();
    if seen.len() == 3 {
        return Ok(Outcome::Done(seen.iter().sum()));
    }
    seen.push(u32::try_from(seen.len())? + 1);
    xcom::push("seen", &seen)?;
    Ok(Outcome::reschedule(Duration::from_millis(5)))
}

/// Never ends when it is dispatched first; ends at once when it is dispatched again.
#[task]
fn spin_until_second_dispatch() -> Result<String> {
    if checkpoint::load::<bool>()?.is_some() {
        return Ok("the second dispatch".to_owned());
    }
    checkpoint::save(&true)?;
    loop {
        std::hint::spin_loop();
    }
}

/// Says how far it is.
#[task]
fn report_progress() {
    progress(0.5, "halfway there");
}

fn main() {}
