//! JSON objects as request bodies: one value, nothing after it, bounded depth, no key twice, no unknown members, no integer that
//! would be changed.

use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use model::Timestamp;
use model::json::{GivenError, read_given};
use model::state::UnknownName;
use serde_json::{Map, Value, json};

use super::body::{content_type, read_all};
use super::value::{self, Problem, at, violation};
use crate::error::{ApiError, Violation};
use crate::state::App;

/// The members, and what is wrong with them. Take each, then [`JsonObject::finish`].
pub(crate) struct JsonObject {
    members: Map<String, Value>,
    violations: Vec<Violation>,
}

impl FromRequest<Arc<App>> for JsonObject {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        content_type(&parts.headers, &["application/json"])?;
        let bytes = read_all(&parts.headers, body, app.limits.json_bytes, &app.limits).await?;
        Self::parse(&bytes)
    }
}

impl JsonObject {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        let refuse =
            |kind: &str, msg: String, loc: Vec<Value>| ApiError::violations(vec![violation(loc, kind, msg, json!({}))]);
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let msg = format!("the body is not UTF-8 from byte {} on", error.valid_up_to());
            refuse("json_invalid", msg, vec!["body".into()])
        })?;
        let value = read_given(text).map_err(|error| match &error {
            GivenError::Syntax(syntax) => {
                let loc = vec!["body".into(), syntax.line.into(), syntax.column.into()];
                refuse("json_invalid", format!("the body is not valid JSON: {error}"), loc)
            }
            GivenError::Integer { path, .. } => {
                let loc = std::iter::once("body".into()).chain(path.0.iter().map(Value::from));
                refuse("int_parsing_size", error.to_string(), loc.collect())
            }
            GivenError::Decimal { path, .. } => {
                let loc = std::iter::once("body".into()).chain(path.0.iter().map(Value::from));
                refuse("decimal_max_digits", error.to_string(), loc.collect())
            }
        })?;
        match value {
            Value::Object(members) => Ok(Self {
                members,
                violations: Vec::new(),
            }),
            _ => Err(refuse(
                "model_attributes_type",
                "the body is not a JSON object".to_owned(),
                vec!["body".into()],
            )),
        }
    }

    /// Takes a member; `null` is none.
    fn take(&mut self, name: &str) -> Option<Value> {
        self.members.shift_remove(name).filter(|value| !value.is_null())
    }

    fn get<T>(&mut self, name: &str, parse: impl Fn(&Value) -> Result<T, Problem>) -> Option<T> {
        let value = self.take(name)?;
        match parse(&value) {
            Ok(parsed) => Some(parsed),
            Err((kind, msg)) => {
                self.violations.push(violation(at("body", name), kind, msg, value));
                None
            }
        }
    }

    /// The member must be there, even if it is `null`.
    pub(crate) fn require(&mut self, name: &str) {
        if !self.members.contains_key(name) {
            let input = Value::Object(self.members.clone());
            self.violations
                .push(violation(at("body", name), "missing", "this member is required", input));
        }
    }

    /// Whether the member is there, even if it is `null`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        self.get(name, |value| text(value).map(str::to_owned))
    }

    /// A text of at most so many characters.
    pub(crate) fn short_text(&mut self, name: &str, max: usize) -> Option<String> {
        self.get(name, |value| {
            let text = text(value)?;
            if text.chars().count() > max {
                return Err(("string_too_long", format!("this has more than {max} characters")));
            }
            Ok(text.to_owned())
        })
    }

    /// A text that is an id.
    pub(crate) fn id<T: FromStr<Err = model::id::InvalidId>>(&mut self, name: &str) -> Option<T> {
        self.get(name, |value| {
            let parsed = text(value)?.parse();
            parsed.map_err(|error: model::id::InvalidId| ("value_error", error.to_string()))
        })
    }

    pub(crate) fn flag(&mut self, name: &str) -> Option<bool> {
        self.get(name, |value| match value {
            Value::Bool(flag) => Ok(*flag),
            Value::String(text) => value::flag(text),
            Value::Number(number) => value::flag(&number.to_string()),
            _ => Err(("bool_type", "this is not a boolean".to_owned())),
        })
    }

    pub(crate) fn time(&mut self, name: &str) -> Option<Timestamp> {
        self.get(name, |value| value::time(text(value)?, true))
    }

    pub(crate) fn named<T: FromStr<Err = UnknownName>>(&mut self, name: &str) -> Option<T> {
        self.get(name, |value| value::named(text(value)?))
    }

    pub(crate) fn object(&mut self, name: &str) -> Option<Map<String, Value>> {
        self.get(name, |value| match value {
            Value::Object(members) => Ok(members.clone()),
            _ => Err(("dict_type", "this is not a JSON object".to_owned())),
        })
    }

    /// A list; each element is parsed by itself.
    pub(crate) fn list<T>(
        &mut self,
        name: &str,
        parse: impl Fn(&Value) -> Result<T, (&'static str, String)>,
    ) -> Option<Vec<T>> {
        let value = self.take(name)?;
        let Value::Array(elements) = value else {
            let problem = violation(at("body", name), "list_type", "this is not a list", value);
            self.violations.push(problem);
            return None;
        };
        let mut parsed = Vec::with_capacity(elements.len());
        for (index, element) in elements.into_iter().enumerate() {
            match parse(&element) {
                Ok(value) => parsed.push(value),
                Err((kind, msg)) => {
                    let loc = vec!["body".into(), name.into(), index.into()];
                    self.violations.push(violation(loc, kind, msg, element));
                }
            }
        }
        Some(parsed)
    }

    pub(crate) fn texts(&mut self, name: &str) -> Option<Vec<String>> {
        self.list(name, |value| text(value).map(str::to_owned))
    }

    pub(crate) fn integer(&mut self, name: &str) -> Option<i64> {
        self.get(name, |value| match value {
            Value::Number(number) => number
                .as_i64()
                .ok_or_else(|| ("int_from_float", "this is not an integer".to_owned())),
            Value::String(text) => value::integer(text),
            _ => Err(("int_type", "this is not an integer".to_owned())),
        })
    }

    pub(crate) fn number(&mut self, name: &str) -> Option<f64> {
        self.get(name, |value| match value {
            Value::Number(number) => number
                .as_f64()
                .ok_or_else(|| ("float_type", "this is not a number".to_owned())),
            Value::String(text) => value::number(text),
            _ => Err(("float_type", "this is not a number".to_owned())),
        })
    }

    /// Adds a violation that only the handler knows of.
    pub(crate) fn violate(&mut self, name: &str, kind: &str, msg: impl Into<String>) {
        self.violations
            .push(violation(at("body", name), kind, msg, Value::Null));
    }

    /// Answers 422 if anything was wrong or a member was not asked for.
    pub(crate) fn finish(mut self) -> Result<(), ApiError> {
        for (name, value) in std::mem::take(&mut self.members) {
            let name: String = name.chars().take(64).collect();
            let msg = "this member is not known here";
            self.violations
                .push(violation(at("body", &name), "extra_forbidden", msg, value));
        }
        if self.violations.is_empty() {
            return Ok(());
        }
        Err(ApiError::violations(self.violations))
    }
}

