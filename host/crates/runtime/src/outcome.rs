//! How a try ended, classified once: a typed cause that users see, filter and retry on, and a message that says what to do.

use std::fmt::Write as _;
use std::time::Duration;

use model::{Cause, Limits};
use ports::executor::TryFailure;
use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::bindings::types::{Failure, FailureKind};
use crate::bounded::TooMuch;
use crate::gate::Gate;
use crate::limits::{Account, MemoryRefusal};
use crate::meter::GivenUp;
use crate::try_log::TryLog;

/// The longest message of a failure, in bytes.
const MAX_MESSAGE_BYTES: usize = 16 << 10;
/// The longest code of a failure, in bytes.
const MAX_CODE_BYTES: usize = 128;
/// How many frames of a backtrace a person gets to see.
const MAX_FRAMES: usize = 8;
/// The code of a failure that a denied host call became (`?` in the SDK keeps codes).
const DENIED_CODE: &str = "denied";

/// Why a try did not answer.
#[derive(Debug)]
pub(crate) enum Death {
    /// Stopped by a person or a program.
    Cancelled,
    /// The wall time is used up.
    TimedOut,
    /// The CPU time is used up, or the host panicked.
    GivenUp(GivenUp),
    /// The component is not to be had.
    Load(String),
    /// The input cannot be rendered or does not match the schema.
    Input(String),
    /// This, which the host has to hold for the guest, does not fit into the memory limit.
    NoRoom(&'static str),
    /// The component broke the contract.
    Contract(String),
    /// Other tasks are mapped over what it published, and that cannot be.
    Unmappable(String),
    /// The return value is over its limit.
    OutputTooLarge {
        /// What it has, in bytes.
        size: u64,
        /// What it may have, in bytes.
        limit: u64,
    },
    /// The task returned a failure.
    Failed(Failure),
    /// The guest was unwound while it was instantiated or run.
    Unwound {
        /// With its causes.
        error: wasmtime::Error,
        /// Before `run` was called.
        starting: bool,
    },
}

/// What else is known when a try has ended.
pub(crate) struct Evidence<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) account: &'a Account,
    pub(crate) log: &'a TryLog,
    pub(crate) gate: &'a Gate,
}

/// The one place where a cause is chosen.
pub(crate) fn classify(death: Death, evidence: &Evidence<'_>) -> TryFailure {
    let limits = evidence.limits;
    match death {
        Death::Cancelled => failure(Cause::Cancelled, "the try was cancelled".to_owned()),
        Death::TimedOut => failure(
            Cause::TimedOut,
            format!(
                "the try ran longer than {}; raise `limits.timeout`",
                seconds(limits.timeout)
            ),
        ),
        Death::GivenUp(GivenUp::CpuExhausted) => failure(
            Cause::CpuExhausted,
            format!(
                "the try used more than {} of CPU time; raise `limits.cpu_time`",
                seconds(limits.cpu_time)
            ),
        ),
        Death::GivenUp(GivenUp::Panicked(text)) => failure(
            Cause::InfrastructureLost,
            format!("the server failed while it served this try (a bug in Airtight): {text}"),
        ),
        Death::Load(text) => failure(Cause::LoadFailed, text),
        // The same input would be rendered again: another try cannot help.
        Death::Input(text) => TryFailure {
            fatal: true,
            ..failure(Cause::InputInvalid, text)
        },
        Death::NoRoom(what) => {
            let refusal = evidence.account.refusal().unwrap_or(MemoryRefusal::Machine);
            failure(
                Cause::OutOfMemory,
                format!("there is no room for {what}: {}", out_of_memory(refusal, evidence)),
            )
        }
        Death::Contract(text) => failure(Cause::ContractViolation, text),
        Death::Unmappable(text) => TryFailure {
            code: Some("unmappable_xcom".to_owned()),
            ..failure(Cause::ContractViolation, text)
        },
        Death::OutputTooLarge { size, limit } => failure(
            Cause::OutputLimit,
            format!(
                "the return value has {} and its limit is {}; return a Blob, or raise `limits.xcom_value`",
                bytes(size),
                bytes(limit)
            ),
        ),
        Death::Failed(returned) => returned_failure(returned, evidence),
        Death::Unwound { error, starting } => unwound(&error, starting, evidence),
    }
}

fn failure(cause: Cause, mut message: String) -> TryFailure {
    cut(&mut message);
    TryFailure {
        cause,
        message,
        fatal: false,
        code: None,
        details: None,
    }
}

