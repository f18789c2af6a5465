//! The size of a JSON text as a tree, before it is made one.

use std::borrow::Cow;

use super::scan::{Sink, scan};

/// The cost of a value in a list, or in a member.
const VALUE_BYTES: u64 = 40;
/// The cost of a member of an object beside its name and its value.
const MEMBER_BYTES: u64 = 80;
/// Texts of which that many bytes are asked for are never much larger as trees than what is free anyway.
const SMALL: usize = 64 << 10;

/// About how many bytes a text has as a tree of `serde_json`. A small one counts as it is.
pub fn tree_bytes(text: &str) -> u64 {
    let mut bytes = Bytes(text.len() as u64);
    if text.len() > SMALL {
        // A text that is no JSON has no tree.
        let _ = scan(text, &mut bytes);
    }
    bytes.0
}

struct Bytes(u64);

impl Bytes {
    fn add(&mut self, bytes: u64) -> Result<(), String> {
        self.0 = self.0.saturating_add(bytes);
        Ok(())
    }
}

impl<'a> Sink<'a> for Bytes {
    fn null(&mut self) -> Result<(), String> {
        self.add(VALUE_BYTES)
    }

    fn bool(&mut self, _: bool) -> Result<(), String> {
        self.add(VALUE_BYTES)
    }

    fn number(&mut self, _: &'a str) -> Result<(), String> {
        self.add(VALUE_BYTES)
    }

    fn string(&mut self, _: &'a str) -> Result<(), String> {
        self.add(VALUE_BYTES)
    }

    fn begin(&mut self, _: bool) -> Result<(), String> {
        self.add(2 * VALUE_BYTES)
    }

    fn key(&mut self, _: Cow<'a, str>) -> Result<(), String> {
        self.add(MEMBER_BYTES)
    }

    fn end(&mut self, _: bool) -> Result<(), String> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_larger_than_its_text() {
        assert_eq!(tree_bytes("[1, 2]"), 6);
        let many = format!("[1{}]", ",1".repeat(100_000));
        assert!(tree_bytes(&many) > 4_000_000);
        let one = format!("{:?}", "x".repeat(100_000));
        assert!(tree_bytes(&one) < 101_000);
    }
}
