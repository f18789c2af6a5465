//! Lines out of the bytes of standard output or error. `\n`, `\r` and both together end a line: a progress bar is a line each time.

/// The longest line. A longer one is cut into several.
pub(crate) const MAX_LINE_BYTES: usize = 16 << 10;

/// One stream, with what has no end yet.
#[derive(Default)]
pub(super) struct Stream {
    buffer: Vec<u8>,
    before: Before,
}

/// What an empty buffer comes after.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Before {
    /// A line that is over.
    #[default]
    Line,
    /// A line that `\r` ended: a `\n` belongs to it.
    Return,
    /// A `\r` without text in front of it: no line, unless a `\n` follows.
    BareReturn,
    /// Text that was shown before its end came: the next end belongs to it.
    Shown,
}

impl Stream {
    /// Takes bytes, and gives out the lines that they end.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut line: impl FnMut(String)) {
        while !bytes.is_empty() {
            let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let (text, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            self.extend(text, &mut line);
            let Some((end, rest)) = rest.split_first() else { return };
            self.end(*end == b'\r', &mut line);
            bytes = rest;
        }
    }

    fn extend(&mut self, text: &[u8], line: &mut impl FnMut(String)) {
        self.buffer.extend_from_slice(text);
        let mut start = 0;
        loop {
            let rest = self.buffer.get(start..).unwrap_or_default();
            if rest.len() <= MAX_LINE_BYTES {
                break;
            }
            let length = char_boundary(rest, MAX_LINE_BYTES);
            line(text_of(rest.get(..length).unwrap_or_default()));
            start += length;
        }
        self.buffer.drain(..start);
    }

    fn end(&mut self, is_return: bool, line: &mut impl FnMut(String)) {
        let after = if is_return { Before::Return } else { Before::Line };
        if !self.buffer.is_empty() {
            line(self.take());
            self.before = after;
            return;
        }
        self.before = match (is_return, self.before) {
            (_, Before::Shown) => after,
            (true, _) => Before::BareReturn,
            (false, Before::Return) => Before::Line,
            (false, Before::Line | Before::BareReturn) => {
                line(String::new());
                Before::Line
            }
        };
    }

    fn take(&mut self) -> String {
        let text = text_of(&self.buffer);
        self.buffer.clear();
        text
    }

    /// Whether there is text without an end.
    pub(super) fn is_unfinished(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The text that has no end yet, without a last character that is not whole yet.
    pub(super) fn show(&mut self) -> Option<String> {
        let whole = whole_characters(&self.buffer);
        if whole == 0 {
            return None;
        }
        let text = text_of(self.buffer.get(..whole).unwrap_or_default());
        self.buffer.drain(..whole);
        self.before = Before::Shown;
        Some(text)
    }

    /// All text that has no end yet.
    pub(super) fn flush(&mut self) -> Option<String> {
        if self.buffer.is_empty() {
            return None;
        }
        self.before = Before::Shown;
        Some(self.take())
    }
}

/// The last position at or before `at` that does not cut a UTF-8 sequence.
fn char_boundary(bytes: &[u8], at: usize) -> usize {
    (at.saturating_sub(3)..=at)
        .rev()
        .find(|position| bytes.get(*position).is_none_or(|byte| byte & 0xC0 != 0x80))
        .unwrap_or(at)
}

/// The number of bytes that there are before a UTF-8 sequence at the end that is not whole.
fn whole_characters(bytes: &[u8]) -> usize {
    for (back, byte) in (1..=3).zip(bytes.iter().rev()) {
        let length = match byte {
            0x80..=0xBF => continue,
            0xC0..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF7 => 4,
            _ => 1,
        };
        return if length > back { bytes.len() - back } else { bytes.len() };
    }
    bytes.len()
}

fn text_of(line: &[u8]) -> String {
    String::from_utf8_lossy(line).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(bytes: &[u8]) -> (Vec<String>, Vec<u8>) {
        let (mut stream, mut lines) = (Stream::default(), Vec::new());
        stream.push(bytes, |line| lines.push(line));
        (lines, stream.buffer)
    }

    #[test]
    fn cuts_lines_and_keeps_the_rest() {
        assert_eq!(
            cut(b"a\r\n\nb\xff\nc"),
            (
                vec!["a".to_owned(), String::new(), "b\u{fffd}".to_owned()],
                b"c".to_vec()
            )
        );
    }

    #[test]
    fn the_same_lines_however_the_bytes_are_cut() {
        let text = b"\r10 %\r20 %\r\r\r\n\n\r\nend\r\n\nx\ry";
        let (whole, _) = cut(text);
        assert_eq!(whole, ["10 %", "20 %", "", "", "", "end", "", "x"]);
        for size in 1..text.len() {
            let (mut stream, mut lines) = (Stream::default(), Vec::new());
            for piece in text.chunks(size) {
                stream.push(piece, |line| lines.push(line));
            }
            assert_eq!(lines, whole, "in pieces of {size}");
        }
    }

    #[test]
    fn cuts_long_lines_between_characters() {
        let text = "é".repeat(MAX_LINE_BYTES);
        let (lines, rest) = cut(text.as_bytes());
        assert!(
            lines
                .iter()
                .all(|line| line.len() <= MAX_LINE_BYTES && !line.contains('\u{fffd}'))
        );
        assert_eq!(lines.concat().len() + rest.len(), text.len());
    }

    #[test]
    fn knows_where_a_character_is_not_whole() {
        for (bytes, whole) in [
            (&b""[..], 0),
            (b"a", 1),
            ("é".as_bytes(), 2),
            (b"a\xc3", 1),
            (b"a\xe2\x82", 1),
            (b"\xf0\x9f\x98", 0),
            (b"\x80\x80\x80\x80", 4),
            (b"\xff", 1),
        ] {
            assert_eq!(whole_characters(bytes), whole, "{bytes:?}");
        }
    }
}
