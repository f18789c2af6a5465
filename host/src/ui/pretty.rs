//! JSON text laid out for people, with every scalar as it was written.

use std::borrow::Cow;

use model::json::{Sink, scan};
use serde_json::Value;

/// The text with each member and element on a line of its own, as `serde_json` lays it out; nothing where it is no JSON.
pub(crate) fn pretty(text: &str) -> Option<String> {
    let mut layout = Layout::default();
    scan(text, &mut layout).ok()?;
    Some(layout.text)
}

#[derive(Default)]
struct Layout {
    text: String,
    /// Of each open object and array, whether it has a member yet.
    open: Vec<bool>,
    /// A key was written, and its value comes next.
    after_key: bool,
}

impl Layout {
    fn line(&mut self) {
        self.text.push('\n');
        self.text.extend(std::iter::repeat_n("  ", self.open.len()));
    }

    /// What stands before a key, or before a value that has none.
    fn before(&mut self) {
        if std::mem::take(&mut self.after_key) {
            return;
        }
        if let Some(has_member) = self.open.last_mut() {
            if std::mem::replace(has_member, true) {
                self.text.push(',');
            }
            self.line();
        }
    }

    fn scalar(&mut self, text: &str) -> Result<(), String> {
        self.before();
        self.text.push_str(text);
        Ok(())
    }
}

impl<'a> Sink<'a> for Layout {
    fn null(&mut self) -> Result<(), String> {
        self.scalar("null")
    }

    fn bool(&mut self, value: bool) -> Result<(), String> {
        self.scalar(if value { "true" } else { "false" })
    }

    fn number(&mut self, text: &'a str) -> Result<(), String> {
        self.scalar(text)
    }

    fn string(&mut self, raw: &'a str) -> Result<(), String> {
        self.before();
        self.text.push('"');
        self.text.push_str(raw);
        self.text.push('"');
        Ok(())
    }

    fn begin(&mut self, object: bool) -> Result<(), String> {
        self.before();
        self.text.push(if object { '{' } else { '[' });
        self.open.push(false);
        Ok(())
    }

    fn key(&mut self, key: Cow<'a, str>) -> Result<(), String> {
        self.before();
        self.text.push_str(&Value::from(&*key).to_string());
        self.text.push_str(": ");
        self.after_key = true;
        Ok(())
    }

    fn end(&mut self, object: bool) -> Result<(), String> {
        if self.open.pop() == Some(true) {
            self.line();
        }
        self.text.push(if object { '}' } else { ']' });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_is_the_layout_of_serde_json() {
        for value in [
            json!(null),
            json!("a\"b\n"),
            json!([]),
            json!({}),
            json!([1, [], {}, [[2.5]], "x"]),
            json!({"a": 1, "b": {"c": [true, false, null]}, "d": {}, "é\n": "\u{7f}"}),
        ] {
            let expected = serde_json::to_string_pretty(&value).unwrap();
            assert_eq!(pretty(&value.to_string()).as_deref(), Some(expected.as_str()));
        }
    }

    #[test]
    fn numbers_keep_their_digits() {
        let text = r#"{"n":123456789012345678901234567890,"d":[1.10,-0.12345678901234567890123,1E5]}"#;
        let shown = pretty(text).unwrap();
        for digits in [
            "123456789012345678901234567890",
            "1.10",
            "-0.12345678901234567890123",
            "1E5",
        ] {
            assert!(shown.contains(digits), "{shown}");
        }
        assert_eq!(pretty("{"), None);
    }
}
