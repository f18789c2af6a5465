//! Keys of new runs, reserved durably in blocks. The next block is fetched before the last one is used up, so that a trigger
//! never waits for it.

use std::sync::Mutex;
use std::sync::PoisonError;

use model::DagRunKey;
use ports::store::{CommitError, Lease, SchedulerStore};

/// A part of the reserved keys.
#[derive(Clone, Copy, Debug)]
struct Block {
    next: i64,
    end: i64,
}

/// The reserved keys.
#[derive(Debug)]
pub(crate) struct RunKeys {
    size: u32,
    blocks: Mutex<Vec<Block>>,
    fetching: tokio::sync::Mutex<()>,
}

impl RunKeys {
    pub(crate) fn new(size: u32) -> Self {
        Self {
            size: size.max(1),
            blocks: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
        }
    }

    /// Reserves a block unless enough keys are left.
    pub(crate) async fn refill(&self, store: &dyn SchedulerStore, lease: &Lease) -> Result<(), CommitError> {
        let _fetching = self.fetching.lock().await;
        if !self.is_low() {
            return Ok(());
        }
        let first = store.reserve_run_keys(lease, self.size).await?;
        self.blocks().push(Block {
            next: first.0,
            end: first.0.saturating_add(i64::from(self.size)),
        });
        Ok(())
    }

    /// A key, if one is left, and whether it is time to refill.
    pub(crate) fn take(&self) -> (Option<DagRunKey>, bool) {
        let key = {
            let mut blocks = self.blocks();
            while blocks.first().is_some_and(|block| block.next >= block.end) {
                blocks.remove(0);
            }
            blocks.first_mut().map(|block| {
                block.next += 1;
                DagRunKey(block.next - 1)
            })
        };
        (key, self.is_low())
    }

    fn is_low(&self) -> bool {
        let left: i64 = self.blocks().iter().map(|block| block.end - block.next).sum();
        left <= i64::from(self.size / 4)
    }

    fn blocks(&self) -> std::sync::MutexGuard<'_, Vec<Block>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
