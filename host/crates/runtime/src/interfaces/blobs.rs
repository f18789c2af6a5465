//! `airtight:task/blobs`: large values, streamed in both directions. A digest is a name, not a permission: a try opens only
//! what its input, the XComs it pulled, its checkpoint or its own writes refer to.

use bytes::Bytes;
use model::Digest;
use ports::executor::BlobRef;
use ports::payload::{BlobError, BlobReader, BlobWriter, READER_BYTES, WRITER_BYTES};
use ports::space::NoSpace;
use wasmtime::component::Resource;

use super::{HostError, backend_failed};
use crate::bindings::blobs::{self, Error};
use crate::ctx::TaskCtxView;
use crate::limits::Held;

/// What a blob call fails with.
pub(crate) type BlobsError = HostError<Error>;

/// The most that one read answers.
const MAX_READ_BYTES: u32 = 1 << 20;
/// The longest media type.
const MAX_MEDIA_TYPE_BYTES: usize = 127;

/// A blob being read.
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Reader {
    reader: Box<dyn BlobReader>,
    /// What the store keeps in memory for it, from the first read on.
    held: Option<Held>,
}

/// A blob being written.
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Writer {
    writer: Box<dyn BlobWriter>,
    media_type: Option<String>,
    /// Set once a write failed; the blob cannot be finished then.
    failed: bool,
    /// What the store keeps in memory for it, and how much that is.
    held: Held,
    held_bytes: u64,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("media_type", &self.media_type)
            .finish_non_exhaustive()
    }
}

impl TaskCtxView<'_> {
    fn blob_failed(&self, doing: &'static str, error: &BlobError) -> BlobsError {
        HostError::Wit(match error {
            BlobError::NotFound(digest) => Error::NotFound(digest.to_string()),
            BlobError::Damaged(_) => Error::Other(error.to_string()),
            BlobError::NoSpace(why) => Error::Other(format!("{}: {why}", NoSpace::CODE)),
            BlobError::Io { .. } => Error::Other(backend_failed(self.ctx.request.id, doing, error)),
        })
    }
}

impl blobs::Host for TaskCtxView<'_> {
    async fn open(&mut self, digest: String) -> Result<Resource<Reader>, BlobsError> {
        self.ctx.gate.pass()?;
        let digest: Digest = digest
            .parse()
            .map_err(|error: model::id::InvalidId| HostError::Wit(Error::Invalid(error.to_string())))?;
        if self.ctx.openable.size(digest).is_none() {
            return Err(HostError::Wit(Error::NotFound(digest.to_string())));
        }
        let opened = self.ctx.services.blobs.open(digest).await;
        self.ctx.gate.pass()?;
        let reader = opened.map_err(|error| self.blob_failed("open a blob", &error))?;
        Ok(self.table.push(Reader { reader, held: None })?)
    }

    async fn create(&mut self, media_type: Option<String>) -> Result<Resource<Writer>, BlobsError> {
        self.ctx.gate.pass()?;
        if let Some(media_type) = &media_type
            && !is_media_type(media_type)
        {
            return Err(HostError::Wit(Error::Invalid(
                "the media type must look like `text/csv`, in at most 127 bytes".to_owned(),
            )));
        }
        let limit = self.ctx.open_writers_limit;
        if self.ctx.open_writers >= limit {
            return Err(HostError::Wit(Error::Other(format!(
                "the task has {limit} blobs open for writing, which is as many as a try may have; finish one, or leave one, before the next"
            ))));
        }
        let created = self.ctx.services.blobs.create().await;
        self.ctx.gate.pass()?;
        let writer = created.map_err(|error| self.blob_failed("create a blob", &error))?;
        let writer = self.table.push(Writer {
            writer,
            media_type,
            failed: false,
            held: Held::nothing(&self.ctx.account),
            held_bytes: 0,
        })?;
        self.ctx.open_writers += 1;
        Ok(writer)
    }

    fn convert_error(&mut self, error: BlobsError) -> wasmtime::Result<Error> {
        error.split()
    }
}

