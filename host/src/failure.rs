//! Errors of the command line: what happened, where, what to do; and the exit code that says so to scripts.

use std::fmt;
use std::process::ExitCode;

use crate::ui::escape;
use crate::ui::term::{self, Paint};

/// Exit codes; `docs/cli.md` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The run, the task or the check that was asked for failed.
    Failed = 1,
    /// The command line, a file or its content is not valid.
    Invalid = 2,
    /// The server cannot be reached.
    Unreachable = 3,
    /// The server refused: there is no such thing, it is in use, it conflicts.
    Refused = 4,
    /// Not logged in, or not allowed.
    Unauthorized = 5,
    /// Something broke: this machine, or the server.
    Broken = 6,
    /// The data directory or the database is in use by another server, or was taken over by one.
    InUse = 7,
    /// Stopped by a signal.
    Interrupted = 130,
}

/// Why a command ended without success.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
    quiet: bool,
}

/// The result of a command.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// With a message: lowercase, no full stop.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            causes: Vec::new(),
            hint: None,
            quiet: false,
        }
    }

    /// Everything was said already; only the exit code is left.
    pub(crate) fn said(exit: Exit) -> Self {
        Self {
            quiet: true,
            ..Self::new(exit, String::new())
        }
    }

    /// Adds an error and the chain of what caused it.
    pub(crate) fn because(mut self, error: &dyn std::error::Error) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            if self.causes.last() != Some(&text) {
                self.causes.push(text);
            }
            next = error.source();
        }
        self
    }

    /// Adds what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// The message and its causes on one line.
    pub(crate) fn in_words(&self) -> String {
        let mut words = self.message.clone();
        for cause in &self.causes {
            words.push_str(": ");
            words.push_str(cause);
        }
        words
    }

    /// Says it on standard error.
    pub(crate) fn report(&self) -> ExitCode {
        if !self.quiet {
            term::errln(&self.render(Paint::stderr()));
        }
        ExitCode::from(self.exit as u8)
    }

    fn render(&self, paint: Paint) -> String {
        let mut text = format!("{} {}", paint.red("error:"), escape::block(&self.message));
        for cause in &self.causes {
            text.push_str(&format!("\n  {} {}", paint.dim("caused by:"), escape::block(cause)));
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("\n  {} {}", paint.bold("help:"), escape::block(hint)));
        }
        text
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Turns errors of this machine into failures: `std::fs::read(path).or_fail(|| format!("cannot read {path}"))`.
pub(crate) trait OrFail<T> {
    /// Says what was being done.
    fn or_fail(self, exit: Exit, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: std::error::Error> OrFail<T> for std::result::Result<T, E> {
    fn or_fail(self, exit: Exit, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Failure::new(exit, what()).because(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_why_and_what_to_do() {
        let error = std::io::Error::new(std::io::ErrorKind::NotFound, "no such file\u{1b}[0m");
        let failure = Failure::new(Exit::Invalid, "cannot read `dag.yaml`")
            .because(&error)
            .hint("check the path");
        insta::assert_snapshot!(failure.render(Paint::never()), @r"
        error: cannot read `dag.yaml`
          caused by: no such file\e[0m
          help: check the path
        ");
    }
}
