//! What the server and its compiler child say to each other: arguments in, one JSON document on standard output back. The
//! child's standard input stays open as long as the server lives.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use ports::component::{Inspected, Refusal};
use serde::{Deserialize, Serialize};

/// The first argument of a process that is a compiler child.
pub const INTERNAL_COMPILE: &str = "internal-compile";

/// The longest message of a refusal, in bytes.
const MAX_MESSAGE_BYTES: usize = 4 << 10;

/// What the child answers.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Answer {
    /// The compiled code was written.
    Ready(Inspected),
    /// The component can never be used.
    Refused(Refusal),
    /// This machine failed.
    Failed {
        /// For people.
        message: String,
    },
}

/// What the child is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    /// The component.
    pub(super) wasm: PathBuf,
    /// Where the compiled code goes.
    pub(super) code: PathBuf,
    /// Private writable memory, in bytes.
    pub(super) memory: u64,
    /// CPU time of all threads.
    pub(super) cpu: Duration,
}

impl Job {
    /// As arguments after [`INTERNAL_COMPILE`].
    pub(super) fn to_args(&self) -> [OsString; 4] {
        [
            self.wasm.clone().into(),
            self.code.clone().into(),
            self.memory.to_string().into(),
            self.cpu.as_secs().max(1).to_string().into(),
        ]
    }

    /// From arguments after [`INTERNAL_COMPILE`].
    pub(super) fn from_args(args: impl IntoIterator<Item = OsString>) -> Option<Self> {
        let mut args = args.into_iter();
        let job = Self {
            wasm: args.next()?.into(),
            code: args.next()?.into(),
            memory: args.next()?.to_str()?.parse().ok()?,
            cpu: Duration::from_secs(args.next()?.to_str()?.parse().ok()?),
        };
        args.next().is_none().then_some(job)
    }
}

/// Writes the child's answer.
pub(super) fn send(answer: &Answer) -> io::Result<()> {
    let bytes = serde_json::to_vec(answer)?;
    let mut stdout = io::stdout().lock();
    stdout.write_all(&bytes)?;
    stdout.flush()
}

/// Makes a refusal.
pub(super) fn refusal(code: &str, message: impl Into<String>) -> Refusal {
    let mut message = message.into();
    if message.len() > MAX_MESSAGE_BYTES {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
        message.push('…');
    }
    Refusal {
        code: code.to_owned(),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_survives_the_command_line() {
        let job = Job {
            wasm: "/a b/c.wasm".into(),
            code: "/d.cwasm".into(),
            memory: 1 << 30,
            cpu: Duration::from_secs(60),
        };
        assert_eq!(Job::from_args(job.to_args()), Some(job));
        assert_eq!(Job::from_args(["one".into()]), None);
    }
}
