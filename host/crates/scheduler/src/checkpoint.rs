//! Checkpoints of running tries. They are durable when the call returns, outside of the ticks, and fenced by the dispatch
//! number, here and in the database.

use async_trait::async_trait;
use ports::executor::TryId;
use ports::payload::{Checkpoint, CheckpointBackend, CheckpointError};
use ports::store::CommitError;

use crate::handle::Handle;
use crate::live::LiveRun;

#[async_trait]
impl CheckpointBackend for Handle {
    async fn load(&self, id: TryId) -> Result<Option<Vec<u8>>, CheckpointError> {
        let run = self.current(&id).ok_or(CheckpointError::Stale)?;
        let loaded = self
            .shared
            .store
            .load_checkpoint(id.ti)
            .await
            .map_err(|error| CheckpointError::Backend(Box::new(error)))?;
        if loaded.is_some() {
            mark(&run, &id);
        }
        Ok(loaded)
    }

    async fn save(&self, id: TryId, checkpoint: Option<Checkpoint>) -> Result<(), CheckpointError> {
        // A callback has none: what it is of may be in its next try by now.
        if id.callback.is_some() {
            return Err(CheckpointError::Stale);
        }
        let run = self.current(&id).ok_or(CheckpointError::Stale)?;
        mark(&run, &id);
        let lease = self.shared.lease.get().ok_or(CheckpointError::Stale)?;
        let now = self.shared.clock.now();
        let saved = self
            .shared
            .store
            .save_checkpoint(lease, id.ti, id.dispatch, checkpoint.as_ref(), now)
            .await;
        match saved {
            Ok(true) => Ok(()),
            Ok(false) | Err(CommitError::Fenced) => Err(CheckpointError::Stale),
            Err(error) => Err(CheckpointError::Backend(Box::new(error))),
        }
    }
}

/// Notes that there is something to delete once the task instance has succeeded.
fn mark(run: &LiveRun, id: &TryId) {
    if let Some(live) = run.tries().get_mut(&(id.ti.task, id.ti.map_index)) {
        live.has_checkpoint = true;
    }
}
