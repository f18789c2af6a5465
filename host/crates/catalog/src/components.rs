//! Uploading, reading and deleting components.

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use model::Digest;
use ports::component::{Component, ComponentError, ComponentState, Components, Standing, Tag, UploadStream};
use ports::payload::BlobError;
use ports::query::{Listed, Page, QueryError};
use ports::store::ComponentWriteError;

use crate::header;
use crate::inner::{Catalog, Inner};
use crate::reference::Reference;

/// How often a component that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[async_trait]
impl Components for Catalog {
    async fn upload(&self, tag: Option<Tag>, body: UploadStream) -> Result<(Component, bool), ComponentError> {
        let inner = &self.inner;
        let (digest, size) = inner.store_body(body).await?;
        let new = inner
            .parts
            .store
            .add_component(digest, size, tag.as_ref(), inner.parts.clock.now())
            .await
            .map_err(|failure| match (failure, &tag) {
                (ComponentWriteError::TagTaken(existing), Some(tag)) => ComponentError::TagTaken {
                    tag: tag.clone(),
                    existing,
                },
                (ComponentWriteError::Query(failure), _) => internal(failure),
                (failure, _) => ComponentError::Internal(failure.into()),
            })?;
        let mut component = inner.by_digest(digest).await?;
        if component.state == ComponentState::Refused {
            // Whoever uploads a refused component again asks for another attempt: the server may know more by now.
            inner.parts.store.restart_component(digest).await.map_err(internal)?;
            component = inner.by_digest(digest).await?;
        }
        if component.state == ComponentState::Compiling {
            inner.enqueue(digest);
        }
        Ok((component, new))
    }

    async fn get(&self, reference: &str) -> Result<Component, ComponentError> {
        match reference.parse() {
            Ok(Reference::Digest(digest)) => self.inner.by_digest(digest).await,
            Ok(Reference::Tag(tag)) => {
                let digest = self.inner.parts.store.resolve_tag(&tag).await.map_err(internal)?;
                let digest = digest.ok_or_else(|| ComponentError::NotFound(tag.to_string()))?;
                self.inner.by_digest(digest).await
            }
            Err(_) => Err(ComponentError::NotFound(reference.chars().take(300).collect())),
        }
    }

    async fn list(&self, page: Page) -> Result<Listed<Component>, ComponentError> {
        self.inner.parts.store.components(page).await.map_err(internal)
    }

    async fn standing(&self, components: &[Component]) -> Vec<Standing> {
        let mut all = Vec::with_capacity(components.len());
        for component in components {
            all.push(match component.state {
                ComponentState::Compiling => Standing {
                    queue_position: self.inner.queue_position(component.digest),
                    needs: None,
                },
                ComponentState::Ready => Standing {
                    queue_position: None,
                    needs: self.inner.parts.compiler.needs(component.digest).await,
                },
                ComponentState::Refused => Standing::default(),
            });
        }
        all
    }

    async fn wait_ready(&self, digest: Digest) -> Result<Component, ComponentError> {
        let mut ends = self.inner.ends();
        loop {
            // Marked as seen before the look, so that an end in between is not missed.
            ends.borrow_and_update();
            let component = self.inner.by_digest(digest).await?;
            if component.state != ComponentState::Compiling {
                return Ok(component);
            }
            // The end of a compilation in another server is not told here. An error cannot be: the sender lives in `self`.
            let _ = tokio::time::timeout(LOOK_EVERY, ends.changed()).await;
        }
    }

    async fn delete(&self, reference: &str) -> Result<(), ComponentError> {
        let missing = || ComponentError::NotFound(reference.chars().take(300).collect());
        let store = &self.inner.parts.store;
        match reference.parse().map_err(|_| missing())? {
            Reference::Tag(tag) => {
                let digest = store.resolve_tag(&tag).await.map_err(internal)?.ok_or_else(missing)?;
                store
                    .delete_tag(&tag)
                    .await
                    .map_err(|failure| refuse_delete(failure, digest, missing))
            }
            Reference::Digest(digest) => {
                store
                    .delete_component(digest)
                    .await
                    .map_err(|failure| refuse_delete(failure, digest, missing))?;
                // The bytes stay until the sweep finds that nothing refers to them: a task's output may be the same blob.
                self.inner.parts.compiler.evict(digest).await;
                Ok(())
            }
        }
    }
}

impl Inner {
    pub(crate) async fn by_digest(&self, digest: Digest) -> Result<Component, ComponentError> {
        let component = self.parts.store.component(digest).await.map_err(internal)?;
        component.ok_or_else(|| ComponentError::NotFound(digest.to_string()))
    }

    /// Streams an upload into the blob store. It is durable when this returns; whatever fails leaves nothing behind.
    async fn store_body(&self, mut body: UploadStream) -> Result<(Digest, u64), ComponentError> {
        let limit = self.config.max_component_bytes;
        let mut writer = self.parts.blobs.create().await.map_err(storage)?;
        let mut start = Vec::with_capacity(header::HEADER_BYTES);
        let mut size = 0_u64;
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(ComponentError::Body)?;
            size = size.saturating_add(chunk.len() as u64);
            if size > limit {
                return Err(ComponentError::TooLarge { limit });
            }
            if start.len() < header::HEADER_BYTES {
                start.extend(chunk.iter().take(header::HEADER_BYTES - start.len()));
                if start.len() == header::HEADER_BYTES {
                    header::check(&start).map_err(ComponentError::Refused)?;
                }
            }
            writer.write(chunk).await.map_err(storage)?;
        }
        header::check(&start).map_err(ComponentError::Refused)?;
        writer.finish().await.map_err(storage)
    }
}

fn refuse_delete(
    failure: ComponentWriteError,
    digest: Digest,
    missing: impl FnOnce() -> ComponentError,
) -> ComponentError {
    match failure {
        ComponentWriteError::InUse(users) => ComponentError::InUse { digest, users },
        ComponentWriteError::NotFound => missing(),
        failure => ComponentError::Internal(failure.into()),
    }
}

fn internal(failure: QueryError) -> ComponentError {
    ComponentError::Internal(failure.into())
}

fn storage(failure: BlobError) -> ComponentError {
    match failure {
        BlobError::NoSpace(why) => ComponentError::NoSpace(why),
        failure => ComponentError::Internal(failure.into()),
    }
}
