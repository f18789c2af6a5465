//! Why a scheduler did not start, and why it stopped.

use ports::query::QueryError;
use ports::store::{CommitError, LeaseError};

/// Why a scheduler did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No lease.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// What was stored could not be read.
    #[error("cannot read the stored runs")]
    Load(#[source] QueryError),
    /// The first writes failed.
    #[error("cannot reserve run keys")]
    Reserve(#[source] CommitError),
    /// Something stored names what is not there.
    #[error("the database is damaged: {0}")]
    Damaged(String),
}

/// Why a scheduler stopped on its own.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// Another scheduler took the lease. Nothing was written or released after that.
    #[error("another scheduler has taken over this database; this one has stopped")]
    Fenced,
    /// The loop ended by a bug.
    #[error("the scheduler failed")]
    Failed(#[source] tokio::task::JoinError),
}

impl StartError {
    /// The stable name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Lease(LeaseError::InUse { .. }) => "database_in_use",
            Self::Lease(LeaseError::Query(_)) | Self::Load(_) | Self::Reserve(_) => "database_failed",
            Self::Damaged(_) => "database_damaged",
        }
    }
}

impl Stopped {
    /// The stable name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Fenced => "scheduler_fenced",
            Self::Failed(_) => "scheduler_failed",
        }
    }
}