/// The text of a value.
pub(crate) fn text(value: &Value) -> Result<&str, Problem> {
    value
        .as_str()
        .ok_or_else(|| ("string_type", "this is not a text".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    fn code(bytes: &[u8]) -> Option<Code> {
        JsonObject::parse(bytes).err().map(|error| error.code())
    }

    #[test]
    fn refuses_what_is_not_one_object() {
        for text in ["", "[]", "1", "{} x", "{}{}", "{\"a\":}", "\u{feff}{}"] {
            assert_eq!(code(text.as_bytes()), Some(Code::ValidationFailed), "{text}");
        }
        assert_eq!(code(b"{} \n"), None);
    }

    #[test]
    fn refuses_deep_nesting_but_not_brackets_in_texts() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(64), "]".repeat(64));
        assert_eq!(code(deep.as_bytes()), Some(Code::ValidationFailed));
        let text = format!("{{\"a\":\"{}\\\"{}\"}}", "[".repeat(500), "{".repeat(500));
        assert_eq!(code(text.as_bytes()), None);
    }
    #[test]
    fn refuses_what_would_not_be_kept_and_says_where_it_stands() {
        let violations = |bytes: &str| {
            let error = JsonObject::parse(bytes.as_bytes()).err().unwrap();
            assert_eq!(error.code(), Code::ValidationFailed);
            serde_json::to_value(error.detail()).unwrap()
        };
        let large = violations("{\"conf\": {\"a\": [1, 123456789012345678901234567890]}}");
        assert_eq!(large[0]["loc"], json!(["body", "conf", "a", 1]));
        assert_eq!(large[0]["type"], "int_parsing_size");
        let decimal = violations("{\"conf\": {\"a\": 12345678901234567.89}}");
        assert_eq!(decimal[0]["loc"], json!(["body", "conf", "a"]));
        assert_eq!(decimal[0]["type"], "decimal_max_digits");
        let no_number = violations("{\"conf\": {\"a\": NaN}}");
        assert!(
            no_number[0]["msg"].as_str().unwrap().contains("`NaN` is not JSON"),
            "{no_number}"
        );
        let twice = violations("{\"conf\": {\"a\": 1,\n\"a\": 2}}");
        assert_eq!(twice[0]["loc"], json!(["body", 2, 1]));
        assert!(
            twice[0]["msg"].as_str().unwrap().contains("key `a` is there twice"),
            "{twice}"
        );
        assert_eq!(code(b"{\"a\": \"\xff\"}"), Some(Code::ValidationFailed));
    }
}
