//! `component_tag`: names of components. A tag names one content for ever; a deleted one stays as a tombstone.

use model::Digest;
use ports::component::Tag;

use crate::sql::{Row, Statement};

/// What the tag names, and whether it was deleted.
pub(crate) fn find(tag: &Tag) -> Statement {
    Statement::new("SELECT digest, deleted FROM component_tag WHERE name = ? AND version = ?")
        .arg(tag.name.as_str())
        .arg(tag.version.as_str())
}

pub(crate) fn read(row: &Row) -> Result<(Digest, bool), sqlx::Error> {
    let mut columns = row.columns();
    Ok((columns.digest()?, columns.flag()?))
}

/// Adds the tag, or brings it back where it named the same content. Nothing happens where it names other content.
pub(crate) fn add(tag: &Tag, digest: Digest) -> Statement {
    Statement::new(
        "INSERT INTO component_tag (name, version, digest, deleted) VALUES (?, ?, ?, 0) \
         ON CONFLICT (name, version) DO UPDATE SET deleted = 0 WHERE component_tag.digest = excluded.digest",
    )
    .arg(tag.name.as_str())
    .arg(tag.version.as_str())
    .arg(digest)
}

pub(crate) fn delete(tag: &Tag) -> Statement {
    Statement::new("UPDATE component_tag SET deleted = 1 WHERE name = ? AND version = ?")
        .arg(tag.name.as_str())
        .arg(tag.version.as_str())
}

pub(crate) fn delete_all(digest: Digest) -> Statement {
    Statement::new("UPDATE component_tag SET deleted = 1 WHERE digest = ?").arg(digest)
}

/// How many tags name the content.
pub(crate) fn count(digest: Digest) -> Statement {
    Statement::new("SELECT COUNT(*) FROM component_tag WHERE digest = ? AND deleted = 0").arg(digest)
}

pub(crate) fn of_components(digests: impl IntoIterator<Item = Digest>) -> Statement {
    let mut statement =
        Statement::new("SELECT digest, name, version FROM component_tag WHERE deleted = 0 AND digest IN ");
    statement.bind_list(digests).push(" ORDER BY name, version");
    statement
}

pub(crate) fn read_of_component(row: &Row) -> Result<(Digest, Tag), sqlx::Error> {
    let mut columns = row.columns();
    let digest = columns.digest()?;
    let tag = Tag {
        name: columns.parse()?,
        version: columns.parse()?,
    };
    Ok((digest, tag))
}
