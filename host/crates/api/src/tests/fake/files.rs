//! Logs and blobs.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use model::{Digest, RunUuid};
use ports::log::{LogKey, LogLevel, LogLine, LogPart, LogReader, LogSource};
use ports::payload::{BlobError, BlobReader, BlobStore, BlobWriter};
use ports::query::QueryError;
use ports::store::BlobUploads;

use super::*;

#[async_trait]
impl LogReader for Fake {
    async fn read(&self, _: LogKey, from: u64, max_lines: usize) -> std::io::Result<LogPart> {
        if self.data().logs_are_broken {
            return Err(std::io::Error::other("the disk is broken"));
        }
        let line = |text: &str| LogLine {
            timestamp: NOW,
            level: LogLevel::Info,
            source: LogSource::Stdout,
            event: text.to_owned(),
            fields: None,
        };
        let all = [line("first"), line("second\u{1b}[0m")];
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(all.len());
        let lines: Vec<LogLine> = all.iter().skip(from).take(max_lines).cloned().collect();
        let next = from + lines.len();
        Ok(LogPart {
            lines,
            next: next as u64,
            ended: next == all.len(),
        })
    }

    async fn wait(&self, _: LogKey, _: u64) {}

    async fn delete_run(&self, _: RunUuid) -> std::io::Result<()> {
        Ok(())
    }
}

#[async_trait]
impl BlobUploads for Fake {
    async fn add_upload(&self, digest: Digest, _: u64, _: Timestamp) -> Result<(), QueryError> {
        self.data().uploads.push(digest);
        Ok(())
    }

    async fn forget_uploads(&self, _: Timestamp) -> Result<(), QueryError> {
        Ok(())
    }
}

struct Writer {
    data: Arc<Mutex<Data>>,
    bytes: Vec<u8>,
}

#[async_trait]
impl BlobWriter for Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<(Digest, u64), BlobError> {
        let digest = Digest::of(&self.bytes);
        let size = self.bytes.len() as u64;
        let mut data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        data.blobs.insert(digest, self.bytes.into());
        Ok((digest, size))
    }
}

struct Reader {
    bytes: Bytes,
    size: u64,
}

#[async_trait]
impl BlobReader for Reader {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read(&mut self, max: usize) -> Result<Bytes, BlobError> {
        Ok(self.bytes.split_to(max.min(self.bytes.len())))
    }
}

#[async_trait]
impl BlobStore for Fake {
    async fn create(&self) -> Result<Box<dyn BlobWriter>, BlobError> {
        Ok(Box::new(Writer {
            data: self.data.clone(),
            bytes: Vec::new(),
        }))
    }

    async fn open(&self, digest: Digest) -> Result<Box<dyn BlobReader>, BlobError> {
        let bytes = self.data().blobs.get(&digest).cloned();
        let bytes = bytes.ok_or(BlobError::NotFound(digest))?;
        Ok(Box::new(Reader {
            size: bytes.len() as u64,
            bytes,
        }))
    }

    async fn size(&self, digest: Digest) -> Result<Option<u64>, BlobError> {
        Ok(self.data().blobs.get(&digest).map(|bytes| bytes.len() as u64))
    }

    async fn delete(&self, digest: Digest) -> Result<(), BlobError> {
        self.data().blobs.remove(&digest);
        Ok(())
    }
}
