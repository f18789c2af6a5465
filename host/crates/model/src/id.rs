//! Ids. Each is its own type, so that swapping two arguments does not compile.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// A text is not valid as the id that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {kind}: {reason}")]
pub struct InvalidId {
    /// What was asked for, for example `dag id`.
    pub kind: &'static str,
    /// The start of the text.
    pub text: String,
    /// The rule that it breaks.
    pub reason: &'static str,
}

/// The longest id, in bytes (Airflow: `ID_LEN`).
pub const MAX_ID_BYTES: usize = 250;

const DOTS: &str = "`.` and `..` mean a place in a path, and no address can name them";

/// Clients resolve these parts of a path before they send it, however they are written.
fn is_dots(text: &str) -> bool {
    matches!(text, "." | "..")
}

/// Airflow's rule for keys: letters, digits, `_`, `-`, `.`; 1 to 250 bytes.
fn check_key(kind: &'static str, text: &str) -> Result<(), InvalidId> {
    let fail = |reason| {
        Err(InvalidId {
            kind,
            text: text.chars().take(64).collect(),
            reason,
        })
    };
    if text.is_empty() {
        return fail("it is empty");
    }
    if text.len() > MAX_ID_BYTES {
        return fail("it is longer than 250 bytes");
    }
    if !text
        .chars()
        .all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))
    {
        return fail("only letters, digits, `_`, `-` and `.` are allowed");
    }
    if is_dots(text) {
        return fail(DOTS);
    }
    Ok(())
}

/// A run id may hold what Airflow's do (`manual__2026-01-31T04:00:00+00:00`), but no slash, no control character.
fn check_run_id(kind: &'static str, text: &str) -> Result<(), InvalidId> {
    let fail = |reason| {
        Err(InvalidId {
            kind,
            text: text.chars().take(64).collect(),
            reason,
        })
    };
    if text.is_empty() {
        return fail("it is empty");
    }
    if text.len() > MAX_ID_BYTES {
        return fail("it is longer than 250 bytes");
    }
    if text == "~" {
        return fail("`~` means \"all\" in a path");
    }
    if !text
        .chars()
        .all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '~' | ':' | '+'))
    {
        return fail("only letters, digits and `_-.~:+` are allowed");
    }
    if is_dots(text) {
        return fail(DOTS);
    }
    Ok(())
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text.
            pub fn new(text: &str) -> Result<Self, InvalidId> {
                $check($kind, text)?;
                Ok(Self(text.into()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:?})", stringify!($name), &*self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

text_id!(
    /// The id of a DAG.
    DagId, "dag id", check_key
);
text_id!(
    /// The id of a task in a manifest.
    TaskId, "task id", check_key
);
text_id!(
    /// The name of a dag run, unique within its DAG (Airflow: `dag_run_id`).
    RunId, "run id", check_run_id
);
text_id!(
    /// The name of a component in a tag `name@version`.
    ComponentName, "component name", check_key
);
text_id!(
    /// The version in a tag `name@version`: one exact, immutable text, not a range.
    ComponentVersion, "component version", check_key
);

/// The key of a dag run in every table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DagRunKey(pub i64);

impl fmt::Display for DagRunKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The globally unique id of a dag run (UUIDv7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunUuid(pub Uuid);

impl fmt::Display for RunUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The position of a task in its DAG version, in the order of the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskIndex(pub u32);

impl TaskIndex {
    /// As an index into `Dag::tasks`.
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// The index of a mapped task instance; −1 where the task is not mapped (Airflow: `map_index`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MapIndex(pub i32);

impl MapIndex {
    /// The task is not mapped.
    pub const UNMAPPED: Self = Self(-1);
}

/// The number of a try within its task instance: 0 before the first, then 1, 2, …
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TryNumber(pub u32);

/// The number of a dispatch within its task instance: the fencing token. It rises with each try's first start, each poke and
/// each rerun after a loss, and never falls, not even when the task instance is cleared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DispatchNumber(pub u32);

/// One task instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TiKey {
    /// Its run.
    pub run: DagRunKey,
    /// Its task.
    pub task: TaskIndex,
    /// Its index, if mapped.
    pub map_index: MapIndex,
}

/// A SHA-256 digest, written `sha256:<hex>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of the bytes.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The 64 hexadecimal digits, without the prefix.
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let fail = || InvalidId {
            kind: "digest",
            text: text.chars().take(80).collect(),
            reason: "it must be `sha256:` and 64 lower-case hexadecimal digits",
        };
        let hex = text.strip_prefix("sha256:").ok_or_else(fail)?.as_bytes();
        if hex.len() != 64 {
            return Err(fail());
        }
        let mut digest = [0_u8; 32];
        for (byte, pair) in digest.iter_mut().zip(hex.chunks_exact(2)) {
            let digit = |c: u8| match c {
                b'0'..=b'9' => Some(c - b'0'),
                b'a'..=b'f' => Some(c - b'a' + 10),
                _ => None,
            };
            let [high, low] = [digit(pair[0]), digit(pair[1])];
            *byte = high.zip(low).map(|(high, low)| high << 4 | low).ok_or_else(fail)?;
        }
        Ok(Self(digest))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_round_trips() {
        let digest = Digest::of(b"abc");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert!("sha256:00".parse::<Digest>().is_err());
        assert!(digest.to_string().to_uppercase().parse::<Digest>().is_err());
    }

    #[test]
    fn ids_follow_the_rules_for_keys() {
        assert!(TaskId::new("group.load-data_1").is_ok());
        assert!(DagId::new("").is_err());
        assert!(DagId::new("a/b").is_err());
        assert!(DagId::new(&"a".repeat(251)).is_err());
        assert!(RunId::new("manual__2026-01-31T04:00:00+00:00").is_ok());
        assert!(RunId::new("a/b").is_err());
        for dots in [".", ".."] {
            assert!(DagId::new(dots).is_err() && TaskId::new(dots).is_err() && RunId::new(dots).is_err());
            assert!(ComponentName::new(dots).is_err() && ComponentVersion::new(dots).is_err());
        }
        assert!(DagId::new("...").is_ok() && RunId::new("a..").is_ok());
    }
}