impl blobs::HostReader for TaskCtxView<'_> {
    async fn size(&mut self, this: Resource<Reader>) -> wasmtime::Result<u64> {
        self.ctx.gate.pass()?;
        Ok(self.table.get(&this)?.reader.size())
    }

    async fn read(&mut self, this: Resource<Reader>, max: u32) -> Result<Vec<u8>, BlobsError> {
        self.ctx.gate.pass()?;
        let no_room = || {
            HostError::Wit(Error::Other(
                "the bytes do not fit into the memory limit of the task; read smaller pieces, or raise `limits.memory`"
                    .to_owned(),
            ))
        };
        let Reader { reader, held } = self.table.get_mut(&this)?;
        if held.is_none() {
            let ahead = READER_BYTES.min(reader.size());
            *held = Some(Held::of(&self.ctx.account, ahead).ok_or_else(no_room)?);
        }
        let most = u64::from(max.clamp(1, MAX_READ_BYTES)).min(reader.size().max(1));
        let _held = Held::of(&self.ctx.account, most).ok_or_else(no_room)?;
        let read = reader.read(usize::try_from(most).unwrap_or(1)).await;
        self.ctx.gate.pass()?;
        let bytes = read.map_err(|error| self.blob_failed("read a blob", &error))?;
        Ok(bytes.into())
    }

    async fn drop(&mut self, this: Resource<Reader>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl blobs::HostWriter for TaskCtxView<'_> {
    async fn write(&mut self, this: Resource<Writer>, bytes: Vec<u8>) -> Result<(), BlobsError> {
        self.ctx.gate.pass()?;
        let limit = self.ctx.request.task.limits.blob_bytes;
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let total = self.ctx.blob_bytes.saturating_add(size);
        let writer = self.table.get_mut(&this)?;
        if total > limit {
            writer.failed = true;
            return Err(HostError::Wit(Error::TooLarge(limit)));
        }
        if writer.failed {
            return Err(HostError::Wit(Error::Other(
                "an earlier write to this blob failed".to_owned(),
            )));
        }
        let kept = size.min(WRITER_BYTES.saturating_sub(writer.held_bytes));
        if !writer.held.add(kept) || !self.ctx.account.take(size) {
            writer.failed = true;
            return Err(HostError::Wit(Error::Other(
                "the bytes do not fit into the memory limit of the task; write smaller pieces".to_owned(),
            )));
        }
        writer.held_bytes = writer.held_bytes.saturating_add(kept);
        let written = writer.writer.write(Bytes::from(bytes)).await;
        self.ctx.account.give_back(size);
        if written.is_err() {
            writer.failed = true;
        }
        self.ctx.blob_bytes = total;
        written.map_err(|error| self.blob_failed("write a blob", &error))
    }

    async fn finish(&mut self, this: Resource<Writer>) -> Result<String, BlobsError> {
        self.ctx.gate.pass()?;
        let Writer {
            writer,
            media_type,
            failed,
            held: _held,
            held_bytes: _,
        } = self.table.delete(this)?;
        self.ctx.open_writers = self.ctx.open_writers.saturating_sub(1);
        if failed {
            return Err(HostError::Wit(Error::Other(
                "an earlier write to this blob failed".to_owned(),
            )));
        }
        let finished = writer.finish().await;
        self.ctx.gate.pass()?;
        let (digest, size) = finished.map_err(|error| self.blob_failed("finish a blob", &error))?;
        let blob = BlobRef {
            digest,
            size,
            media_type,
        };
        self.ctx.openable.allow(std::slice::from_ref(&blob));
        Ok(blob.to_value().to_string())
    }

    async fn drop(&mut self, this: Resource<Writer>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        self.ctx.open_writers = self.ctx.open_writers.saturating_sub(1);
        Ok(())
    }
}

/// `type/subtype` with optional parameters, in visible ASCII.
fn is_media_type(text: &str) -> bool {
    text.len() <= MAX_MEDIA_TYPE_BYTES
        && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
        && text
            .split_once('/')
            .is_some_and(|(kind, subtype)| !kind.trim().is_empty() && !subtype.trim().is_empty())
}
