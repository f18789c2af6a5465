//! Reading one blob, ahead of the caller by one block: the next one is read while the caller works on the last.
//!
//! The file is opened for each block and closed after it, so that a reader that nobody reads from costs no descriptor, however many
//! there are.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use model::Digest;
use ports::payload::{BlobError, BlobReader, READER_BYTES};
use tokio::task::JoinHandle;

use crate::store::{Inner, io_error};

/// What is read from the file at a time. The caller's block and the next one are in memory.
const BLOCK_BYTES: u64 = READER_BYTES / 2;

pub(crate) struct FileReader {
    inner: Arc<Inner>,
    digest: Digest,
    size: u64,
    /// Where the block begins that was not asked of the file yet.
    at: u64,
    block: Bytes,
    next: Next,
}

/// The block after the caller's.
enum Next {
    /// Not asked for.
    Idle,
    /// Being read; so many bytes must come.
    Busy(u64, JoinHandle<io::Result<Vec<u8>>>),
    /// A read failed: the blob cannot be trusted any further.
    Failed,
}

impl FileReader {
    pub(crate) fn new(inner: Arc<Inner>, digest: Digest, size: u64) -> Self {
        Self {
            inner,
            digest,
            size,
            at: 0,
            block: Bytes::new(),
            next: Next::Idle,
        }
    }

    /// Begins to read the next block, if there is one and nobody reads it yet.
    fn ask(&mut self) {
        let left = self.size.saturating_sub(self.at);
        if left == 0 || !matches!(self.next, Next::Idle) {
            return;
        }
        let (at, wanted) = (self.at, left.min(BLOCK_BYTES));
        self.at += wanted;
        let inner = Arc::clone(&self.inner);
        let path = inner.path(self.digest);
        let reading = tokio::spawn(async move {
            // Nobody closes it.
            let _turn = inner.reads.acquire().await.map_err(io::Error::other)?;
            let read = move || read_block(&fs::File::open(path)?, at, wanted);
            tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
        });
        self.next = Next::Busy(wanted, reading);
    }
}

/// As much as there is of a block.
fn read_block(file: &fs::File, at: u64, wanted: u64) -> io::Result<Vec<u8>> {
    let mut block = vec![0; usize::try_from(wanted).unwrap_or(0)];
    let mut filled = 0;
    while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    block.truncate(filled);
    Ok(block)
}

#[async_trait]
impl BlobReader for FileReader {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read(&mut self, max: usize) -> Result<Bytes, BlobError> {
        if self.block.is_empty() {
            self.ask();
            match &mut self.next {
                // The end.
                Next::Idle => {}
                Next::Busy(wanted, reading) => {
                    let wanted = *wanted;
                    let done = reading.await.map_err(io::Error::other).flatten();
                    self.next = Next::Failed;
                    let block = done.map_err(|error| match error.kind() {
                        // It was deleted meanwhile.
                        io::ErrorKind::NotFound => BlobError::NotFound(self.digest),
                        _ => io_error("read a blob")(error),
                    })?;
                    if block.len() as u64 != wanted {
                        return Err(BlobError::Damaged(self.digest));
                    }
                    self.next = Next::Idle;
                    self.block = block.into();
                    self.ask();
                }
                Next::Failed => return Err(BlobError::Damaged(self.digest)),
            }
        }
        let length = max.min(self.block.len());
        Ok(self.block.split_to(length))
    }
}
