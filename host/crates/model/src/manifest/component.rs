//! What a manifest needs to know of components: how it names them, what they describe, and what the names stand for.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{ComponentName, ComponentVersion, Digest};

/// The published JSON Schema of what `describe` answers, as text.
pub const DESCRIBE_SCHEMA: &str = include_str!("../../../../../wit/describe.schema.json");

/// What `describe` answered, after it was checked (`format: 1`; unknown members were dropped).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Descriptor {
    /// Always 1.
    pub format: u32,
    /// The SDK that built it, for people: `airtight-sdk 0.1.0`.
    #[serde(default)]
    pub sdk: Option<String>,
    /// Its tasks.
    pub tasks: Vec<TaskDescriptor>,
}

impl Descriptor {
    /// The task of that name.
    pub fn task(&self, name: &str) -> Option<&TaskDescriptor> {
        self.tasks.iter().find(|task| task.name == name)
    }
}

/// One task of a component.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskDescriptor {
    /// Its name, unique in the component.
    pub name: String,
    /// One line or more for people.
    #[serde(default)]
    pub doc: String,
    /// JSON Schema of its input.
    pub input: Value,
    /// JSON Schema of its return value.
    pub output: Value,
    /// Host capabilities that it needs: `gpu`, `http`, `storage`, …
    #[serde(default)]
    pub needs: Vec<String>,
    /// The labels of a branch task; none for other tasks.
    #[serde(default)]
    pub labels: Option<Vec<String>>,
}

/// How a manifest names a component.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ComponentRef {
    /// `name@version`: one exact, immutable tag.
    Tag(ComponentName, ComponentVersion),
    /// `name@sha256:…`: the content, with a name for people.
    NamedDigest(ComponentName, Digest),
    /// `sha256:…`: the content.
    Digest(Digest),
    /// `./path.wasm`: a file beside the manifest, for local runs and for the CLI's deploy.
    Path(String),
}

impl ComponentRef {
    /// The content, if the reference says it itself.
    pub const fn digest(&self) -> Option<Digest> {
        match self {
            Self::NamedDigest(_, digest) | Self::Digest(digest) => Some(*digest),
            Self::Tag(..) | Self::Path(_) => None,
        }
    }
}

impl fmt::Display for ComponentRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(name, version) => write!(f, "{name}@{version}"),
            Self::NamedDigest(name, digest) => write!(f, "{name}@{digest}"),
            Self::Digest(digest) => digest.fmt(f),
            Self::Path(path) => f.write_str(path),
        }
    }
}

/// The text does not name a component.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` does not name a component: {reason}")]
pub struct InvalidComponentRef {
    text: String,
    reason: String,
}

impl FromStr for ComponentRef {
    type Err = InvalidComponentRef;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |reason: String| InvalidComponentRef {
            text: text.chars().take(80).collect(),
            reason,
        };
        let id = |error: crate::id::InvalidId| fail(error.reason.to_owned());
        if text.starts_with("sha256:") {
            return text.parse().map(Self::Digest).map_err(id);
        }
        if text.starts_with("./") || text.starts_with("../") || text.starts_with('/') {
            if text.contains(char::is_control) || !text.ends_with(".wasm") {
                return Err(fail("a path must end in `.wasm`".to_owned()));
            }
            return Ok(Self::Path(text.to_owned()));
        }
        let Some((name, version)) = text.split_once('@') else {
            return Err(fail(
                "expected `name@version`, `name@sha256:…`, `sha256:…` or `./path.wasm`".to_owned(),
            ));
        };
        let name =
            ComponentName::new(name).map_err(|error| fail(format!("the name is not valid: {}", error.reason)))?;
        if version.starts_with("sha256:") {
            return Ok(Self::NamedDigest(name, version.parse().map_err(id)?));
        }
        let version = ComponentVersion::new(version)
            .map_err(|error| fail(format!("the version is not valid: {}", error.reason)))?;
        Ok(Self::Tag(name, version))
    }
}

/// What a reference stands for.
#[derive(Clone, Debug)]
pub struct ResolvedComponent {
    /// The content.
    pub digest: Digest,
    /// What it holds.
    pub descriptor: Arc<Descriptor>,
}

/// Why a reference stands for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// There is none.
    NotFound {
        /// References that exist, for "did you mean".
        known: Arc<[String]>,
    },
    /// It can never be used; the reason says why.
    Refused(String),
    /// A local path means nothing here, or the file cannot be read; the reason says why.
    Unusable(String),
}

/// What the references of one manifest stand for.
pub type Components = HashMap<ComponentRef, Result<ResolvedComponent, Unresolved>>;