fn returned_failure(returned: Failure, evidence: &Evidence<'_>) -> TryFailure {
    let Failure {
        mut message,
        kind,
        mut code,
        details,
    } = returned;
    cut(&mut message);
    if let Some(code) = &mut code {
        code.truncate(code.floor_char_boundary(MAX_CODE_BYTES));
    }
    let limit = evidence.limits.xcom_value_bytes;
    let problem = details
        .as_deref()
        .and_then(|details| model::json::check_syntax(details, limit).err());
    if let Some(problem) = problem {
        return TryFailure {
            code,
            fatal: kind == FailureKind::Fatal,
            ..failure(
                Cause::ContractViolation,
                format!(
                    "the task returned a failure whose details are refused ({problem}); its message was: {message}"
                ),
            )
        };
    }
    let says_so = code.as_deref() == Some(DENIED_CODE) || says_denied(&message);
    let no_files = explain_no_files(&mut message, evidence);
    let denied = no_files || (says_so && evidence.gate.was_denied());
    TryFailure {
        cause: if denied { Cause::Denied } else { Cause::Failed },
        message,
        fatal: kind == FailureKind::Fatal,
        code,
        details,
    }
}

/// Whether a message holds what standard libraries say of a denied call (`EACCES`).
fn says_denied(message: &str) -> bool {
    message.to_ascii_lowercase().contains("permission denied")
}

/// Adds what to use instead where a task ended because it looked for a file. It has no directories, so its language's library says that
/// the file, or the directory that would hold it, is not there.
fn explain_no_files(message: &mut String, evidence: &Evidence<'_>) -> bool {
    const SAYS: [&str; 4] = [
        "pre-opened file descriptor",
        "no such file or directory",
        "bad file descriptor",
        "capabilities insufficient",
    ];
    const INSTEAD: &str = "\na task has no file system: take large data as a Blob in the task's input, return it as a Blob, and keep what must survive \
                           a retry in a checkpoint";
    let found = evidence.gate.looked_for_files() && {
        let message = message.to_ascii_lowercase();
        SAYS.iter().any(|said| message.contains(said))
    };
    if found {
        message.push_str(INSTEAD);
        cut(message);
    }
    found
}

fn unwound(error: &wasmtime::Error, starting: bool, evidence: &Evidence<'_>) -> TryFailure {
    if evidence.log.is_full() {
        return failure(
            Cause::OutputLimit,
            format!(
                "the try wrote more than {} to its log; write less, raise `limits.log`, or have it cut (`limits.on_log_limit: cut`)",
                bytes(evidence.limits.log_bytes)
            ),
        );
    }
    if let Some(refusal) = evidence.account.refusal() {
        return failure(Cause::OutOfMemory, out_of_memory(refusal, evidence));
    }
    let mut text = trap_text(error, evidence);
    if explain_no_files(&mut text, evidence) {
        return failure(Cause::Denied, text);
    }
    if evidence.gate.was_denied() {
        return failure(
            Cause::Denied,
            format!("a host call was denied, and the task ended by a trap: {text}"),
        );
    }
    if starting && error.downcast_ref::<Trap>().is_none() {
        return failure(
            Cause::LoadFailed,
            format!("the component cannot be instantiated: {error:#}"),
        );
    }
    failure(Cause::Trapped, text)
}

fn out_of_memory(refusal: MemoryRefusal, evidence: &Evidence<'_>) -> String {
    match refusal {
        MemoryRefusal::Limit { wanted, limit } => format!(
            "the task wanted {} of memory and its limit is {}; raise `limits.memory`",
            bytes(wanted),
            bytes(limit)
        ),
        MemoryRefusal::TableElements => format!(
            "the task wanted more than {} table elements; raise `limits.table_elements`",
            evidence.limits.table_elements
        ),
        MemoryRefusal::Machine => {
            "all tasks that run on this machine together need more memory than it gives to tasks".to_owned()
        }
    }
}

