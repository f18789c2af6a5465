//! Room on the disk. A part of it is kept for the control plane: what tasks and uploads write is refused before nothing is left to commit with.

use std::fmt;
use std::io;

/// Why new bytes are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSpace {
    /// Less is free than is kept for the server itself.
    Reserve {
        /// Free bytes.
        free: u64,
        /// Bytes that are kept.
        floor: u64,
    },
    /// Nothing is free any more.
    Full,
}

impl NoSpace {
    /// The stable name, of errors that tasks and callers of the API see.
    pub const CODE: &'static str = "no_space";

    /// Of a write that failed for want of room.
    pub fn of(error: &io::Error) -> Option<Self> {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge).then_some(Self::Full)
    }
}

impl fmt::Display for NoSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes >> 20;
        match *self {
            Self::Reserve { free, floor } => write!(
                f,
                "the server's disk is nearly full: {} MiB are free, and the server keeps {} MiB for itself",
                mib(free),
                mib(floor)
            ),
            Self::Full => f.write_str("the server's disk is full"),
        }
    }
}

impl std::error::Error for NoSpace {}

/// What is free, and what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Free bytes; none where nobody knows.
    pub free: Option<u64>,
    /// Bytes that are kept for the server itself.
    pub floor: u64,
}

impl Room {
    /// Whether tasks and uploads may write.
    pub const fn check(self) -> Result<(), NoSpace> {
        match self.free {
            Some(free) if free < self.floor => Err(NoSpace::Reserve {
                free,
                floor: self.floor,
            }),
            _ => Ok(()),
        }
    }
}

/// Watches the disk. Cheap: it is asked before each write.
pub trait Space: Send + Sync + 'static {
    /// What is free now, or was a moment ago.
    fn room(&self) -> Room;

    /// Whether tasks and uploads may write.
    fn check(&self) -> Result<(), NoSpace> {
        self.room().check()
    }
}

/// A disk that nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwatched;

impl Space for Unwatched {
    fn room(&self) -> Room {
        Room { free: None, floor: 0 }
    }
}
