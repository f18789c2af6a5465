//! `airtight:task/log`: structured records in the try's log.

use model::json;
use ports::log::LogLevel;
use serde_json::Value;

use crate::bindings::log;
use crate::ctx::TaskCtxView;
use crate::try_log::MAX_LINE_BYTES;

/// The fields of one record, in bytes of JSON text.
const MAX_FIELDS_BYTES: u64 = 64 << 10;

impl log::Host for TaskCtxView<'_> {
    async fn write(&mut self, level: log::Level, message: String, fields: Option<String>) -> wasmtime::Result<()> {
        self.ctx.gate.pass()?;
        let level = match level {
            log::Level::Trace => LogLevel::Trace,
            log::Level::Debug => LogLevel::Debug,
            log::Level::Info => LogLevel::Info,
            log::Level::Warn => LogLevel::Warning,
            log::Level::Error => LogLevel::Error,
        };
        // The function has no error to answer, so fields that are no object are kept as text instead of being lost.
        let fields =
            fields.map(|text| object(&text).unwrap_or_else(|| serde_json::json!({ "invalid_fields": cut(text) })));
        Ok(self.ctx.log.record(level, cut(message), fields)?)
    }
}

/// The object of a text, where it is one.
fn object(text: &str) -> Option<Value> {
    json::check_syntax(text, MAX_FIELDS_BYTES).ok()?;
    serde_json::from_str(text).ok().filter(Value::is_object)
}

/// Bounds a text as a line of standard output is bounded.
fn cut(mut text: String) -> String {
    if text.len() > MAX_LINE_BYTES {
        text.truncate(text.floor_char_boundary(MAX_LINE_BYTES));
        text.push('…');
    }
    text
}
