//! Every way in which a guest ends by a trap.

use std::io::Write as _;

use airtight_sdk::prelude::*;

/// Panics after a line that has no end.
#[task]
fn panic_now() {
    print!("half a line");
    let _ = std::io::stdout().flush();
    panic!("the ledger does not balance");
}

#[data]
struct Row {
    at: usize,
}

/// Reads beyond the end of a vector.
#[task]
fn index_out_of_bounds(input: Row) -> u8 {
    let rows = std::hint::black_box(vec![1, 2, 3]);
    rows[input.at]
}

/// Recurses without end.
#[task]
fn recurse_forever() -> u64 {
    descend(0)
}

#[expect(unconditional_recursion, reason = "that is what it is for")]
fn descend(depth: u64) -> u64 {
    std::hint::black_box(descend(std::hint::black_box(depth) + 1)) + 1
}

/// Ends the process instead of returning.
#[task]
fn exit_process() {
    std::process::exit(3);
}

/// Cannot bear that the network is denied.
#[task]
fn connect_or_panic() {
    std::net::TcpStream::connect("127.0.0.1:1").expect("cannot connect");
}

/// Reports that the network is denied.
#[task]
fn connect_and_report() -> Result<()> {
    match std::net::TcpStream::connect("127.0.0.1:1") {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Err(Failure::fatal(error.to_string()).code("denied"))
        }
        Err(error) => Err(Failure::fatal(format!("something else: {error}"))),
    }
}

/// Fails with what the standard library says of the denied network.
#[task]
fn connect_and_fail() -> Result<()> {
    std::net::TcpStream::connect("127.0.0.1:1")?;
    Ok(())
}

/// Fails because there is no file system.
#[task]
fn read_file() -> Result<String> {
    Ok(std::fs::read_to_string("data.csv")?)
}

/// Cannot bear that there is no file system.
#[task]
fn write_file_or_panic() {
    std::fs::write("/tmp/data.csv", "1,2").expect("cannot write");
}

/// Handles that there is no file system, and fails for another reason.
#[task]
fn read_file_and_go_on() -> Result<()> {
    let absent = std::fs::read_to_string("data.csv").is_err();
    Err(Failure::fatal(format!("the ledger does not balance ({absent})")))
}

fn main() {}
