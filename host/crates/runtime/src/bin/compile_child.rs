//! The compiler child as a program of its own, for the tests of this crate. The `airtight` binary has the same entry.

fn main() -> std::process::ExitCode {
    runtime::compile_child_main(std::env::args_os().skip(1))
}
