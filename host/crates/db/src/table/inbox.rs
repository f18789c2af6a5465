//! `inbox`: what processes without the lease ask of the scheduler that has it.

use model::Timestamp;
use ports::inbox::InboxRow;
use ports::store::AuditWrite;
use uuid::Uuid;

use crate::sql::{Row, Statement};

pub(crate) fn ask(id: Uuid, request: &str, now: Timestamp) -> Statement {
    Statement::new("INSERT INTO inbox (id, asked_at, request) VALUES (?, ?, ?)")
        .arg(id)
        .arg(now)
        .arg(request)
}

/// The rows without an answer, but for these, oldest first.
pub(crate) fn left(except: &[Uuid], limit: u32) -> Statement {
    let mut statement =
        Statement::new("SELECT id, asked_at, request, settled FROM inbox WHERE answered_at IS NULL");
    if !except.is_empty() {
        statement.push(" AND id NOT IN ").bind_list(except.iter().copied());
    }
    statement.push(" ORDER BY id LIMIT ").bind(limit);
    statement
}

pub(crate) fn read(row: &Row) -> Result<InboxRow, sqlx::Error> {
    let mut columns = row.columns();
    Ok(InboxRow {
        id: columns.uuid()?,
        asked_at: columns.time()?,
        request: columns.text()?,
        settled: columns.flag()?,
    })
}

/// What the lines of the audit log say was done is settled. None where nothing was asked for by rows.
pub(crate) fn settle(lines: &[AuditWrite]) -> Option<Statement> {
    let mut settled = lines.iter().filter_map(|line| line.settles).peekable();
    settled.peek()?;
    let mut statement = Statement::new("UPDATE inbox SET settled = 1 WHERE id IN ");
    statement.bind_list(settled);
    Some(statement)
}

/// An answer that is there already stays.
pub(crate) fn answer(id: Uuid, answer: &str, now: Timestamp) -> Statement {
    Statement::new("UPDATE inbox SET answer = ?, answered_at = ? WHERE id = ? AND answered_at IS NULL")
        .arg(answer)
        .arg(now)
        .arg(id)
}

pub(crate) fn answers(ids: &[Uuid]) -> Statement {
    let mut statement = Statement::new("SELECT id, answer FROM inbox WHERE answer IS NOT NULL AND id IN ");
    statement.bind_list(ids.iter().copied());
    statement
}

pub(crate) fn read_answer(row: &Row) -> Result<(Uuid, String), sqlx::Error> {
    let mut columns = row.columns();
    Ok((columns.uuid()?, columns.text()?))
}

pub(crate) fn forget(ids: &[Uuid]) -> Statement {
    let mut statement = Statement::new("DELETE FROM inbox WHERE answered_at IS NOT NULL AND id IN ");
    statement.bind_list(ids.iter().copied());
    statement
}

pub(crate) fn sweep(answered_before: Timestamp) -> Statement {
    Statement::new("DELETE FROM inbox WHERE answered_at < ?").arg(answered_before)
}
