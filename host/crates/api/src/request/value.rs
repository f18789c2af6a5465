//! Texts of a query or body as values, and the violations in FastAPI's words where they are not.

use std::str::FromStr;

use model::Timestamp;
use serde_json::{Value, json};

use crate::error::Violation;

/// A violation at a named member.
pub(crate) fn violation(loc: Vec<Value>, kind: &str, msg: impl Into<String>, input: Value) -> Violation {
    Violation {
        kind: kind.to_owned(),
        loc,
        msg: msg.into(),
        input,
        ctx: None,
    }
}

/// The start of a text that is shown back to the caller.
pub(crate) fn shown(text: &str) -> Value {
    Value::String(text.chars().take(256).collect())
}

/// Kind and text of a parse failure.
pub(crate) type Problem = (&'static str, String);

pub(crate) fn integer(text: &str) -> Result<i64, Problem> {
    text.trim()
        .parse()
        .map_err(|_| ("int_parsing", "this is not an integer".to_owned()))
}

pub(crate) fn number(text: &str) -> Result<f64, Problem> {
    match text.trim().parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err(("float_parsing", "this is not a number".to_owned())),
    }
}

/// The words that pydantic takes for a boolean.
pub(crate) fn flag(text: &str) -> Result<bool, Problem> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "y" | "t" | "on" => Ok(true),
        "false" | "0" | "no" | "n" | "f" | "off" => Ok(false),
        _ => Err(("bool_parsing", "this is not a boolean".to_owned())),
    }
}

/// A time. In a query a time without an offset is UTC and a date is its midnight, as Airflow reads them.
pub(crate) fn time(text: &str, need_offset: bool) -> Result<Timestamp, Problem> {
    if let Ok(time) = Timestamp::from_str(text) {
        return Ok(time);
    }
    match text.parse::<jiff::civil::DateTime>() {
        Ok(_) if need_offset => Err(("timezone_aware", "this time has no offset from UTC".to_owned())),
        Ok(civil) => Ok(Timestamp::in_utc(civil)),
        Err(_) => Err((
            "datetime_from_date_parsing",
            "this is not a date and time such as 2026-01-31T04:00:00Z".to_owned(),
        )),
    }
}

pub(crate) fn named<T: FromStr<Err = model::state::UnknownName>>(text: &str) -> Result<T, Problem> {
    text.parse()
        .map_err(|error: model::state::UnknownName| ("enum", error.to_string()))
}

/// The location of a query parameter or body member.
pub(crate) fn at(part: &str, name: &str) -> Vec<Value> {
    vec![json!(part), json!(name)]
}
