//! A manifest file whose `./path.wasm` references are written as digests before the text goes to a server, which knows no
//! paths. Only those scalars change; columns in what the server answers are mapped back, so that findings point into the
//! user's file.

use model::Digest;

/// One reference that was written otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Line of the reference, from 1.
    pub line: u32,
    /// Column of its first character, from 1, in the user's file.
    pub column: u32,
    /// Its length in characters there.
    pub before: u32,
    /// Its length in characters in the text that is sent.
    pub after: u32,
}

/// The text to send and how it differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// The text.
    pub text: String,
    /// In the order of their places.
    pub edits: Vec<Edit>,
}

/// A path reference and where it stands.
#[derive(Clone, Debug)]
pub struct PathReference {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1: of the scalar, which may be quoted.
    pub column: u32,
    /// The path as it is written.
    pub path: String,
    /// What it stands for.
    pub digest: Digest,
}

/// A reference is not written in a way that can be replaced.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the component `{path}` in line {line} is not written plainly")]
pub struct NotPlain {
    /// The path.
    pub path: String,
    /// The line.
    pub line: u32,
}

/// Writes digests in the place of paths. The file's name stays in front of the digest, for people: `clean@sha256:…`.
pub fn rewrite(source: &str, references: &[PathReference]) -> Result<Rewritten, NotPlain> {
    let mut sorted: Vec<_> = references.iter().collect();
    sorted.sort_by_key(|reference| (reference.line, reference.column));
    sorted.dedup_by_key(|reference| (reference.line, reference.column));
    let mut result = Rewritten::default();
    let mut todo = sorted.into_iter().peekable();
    for (index, line) in source.split_inclusive('\n').enumerate() {
        let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
        let mut rest = line;
        let mut column = 1_u32;
        while let Some(reference) = todo.next_if(|reference| reference.line == number) {
            let not_plain = || NotPlain {
                path: reference.path.clone(),
                line: reference.line,
            };
            let skip =
                usize::try_from(reference.column.checked_sub(column).ok_or_else(not_plain)?).unwrap_or(usize::MAX);
            let at = rest.char_indices().nth(skip).map(|(at, _)| at).ok_or_else(not_plain)?;
            let quote = usize::from(matches!(rest.get(at..at + 1), Some("'" | "\"")));
            let start = at + quote;
            let after = rest
                .get(start..)
                .and_then(|text| text.strip_prefix(reference.path.as_str()))
                .ok_or_else(not_plain)?;
            let name = component_name(&reference.path, reference.digest);
            let before_chars = u32::try_from(reference.path.chars().count()).unwrap_or(u32::MAX);
            result.text.push_str(rest.get(..start).ok_or_else(not_plain)?);
            result.text.push_str(&name);
            result.edits.push(Edit {
                line: number,
                column: reference.column + u32::try_from(quote).unwrap_or(0),
                before: before_chars,
                after: u32::try_from(name.chars().count()).unwrap_or(u32::MAX),
            });
            column = reference.column + u32::try_from(quote).unwrap_or(0) + before_chars;
            rest = after;
        }
        result.text.push_str(rest);
    }
    match todo.next() {
        Some(reference) => Err(NotPlain {
            path: reference.path.clone(),
            line: reference.line,
        }),
        None => Ok(result),
    }
}

/// `./target/clean-data.wasm` is `clean-data@sha256:…`; a file name that is no component name is left out.
fn component_name(path: &str, digest: Digest) -> String {
    let stem = path
        .rsplit('/')
        .next()
        .and_then(|name| name.strip_suffix(".wasm"))
        .unwrap_or_default();
    match model::ComponentName::new(stem) {
        Ok(name) => format!("{name}@{digest}"),
        Err(_) => digest.to_string(),
    }
}

impl Rewritten {
    /// Where a place in the text that was sent is in the user's file.
    pub fn column_in_file(&self, line: u32, column: u32) -> u32 {
        // What the text is longer by, up to the place.
        let mut grown = 0_i64;
        for edit in self.edits.iter().filter(|edit| edit.line == line) {
            let start = i64::from(edit.column) + grown;
            if i64::from(column) < start {
                break;
            }
            if i64::from(column) < start + i64::from(edit.after) {
                return edit.column;
            }
            grown += i64::from(edit.after) - i64::from(edit.before);
        }
        u32::try_from(i64::from(column) - grown).unwrap_or(column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_references_change_and_columns_map_back() {
        let source =
            "dag: ü\ntasks:\n  a: {component: ./a.wasm, task: x}\n  b: {component: \"./b b.wasm\", task: yy}\n";
        let digest = Digest::of(b"a");
        let reference = |line, column, path: &str| PathReference {
            line,
            column,
            path: path.to_owned(),
            digest,
        };
        let references = [reference(4, 18, "./b b.wasm"), reference(3, 18, "./a.wasm")];
        let rewritten = rewrite(source, &references).unwrap();
        assert_eq!(
            rewritten.text,
            format!(
                "dag: ü\ntasks:\n  a: {{component: a@{digest}, task: x}}\n  b: {{component: \"{digest}\", task: yy}}\n"
            )
        );
        for (line, needle) in [(3, "component"), (3, "task: x"), (4, "task: yy"), (2, "tasks")] {
            let column = |text: &str| {
                let line = text.lines().nth(line as usize - 1).unwrap();
                u32::try_from(line[..line.find(needle).unwrap()].chars().count()).unwrap() + 1
            };
            assert_eq!(
                rewritten.column_in_file(line, column(&rewritten.text)),
                column(source),
                "{needle}"
            );
        }
        assert_eq!(rewritten.column_in_file(3, 40), 18);
    }

    #[test]
    fn what_is_not_plain_is_refused() {
        let digest = Digest::of(b"a");
        for (source, line, column) in [("a: b", 1, 4), ("a: ./x.wasm", 2, 1), ("a: ./x.wasm", 1, 99)] {
            let reference = PathReference {
                line,
                column,
                path: "./x.wasm".to_owned(),
                digest,
            };
            assert!(rewrite(source, &[reference]).is_err(), "{source} {line} {column}");
        }
    }
}
