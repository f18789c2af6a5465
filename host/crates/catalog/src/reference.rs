//! How people name a component: `sha256:<hex>`, `name@version` or `name@sha256:<hex>`.

use std::fmt;

use model::{ComponentName, ComponentVersion, Digest};
use ports::component::Tag;

/// A component as somebody wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// By its content. A name before it is decoration.
    Digest(Digest),
    /// By a tag.
    Tag(Tag),
}

/// The text names no component.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a component: write `name@version` or `sha256:<64 hex digits>`")]
pub struct InvalidReference {
    text: String,
}

impl std::str::FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let invalid = || InvalidReference {
            text: text.chars().take(100).collect(),
        };
        let (name, rest) = match text.split_once('@') {
            Some((name, rest)) => (Some(ComponentName::new(name).map_err(|_| invalid())?), rest),
            None => (None, text),
        };
        if rest.starts_with("sha256:") {
            return rest.parse().map(Self::Digest).map_err(|_| invalid());
        }
        let name = name.ok_or_else(invalid)?;
        let version = ComponentVersion::new(rest).map_err(|_| invalid())?;
        Ok(Self::Tag(Tag { name, version }))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digest(digest) => digest.fmt(f),
            Self::Tag(tag) => tag.fmt(f),
        }
    }
}

/// What to suggest for a tag that does not exist: the versions that its name has, else the nearest name.
pub fn suggest(wanted: &Tag, known: &[Tag]) -> Option<String> {
    let versions: Vec<_> = known
        .iter()
        .filter(|tag| tag.name == wanted.name)
        .map(|tag| format!("`{tag}`"))
        .take(5)
        .collect();
    if !versions.is_empty() {
        return Some(format!("there is {}", versions.join(", ")));
    }
    let text = wanted.to_string();
    known
        .iter()
        .map(|tag| (distance(&tag.to_string(), &text), tag))
        .filter(|(distance, _)| *distance <= text.chars().count() / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, tag)| format!("did you mean `{tag}`?"))
}

/// Levenshtein's distance: how many characters to insert, delete or replace.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, to) in row.iter_mut().skip(1).zip(&b) {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = *cell;
            left = replaced.min(*cell + 1).min(left + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(text: &str) -> Tag {
        match text.parse() {
            Ok(Reference::Tag(tag)) => tag,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_the_three_forms() {
        let digest = Digest::of(b"x");
        assert_eq!(digest.to_string().parse(), Ok(Reference::Digest(digest)));
        assert_eq!(format!("ml@{digest}").parse(), Ok(Reference::Digest(digest)));
        assert_eq!("ml@1.2".parse::<Reference>().unwrap().to_string(), "ml@1.2");
        for wrong in ["ml", "", "@1", "ml@", "sha256:00", "a b@1", "./x.wasm", "ml@sha256:0"] {
            assert!(wrong.parse::<Reference>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn suggests_versions_first_and_near_names_second() {
        let known = [tag("ml@1.1"), tag("ml@1.2"), tag("audio@1")];
        assert_eq!(
            suggest(&tag("ml@1.3"), &known).as_deref(),
            Some("there is `ml@1.1`, `ml@1.2`")
        );
        assert_eq!(
            suggest(&tag("audoi@1"), &known).as_deref(),
            Some("did you mean `audio@1`?")
        );
        assert_eq!(suggest(&tag("something-else@9"), &known), None);
    }

    #[test]
    fn measures_distance() {
        for (a, b, expected) in [
            ("", "", 0),
            ("a", "", 1),
            ("", "ab", 2),
            ("kitten", "sitting", 3),
            ("ml", "ml", 0),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
