//! `uploaded_blob`: what people uploaded and may read although nothing refers to it yet.

use model::{Digest, Timestamp};

use crate::sql::{Row, Statement};

/// A repeated upload is a new one.
pub(crate) fn add(digest: Digest, size: u64, now: Timestamp) -> Statement {
    Statement::new(
        "INSERT INTO uploaded_blob (digest, size, uploaded_at) VALUES (?, ?, ?) \
         ON CONFLICT (digest) DO UPDATE SET uploaded_at = excluded.uploaded_at",
    )
    .arg(digest)
    .arg(i64::try_from(size).unwrap_or(i64::MAX))
    .arg(now)
}

pub(crate) fn forget(before: Timestamp) -> Statement {
    Statement::new("DELETE FROM uploaded_blob WHERE uploaded_at < ?").arg(before)
}

/// Of these blobs, those that people may read, with their sizes: what was uploaded, and what an XCom or a run refers to.
pub(crate) fn readable(digests: &[Digest]) -> Statement {
    let mut statement = Statement::new("SELECT digest, size FROM uploaded_blob WHERE digest IN ");
    statement.bind_list(digests.iter().copied());
    statement.push(" UNION SELECT digest, size FROM blob_ref WHERE digest IN ");
    statement.bind_list(digests.iter().copied());
    statement
}

pub(crate) fn read(row: &Row) -> Result<(Digest, u64), sqlx::Error> {
    let mut columns = row.columns();
    Ok((columns.digest()?, columns.number()?))
}
