//! The query string. Unknown names are ignored, as Airflow does; a repeated name is a list.

use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use model::state::UnknownName;
use model::{TaskInstanceState, Timestamp};
use ports::query::{Page, TimeRange};

use super::value::{self, Problem, at, shown, violation};
use crate::error::{ApiError, Violation};
use crate::page::{Cursor, DEFAULT_LIMIT, MAX_LIMIT};
use crate::pattern::Pattern;

/// More parameters than this are a mistake or an attack.
const MAX_PARAMETERS: usize = 1_000;

/// The parameters, and what is wrong with them. Ask for each, then [`Query::finish`].
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
    violations: Vec<Violation>,
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(Self::parse(parts.uri.query().unwrap_or_default()))
    }
}

impl Query {
    pub(crate) fn parse(query: &str) -> Self {
        let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes())
            .take(MAX_PARAMETERS + 1)
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        let mut violations = Vec::new();
        if pairs.len() > MAX_PARAMETERS {
            let msg = format!("there are more than {MAX_PARAMETERS} parameters");
            violations.push(violation(
                vec!["query".into()],
                "too_long",
                msg,
                serde_json::Value::Null,
            ));
        }
        Self { pairs, violations }
    }

    /// The last value of a name (FastAPI: the last one counts).
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let found = self.pairs.iter().rev().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// All values of a name.
    pub(crate) fn texts(&self, name: &str) -> Vec<String> {
        let values = self.pairs.iter().filter(|(key, _)| key == name);
        values.map(|(_, value)| value.clone()).collect()
    }

    fn get<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, Problem>) -> Option<T> {
        let text = self.text(name)?;
        match parse(text) {
            Ok(value) => Some(value),
            Err((kind, msg)) => {
                let violation = violation(at("query", name), kind, msg, shown(text));
                self.violations.push(violation);
                None
            }
        }
    }

    fn get_all<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, Problem>) -> Vec<T> {
        let mut values = Vec::new();
        for text in self.texts(name) {
            match parse(&text) {
                Ok(value) => values.push(value),
                Err((kind, msg)) => self
                    .violations
                    .push(violation(at("query", name), kind, msg, shown(&text))),
            }
        }
        values
    }

    pub(crate) fn int(&mut self, name: &str) -> Option<i64> {
        self.get(name, value::integer)
    }

    pub(crate) fn ints(&mut self, name: &str) -> Vec<i64> {
        self.get_all(name, value::integer)
    }

    /// An integer that fits `u32`, for counts and version numbers.
    pub(crate) fn count(&mut self, name: &str) -> Option<u32> {
        self.get(name, count)
    }

    pub(crate) fn counts(&mut self, name: &str) -> Vec<u32> {
        self.get_all(name, count)
    }

    pub(crate) fn number(&mut self, name: &str) -> Option<f64> {
        self.get(name, value::number)
    }

    pub(crate) fn flag(&mut self, name: &str) -> Option<bool> {
        self.get(name, value::flag)
    }

    pub(crate) fn time(&mut self, name: &str) -> Option<Timestamp> {
        self.get(name, |text| value::time(text, false))
    }

    pub(crate) fn named<T: FromStr<Err = UnknownName>>(&mut self, name: &str) -> Option<T> {
        self.get(name, value::named)
    }

    pub(crate) fn all_named<T: FromStr<Err = UnknownName>>(&mut self, name: &str) -> Vec<T> {
        self.get_all(name, value::named)
    }

    /// States of task instances; no state yet is `none`, `null` or `no_status`.
    pub(crate) fn states(&mut self, name: &str) -> Vec<TaskInstanceState> {
        self.get_all(name, |text| match text {
            "none" | "null" | "None" => Ok(TaskInstanceState::NoStatus),
            text => value::named(text),
        })
    }

    /// `map_index` and its like.
    pub(crate) fn map_index(&mut self, name: &str) -> Option<model::MapIndex> {
        self.get(name, |text| {
            let index = value::integer(text)?;
            match i32::try_from(index) {
                Ok(index) if index >= -1 => Ok(model::MapIndex(index)),
                _ => Err(("greater_than_equal", "a map index is −1 or more".to_owned())),
            }
        })
    }

    /// `NAME_gte`, `NAME_gt`, `NAME_lte`, `NAME_lt`.
    pub(crate) fn times(&mut self, name: &str) -> TimeRange {
        TimeRange {
            gte: self.time(&format!("{name}_gte")),
            gt: self.time(&format!("{name}_gt")),
            lte: self.time(&format!("{name}_lte")),
            lt: self.time(&format!("{name}_lt")),
        }
    }

    /// The same for numbers.
    pub(crate) fn numbers(&mut self, name: &str) -> NumberRange {
        NumberRange {
            gte: self.number(&format!("{name}_gte")),
            gt: self.number(&format!("{name}_gt")),
            lte: self.number(&format!("{name}_lte")),
            lt: self.number(&format!("{name}_lt")),
        }
    }

    /// `NAME_pattern` and `NAME_prefix_pattern`.
    pub(crate) fn patterns(&self, name: &str) -> Patterns {
        Patterns {
            part: self.text(&format!("{name}_pattern")).and_then(Pattern::part),
            prefix: self.text(&format!("{name}_prefix_pattern")).and_then(Pattern::prefix),
        }
    }

    /// `limit` and `offset`.
    pub(crate) fn page(&mut self) -> Page {
        let not_negative = |text: &str| match value::integer(text)? {
            number if number >= 0 => Ok(number.unsigned_abs()),
            _ => Err(("greater_than_equal", "this must not be negative".to_owned())),
        };
        let limit = self.get("limit", not_negative).unwrap_or(u64::from(DEFAULT_LIMIT));
        let offset = self.get("offset", not_negative).unwrap_or(0);
        Page {
            limit: u32::try_from(limit).unwrap_or(MAX_LIMIT).min(MAX_LIMIT),
            // The databases count in signed numbers.
            offset: offset.min(i64::MAX.unsigned_abs() / 2),
        }
    }

    /// `limit` and `offset`, or `cursor`.
    pub(crate) fn page_or_cursor(&mut self) -> Result<(Page, bool), ApiError> {
        let mut page = self.page();
        let cursor = self.text("cursor").map(Cursor::parse).transpose()?;
        if let Some(cursor) = cursor {
            page.offset = cursor.0.min(i64::MAX.unsigned_abs() / 2);
        }
        Ok((page, cursor.is_some()))
    }

    /// Adds a violation that only the handler knows of.
    pub(crate) fn violate(&mut self, name: &str, kind: &str, msg: &str) {
        let input = self.text(name).map_or(serde_json::Value::Null, shown);
        self.violations.push(violation(at("query", name), kind, msg, input));
    }

    /// Answers 422 if anything was wrong.
    pub(crate) fn finish(&mut self) -> Result<(), ApiError> {
        match std::mem::take(&mut self.violations) {
            violations if violations.is_empty() => Ok(()),
            violations => Err(ApiError::violations(violations)),
        }
    }
}

