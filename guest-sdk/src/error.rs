//! [`Error`]: what a call to the host can answer instead of a value.

use std::fmt;
use std::io;

/// A call to the host failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The task was not granted this.
    Denied(String),
    /// There is no such thing, or nothing this try has seen refers to it.
    NotFound(String),
    /// The named task is not upstream of this one.
    NotUpstream(String),
    /// A value is over its limit.
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// An argument is not valid.
    Invalid(String),
    /// Another worker runs this task instance by now: this try should stop.
    Stale,
    /// What the host returned is not of the type asked for.
    Decode {
        /// What it was, for example ``XCom `rows` of `load` ``.
        what: String,
        /// Why it does not fit.
        source: serde_path_to_error::Error<serde_json::Error>,
    },
    /// The value cannot be written as JSON.
    Encode {
        /// What it was for.
        what: String,
        /// Why.
        source: serde_json::Error,
    },
    /// Anything else, for example that the storage does not answer.
    Other(String),
}

impl Error {
    /// The stable name of the kind: `denied`, `not_found`, `not_upstream`, `too_large`, `invalid`, `stale`, `decode`, `encode`, `no_space`, `other`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Denied(_) => "denied",
            Self::NotFound(_) => "not_found",
            Self::NotUpstream(_) => "not_upstream",
            Self::TooLarge { .. } => "too_large",
            Self::Invalid(_) => "invalid",
            Self::Stale => "stale",
            Self::Decode { .. } => "decode",
            Self::Encode { .. } => "encode",
            // The contract has no case of its own for it: the server says it in front of the text.
            Self::Other(message) if message.starts_with("no_space: ") => "no_space",
            Self::Other(_) => "other",
        }
    }

    /// Whether the same call would fail the same way in every try.
    pub fn is_permanent(&self) -> bool {
        matches!(
            self,
            Self::Denied(_) | Self::NotUpstream(_) | Self::TooLarge { .. } | Self::Invalid(_)
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(what) => write!(f, "denied: {what}"),
            Self::NotFound(what) => write!(f, "not found: {what}"),
            Self::NotUpstream(task) => write!(f, "task `{task}` is not upstream of this task"),
            Self::TooLarge { limit } => {
                write!(f, "over the limit of {limit} bytes; large values go into a `Blob`")
            }
            Self::Invalid(why) => write!(f, "invalid: {why}"),
            Self::Stale => f.write_str("this try is no longer the current one of its task instance"),
            Self::Decode { what, .. } => write!(f, "{what} is not of the expected type"),
            Self::Encode { what, .. } => write!(f, "{what} cannot be written as JSON"),
            Self::Other(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Decode { source, .. } => Some(source),
            Self::Encode { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Denied(_) => io::ErrorKind::PermissionDenied,
            Error::NotFound(_) => io::ErrorKind::NotFound,
            Error::TooLarge { .. } => io::ErrorKind::QuotaExceeded,
            Error::Invalid(_) | Error::NotUpstream(_) => io::ErrorKind::InvalidInput,
            Error::Decode { .. } | Error::Encode { .. } => io::ErrorKind::InvalidData,
            Error::Stale | Error::Other(_) => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// JSON text from the host as a `T`; `what` names it in the error.
pub(crate) fn decode<T: serde::de::DeserializeOwned>(json: &str, what: impl FnOnce() -> String) -> Result<T, Error> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|source| Error::Decode { what: what(), source })
}

/// A value as JSON text for the host; `what` names it in the error.
pub(crate) fn encode<T: serde::Serialize + ?Sized>(value: &T, what: impl FnOnce() -> String) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|source| Error::Encode { what: what(), source })
}
