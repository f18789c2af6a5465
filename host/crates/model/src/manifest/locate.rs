//! From an offset in a decoded YAML string back to its line and column in the file.

use super::diagnostic::Pos;
use super::tree::{Kind, Node};

/// How many characters an anchor (`&name `) takes at the start of a node's text.
pub(super) fn anchor(raw: &[char]) -> usize {
    if raw.first() != Some(&'&') {
        return 0;
    }
    let name = raw.iter().position(|c| c.is_whitespace()).unwrap_or(raw.len());
    let space = raw.iter().skip(name).take_while(|c| c.is_whitespace()).count();
    name + space
}

/// One character in so many has its byte noted.
const STRIDE: usize = 1024;

/// Where lines and characters of a text are. A line may be as long as the manifest, and have any number of findings in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines {
    /// The number of the first character of each line.
    starts: Vec<usize>,
    /// The byte of every [`STRIDE`]th character.
    bytes: Vec<usize>,
}

impl Lines {
    /// Lines end with `\n`, `\r\n` and a lone `\r`, as YAML counts.
    pub(super) fn of(source: &str) -> Self {
        let mut lines = Self {
            starts: vec![0],
            bytes: Vec::with_capacity(source.len() / STRIDE + 1),
        };
        let mut characters = source.char_indices().enumerate().peekable();
        while let Some((number, (byte, c))) = characters.next() {
            if number % STRIDE == 0 {
                lines.bytes.push(byte);
            }
            let next = characters.peek().map(|(_, (_, next))| *next);
            if c == '\n' || (c == '\r' && next != Some('\n')) {
                lines.starts.push(number + 1);
            }
        }
        lines
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// The text from a place on.
    fn from<'s>(&self, source: &'s str, place: Pos) -> &'s str {
        let start = self.starts.get((place.line as usize).wrapping_sub(1));
        let number = start.map_or(usize::MAX, |start| start + (place.column as usize).saturating_sub(1));
        let rest = self.bytes.get(number / STRIDE).and_then(|byte| source.get(*byte..));
        let rest = rest.unwrap_or_default();
        let skipped = rest.char_indices().nth(number % STRIDE).map(|(byte, _)| byte);
        skipped.and_then(|byte| rest.get(byte..)).unwrap_or_default()
    }
}

/// Where the byte `offset` of a text node stands in the source. Exact for every character that is not white space: YAML drops,
/// folds and re-indents white space only, and those characters appear in the source in the same order.
pub(super) fn in_text(source: &str, lines: &Lines, node: &Node, offset: usize) -> Pos {
    let Kind::Text(text) = &node.kind else {
        return node.pos;
    };
    let (start, end) = node.span;
    let text_on = lines.from(source, node.pos);
    let raw: Vec<char> = text_on.chars().take(end.saturating_sub(start)).collect();
    let first = anchor(&raw);
    let mark = raw.get(first);
    let block = matches!(mark, Some('|' | '>'));
    let double_quoted = mark == Some(&'"');
    let single_quoted = mark == Some(&'\'');
    let mut at = if block {
        raw.iter()
            .position(|c| *c == '\n')
            .map_or(raw.len(), |newline| newline + 1)
    } else {
        first + usize::from(double_quoted || single_quoted)
    };
    let mut last = at;
    let wanted = text.get(..offset).map_or(0, |before| before.chars().count());
    for (count, c) in text.chars().enumerate() {
        if c.is_whitespace() && count != wanted {
            continue;
        }
        while let Some(found) = raw.get(at) {
            if *found == c || (double_quoted && *found == '\\') {
                break;
            }
            at += 1;
        }
        last = at;
        if count == wanted {
            break;
        }
        at += match (raw.get(at), raw.get(at + 1)) {
            (Some('\\'), Some(escape)) if double_quoted => match escape {
                'x' => 4,
                'u' => 6,
                'U' => 10,
                _ => 2,
            },
            (Some('\''), Some('\'')) if single_quoted => 2,
            _ => 1,
        };
    }
    let mut place = node.pos;
    for c in raw.iter().take(last) {
        if *c == '\n' {
            place.line = place.line.saturating_add(1);
            place.column = 1;
        } else {
            place.column = place.column.saturating_add(1);
        }
    }
    place
}