/// What a tired person needs of a trap: what the guest said last, what kind of trap, and where in its own code.
fn trap_text(error: &wasmtime::Error, evidence: &Evidence<'_>) -> String {
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return format!("the task called exit({}) instead of returning", exit.0);
    }
    if let Some(too_much) = error.downcast_ref::<TooMuch>() {
        let mut text = too_much.to_string();
        if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
            add_frames(&mut text, backtrace);
        }
        return text;
    }
    let tail = evidence.log.stderr_tail();
    let mut text = match (panic_message(&tail), error.downcast_ref::<Trap>()) {
        (Some(panic), Some(Trap::UnreachableCodeReached) | None) => panic,
        (_, Some(Trap::StackOverflow)) => "the task's call stack is exhausted (a recursion too deep?)".to_owned(),
        (_, Some(trap)) => match tail.lines().rev().find(|line| !line.trim().is_empty()) {
            Some(last) => format!("{trap}; it said last: {}", last.trim()),
            None => trap.to_string(),
        },
        (None, None) => format!("{:#}", RootCauses(error)),
    };
    if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
        add_frames(&mut text, backtrace);
    }
    text
}

/// The causes without wasmtime's "error while executing at wasm backtrace", which the frames below replace.
struct RootCauses<'a>(&'a wasmtime::Error);

impl std::fmt::Display for RootCauses<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.root_cause().to_string())
    }
}

/// The panic that Rust's standard library reported last on standard error, without its note about backtraces.
fn panic_message(stderr: &str) -> Option<String> {
    let start = stderr.rfind("panicked at ")?;
    let lines: Vec<&str> = stderr
        .get(start..)?
        .lines()
        .take_while(|line| !line.starts_with("note: run with `RUST_BACKTRACE"))
        .take(12)
        .collect();
    Some(lines.join("\n").trim_end().to_owned())
}

fn add_frames(text: &mut String, backtrace: &WasmBacktrace) {
    let names = backtrace.frames().iter().map(|frame| {
        frame.func_name().map_or_else(
            || format!("function {}", frame.func_index()),
            |name| short_name(&wasmtime_demangle(name)),
        )
    });
    for (shown, name) in names.filter(|name| !is_plumbing(name)).enumerate() {
        if shown == MAX_FRAMES {
            text.push_str("\n  …");
            break;
        }
        let _ = write!(text, "\n  at {name}");
    }
}

fn wasmtime_demangle(name: &str) -> String {
    rustc_demangle::try_demangle(name).map_or_else(|_| name.to_owned(), |name| format!("{name:#}"))
}

/// Frames of panicking, allocating and the component's entry, which are the same in every trap.
fn is_plumbing(name: &str) -> bool {
    const PLUMBING: [&str; 12] = [
        "std::panicking",
        "core::panicking",
        "std::sys",
        "std::process::abort",
        "std::rt",
        "std::alloc",
        "alloc::alloc::handle_alloc_error",
        "__rust",
        "_rust",
        "rust_begin_unwind",
        "abort",
        "core::ops::function",
    ];
    PLUMBING
        .iter()
        .any(|prefix| name.trim_start_matches('<').starts_with(prefix))
}

fn short_name(name: &str) -> String {
    let mut name = name.to_owned();
    if name.len() > 200 {
        name.truncate(name.floor_char_boundary(200));
        name.push('…');
    }
    name
}

fn cut(text: &mut String) {
    if text.len() > MAX_MESSAGE_BYTES {
        text.truncate(text.floor_char_boundary(MAX_MESSAGE_BYTES));
        text.push('…');
    }
}

/// A number of bytes for people.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) if bytes.is_multiple_of(*unit) => format!("{} {name}", bytes / unit),
        Some((unit, name)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} bytes"),
    }
}

/// A duration for people.
fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if duration.subsec_nanos() > 0 {
        format!("{} s", duration.as_secs_f64())
    } else if seconds >= 3600 && seconds.is_multiple_of(3600) {
        format!("{} h", seconds / 3600)
    } else if seconds >= 60 && seconds.is_multiple_of(60) {
        format!("{} min", seconds / 60)
    } else {
        format!("{seconds} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_last_panic() {
        let stderr = "loading\nthread 'main' panicked at src/a.rs:1:2:\nboom\nnote: run with `RUST_BACKTRACE=1` …\n";
        assert_eq!(
            panic_message(stderr).as_deref(),
            Some("panicked at src/a.rs:1:2:\nboom")
        );
        assert_eq!(panic_message("nothing of the kind"), None);
    }

    #[test]
    fn quantities_read_well() {
        assert_eq!(bytes(512 << 20), "512 MiB");
        assert_eq!(bytes((512 << 20) + (100 << 10)), "512.0 MiB");
        assert_eq!(bytes(17), "17 bytes");
        assert_eq!(seconds(Duration::from_secs(3600)), "1 h");
        assert_eq!(seconds(Duration::from_secs(90)), "90 s");
        assert_eq!(seconds(Duration::from_millis(1500)), "1.5 s");
    }
}
