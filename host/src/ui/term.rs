//! Standard output and error. A reader that goes away (`airtight … | head`) ends the program quietly.

use std::io::{self, IsTerminal, Write};

/// Writes to standard output.
pub(crate) fn out(text: &str) {
    write_all(&mut io::stdout().lock(), text);
}

/// Writes a line to standard output.
pub(crate) fn outln(text: &str) {
    let mut stdout = io::stdout().lock();
    write_all(&mut stdout, text);
    write_all(&mut stdout, "\n");
}

/// Writes a line to standard error, where messages for people go.
pub(crate) fn errln(text: &str) {
    let mut stderr = io::stderr().lock();
    // Nobody is left to tell when standard error is gone.
    writeln!(stderr, "{text}").ok();
}

fn write_all(to: &mut impl Write, text: &str) {
    if let Err(failure) = to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        let code = if failure.kind() == io::ErrorKind::BrokenPipe {
            0
        } else {
            6
        };
        std::process::exit(code);
    }
}

/// Whether standard output is a terminal.
pub(crate) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether standard error is a terminal: progress bars may be drawn.
pub(crate) fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Colours for one stream. `NO_COLOR` and a stream that is no terminal turn them off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    /// For standard output.
    pub(crate) fn stdout() -> Self {
        Self {
            on: stdout_is_terminal() && wants_colour(),
        }
    }

    /// For standard error.
    pub(crate) fn stderr() -> Self {
        Self {
            on: stderr_is_terminal() && wants_colour(),
        }
    }

    /// Never any colour.
    #[cfg(test)]
    pub(crate) fn never() -> Self {
        Self { on: false }
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.on {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// For headings.
    pub(crate) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// For what matters less.
    pub(crate) fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    /// For failures.
    pub(crate) fn red(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    /// For success.
    pub(crate) fn green(self, text: &str) -> String {
        self.wrap("32", text)
    }

    /// For warnings and waiting.
    pub(crate) fn yellow(self, text: &str) -> String {
        self.wrap("33", text)
    }

    /// For pointers into text.
    pub(crate) fn blue(self, text: &str) -> String {
        self.wrap("1;34", text)
    }

    /// The colour of a state of a run or a task instance.
    pub(crate) fn state(self, state: &str) -> String {
        match state {
            "success" | "ready" => self.green(state),
            "failed" | "upstream_failed" | "refused" => self.red(state),
            "running" | "queued" | "scheduled" | "restarting" | "compiling" => self.wrap("36", state),
            "up_for_retry" | "up_for_reschedule" | "awaiting_input" => self.yellow(state),
            _ => self.dim(state),
        }
    }
}

fn wants_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
