//! `component`: what is known of uploaded components.

use model::{Digest, Timestamp};
use ports::component::{Component, ComponentState, Inspected, Refusal, Tag};
use ports::query::Page;

use crate::sql::{Row, Statement};

/// How many users an answer names.
const MAX_USERS: u32 = 20;

/// Adds a component that is being compiled; nothing happens where it is known.
pub(crate) fn add(digest: Digest, size: u64, now: Timestamp) -> Statement {
    Statement::new(
        "INSERT INTO component (digest, size, state, capabilities, imports, created_at) \
         VALUES (?, ?, 'compiling', '[]', '[]', ?) ON CONFLICT (digest) DO NOTHING",
    )
    .arg(digest)
    .arg(i64::try_from(size).unwrap_or(i64::MAX))
    .arg(now)
}

/// Stores what the compiler said.
pub(crate) fn finish(digest: Digest, result: &Result<Inspected, Refusal>) -> Result<Statement, serde_json::Error> {
    Ok(match result {
        Ok(inspected) => Statement::new(
            "UPDATE component SET state = 'ready', refusal_code = NULL, refusal_message = NULL, capabilities = ?, imports = ?, \
             descriptor = ? WHERE digest = ?",
        )
        .arg(serde_json::to_string(&inspected.capabilities)?)
        .arg(serde_json::to_string(&inspected.imports)?)
        .arg(serde_json::to_string(&inspected.descriptor)?)
        .arg(digest),
        // Two servers may have compiled it: that one of them could not does not matter where the other could.
        Err(refusal) => Statement::new(
            "UPDATE component SET state = 'refused', refusal_code = ?, refusal_message = ? \
             WHERE digest = ? AND state <> 'ready'",
        )
        .arg(&refusal.code)
        .arg(&refusal.message)
        .arg(digest),
    })
}

pub(crate) fn restart(digest: Digest) -> Statement {
    Statement::new(
        "UPDATE component SET state = 'compiling', refusal_code = NULL, refusal_message = NULL \
         WHERE digest = ? AND state = 'refused'",
    )
    .arg(digest)
}

pub(crate) fn delete(digest: Digest) -> Statement {
    Statement::new("DELETE FROM component WHERE digest = ?").arg(digest)
}

const COLUMNS: &str = "SELECT digest, size, state, refusal_code, refusal_message, capabilities, imports, descriptor, created_at \
    FROM component";

pub(crate) fn one(digest: Digest) -> Statement {
    let mut statement = Statement::new(COLUMNS);
    statement.push(" WHERE digest = ").bind(digest);
    statement
}

pub(crate) fn count() -> Statement {
    Statement::new("SELECT COUNT(*) FROM component")
}

/// Newest first.
pub(crate) fn list(page: Page) -> Statement {
    let mut statement = Statement::new(COLUMNS);
    statement.push(" ORDER BY created_at DESC, digest");
    crate::query::limit(&mut statement, page);
    statement
}

pub(crate) fn compiling() -> Statement {
    Statement::new("SELECT digest FROM component WHERE state = 'compiling' ORDER BY digest")
}

/// Of these digests, those that are components.
pub(crate) fn known(digests: &[Digest]) -> Statement {
    let mut statement = Statement::new("SELECT digest FROM component WHERE digest IN ");
    statement.bind_list(digests.iter().copied());
    statement
}

/// The versions that use a component, for people.
pub(crate) fn users(digest: Digest) -> Statement {
    Statement::new(
        "SELECT DISTINCT v.dag_id, v.number FROM dag_version_task t JOIN dag_version v ON v.uuid = t.version \
         WHERE t.component_digest = ? ORDER BY v.dag_id, v.number LIMIT ?",
    )
    .arg(digest)
    .arg(MAX_USERS)
}

/// The current versions that name a component by this tag, for people.
pub(crate) fn tag_users(tag: &Tag, digest: Digest) -> Statement {
    Statement::new(
        "SELECT DISTINCT v.dag_id, v.number FROM dag_version_task t JOIN dag_version v ON v.uuid = t.version \
         JOIN dag d ON d.current_version = v.uuid \
         WHERE t.component_digest = ? AND t.component = ? ORDER BY v.dag_id, v.number LIMIT ?",
    )
    .arg(digest)
    .arg(tag.to_string())
    .arg(MAX_USERS)
}

pub(crate) fn read_user(row: &Row) -> Result<String, sqlx::Error> {
    let mut columns = row.columns();
    Ok(format!("{} version {}", columns.text()?, columns.int()?))
}

/// Reads a component, without its tags.
pub(crate) fn read(row: &Row) -> Result<Component, sqlx::Error> {
    let mut columns = row.columns();
    Ok(Component {
        digest: columns.digest()?,
        size: columns.number()?,
        state: {
            let state = columns.text()?;
            [
                ComponentState::Compiling,
                ComponentState::Ready,
                ComponentState::Refused,
            ]
            .into_iter()
            .find(|known| known.as_str() == state)
            .ok_or_else(|| sqlx::Error::Decode(format!("`{state}` is not a state of a component").into()))?
        },
        refusal: {
            let (code, message) = (columns.opt_text()?, columns.opt_text()?);
            code.zip(message).map(|(code, message)| Refusal { code, message })
        },
        tags: Vec::new(),
        capabilities: columns.json()?,
        imports: columns.json()?,
        descriptor: columns.opt_json()?,
        created_at: columns.time()?,
    })
}
