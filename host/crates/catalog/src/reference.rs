//! How people name a component: `sha256:<hex>`, `name@version` or `name@sha256:<hex>`.

use std::fmt;

use model::{ComponentName, ComponentVersion, Digest};
use ports::component::Tag;

/// A component as somebody wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reference {
    /// By its content. A name before it is decoration.
    Digest(Digest),
    /// By a tag.
    Tag(Tag),
}

/// The text names no component.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a component: write `name@version` or `sha256:<64 hex digits>`")]
pub(crate) struct InvalidReference {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
