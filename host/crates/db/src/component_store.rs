//! The component tables, and blobs that nothing refers to.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use model::{Digest, Timestamp};
use ports::component::{Component, Inspected, Refusal, Tag};
use ports::query::{Listed, Page, QueryError};
use ports::store::{BlobRefs, BlobUploads, ComponentStore, ComponentWriteError};

use crate::Db;
use crate::error::{query_error, query_failure};
use crate::sql::{Failure, WriteTx};
use crate::table::{checkpoint, component, component_tag, uploaded_blob, xcom};

/// Digests of one statement; SQLite takes 32,766 arguments, PostgreSQL 65,535.
const DIGESTS_PER_STATEMENT: usize = 10_000;

fn write_error(error: sqlx::Error) -> ComponentWriteError {
    ComponentWriteError::Query(query_error(error))
}

fn write_failure(failure: Failure) -> ComponentWriteError {
    ComponentWriteError::Query(query_failure(failure))
}

/// What a live tag names.
async fn live_tag(tx: &mut WriteTx, tag: &Tag) -> Result<Option<Digest>, sqlx::Error> {
    let row = tx.fetch_optional(component_tag::find(tag)).await?;
    let found = row.as_ref().map(component_tag::read).transpose()?;
    Ok(found.and_then(|(digest, deleted)| (!deleted).then_some(digest)))
}

async fn users(tx: &mut WriteTx, statement: crate::sql::Statement) -> Result<Vec<String>, sqlx::Error> {
    let rows = tx.fetch_all(statement).await?;
    rows.iter().map(component::read_user).collect()
}

impl Db {
    /// Fills in the tags.
    async fn with_tags(&self, mut components: Vec<Component>) -> Result<Vec<Component>, QueryError> {
        if components.is_empty() {
            return Ok(components);
        }
        let of = component_tag::of_components(components.iter().map(|component| component.digest));
        let mut tags: HashMap<Digest, Vec<Tag>> = HashMap::new();
        for (digest, tag) in self.all(of, component_tag::read_of_component).await? {
            tags.entry(digest).or_default().push(tag);
        }
        for component in &mut components {
            component.tags = tags.remove(&component.digest).unwrap_or_default();
        }
        Ok(components)
    }
}

#[async_trait]
impl ComponentStore for Db {
    async fn add_component(
        &self,
        digest: Digest,
        size: u64,
        tag: Option<&Tag>,
        now: Timestamp,
    ) -> Result<bool, ComponentWriteError> {
        let mut tx = self.database.write().await.map_err(write_error)?;
        let new = tx
            .execute(component::add(digest, size, now))
            .await
            .map_err(write_error)?
            > 0;
        if let Some(tag) = tag {
            // The statement waits for a concurrent one on the same tag, so that what is read after it is settled.
            tx.execute(component_tag::add(tag, digest)).await.map_err(write_error)?;
            let row = tx.fetch_optional(component_tag::find(tag)).await.map_err(write_error)?;
            let row = row.ok_or(sqlx::Error::RowNotFound).map_err(write_error)?;
            let (existing, _) = component_tag::read(&row).map_err(write_error)?;
            if existing != digest {
                return Err(ComponentWriteError::TagTaken(existing));
            }
        }
        tx.commit().await.map_err(write_failure)?;
        Ok(new)
    }

    async fn finish_component(&self, digest: Digest, result: &Result<Inspected, Refusal>) -> Result<(), QueryError> {
        let finish = component::finish(digest, result).map_err(|error| QueryError::Internal(error.into()))?;
        self.database.run(vec![finish]).await.map_err(query_failure)
    }

    async fn restart_component(&self, digest: Digest) -> Result<(), QueryError> {
        self.database
            .run(vec![component::restart(digest)])
            .await
            .map_err(query_failure)
    }

    async fn component(&self, digest: Digest) -> Result<Option<Component>, QueryError> {
        let found = self.first(component::one(digest), component::read).await?;
        Ok(self.with_tags(found.into_iter().collect()).await?.pop())
    }

    async fn resolve_tag(&self, tag: &Tag) -> Result<Option<Digest>, QueryError> {
        let found = self.first(component_tag::find(tag), component_tag::read).await?;
        Ok(found.and_then(|(digest, deleted)| (!deleted).then_some(digest)))
    }

    async fn components(&self, page: Page) -> Result<Listed<Component>, QueryError> {
        let total = self.count(component::count()).await?;
        let items = self.all(component::list(page), component::read).await?;
        Ok(Listed {
            total,
            items: self.with_tags(items).await?,
        })
    }

    async fn compiling_components(&self) -> Result<Vec<Digest>, QueryError> {
        self.all(component::compiling(), |row| row.columns().digest()).await
    }

    async fn delete_tag(&self, tag: &Tag) -> Result<(), ComponentWriteError> {
        let mut tx = self.database.write().await.map_err(write_error)?;
        let digest = live_tag(&mut tx, tag).await.map_err(write_error)?;
        let digest = digest.ok_or(ComponentWriteError::NotFound)?;
        let count = tx
            .fetch_optional(component_tag::count(digest))
            .await
            .map_err(write_error)?;
        let count = count
            .ok_or(sqlx::Error::RowNotFound)
            .and_then(|row| row.columns().int());
        if count.map_err(write_error)? < 2 {
            let users = users(&mut tx, component::tag_users(tag, digest))
                .await
                .map_err(write_error)?;
            if !users.is_empty() {
                return Err(ComponentWriteError::InUse(users));
            }
        }
        tx.execute(component_tag::delete(tag)).await.map_err(write_error)?;
        tx.commit().await.map_err(write_failure)
    }

    async fn delete_component(&self, digest: Digest) -> Result<(), ComponentWriteError> {
        let mut tx = self.database.write().await.map_err(write_error)?;
        let users = users(&mut tx, component::users(digest)).await.map_err(write_error)?;
        if !users.is_empty() {
            return Err(ComponentWriteError::InUse(users));
        }
        if tx.execute(component::delete(digest)).await.map_err(write_error)? == 0 {
            return Err(ComponentWriteError::NotFound);
        }
        tx.execute(component_tag::delete_all(digest))
            .await
            .map_err(write_error)?;
        tx.commit().await.map_err(write_failure)
    }
}

#[async_trait]
impl BlobUploads for Db {
    async fn add_upload(&self, digest: Digest, size: u64, now: Timestamp) -> Result<(), QueryError> {
        let add = uploaded_blob::add(digest, size, now);
        self.database.run(vec![add]).await.map_err(query_failure)
    }

    async fn forget_uploads(&self, before: Timestamp) -> Result<(), QueryError> {
        let forget = uploaded_blob::forget(before);
        self.database.run(vec![forget]).await.map_err(query_failure)
    }
}

#[async_trait]
impl BlobRefs for Db {
    async fn unreferenced(&self, digests: &[Digest]) -> Result<Vec<Digest>, QueryError> {
        let mut referenced = HashSet::new();
        for digests in digests.chunks(DIGESTS_PER_STATEMENT) {
            referenced.extend(
                self.all(xcom::referenced(digests), |row| row.columns().digest())
                    .await?,
            );
            referenced.extend(
                self.all(checkpoint::referenced(digests), |row| row.columns().digest())
                    .await?,
            );
            // Components may lie in the same store.
            referenced.extend(
                self.all(component::known(digests), |row| row.columns().digest())
                    .await?,
            );
        }
        Ok(digests
            .iter()
            .copied()
            .filter(|digest| !referenced.contains(digest))
            .collect())
    }
}
