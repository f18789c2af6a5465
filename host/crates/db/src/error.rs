//! The one place that says what an error of the database means: whether it may pass, is about the data, or leaves it open whether
//! a commit took place.

use ports::query::QueryError;
use ports::store::CommitError;

use crate::sql::{Failure, Stage};

/// SQLSTATE classes and codes of PostgreSQL, see its manual's appendix A.
mod sqlstate {
    pub(super) const CLASS_CONNECTION: &str = "08";
    pub(super) const CLASS_DATA: &str = "22";
    pub(super) const CLASS_INTEGRITY: &str = "23";
    pub(super) const CLASS_TRANSACTION_ROLLBACK: &str = "40";
    pub(super) const CLASS_RESOURCES: &str = "53";
    pub(super) const CLASS_LIMIT_EXCEEDED: &str = "54";
    pub(super) const CLASS_INTERVENTION: &str = "57";
    pub(super) const CLASS_SYSTEM: &str = "58";
    pub(super) const LOCK_NOT_AVAILABLE: &str = "55P03";
    pub(super) const READ_ONLY_TRANSACTION: &str = "25006";
}

/// Primary result codes of SQLite, see sqlite.org/rescode.html.
mod sqlite_code {
    pub(super) const PERM: i32 = 3;
    pub(super) const BUSY: i32 = 5;
    pub(super) const LOCKED: i32 = 6;
    pub(super) const NOMEM: i32 = 7;
    pub(super) const READONLY: i32 = 8;
    pub(super) const INTERRUPT: i32 = 9;
    pub(super) const IOERR: i32 = 10;
    pub(super) const FULL: i32 = 13;
    pub(super) const CANTOPEN: i32 = 14;
    pub(super) const TOOBIG: i32 = 18;
    pub(super) const CONSTRAINT: i32 = 19;
    pub(super) const MISMATCH: i32 = 20;
    pub(super) const RANGE: i32 = 25;
}

/// The constraint that a tick of a scheduler without the lease violates, see `table::scheduler_lease`.
const LEASE_HELD: &str = "scheduler_lease_held";

/// The constraint that a tick violates which takes more slots than a pool has, see `table::slot_pool`.
const SLOTS_FIT: &str = "slot_pool_used";

/// What an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// It may pass: busy, out of space, the server is away.
    Passing,
    /// The values themselves: a constraint, a range.
    Data,
    /// The lease is somebody else's.
    Fenced,
    /// A pool has fewer free slots than were to be taken.
    SlotsTaken,
    /// A bug, or a broken database.
    Internal,
}

/// Says what an error is about.
pub(crate) fn classify(error: &sqlx::Error) -> Class {
    use sqlx::Error;
    match error {
        Error::Io(_)
        | Error::Tls(_)
        | Error::PoolTimedOut
        | Error::PoolClosed
        | Error::WorkerCrashed
        | Error::BeginFailed => Class::Passing,
        Error::Protocol(_) => Class::Passing,
        Error::Encode(_) => Class::Data,
        Error::Database(database) if database.message().contains(LEASE_HELD) => Class::Fenced,
        Error::Database(database) if database.message().contains(SLOTS_FIT) => Class::SlotsTaken,
        Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            if database.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
                classify_sqlite(&code)
            } else {
                classify_postgres(&code)
            }
        }
        _ => Class::Internal,
    }
}

fn classify_sqlite(code: &str) -> Class {
    // sqlx gives the extended code; the primary one is its low byte.
    match code.parse::<i32>().map(|code| code & 0xff) {
        Ok(
            sqlite_code::PERM
            | sqlite_code::BUSY
            | sqlite_code::LOCKED
            | sqlite_code::NOMEM
            | sqlite_code::READONLY
            | sqlite_code::INTERRUPT
            | sqlite_code::IOERR
            | sqlite_code::FULL
            | sqlite_code::CANTOPEN,
        ) => Class::Passing,
        Ok(sqlite_code::TOOBIG | sqlite_code::CONSTRAINT | sqlite_code::MISMATCH | sqlite_code::RANGE) => Class::Data,
        _ => Class::Internal,
    }
}

fn classify_postgres(code: &str) -> Class {
    match code.get(..2) {
        _ if code == sqlstate::LOCK_NOT_AVAILABLE || code == sqlstate::READ_ONLY_TRANSACTION => Class::Passing,
        Some(
            sqlstate::CLASS_CONNECTION
            | sqlstate::CLASS_TRANSACTION_ROLLBACK
            | sqlstate::CLASS_RESOURCES
            | sqlstate::CLASS_INTERVENTION
            | sqlstate::CLASS_SYSTEM,
        ) => Class::Passing,
        Some(sqlstate::CLASS_DATA | sqlstate::CLASS_INTEGRITY | sqlstate::CLASS_LIMIT_EXCEEDED) => Class::Data,
        _ => Class::Internal,
    }
}

/// Whether an error that came in answer to `COMMIT` leaves its outcome open. The server answers a commit that it refused with
/// one of these classes; anything else may have come after the commit was made durable.
fn outcome_is_open(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            !matches!(
                code.get(..2),
                Some(
                    sqlstate::CLASS_DATA
                        | sqlstate::CLASS_INTEGRITY
                        | sqlstate::CLASS_TRANSACTION_ROLLBACK
                        | sqlstate::CLASS_RESOURCES
                )
            )
        }
        _ => true,
    }
}

/// An error of a read.
pub(crate) fn query_error(error: sqlx::Error) -> QueryError {
    match classify(&error) {
        Class::Passing => QueryError::Unavailable(error.into()),
        Class::Data | Class::Fenced | Class::SlotsTaken | Class::Internal => QueryError::Internal(error.into()),
    }
}

/// An error of a transaction that only reads and writes its own tables.
pub(crate) fn query_failure(failure: Failure) -> QueryError {
    query_error(failure.error)
}

/// An error of a tick. What is neither about the data nor known to pass (a missing table, a full catalogue) is tried again too:
/// splitting the tick would not help, and health shows it meanwhile.
pub(crate) fn commit_error(failure: Failure) -> CommitError {
    let Failure { stage, error } = failure;
    if stage == Stage::Commit && outcome_is_open(&error) {
        return CommitError::Unknown(error.into());
    }
    match classify(&error) {
        Class::Fenced => CommitError::Fenced,
        Class::SlotsTaken => CommitError::SlotsTaken,
        Class::Data => CommitError::Data(error.into()),
        Class::Passing | Class::Internal => CommitError::Passing(error.into()),
    }
}

/// See [`commit_error`]; the commit had not begun.
pub(crate) fn write_error(error: sqlx::Error) -> CommitError {
    commit_error(error.into())
}
