//! `airtight:task/checkpoint`: bytes that survive retries and crashes of the task instance. Fenced by the dispatch number.

use model::json;
use ports::payload::{Checkpoint, CheckpointError};
use ports::space::NoSpace;

use super::{HostError, backend_failed};
use crate::bindings::checkpoint::{self, Error};
use crate::ctx::TaskCtxView;
use crate::limits::{Held, as_u64};

/// What a checkpoint call fails with.
pub(crate) type SaveError = HostError<Error>;

impl TaskCtxView<'_> {
    /// A checkpoint belongs to a task instance, and a callback is none.
    fn has_checkpoint(&self) -> Result<(), SaveError> {
        if self.ctx.request.id.callback.is_none() {
            return Ok(());
        }
        self.ctx.gate.note_denied();
        Err(HostError::Wit(Error::Denied("a callback has no checkpoint".to_owned())))
    }

    fn hold(&self, bytes: usize) -> Result<Held, SaveError> {
        Held::of(&self.ctx.account, as_u64(bytes)).ok_or_else(|| {
            HostError::Wit(Error::Other(
                "the checkpoint does not fit into the memory limit of the task; raise `limits.memory`".to_owned(),
            ))
        })
    }

    fn checkpoint_failed(&self, doing: &'static str, error: &CheckpointError) -> SaveError {
        HostError::Wit(match error {
            CheckpointError::Stale => Error::Stale,
            CheckpointError::NoSpace(why) => Error::Other(format!("{}: {why}", NoSpace::CODE)),
            CheckpointError::Backend(_) => Error::Other(backend_failed(self.ctx.request.id, doing, error)),
        })
    }
}

impl checkpoint::Host for TaskCtxView<'_> {
    async fn load(&mut self) -> Result<Option<Vec<u8>>, SaveError> {
        self.ctx.gate.pass()?;
        if self.has_checkpoint().is_err() {
            return Ok(None);
        }
        let loaded = self.ctx.services.checkpoints.load(self.ctx.request.id).await;
        self.ctx.gate.pass()?;
        let bytes = loaded.map_err(|error| self.checkpoint_failed("load the checkpoint", &error))?;
        let _held = self.hold(bytes.as_ref().map_or(0, Vec::len))?;
        // `save` let through only references to blobs that the task instance could open, so these may be opened again.
        if let Some(blobs) = bytes.as_deref().and_then(references) {
            self.ctx.openable.allow(&blobs);
        }
        Ok(bytes)
    }

    async fn save(&mut self, bytes: Vec<u8>) -> Result<(), SaveError> {
        self.ctx.gate.pass()?;
        self.has_checkpoint()?;
        let limit = self.ctx.request.task.limits.checkpoint_bytes;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
            return Err(HostError::Wit(Error::TooLarge(limit)));
        }
        // Until it is durable: the guest may wait for a while.
        let _held = self.hold(bytes.len())?;
        let blobs = references(&bytes).unwrap_or_default();
        if let Some(foreign) = self.ctx.openable.first_foreign(&blobs) {
            return Err(HostError::Wit(Error::Other(format!(
                "the checkpoint refers to blob {}, which this try cannot open",
                foreign.digest
            ))));
        }
        self.ctx
            .services
            .checkpoints
            .save(self.ctx.request.id, Some(Checkpoint { bytes, blobs }))
            .await
            .map_err(|error| self.checkpoint_failed("save the checkpoint", &error))
    }

    async fn clear(&mut self) -> Result<(), SaveError> {
        self.ctx.gate.pass()?;
        self.has_checkpoint()?;
        self.ctx
            .services
            .checkpoints
            .save(self.ctx.request.id, None)
            .await
            .map_err(|error| self.checkpoint_failed("clear the checkpoint", &error))
    }

    fn convert_error(&mut self, error: SaveError) -> wasmtime::Result<Error> {
        error.split()
    }
}

/// The blobs that a checkpoint refers to, where it is JSON. Other bytes refer to none.
fn references(bytes: &[u8]) -> Option<Vec<ports::executor::BlobRef>> {
    let text = std::str::from_utf8(bytes).ok()?;
    json::check(text, u64::MAX).ok()
}
