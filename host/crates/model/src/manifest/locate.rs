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

/// Where each line starts, in bytes: after `\n`, `\r\n` and a lone `\r`, as YAML counts.
pub(super) fn line_starts(source: &str) -> Vec<usize> {
    let bytes = source.as_bytes();
    let ends = bytes
        .iter()
        .enumerate()
        .filter(|(at, byte)| **byte == b'\n' || (**byte == b'\r' && bytes.get(at + 1) != Some(&b'\n')));
    std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect()
}

/// Where the byte `offset` of a text node stands in the source. Exact for every character that is not white space: YAML drops,
/// folds and re-indents white space only, and those characters appear in the source in the same order.
pub(super) fn in_text(source: &str, lines: &[usize], node: &Node, offset: usize) -> Pos {
    let Kind::Text(text) = &node.kind else {
        return node.pos;
    };
    let (start, end) = node.span;
    let line = lines
        .get(node.pos.line as usize - 1)
        .and_then(|start| source.get(*start..))
        .unwrap_or_default();
    let before = node.pos.column as usize - 1;
    let raw: Vec<char> = line.chars().skip(before).take(end.saturating_sub(start)).collect();
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
