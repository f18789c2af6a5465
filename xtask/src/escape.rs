//! Text that a guest wrote, made safe to show in a terminal.

/// One line: control characters and those that reorder text are escaped, a tab is shown as it is.
pub(crate) fn line(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => safe.push(c),
            c if c.is_control() => safe.extend(c.escape_unicode()),
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                safe.extend(c.escape_unicode());
            }
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_obey_nothing_in_escaped_text() {
        assert_eq!(
            line("\u{1b}[2J\u{9b}m\n\u{202e}x\u{7f}\tü"),
            "\\u{1b}[2J\\u{9b}m\\u{a}\\u{202e}x\\u{7f}\tü"
        );
    }
}
