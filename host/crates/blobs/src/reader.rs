//! Reading one blob, ahead of the caller by one block.

use std::fs;
use std::io::Read as _;

use async_trait::async_trait;
use bytes::Bytes;
use model::Digest;
use ports::payload::{BlobError, BlobReader};

use crate::store::blocking;

/// What is read from the file at a time.
const BLOCK_BYTES: u64 = 1 << 20;

pub(crate) struct FileReader {
    digest: Digest,
    file: Option<fs::File>,
    size: u64,
    left: u64,
    block: Bytes,
}

impl FileReader {
    pub(crate) fn new(digest: Digest, file: fs::File, size: u64) -> Self {
        Self {
            digest,
            file: Some(file),
            size,
            left: size,
            block: Bytes::new(),
        }
    }
}

#[async_trait]
impl BlobReader for FileReader {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read(&mut self, max: usize) -> Result<Bytes, BlobError> {
        if self.block.is_empty() && self.left > 0 {
            // A read that failed has lost the file: the blob cannot be trusted any further.
            let file = self.file.take().ok_or(BlobError::Damaged(self.digest))?;
            let wanted = self.left.min(BLOCK_BYTES);
            let (file, block) = blocking("read a blob", move || {
                let mut block = Vec::with_capacity(usize::try_from(wanted).unwrap_or(0));
                (&file).take(wanted).read_to_end(&mut block)?;
                Ok((file, block))
            })
            .await?;
            if block.len() as u64 != wanted {
                return Err(BlobError::Damaged(self.digest));
            }
            self.file = Some(file);
            self.left -= wanted;
            self.block = block.into();
        }
        let length = max.min(self.block.len());
        Ok(self.block.split_to(length))
    }
}
