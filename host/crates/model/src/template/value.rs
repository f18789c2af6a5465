//! Between JSON text and the template engine's values. Integers keep all their digits; what JSON cannot hold is an error.

use std::borrow::Cow;

use minijinja::value::{Value, ValueKind};

use crate::budget::{Exhausted, grow, spend};
use crate::json::{MAX_DEPTH, Sink, scan, unescape};

/// The cost of a value beside its text.
const VALUE_BYTES: usize = 48;

fn made(bytes: usize) -> Result<(), String> {
    grow(bytes as u64).map_err(|why| why.to_string())
}

/// The engine's value of a JSON text.
pub(super) fn from_json(text: &str) -> Result<Value, String> {
    let mut build = Build {
        open: Vec::new(),
        done: None,
    };
    scan(text, &mut build).map_err(|error| error.to_string())?;
    build.done.ok_or_else(|| "an empty JSON text".to_owned())
}

struct Build<'a> {
    open: Vec<Open<'a>>,
    done: Option<Value>,
}

enum Open<'a> {
    Array(Vec<Value>),
    Object {
        key: Cow<'a, str>,
        members: Vec<(Value, Value)>,
    },
}

impl Build<'_> {
    fn put(&mut self, value: Value) {
        match self.open.last_mut() {
            None => self.done = Some(value),
            Some(Open::Array(items)) => items.push(value),
            Some(Open::Object { key, members }) => members.push((Value::from(&**key), value)),
        }
    }
}

impl<'a> Sink<'a> for Build<'a> {
    fn null(&mut self) -> Result<(), String> {
        made(VALUE_BYTES)?;
        self.put(Value::from(()));
        Ok(())
    }

    fn bool(&mut self, value: bool) -> Result<(), String> {
        made(VALUE_BYTES)?;
        self.put(Value::from(value));
        Ok(())
    }

    fn number(&mut self, text: &'a str) -> Result<(), String> {
        made(VALUE_BYTES + text.len())?;
        let value = if text.contains(['.', 'e', 'E']) || text == "-0" {
            text.parse::<f64>().ok().map(Value::from)
        } else {
            text.parse::<i64>()
                .map(Value::from)
                .or_else(|_| text.parse::<i128>().map(Value::from))
                .ok()
        };
        match value {
            Some(value) => self.put(value),
            None => {
                let shown: String = text.chars().take(48).collect();
                return Err(format!(
                    "{shown} has more than 128 bits; it can be passed on whole, but not used in an expression"
                ));
            }
        }
        Ok(())
    }

    fn string(&mut self, raw: &'a str) -> Result<(), String> {
        made(VALUE_BYTES + raw.len())?;
        self.put(Value::from(unescape(raw)));
        Ok(())
    }

    fn begin(&mut self, object: bool) -> Result<(), String> {
        made(2 * VALUE_BYTES)?;
        self.open.push(if object {
            Open::Object {
                key: Cow::Borrowed(""),
                members: Vec::new(),
            }
        } else {
            Open::Array(Vec::new())
        });
        Ok(())
    }

    fn key(&mut self, new: Cow<'a, str>) -> Result<(), String> {
        made(2 * VALUE_BYTES + new.len())?;
        if let Some(Open::Object { key, .. }) = self.open.last_mut() {
            *key = new;
        }
        Ok(())
    }

    fn end(&mut self, _: bool) -> Result<(), String> {
        let value = match self.open.pop() {
            Some(Open::Array(items)) => Value::from(items),
            Some(Open::Object { members, .. }) => Value::from_pairs(members),
            None => return Err("an unbalanced bracket".to_owned()),
        };
        self.put(value);
        Ok(())
    }
}

/// Writes a value as JSON text; at most `max` bytes in `out`.
pub(super) fn write_json(value: &Value, out: &mut String, max: usize, depth: usize) -> Result<(), WriteError> {
    let text = value.as_str().map_or(0, str::len);
    spend(4 + text as u64 / 8).map_err(WriteError::Exhausted)?;
    if text > max.saturating_sub(out.len()) {
        return Err(WriteError::TooLarge);
    }
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => write_number(value, out)?,
        ValueKind::String => write_string(value.as_str().unwrap_or_default(), out),
        ValueKind::Seq | ValueKind::Iterable => {
            let depth = deeper(depth)?;
            out.push('[');
            let items = value.try_iter().map_err(|error| WriteError::Value(error.to_string()))?;
            for (at, item) in items.enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write_json(&item, out, max, depth)?;
            }
            out.push(']');
        }
        ValueKind::Map => {
            let depth = deeper(depth)?;
            out.push('{');
            let keys = value.try_iter().map_err(|error| WriteError::Value(error.to_string()))?;
            for (at, key) in keys.enumerate() {
                if at > 0 {
                    out.push(',');
                }
                let Some(name) = key.as_str() else {
                    return Err(WriteError::Value(format!("key {key} of a JSON object is not a string")));
                };
                write_string(name, out);
                out.push(':');
                let item = value
                    .get_item(&key)
                    .map_err(|error| WriteError::Value(error.to_string()))?;
                write_json(&item, out, max, depth)?;
            }
            out.push('}');
        }
        ValueKind::Undefined => return Err(WriteError::Undefined),
        ValueKind::Invalid | ValueKind::Bytes | ValueKind::Plain | _ => {
            return Err(WriteError::Value(format!("a {} is not JSON", value.kind())));
        }
    }
    if out.len() > max {
        return Err(WriteError::TooLarge);
    }
    Ok(())
}

/// A value has no JSON text.
#[derive(Debug)]
pub(super) enum WriteError {
    Undefined,
    TooLarge,
    Exhausted(Exhausted),
    Value(String),
}

fn deeper(depth: usize) -> Result<usize, WriteError> {
    if depth >= MAX_DEPTH {
        return Err(WriteError::Value(format!("nested deeper than {MAX_DEPTH} levels")));
    }
    Ok(depth + 1)
}

fn write_number(value: &Value, out: &mut String) -> Result<(), WriteError> {
    if value.is_integer() {
        out.push_str(&value.to_string());
        return Ok(());
    }
    let number = f64::try_from(value.clone()).map_err(|error| WriteError::Value(error.to_string()))?;
    match serde_json::Number::from_f64(number) {
        Some(number) => out.push_str(&number.to_string()),
        None => return Err(WriteError::Value(format!("{number} is not a JSON number"))),
    }
    Ok(())
}

pub(super) fn write_string(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}
