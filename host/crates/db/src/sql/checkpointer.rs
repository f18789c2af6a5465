//! Moves what was committed from SQLite's write-ahead log into the database file, beside the commits instead of within one.
//!
//! Left alone, SQLite does this inside every commit that finds 1,000 pages in the log: a few milliseconds and two more syncs, for
//! which a tick would have to wait. The writing connection keeps a much higher limit of its own, in case this falls behind.

use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// After about as many bytes a checkpoint begins (SQLite's own default is 1,000 pages of 4 KiB).
const BYTES: usize = 4 << 20;

/// What a transaction adds to the log at least: the pages that a small tick touches.
const TRANSACTION_BYTES: usize = 8 * 4096;

/// The handle to the task that makes checkpoints.
pub(crate) struct Checkpointer {
    wake: mpsc::Sender<()>,
    task: JoinHandle<()>,
    written: usize,
}

impl Checkpointer {
    /// Starts the task; it ends when the handle is dropped or closed.
    pub(crate) fn start(mut connection: SqliteConnection) -> Self {
        let (wake, mut woken) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            while woken.recv().await.is_some() {
                // `PASSIVE` waits for nobody and makes nobody wait.
                if let Err(error) = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)")
                    .execute(&mut connection)
                    .await
                {
                    tracing::warn!(%error, "cannot move the write-ahead log into the database file; it keeps growing");
                }
            }
            if let Err(error) = connection.close().await {
                tracing::debug!(%error, "close");
            }
        });
        Self { wake, task, written: 0 }
    }

    /// A transaction with arguments of this size was committed.
    pub(super) fn committed(&mut self, bytes: usize) {
        self.written = self.written.saturating_add(TRANSACTION_BYTES).saturating_add(bytes);
        if self.written >= BYTES {
            self.written = 0;
            // Full means that it is about to begin anyway.
            let _ = self.wake.try_send(());
        }
    }

    /// Waits until the task has ended and its connection is closed.
    pub(super) async fn close(self) {
        drop(self.wake);
        if let Err(error) = self.task.await {
            tracing::debug!(%error, "the checkpointer ended badly");
        }
    }
}