fn count(text: &str) -> Result<u32, Problem> {
    u32::try_from(value::integer(text)?).map_err(|_| ("greater_than_equal", "this is not a possible number".to_owned()))
}

/// A range of numbers, both ends optional.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NumberRange {
    pub(crate) gte: Option<f64>,
    pub(crate) gt: Option<f64>,
    pub(crate) lte: Option<f64>,
    pub(crate) lt: Option<f64>,
}

impl NumberRange {
    pub(crate) fn is_open(&self) -> bool {
        self.gte.is_none() && self.gt.is_none() && self.lte.is_none() && self.lt.is_none()
    }

    /// Whether the number is in the range; no number is in no range.
    pub(crate) fn holds(&self, number: Option<f64>) -> bool {
        let Some(number) = number else { return self.is_open() };
        self.gte.is_none_or(|bound| number >= bound)
            && self.gt.is_none_or(|bound| number > bound)
            && self.lte.is_none_or(|bound| number <= bound)
            && self.lt.is_none_or(|bound| number < bound)
    }
}

/// The two text filters of a column.
#[derive(Clone, Debug, Default)]
pub(crate) struct Patterns {
    pub(crate) part: Option<Pattern>,
    pub(crate) prefix: Option<Pattern>,
}

impl Patterns {
    /// The part that the database evaluates; what is left stays in `self`.
    pub(crate) fn take_like(&mut self) -> Option<String> {
        let like = self.part.as_ref()?.as_like()?.to_owned();
        self.part = None;
        Some(like)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.part.is_none() && self.prefix.is_none()
    }

    pub(crate) fn matches(&self, text: &str) -> bool {
        self.part.as_ref().is_none_or(|pattern| pattern.matches(text))
            && self.prefix.as_ref().is_none_or(|pattern| pattern.matches(text))
    }
}
