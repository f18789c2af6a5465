//! Writing one blob. Two blocking threads work on it while the caller produces the next bytes: one hashes, one writes.
//!
//! The content is synced every few MiB: the disk works while the rest is hashed, `finish` has little left to wait for, and a
//! blob of any size leaves no more than that unwritten in memory.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use model::Digest;
use ports::payload::{BlobError, BlobWriter, WRITER_BYTES};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use tokio::task::JoinHandle;

use crate::store::{Inner, blocking, io_error, sync_dir};

/// Bytes that are collected before the blocking threads take them.
const BATCH_BYTES: usize = (WRITER_BYTES / 2) as usize;
/// After about as many bytes the content is synced.
const SYNC_BYTES: usize = 4 << 20;

pub(crate) struct FileWriter {
    inner: Arc<Inner>,
    hash: Lane<Sha256>,
    file: Lane<File>,
    batch: Vec<Bytes>,
    batch_bytes: usize,
}

/// State that travels to a blocking thread and back; at most one batch is under way.
enum Lane<T> {
    Idle(T),
    Busy(JoinHandle<io::Result<T>>),
    Failed,
}

impl<T: Send + 'static> Lane<T> {
    /// Waits for the batch that is under way, if any.
    async fn idle(&mut self) -> Result<T, BlobError> {
        let done = match std::mem::replace(self, Self::Failed) {
            Self::Idle(state) => Ok(state),
            Self::Busy(task) => task.await.map_err(io::Error::other).flatten(),
            Self::Failed => Err(io::Error::other("an earlier write failed")),
        };
        done.map_err(io_error("write a blob"))
    }

    /// Gives the lane its next batch.
    fn start(&mut self, work: impl FnOnce() -> io::Result<T> + Send + 'static) {
        *self = Self::Busy(tokio::task::spawn_blocking(work));
    }
}

struct File {
    file: NamedTempFile,
    size: u64,
    unsynced: usize,
}

impl File {
    fn append(&mut self, batch: &[Bytes]) -> io::Result<()> {
        for bytes in batch {
            self.file.write_all(bytes)?;
            self.size += bytes.len() as u64;
            self.unsynced += bytes.len();
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.unsynced = 0;
        self.file.as_file().sync_data()
    }
}

/// A new file, locked for as long as it is written.
fn temporary(dir: &Path) -> io::Result<NamedTempFile> {
    loop {
        let file = NamedTempFile::new_in(dir)?;
        file.as_file().lock()?;
        // A process that has started just now may have taken it for abandoned, before it was locked.
        if file.path().try_exists()? {
            return Ok(file);
        }
    }
}

fn hash_all(mut hash: Sha256, batch: &[Bytes]) -> Sha256 {
    for bytes in batch {
        hash.update(bytes);
    }
    hash
}

impl FileWriter {
    pub(crate) async fn create(inner: Arc<Inner>) -> Result<Self, BlobError> {
        inner.check_room()?;
        let dir = inner.temporary_dir();
        let file = blocking("create a blob", move || temporary(&dir)).await?;
        Ok(Self {
            inner,
            hash: Lane::Idle(Sha256::new()),
            file: Lane::Idle(File {
                file,
                size: 0,
                unsynced: 0,
            }),
            batch: Vec::new(),
            batch_bytes: 0,
        })
    }

    fn take_batch(&mut self) -> Arc<[Bytes]> {
        self.batch_bytes = 0;
        std::mem::take(&mut self.batch).into()
    }
}

#[async_trait]
impl BlobWriter for FileWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        self.batch_bytes += bytes.len();
        self.batch.push(bytes);
        if self.batch_bytes < BATCH_BYTES {
            return Ok(());
        }
        self.inner.check_room()?;
        let hash = self.hash.idle().await?;
        let mut file = self.file.idle().await?;
        let batch = self.take_batch();
        let same = Arc::clone(&batch);
        self.hash.start(move || Ok(hash_all(hash, &same)));
        self.file.start(move || {
            file.append(&batch)?;
            if file.unsynced >= SYNC_BYTES {
                file.sync()?;
            }
            Ok(file)
        });
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<(Digest, u64), BlobError> {
        const DOING: &str = "finish a blob";
        let batch = self.take_batch();
        let same = Arc::clone(&batch);
        let Self {
            inner,
            hash: mut hashing,
            file: mut writing,
            ..
        } = *self;
        let hash = async {
            let hash = hashing.idle().await?;
            blocking(DOING, move || Ok(Digest(hash_all(hash, &same).finalize().into()))).await
        };
        let file = async {
            let mut file = writing.idle().await?;
            let synced = move || {
                file.append(&batch)?;
                file.sync()?;
                Ok(file)
            };
            blocking(DOING, synced).await
        };
        let (digest, File { file, size, .. }) = tokio::try_join!(hash, file)?;
        blocking(DOING, move || {
            let path = inner.path(digest);
            inner.make_shard(&path)?;
            {
                let naming = inner.naming()?;
                naming.lock_shared()?;
                if fs::metadata(&path).is_ok_and(|existing| existing.len() == size) {
                    // The same content again: it counts as young from now on.
                    fs::File::open(&path)?.set_modified(SystemTime::now())?;
                } else {
                    file.persist(&path).map_err(|error| error.error)?;
                }
            }
            if let Some(dir) = path.parent() {
                sync_dir(dir)?;
            }
            Ok((digest, size))
        })
        .await
    }
}
