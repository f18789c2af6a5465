//! Moves calls of the database's traits to the control plane's runtime: their connections belong to it, and a thread that is
//! busy with guests must not hold them up. Giving up the call (a cancel) does not give up the work that was started.

use std::sync::Arc;

use async_trait::async_trait;
use model::template::Segment;
use model::{MapIndex, TaskId};
use ports::executor::TryId;
use ports::payload::{Checkpoint, CheckpointBackend, CheckpointError, Pulled, XcomBackend, XcomError, XcomValue};
use tokio::runtime::Handle;

/// A backend that is called on another runtime.
pub(super) struct OnControlPlane<B: ?Sized> {
    pub(super) backend: Arc<B>,
    pub(super) control: Handle,
}

#[async_trait]
impl XcomBackend for OnControlPlane<dyn XcomBackend> {
    async fn pull(
        &self,
        id: TryId,
        task: &TaskId,
        key: &str,
        map_index: Option<MapIndex>,
        most: u64,
    ) -> Result<Pulled, XcomError> {
        let (backend, task, key) = (Arc::clone(&self.backend), task.clone(), key.to_owned());
        self.control
            .spawn(async move { backend.pull(id, &task, &key, map_index, most).await })
            .await
            .unwrap_or_else(|aborted| Err(XcomError::Backend(Box::new(aborted))))
    }

    async fn count(&self, id: TryId, task: &TaskId, key: &str) -> Result<u32, XcomError> {
        let (backend, task, key) = (Arc::clone(&self.backend), task.clone(), key.to_owned());
        self.control
            .spawn(async move { backend.count(id, &task, &key).await })
            .await
            .unwrap_or_else(|aborted| Err(XcomError::Backend(Box::new(aborted))))
    }

    async fn pull_items(
        &self,
        id: TryId,
        task: &TaskId,
        key: &str,
        after: Option<MapIndex>,
        max: u32,
    ) -> Result<Vec<(MapIndex, XcomValue)>, XcomError> {
        let (backend, task, key) = (Arc::clone(&self.backend), task.clone(), key.to_owned());
        self.control
            .spawn(async move { backend.pull_items(id, &task, &key, after, max).await })
            .await
            .unwrap_or_else(|aborted| Err(XcomError::Backend(Box::new(aborted))))
    }

    async fn pull_previous(&self, id: TryId, task: &TaskId, key: &str, most: u64) -> Result<Pulled, XcomError> {
        let (backend, task, key) = (Arc::clone(&self.backend), task.clone(), key.to_owned());
        self.control
            .spawn(async move { backend.pull_previous(id, &task, &key, most).await })
            .await
            .unwrap_or_else(|aborted| Err(XcomError::Backend(Box::new(aborted))))
    }

    async fn pull_own(&self, id: TryId, key: &str) -> Result<Option<XcomValue>, XcomError> {
        let (backend, key) = (Arc::clone(&self.backend), key.to_owned());
        self.control
            .spawn(async move { backend.pull_own(id, &key).await })
            .await
            .unwrap_or_else(|aborted| Err(XcomError::Backend(Box::new(aborted))))
    }

    async fn own_sizes(&self, id: TryId) -> Result<Vec<(String, u64)>, XcomError> {
        let backend = Arc::clone(&self.backend);
        self.control
            .spawn(async move { backend.own_sizes(id).await })
            .await
            .unwrap_or_else(|aborted| Err(XcomError::Backend(Box::new(aborted))))
    }

    async fn pull_element(
        &self,
        id: TryId,
        task: &TaskId,
        key: &str,
        path: &[Segment],
        index: u32,
    ) -> Result<Option<XcomValue>, XcomError> {
        let (backend, task, key) = (Arc::clone(&self.backend), task.clone(), key.to_owned());
        let path = path.to_vec();
        self.control
            .spawn(async move { backend.pull_element(id, &task, &key, &path, index).await })
            .await
            .unwrap_or_else(|aborted| Err(XcomError::Backend(Box::new(aborted))))
    }
}

#[async_trait]
impl CheckpointBackend for OnControlPlane<dyn CheckpointBackend> {
    async fn load(&self, id: TryId) -> Result<Option<Vec<u8>>, CheckpointError> {
        let backend = Arc::clone(&self.backend);
        self.control
            .spawn(async move { backend.load(id).await })
            .await
            .unwrap_or_else(|aborted| Err(CheckpointError::Backend(Box::new(aborted))))
    }

    async fn save(&self, id: TryId, checkpoint: Option<Checkpoint>) -> Result<(), CheckpointError> {
        let backend = Arc::clone(&self.backend);
        self.control
            .spawn(async move { backend.save(id, checkpoint).await })
            .await
            .unwrap_or_else(|aborted| Err(CheckpointError::Backend(Box::new(aborted))))
    }
}
