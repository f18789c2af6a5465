//! Text that a guest or another user wrote, made safe for a terminal: nothing in it may move the cursor, colour or reorder.
//!
//! Only answers in plain text need it. JSON answers hold what was written, and whoever shows it escapes it.

use std::fmt::Write as _;

/// Control characters and the characters that reorder text or end a line. A tab is shown as it is.
fn is_unsafe(c: char) -> bool {
    (c.is_control() && c != '\t')
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Appends one line of text, line ends escaped.
pub(crate) fn push_line(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            c if is_unsafe(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
}

/// Appends JSON text on one line; it stays JSON of the same value. JSON itself escapes the control characters of ASCII alone, but
/// for U+007F.
pub(crate) fn push_json(out: &mut String, json: &str) {
    for c in json.chars() {
        if is_unsafe(c) {
            // All of them are below U+10000: one escape each. Writing to a String cannot fail.
            let _ = write!(out, "\\u{:04x}", c as u32);
        } else {
            out.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_obey_nothing_in_escaped_text() {
        let mut out = String::new();
        push_line(&mut out, "\u{1b}[2J\u{9b}31m\r\n\u{202e}gnp\u{7f}\tü");
        assert_eq!(out, "\\u{1b}[2J\\u{9b}31m\\u{d}\\u{a}\\u{202e}gnp\\u{7f}\tü");
    }

    #[test]
    fn escaped_json_is_the_same_value() {
        let value = serde_json::json!({"k\u{9b}": "\u{202e}\u{7f}\u{85}\u{1}ü\u{200f}"});
        let mut out = String::new();
        push_json(&mut out, &value.to_string());
        assert!(!out.chars().any(is_unsafe), "{out}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap(), value);
    }
}
