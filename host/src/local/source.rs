//! A manifest file whose `./path.wasm` references are sent to a server as digests, for it knows no paths. What the server
//! finds in the text that was sent is mapped back, so that findings point into the user's file.

use model::manifest::{ComponentRef, Diagnostic};
use model::{ComponentName, Digest};

/// A reference and what was sent in its place.
#[derive(Clone, Debug)]
pub(crate) struct Renamed {
    /// As it stands in the file.
    pub from: ComponentRef,
    /// As it was sent.
    pub to: ComponentRef,
}

impl Renamed {
    /// A path and its content. The file's name stays in front of the digest, for people: `clean@sha256:…`.
    pub(crate) fn path(path: &str, digest: Digest) -> Self {
        let stem = path
            .rsplit('/')
            .next()
            .and_then(|name| name.strip_suffix(".wasm"))
            .unwrap_or_default();
        let to = match ComponentName::new(stem) {
            Ok(name) => ComponentRef::NamedDigest(name, digest),
            Err(_) => ComponentRef::Digest(digest),
        };
        Self {
            from: ComponentRef::Path(path.to_owned()),
            to,
        }
    }
}

/// A finding in the text that was sent, as a finding in the file.
pub(crate) fn in_file(diagnostic: Diagnostic, file: &str, sent: &str, renamed: &[Renamed]) -> Diagnostic {
    let line = usize::try_from(diagnostic.line).unwrap_or(usize::MAX).wrapping_sub(1);
    let (Some(before), Some(after)) = (file.lines().nth(line), sent.lines().nth(line)) else {
        return diagnostic;
    };
    let mut message = diagnostic.message;
    for Renamed { from, to } in renamed {
        message = message.replace(&to.to_string(), &from.to_string());
    }
    Diagnostic {
        column: column_in_file(before, after, renamed, diagnostic.column),
        message,
        ..diagnostic
    }
}

/// The column in the file's line of a column in the line that was sent. Both count characters from 1.
fn column_in_file(before: &str, after: &str, renamed: &[Renamed], column: u32) -> u32 {
    let column = usize::try_from(column).unwrap_or(usize::MAX);
    let count = |text: &str| text.chars().count();
    let (mut rest_before, mut rest_after) = (before, after);
    let (mut at_before, mut at_after) = (1, 1);
    // From one reference to the next: the text between them is the same in both lines.
    while let Some((start, new, from)) = next_reference(rest_after, renamed) {
        let between = rest_after.get(..start).map_or(0, count);
        if column < at_after + between {
            break;
        }
        at_before += between;
        at_after += between;
        let old = ["", "\"", "'"]
            .iter()
            .map(|quote| format!("{quote}{from}{quote}"))
            .find_map(|old| {
                let rest = rest_before.get(start..)?.strip_prefix(old.as_str())?;
                Some((count(&old), rest))
            });
        let Some((old_length, rest)) = old else {
            return u32::try_from(at_before).unwrap_or(1);
        };
        if column < at_after + count(&new) {
            return u32::try_from(at_before).unwrap_or(1);
        }
        at_before += old_length;
        at_after += count(&new);
        rest_before = rest;
        rest_after = rest_after.get(start + new.len()..).unwrap_or_default();
    }
    u32::try_from((column + at_before).saturating_sub(at_after)).unwrap_or(1)
}

/// The first reference that was sent in place of another: where it starts, in bytes, how it stands there, what it was.
fn next_reference(text: &str, renamed: &[Renamed]) -> Option<(usize, String, String)> {
    renamed
        .iter()
        .filter_map(|Renamed { from, to }| {
            let new = format!("\"{to}\"");
            text.find(&new).map(|start| (start, new, from.to_string()))
        })
        .min_by_key(|(start, ..)| *start)
}

#[cfg(test)]
mod tests {
    use model::manifest;

    use super::*;

    #[test]
    fn findings_point_into_the_file() {
        let file = "dag: x\ntasks:\n  ü: {component: ./a.wasm, task: x}\n  b: {component: \"./b b.wasm\", task: yy}\n  \
                    c: {k: [{component: ./a.wasm}, './b b.wasm', zzz]}\n";
        let digest = Digest::of(b"a");
        let renamed = [
            Renamed::path("./a.wasm", digest),
            Renamed::path("./b b.wasm", Digest::of(b"b")),
        ];
        let mut sent = file.to_owned();
        for Renamed { from, to } in &renamed {
            for old in [format!("\"{from}\""), format!("'{from}'"), from.to_string()] {
                sent = sent.replace(&old, &format!("\"{to}\""));
            }
        }
        assert!(
            sent.contains(&format!("{{component: \"a@{digest}\", task: x}}")),
            "{sent}"
        );
        for (line, needle) in [
            (3, "component"),
            (3, "task: x"),
            (4, "task: yy"),
            (2, "tasks"),
            (5, "zzz"),
            (5, "k:"),
        ] {
            let column = |text: &str| {
                let line = text.lines().nth(line as usize - 1).unwrap();
                u32::try_from(line[..line.find(needle).unwrap()].chars().count()).unwrap() + 1
            };
            let found = Diagnostic {
                severity: manifest::Severity::Error,
                code: "x".to_owned(),
                message: format!("component `a@{digest}` is bad"),
                line,
                column: column(&sent),
                hint: None,
            };
            let found = in_file(found, file, &sent, &renamed);
            assert_eq!(
                (found.column, found.message.as_str()),
                (column(file), "component `./a.wasm` is bad"),
                "{needle}"
            );
        }
        // Inside of a digest is the reference.
        assert_eq!(
            column_in_file(file.lines().nth(2).unwrap(), sent.lines().nth(2).unwrap(), &renamed, 40),
            18
        );
    }
}
