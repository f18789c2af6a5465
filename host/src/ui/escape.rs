//! Text that a guest or another user wrote, made safe to show: nothing in it may move the cursor, colour the terminal, hide
//! text or reorder it.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Control characters and the characters that reorder text. A tab is shown as it is.
fn is_unsafe(c: char) -> bool {
    (c.is_control() && c != '\t')
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// One line: line ends are escaped too.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    escape(text, is_unsafe)
}

/// Several lines: line feeds stay.
pub(crate) fn block(text: &str) -> Cow<'_, str> {
    escape(text, |c| is_unsafe(c) && c != '\n')
}

fn escape(text: &str, unsafe_char: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&unsafe_char) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if !unsafe_char(c) => safe.push(c),
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\u{1b}' => safe.push_str("\\e"),
            c if (c as u32) < 0x100 => write!(safe, "\\x{:02x}", c as u32).expect("a String takes all text"),
            c => write!(safe, "\\u{{{:x}}}", c as u32).expect("a String takes all text"),
        }
    }
    Cow::Owned(safe)
}

/// JSON text with those characters that JSON allows raw but a terminal obeys written as `\u` escapes. The value is the same.
pub(crate) fn json(text: &str) -> Cow<'_, str> {
    let raw = |c: char| is_unsafe(c) && c != '\n' && c != '\r';
    if !text.chars().any(raw) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if raw(c) {
            // All of them are below U+10000: one escape each.
            write!(safe, "\\u{:04x}", c as u32).expect("a String takes all text");
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

/// At most `max` characters, the last of them an ellipsis where something was cut off.
pub(crate) fn shorten(text: &str, max: usize) -> Cow<'_, str> {
    if text.chars().count() <= max {
        return Cow::Borrowed(text);
    }
    let mut short: String = text.chars().take(max.saturating_sub(1)).collect();
    short.push('…');
    Cow::Owned(short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_obey_nothing_in_escaped_text() {
        assert_eq!(
            line("\x1b[2J\u{9b}31m\r\n\u{202e}gnp.exe\u{7}\0"),
            "\\e[2J\\x9b31m\\r\\n\\u{202e}gnp.exe\\x07\\x00"
        );
        assert_eq!(block("a\n\tb\x1b"), "a\n\tb\\e");
        assert!(matches!(line("plain Zürich 漢字 ✓"), Cow::Borrowed(_)));
    }

    #[test]
    fn escaped_json_is_the_same_value() {
        let value = serde_json::json!({"k\u{9b}": "\u{202e}\u{7f}\u{85}\u{1}ü"});
        let text = value.to_string();
        let safe = json(&text);
        assert!(!safe.chars().any(|c| c.is_control()), "{safe}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
    }

    #[test]
    fn shortens_by_characters() {
        assert_eq!(shorten("äöü", 3), "äöü");
        assert_eq!(shorten("äöüß", 3), "äö…");
    }
}
