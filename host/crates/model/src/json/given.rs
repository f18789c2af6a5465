//! JSON that people send and that is kept as a tree: a run's `conf`, answers of human steps, bodies of requests.
//!
//! A guest's text is kept as it was written. A tree cannot hold every integer, and of a key that is there twice it holds
//! one: here, what would be changed silently is refused.

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;

use super::scan::{Sink, SyntaxError, scan};

/// The start of a number that is shown to people.
const SHOWN_DIGITS: usize = 48;

/// One step from a value to a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The member of an object.
    Key(String),
    /// The element of an array, from 0.
    Index(usize),
}

impl From<&Step> for Value {
    fn from(step: &Step) -> Self {
        match step {
            Step::Key(key) => key.as_str().into(),
            Step::Index(index) => (*index).into(),
        }
    }
}

/// Where in a value something stands: `rows[3].id`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValuePath(pub Vec<Step>);

impl fmt::Display for ValuePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if position == 0 => write!(f, "{key}")?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// A JSON text is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GivenError {
    /// It is no JSON, is nested too deep, or an object has a key twice.
    #[error("{0}")]
    Syntax(SyntaxError),
    /// An integer has more than 64 bits: a tree would hold its nearest float.
    #[error(
        "{shown} has more than 64 bits and would not be kept exactly; write it as text{}",
        at(path)
    )]
    Integer {
        /// Where it stands.
        path: ValuePath,
        /// How it begins.
        shown: String,
    },
}

fn at(path: &ValuePath) -> String {
    match path.0.as_slice() {
        [] => String::new(),
        _ => format!(", at `{path}`"),
    }
}

/// Reads one JSON text into a tree that holds all of it.
pub fn read_given(text: &str) -> Result<Value, GivenError> {
    let mut integers = Integers::default();
    let scanned = scan(text, &mut integers);
    if let Some(shown) = integers.too_long {
        let path = integers.open.into_iter().map(Open::into_step).collect();
        return Err(GivenError::Integer {
            path: ValuePath(path),
            shown,
        });
    }
    scanned.map_err(GivenError::Syntax)?;
    // The scanner takes nothing that the parser does not take, so this says nothing that it has not said better.
    serde_json::from_str(text).map_err(|error| {
        GivenError::Syntax(SyntaxError {
            reason: "this is not valid JSON".to_owned(),
            line: u32::try_from(error.line()).unwrap_or(u32::MAX),
            column: u32::try_from(error.column()).unwrap_or(u32::MAX),
        })
    })
}

/// Stops at the first integer that a tree cannot hold.
#[derive(Default)]
struct Integers<'a> {
    /// The open objects and arrays, and where in each the scanner is.
    open: Vec<Open<'a>>,
    too_long: Option<String>,
}

enum Open<'a> {
    Object(Cow<'a, str>),
    Array(usize),
}

impl Open<'_> {
    fn into_step(self) -> Step {
        match self {
            Self::Object(key) => Step::Key(key.into_owned()),
            Self::Array(index) => Step::Index(index),
        }
    }
}

impl Integers<'_> {
    /// A value has ended.
    fn pass(&mut self) {
        if let Some(Open::Array(index)) = self.open.last_mut() {
            *index += 1;
        }
    }
}

