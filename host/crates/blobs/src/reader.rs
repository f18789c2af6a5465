//! Reading one blob, ahead of the caller by one block: the next one is read while the caller works on the last.

use std::fs;
use std::io;
use std::io::Read as _;

use async_trait::async_trait;
use bytes::Bytes;
use model::Digest;
use ports::payload::{BlobError, BlobReader};
use tokio::task::JoinHandle;

use crate::store::io_error;

/// What is read from the file at a time. The caller's block and the next one are in memory.
const BLOCK_BYTES: u64 = 512 << 10;

pub(crate) struct FileReader {
    digest: Digest,
    size: u64,
    /// What was not asked of the file yet.
    left: u64,
    block: Bytes,
    next: Next,
}

/// The block after the caller's.
enum Next {
    /// Not asked for.
    Idle(fs::File),
    /// Being read; so many bytes must come.
    Busy(u64, JoinHandle<io::Result<(fs::File, Vec<u8>)>>),
    /// A read failed: the blob cannot be trusted any further.
    Failed,
}

impl FileReader {
    pub(crate) fn new(digest: Digest, file: fs::File, size: u64) -> Self {
        Self {
            digest,
            size,
            left: size,
            block: Bytes::new(),
            next: Next::Idle(file),
        }
    }

    /// Begins to read the next block, if there is one and nobody reads it yet.
    fn ask(&mut self) {
        if self.left == 0 || !matches!(self.next, Next::Idle(_)) {
            return;
        }
        if let Next::Idle(file) = std::mem::replace(&mut self.next, Next::Failed) {
            let wanted = self.left.min(BLOCK_BYTES);
            self.left -= wanted;
            let reading = tokio::task::spawn_blocking(move || {
                let mut block = Vec::with_capacity(usize::try_from(wanted).unwrap_or(0));
                (&file).take(wanted).read_to_end(&mut block)?;
                Ok((file, block))
            });
            self.next = Next::Busy(wanted, reading);
        }
    }
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
                Next::Idle(_) => {}
                Next::Busy(wanted, reading) => {
                    let wanted = *wanted;
                    let done = reading.await.map_err(io::Error::other).flatten();
                    self.next = Next::Failed;
                    let (file, block) = done.map_err(io_error("read a blob"))?;
                    if block.len() as u64 != wanted {
                        return Err(BlobError::Damaged(self.digest));
                    }
                    self.next = Next::Idle(file);
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
