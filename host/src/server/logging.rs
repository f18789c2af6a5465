//! The program's own log: on standard error, for people or as JSON.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::failure::{Exit, Failure, Result};
use crate::ui::term;

/// Sets up logging for the whole process. The filter is the flag, else RUST_LOG, else `default`.
pub(crate) fn init(flag: Option<&str>, default: &str, json: bool) -> Result<()> {
    let from_env = std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty());
    let text = flag
        .map(str::to_owned)
        .or(from_env)
        .unwrap_or_else(|| default.to_owned());
    let filter: EnvFilter = text.parse().map_err(|error: tracing_subscriber::filter::ParseError| {
        Failure::new(Exit::Invalid, format!("`{text}` is not a log filter"))
            .because(&error)
            .hint("write a level such as `info`, or `scheduler=debug,info`")
    })?;
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let done = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder
            .with_ansi(term::stderr_is_terminal())
            .with_target(false)
            .try_init()
    };
    done.map_err(|error| Failure::new(Exit::Broken, format!("cannot set up logging: {error}")))
}