impl<'a> Sink<'a> for Integers<'a> {
    fn null(&mut self) -> Result<(), String> {
        self.pass();
        Ok(())
    }

    fn bool(&mut self, _: bool) -> Result<(), String> {
        self.pass();
        Ok(())
    }

    fn number(&mut self, text: &'a str) -> Result<(), String> {
        let float = text.contains(['.', 'e', 'E']);
        if !float && text.parse::<i64>().is_err() && text.parse::<u64>().is_err() {
            let mut shown: String = text.chars().take(SHOWN_DIGITS).collect();
            if shown.len() < text.len() {
                shown.push('…');
            }
            self.too_long = Some(shown);
            return Err("an integer of more than 64 bits".to_owned());
        }
        self.pass();
        Ok(())
    }

    fn string(&mut self, _: &'a str) -> Result<(), String> {
        self.pass();
        Ok(())
    }

    fn begin(&mut self, object: bool) -> Result<(), String> {
        self.open.push(match object {
            true => Open::Object(Cow::Borrowed("")),
            false => Open::Array(0),
        });
        Ok(())
    }

    fn key(&mut self, key: Cow<'a, str>) -> Result<(), String> {
        if let Some(Open::Object(at)) = self.open.last_mut() {
            *at = key;
        }
        Ok(())
    }

    fn end(&mut self, _: bool) -> Result<(), String> {
        self.open.pop();
        self.pass();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn refused(text: &str) -> String {
        read_given(text).unwrap_err().to_string()
    }

    #[test]
    fn integers_of_64_bits_and_floats_are_kept() {
        for text in [
            "18446744073709551615",
            "-9223372036854775808",
            "[9007199254740993,0]",
            "{\"a\":1e300}",
            "1.2345678901234567",
        ] {
            assert_eq!(read_given(text).unwrap().to_string().replace("e+", "e"), text);
        }
    }

    #[test]
    fn an_integer_that_would_be_changed_is_refused_where_it_stands() {
        let refusal = refused("{\"ok\": [1], \"rows\": [{\"id\": 1}, [], {\"id\": 123456789012345678901234567890}]}");
        assert_eq!(
            refusal,
            "123456789012345678901234567890 has more than 64 bits and would not be kept exactly; write it as text, at `rows[2].id`"
        );
        assert!(refused("18446744073709551616").starts_with("18446744073709551616 has more"));
        assert!(refused("-9223372036854775809").ends_with("write it as text"));
        let long = refused(&format!("[{}]", "9".repeat(300)));
        assert!(long.len() < 200 && long.contains('…'), "{long}");
    }

    #[test]
    fn what_is_no_number_is_named() {
        for (text, name) in [
            ("NaN", "NaN"),
            ("{\"a\": [1, NaN]}", "NaN"),
            ("[Infinity]", "Infinity"),
            ("[-Infinity]", "-Infinity"),
            ("[-Inf,1]", "-Inf"),
        ] {
            let refusal = refused(text);
            assert!(
                refusal.starts_with(&format!("`{name}` is not JSON: write `null`")),
                "{refusal}"
            );
        }
        assert_eq!(
            refused("{\"rows\": [\n 1, NaN]}"),
            "`NaN` is not JSON: write `null`, or put it in quotes at line 2, column 5"
        );
        for text in ["Nan", "NaNs", "Infinit", "-I"] {
            assert!(!refused(text).contains("is not JSON: write"), "{text}");
        }
        assert_eq!(read_given("\"NaN\"").unwrap(), json!("NaN"));
    }

    #[test]
    fn a_key_that_is_there_twice_is_refused() {
        assert_eq!(
            refused("{\"a\": 1,\n \"b\": {\"c\": 1, \"\\u0063\": 2}}"),
            "key `c` is there twice at line 2, column 16"
        );
    }

    proptest! {
        /// What is taken is taken whole: written out again, it says the same.
        #[test]
        fn nothing_is_lost(number in any::<i128>(), float in -1e300..1e300_f64, key in "[a-c]", other in "[a-c]") {
            let text = json!({"f": float}).to_string();
            prop_assert_eq!(read_given(&text).unwrap().to_string(), text);
            let text = format!("{{\"{key}\":{number},\"{other}\":[{number}]}}");
            let fits = i64::try_from(number).is_ok() || u64::try_from(number).is_ok();
            match read_given(&text) {
                Ok(value) => {
                    let written = value.to_string();
                    prop_assert!(written == text && fits && key != other, "{}", written);
                }
                Err(GivenError::Integer { .. }) => prop_assert!(!fits),
                Err(GivenError::Syntax(_)) => prop_assert!(key == other),
            }
        }
    }
}
