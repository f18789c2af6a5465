//! JSON that people send and that is kept as a tree: a run's `conf`, answers of human steps, bodies of requests.
//!
//! A guest's text is kept as it was written. A tree cannot hold every integer, nor all digits of every decimal, and of a key that is
//! there twice it holds one: here, what would be changed silently is refused.

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
    /// A decimal has more digits than a 64-bit float keeps: a tree would hold another number.
    #[error(
        "{shown} has more digits than a 64-bit float keeps, and would become {kept}; write it as text{}",
        at(path)
    )]
    Decimal {
        /// Where it stands.
        path: ValuePath,
        /// How it begins.
        shown: String,
        /// What would be kept of it.
        kept: String,
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
    let mut integers = Numbers::default();
    let scanned = scan(text, &mut integers);
    if let Some((shown, kept)) = integers.too_long {
        let path = ValuePath(integers.open.into_iter().map(Open::into_step).collect());
        return Err(match kept {
            None => GivenError::Integer { path, shown },
            Some(kept) => GivenError::Decimal { path, shown, kept },
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

/// Whether two numbers in decimal digits are the same, however they are written: `1.50e1` and `15.0`.
fn same_decimal(a: &str, b: &str) -> bool {
    /// The digits without zeros at either end, and the place of the point before the first of them.
    fn parts(text: &str) -> Option<(bool, Vec<u8>, i64)> {
        let (number, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let exponent: i64 = exponent.parse().ok()?;
        let (negative, number) = match number.strip_prefix('-') {
            Some(number) => (true, number),
            None => (false, number),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
        let end = digits
            .iter()
            .rposition(|digit| *digit != b'0')
            .map_or(zeros, |last| last + 1);
        let significant = digits.get(zeros..end).unwrap_or_default().to_vec();
        if significant.is_empty() {
            return Some((false, significant, 0));
        }
        let point = i64::try_from(whole.len()).ok()? - i64::try_from(zeros).ok()?;
        Some((negative, significant, point.checked_add(exponent)?))
    }
    parts(a).is_some_and(|a| parts(b).is_some_and(|b| a == b))
}

/// What a tree would hold of a decimal, if that is another number.
fn changed(text: &str) -> Option<String> {
    let kept = text
        .parse::<f64>()
        .ok()
        .and_then(serde_json::Number::from_f64)?
        .to_string();
    (!same_decimal(text, &kept)).then_some(kept)
}

/// Stops at the first number that a tree cannot hold.
#[derive(Default)]
struct Numbers<'a> {
    /// The open objects and arrays, and where in each the scanner is.
    open: Vec<Open<'a>>,
    /// How it begins, and of a decimal what would be kept.
    too_long: Option<(String, Option<String>)>,
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

impl Numbers<'_> {
    /// A value has ended.
    fn pass(&mut self) {
        if let Some(Open::Array(index)) = self.open.last_mut() {
            *index += 1;
        }
    }
}

impl<'a> Sink<'a> for Numbers<'a> {
    fn null(&mut self) -> Result<(), String> {
        self.pass();
        Ok(())
    }

    fn bool(&mut self, _: bool) -> Result<(), String> {
        self.pass();
        Ok(())
    }

    fn number(&mut self, text: &'a str) -> Result<(), String> {
        let kept = match text.contains(['.', 'e', 'E']) {
            true => changed(text).map(Some),
            false => (text.parse::<i64>().is_err() && text.parse::<u64>().is_err()).then_some(None),
        };
        if let Some(kept) = kept {
            let mut shown: String = text.chars().take(SHOWN_DIGITS).collect();
            if shown.len() < text.len() {
                shown.push('…');
            }
            self.too_long = Some((shown, kept));
            return Err("a number that would not be kept".to_owned());
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
    fn a_decimal_keeps_its_digits_or_is_refused() {
        for text in [
            "0.1",
            "1.10",
            "19.99",
            "1e2",
            "1.50e1",
            "-0.0",
            "0.30000000000000004",
            "5e-324",
            "123456.789E-3",
        ] {
            let kept = read_given(text).unwrap().to_string();
            assert!(same_decimal(text, &kept), "{text} {kept}");
        }
        let refusal = refused("{\"price\": [12345678901234567.89]}");
        assert_eq!(
            refusal,
            "12345678901234567.89 has more digits than a 64-bit float keeps, and would become 1.2345678901234568e+16; write it as \
             text, at `price[0]`"
        );
        for text in [
            "3.14159265358979323846",
            "9007199254740993.0",
            "1e-400",
            "0.1234567890123456789",
        ] {
            assert!(
                refused(text).contains("more digits than a 64-bit float keeps"),
                "{text}"
            );
        }
        assert!(!same_decimal("1.5", "-1.5") && !same_decimal("1.5", "15") && same_decimal("-0", "0.00e9"));
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
        /// A decimal is taken with all its digits, or refused: it never becomes another number.
        #[test]
        fn no_decimal_becomes_another(whole in any::<u64>(), fraction in "[0-9]{1,12}", exponent in -30..30_i32) {
            let text = format!("{whole}.{fraction}e{exponent}");
            match read_given(&text) {
                Ok(value) => prop_assert!(same_decimal(&text, &value.to_string()), "{} {}", text, value),
                Err(error) => prop_assert!(matches!(error, GivenError::Decimal { .. }), "{}", error),
            }
        }

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
                Err(GivenError::Decimal { .. }) => prop_assert!(false, "there is none"),
                Err(GivenError::Syntax(_)) => prop_assert!(key == other),
            }
        }
    }
}
