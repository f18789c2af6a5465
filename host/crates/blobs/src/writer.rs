//! Writing one blob. Hashing and writing happen on a blocking thread while the caller produces the next bytes.

use std::fs;
use std::io::Write as _;
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use model::Digest;
use ports::payload::{BlobError, BlobWriter};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use tokio::task::JoinHandle;

use crate::store::{Inner, blocking, io_error, sync_dir};

/// Bytes that are collected before a blocking thread takes them.
const BATCH_BYTES: usize = 512 << 10;

pub(crate) struct FileWriter {
    inner: Arc<Inner>,
    state: State,
    batch: Vec<Bytes>,
    batch_bytes: usize,
}

/// The file travels to a blocking thread and back; at most one batch is under way.
enum State {
    Idle(Box<File>),
    Busy(JoinHandle<std::io::Result<Box<File>>>),
    Failed,
}

struct File {
    file: NamedTempFile,
    hash: Sha256,
    size: u64,
}

impl File {
    fn append(&mut self, batch: &[Bytes]) -> std::io::Result<()> {
        for bytes in batch {
            self.hash.update(bytes);
            self.file.write_all(bytes)?;
            self.size += bytes.len() as u64;
        }
        Ok(())
    }
}

impl FileWriter {
    pub(crate) async fn create(inner: Arc<Inner>) -> Result<Self, BlobError> {
        let dir = inner.temporary_dir();
        let file = blocking("create a blob", move || NamedTempFile::new_in(dir)).await?;
        let state = State::Idle(Box::new(File {
            file,
            hash: Sha256::new(),
            size: 0,
        }));
        Ok(Self {
            inner,
            state,
            batch: Vec::new(),
            batch_bytes: 0,
        })
    }

    /// Waits for the batch that is under way, if any.
    async fn idle(&mut self) -> Result<Box<File>, BlobError> {
        let doing = "write a blob";
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Idle(file) => Ok(file),
            State::Busy(task) => task
                .await
                .map_err(|error| io_error(doing)(std::io::Error::other(error)))?
                .map_err(io_error(doing)),
            State::Failed => Err(io_error(doing)(std::io::Error::other("an earlier write failed"))),
        }
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
        let mut file = self.idle().await?;
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        self.state = State::Busy(tokio::task::spawn_blocking(move || {
            file.append(&batch)?;
            Ok(file)
        }));
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<(Digest, u64), BlobError> {
        let mut file = self.idle().await?;
        let batch = std::mem::take(&mut self.batch);
        let inner = Arc::clone(&self.inner);
        blocking("finish a blob", move || {
            file.append(&batch)?;
            let File { file, hash, size } = *file;
            let digest = Digest(hash.finalize().into());
            file.as_file().sync_data()?;
            let path = inner.path(digest);
            inner.make_shard(&path)?;
            {
                let _naming = inner.naming.read().unwrap_or_else(PoisonError::into_inner);
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
