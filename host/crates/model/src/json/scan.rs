//! A JSON scanner that keeps no tree: it walks the text once and tells a sink what it sees, with the text of each scalar as
//! it was written. It holds what the contract demands of every document: grammar, depth, keys that do not repeat.

use std::borrow::Cow;
use std::collections::HashSet;

/// How deep arrays and objects may nest.
pub const MAX_DEPTH: usize = 64;

/// An object with at most this many keys is checked for repeats without hashing.
const FEW_KEYS: usize = 8;

/// The text is not a JSON document that the contract allows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at line {line}, column {column}")]
pub struct SyntaxError {
    /// What is wrong.
    pub reason: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// Takes what the scanner sees. Each method may refuse with a reason.
pub trait Sink<'a> {
    /// `null`.
    fn null(&mut self) -> Result<(), String>;
    /// `true` or `false`.
    fn bool(&mut self, value: bool) -> Result<(), String>;
    /// A number as it was written.
    fn number(&mut self, text: &'a str) -> Result<(), String>;
    /// A string; decoded by [`unescape`] if the sink wants it. `raw` is without the quotes.
    fn string(&mut self, raw: &'a str) -> Result<(), String>;
    /// `{` or `[`.
    fn begin(&mut self, object: bool) -> Result<(), String>;
    /// A key of the innermost object.
    fn key(&mut self, key: Cow<'a, str>) -> Result<(), String>;
    /// `}` or `]`.
    fn end(&mut self, object: bool) -> Result<(), String>;
}

/// Walks one JSON document.
pub fn scan<'a>(text: &'a str, sink: &mut impl Sink<'a>) -> Result<(), SyntaxError> {
    let mut scanner = Scanner { text, at: 0 };
    scanner.document(sink).map_err(|reason| {
        let before = text.get(..scanner.at.min(text.len())).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let count = |n: usize| u32::try_from(n + 1).unwrap_or(u32::MAX);
        SyntaxError {
            reason,
            line: count(before.matches('\n').count()),
            column: count(before.get(line_start..).map_or(0, |line| line.chars().count())),
        }
    })
}

/// The text of a string without its quotes, decoded. The text must come from the scanner.
pub(crate) fn unescape(raw: &str) -> Cow<'_, str> {
    if !raw.contains('\\') {
        return Cow::Borrowed(raw);
    }
    // The scanner has checked every escape, so this cannot fail.
    let text = serde_json::from_str::<String>(&format!("\"{raw}\"")).unwrap_or_else(|_| raw.to_owned());
    Cow::Owned(text)
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn document(&mut self, sink: &mut impl Sink<'a>) -> Result<(), String> {
        self.space();
        self.value(sink, 0)?;
        self.space();
        match self.peek() {
            None => Ok(()),
            Some(_) => Err("more text after the value".to_owned()),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn value(&mut self, sink: &mut impl Sink<'a>, depth: usize) -> Result<(), String> {
        match self.peek() {
            Some(b'{') => self.object(sink, depth),
            Some(b'[') => self.array(sink, depth),
            Some(b'"') => {
                let raw = self.string()?;
                sink.string(raw)
            }
            Some(b'-' | b'+' | b'N' | b'I') if self.no_number().is_some() => {
                let name = self.no_number().unwrap_or_default();
                Err(format!("`{name}` is not JSON: write `null`, or put it in quotes"))
            }
            Some(b'-' | b'0'..=b'9') => {
                let number = self.number()?;
                sink.number(number)
            }
            Some(b't') => self.word("true").and_then(|()| sink.bool(true)),
            Some(b'f') => self.word("false").and_then(|()| sink.bool(false)),
            Some(b'n') => self.word("null").and_then(|()| sink.null()),
            Some(_) => Err("expected a value".to_owned()),
            None => Err("the text ends where a value is expected".to_owned()),
        }
    }

    /// What other languages write for floats that are no numbers, where it stands here.
    fn no_number(&self) -> Option<&'static str> {
        let rest = self.text.get(self.at..)?;
        ["NaN", "Infinity", "-Infinity", "+Infinity", "-NaN", "Inf", "-Inf"]
            .into_iter()
            .find(|name| {
                rest.strip_prefix(name)
                    .is_some_and(|after| !after.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
            })
    }

    fn word(&mut self, word: &str) -> Result<(), String> {
        if self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            self.at += word.len();
            return Ok(());
        }
        Err("expected a value".to_owned())
    }

    fn deeper(depth: usize) -> Result<usize, String> {
        if depth >= MAX_DEPTH {
            return Err(format!("nested deeper than {MAX_DEPTH} levels"));
        }
        Ok(depth + 1)
    }

    fn array(&mut self, sink: &mut impl Sink<'a>, depth: usize) -> Result<(), String> {
        let depth = Self::deeper(depth)?;
        sink.begin(false)?;
        self.at += 1;
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return sink.end(false);
        }
        loop {
            self.space();
            self.value(sink, depth)?;
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return sink.end(false);
                }
                _ => return Err("expected `,` or `]`".to_owned()),
            }
        }
    }

    fn object(&mut self, sink: &mut impl Sink<'a>, depth: usize) -> Result<(), String> {
        let depth = Self::deeper(depth)?;
        sink.begin(true)?;
        self.at += 1;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return sink.end(true);
        }
        let mut keys = Keys::default();
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err("expected a key in double quotes".to_owned());
            }
            let start = self.at;
            let key = unescape(self.string()?);
            if !keys.insert(key.clone()) {
                self.at = start;
                let shown: String = key.chars().take(64).collect();
                return Err(format!("key `{shown}` is there twice"));
            }
            sink.key(key)?;
            self.space();
            if self.peek() != Some(b':') {
                return Err("expected `:`".to_owned());
            }
            self.at += 1;
            self.space();
            self.value(sink, depth)?;
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return sink.end(true);
                }
                _ => return Err("expected `,` or `}`".to_owned()),
            }
        }
    }

    /// A string, without its quotes.
    fn string(&mut self) -> Result<&'a str, String> {
        self.at += 1;
        let start = self.at;
        loop {
            match self.peek() {
                Some(b'"') => {
                    let raw = self.text.get(start..self.at).ok_or("a broken string")?;
                    self.at += 1;
                    return Ok(raw);
                }
                Some(b'\\') => self.escape()?,
                Some(0..=0x1f) => return Err("a control character in a string must be escaped".to_owned()),
                Some(_) => self.at += 1,
                None => return Err("the text ends inside a string".to_owned()),
            }
        }
    }

    fn escape(&mut self) -> Result<(), String> {
        match self.text.as_bytes().get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => match self.code_unit()? {
                0xd800..=0xdbff => {
                    let low = matches!(self.text.as_bytes().get(self.at..self.at + 2), Some(b"\\u"))
                        && matches!(self.code_unit()?, 0xdc00..=0xdfff);
                    if !low {
                        return Err("half of a surrogate pair".to_owned());
                    }
                }
                0xdc00..=0xdfff => return Err("half of a surrogate pair".to_owned()),
                _ => {}
            },
            _ => return Err("an unknown escape in a string".to_owned()),
        }
        Ok(())
    }

    /// `\uXXXX` at the current position.
    fn code_unit(&mut self) -> Result<u16, String> {
        let digits = self.text.get(self.at + 2..self.at + 6).unwrap_or_default();
        if digits.len() != 4 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err("`\\u` needs four hexadecimal digits".to_owned());
        }
        self.at += 6;
        u16::from_str_radix(digits, 16).map_err(|_| "`\\u` needs four hexadecimal digits".to_owned())
    }

    fn digits(&mut self) -> Result<usize, String> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start {
            return Err("expected a digit".to_owned());
        }
        Ok(self.at - start)
    }

    fn number(&mut self) -> Result<&'a str, String> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let leading_zero = self.peek() == Some(b'0');
        let whole = self.digits()?;
        if leading_zero && whole > 1 {
            return Err("a number must not start with 0".to_owned());
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        let exponent = matches!(self.peek(), Some(b'e' | b'E'));
        if exponent {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        // Readers hold numbers as 64-bit floats at the least; one beyond that range would break them.
        if (exponent || whole > 300) && !text.parse::<f64>().is_ok_and(f64::is_finite) {
            self.at = start;
            return Err("a number out of the range of 64-bit floats".to_owned());
        }
        Ok(text)
    }
}

/// The keys of one object. A key without escapes is a slice of the text.
#[derive(Default)]
struct Keys<'a> {
    few: Vec<Cow<'a, str>>,
    many: HashSet<Cow<'a, str>>,
}

impl<'a> Keys<'a> {
    /// Whether the key is new.
    fn insert(&mut self, key: Cow<'a, str>) -> bool {
        if self.many.is_empty() {
            if self.few.contains(&key) {
                return false;
            }
            self.few.push(key);
            if self.few.len() > FEW_KEYS {
                self.many.extend(self.few.drain(..));
            }
            return true;
        }
        self.many.insert(key)
    }
}
