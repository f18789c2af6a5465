//! Structured records in the task's log.
//!
//! The macros take an optional list of fields and a format string. What a task prints lands in the log as well, and so does the
//! message of a panic.
//!
//! ```
//! use airtight_sdk::prelude::*;
//!
//! let rows = 569;
//! info!("loaded {rows} rows");
//! warn!(rows, column = "radius", share = 0.2, "{} cells are missing", 12);
//! println!("plain text is fine, too");
//! ```

use serde_json::{Map, Value};

use crate::host;

/// How much a record matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For following every step.
    Trace,
    /// For finding faults.
    Debug,
    /// For everybody.
    Info,
    /// Something is odd.
    Warn,
    /// Something failed.
    Error,
}

/// Writes one record without a macro.
pub fn write(level: Level, message: &str, fields: Option<&Map<String, Value>>) {
    let fields = fields
        .filter(|fields| !fields.is_empty())
        .and_then(|fields| serde_json::to_string(fields).ok());
    host::log_write(level, message, fields.as_deref());
}

/// What the macros call. A field that is no JSON value is logged as the reason why.
#[doc(hidden)]
pub fn record(level: Level, message: std::fmt::Arguments<'_>, fields: Vec<(&'static str, serde_json::Result<Value>)>) {
    let fields: Map<String, Value> = fields
        .into_iter()
        .map(|(key, value)| {
            (
                key.to_owned(),
                value.unwrap_or_else(|error| Value::String(error.to_string())),
            )
        })
        .collect();
    match message.as_str() {
        Some(message) => write(level, message, Some(&fields)),
        None => write(level, &message.to_string(), Some(&fields)),
    }
}

#[doc(hidden)]
#[macro_export]
macro_rules! __log {
    ($level:ident, { $($fields:tt)* } $message:literal $($args:tt)*) => {
        $crate::__private::record(
            $crate::log::Level::$level,
            ::std::format_args!($message $($args)*),
            ::std::vec![$($fields)*],
        )
    };
    ($level:ident, { $($fields:tt)* } $key:ident = $value:expr, $($rest:tt)+) => {
        $crate::__log!(
            $level,
            { $($fields)* (::std::stringify!($key), $crate::serde_json::to_value(&$value)), }
            $($rest)+
        )
    };
    ($level:ident, { $($fields:tt)* } $key:ident, $($rest:tt)+) => {
        $crate::__log!(
            $level,
            { $($fields)* (::std::stringify!($key), $crate::serde_json::to_value(&$key)), }
            $($rest)+
        )
    };
}

/// Logs at trace level; see [`log`](mod@crate::log).
#[macro_export]
macro_rules! trace {
    ($($args:tt)+) => { $crate::__log!(Trace, {} $($args)+) };
}

/// Logs at debug level; see [`log`](mod@crate::log).
#[macro_export]
macro_rules! debug {
    ($($args:tt)+) => { $crate::__log!(Debug, {} $($args)+) };
}

/// Logs at info level; see [`log`](mod@crate::log).
#[macro_export]
macro_rules! info {
    ($($args:tt)+) => { $crate::__log!(Info, {} $($args)+) };
}

/// Logs at warn level; see [`log`](mod@crate::log).
#[macro_export]
macro_rules! warn {
    ($($args:tt)+) => { $crate::__log!(Warn, {} $($args)+) };
}

/// Logs at error level; see [`log`](mod@crate::log).
#[macro_export]
macro_rules! error {
    ($($args:tt)+) => { $crate::__log!(Error, {} $($args)+) };
}
