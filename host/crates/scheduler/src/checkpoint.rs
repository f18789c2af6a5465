//! Checkpoints of running tries. They are durable when the call returns, outside of the ticks (see `saves`), and fenced by the
//! dispatch number, here and in the database.

use async_trait::async_trait;
use ports::executor::TryId;
use ports::payload::{Checkpoint, CheckpointBackend, CheckpointError};
use ports::store::CheckpointSave;

use crate::handle::Handle;
use crate::live::LiveRun;
use crate::metrics::Metrics;

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
        let Some(run) = self.current(&id) else {
            Metrics::count(&self.shared.metrics.stale_events);
            return Err(CheckpointError::Stale);
        };
        mark(&run, &id);
        let save = CheckpointSave {
            ti: id.ti,
            dispatch: id.dispatch,
            checkpoint,
        };
        self.shared.saves.save(save).await
    }
}

/// Notes that there is something to delete once the task instance has succeeded.
fn mark(run: &LiveRun, id: &TryId) {
    if let Some(live) = run.tries().get_mut(&(id.ti.task, id.ti.map_index)) {
        live.has_checkpoint = true;
    }
}
