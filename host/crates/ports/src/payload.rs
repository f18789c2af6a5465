//! Where a running try reads and writes values: XComs of other tasks, blobs and its checkpoint.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use model::{Digest, MapIndex, TaskId};

use crate::executor::{BlobRef, TryId};
use crate::space::NoSpace;

/// A committed XCom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XcomValue {
    /// JSON text.
    pub value: Arc<str>,
    /// The blobs that it refers to.
    pub blobs: Vec<BlobRef>,
}

/// What a pull without a map index finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pulled {
    /// Nothing under the key.
    Missing,
    /// The value of a task instance.
    One(XcomValue),
    /// The values of a mapped task's instances, in index order.
    Mapped(Vec<(MapIndex, XcomValue)>),
}

/// What all values of a list that is pulled whole may have, in bytes. What is larger is pulled in parts.
pub const MAX_LIST_BYTES: u64 = 64 << 20;

/// About how much one part has, in bytes.
pub const PART_BYTES: u64 = 1 << 20;

/// The most that a [`BlobReader`] keeps in memory, in bytes. It holds no descriptor between two reads.
pub const READER_BYTES: u64 = 1 << 20;

/// The most that a [`BlobWriter`] keeps in memory, in bytes. It holds one descriptor.
pub const WRITER_BYTES: u64 = 1 << 20;

/// Why a pull failed.
#[derive(Debug, thiserror::Error)]
pub enum XcomError {
    /// The task is not an upstream of the one that pulls.
    #[error("task `{0}` is not upstream of this task")]
    NotUpstream(TaskId),
    /// The try is no longer current.
    #[error("this try is no longer the current one of its task instance")]
    Stale,
    /// The values of all instances are too many to be pulled at once.
    #[error(
        "the values that the instances of task `{task}` published have more than {limit} bytes together; pull them in parts, \
         or let the task return Blobs"
    )]
    TooLarge {
        /// The task.
        task: TaskId,
        /// What they may have together.
        limit: u64,
    },
    /// The database did not answer.
    #[error("cannot read XComs")]
    Backend(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Reads committed XComs for a running try.
#[async_trait]
pub trait XcomBackend: Send + Sync + 'static {
    /// What `task` published under `key`. `task` must be a direct or transitive upstream of the try's task.
    /// A task of a group is named as in its group. Of a task that is repeated only what the try's own part of the run sees is found.
    /// All values of a repeated task have at most `most` bytes, and at most [`MAX_LIST_BYTES`]; no more than that is read.
    async fn pull(
        &self,
        id: TryId,
        task: &TaskId,
        key: &str,
        map_index: Option<MapIndex>,
        most: u64,
    ) -> Result<Pulled, XcomError>;

    /// How many values [`Self::pull_items`] finds in all.
    async fn count(&self, id: TryId, task: &TaskId, key: &str) -> Result<u32, XcomError>;

    /// The next values of a repeated task after a map index: at most `max`, and at most [`PART_BYTES`] unless the first one alone has
    /// more. Nothing: there are no more. A task that is not repeated has one value, without a map index.
    async fn pull_items(
        &self,
        id: TryId,
        task: &TaskId,
        key: &str,
        after: Option<MapIndex>,
        max: u32,
    ) -> Result<Vec<(MapIndex, XcomValue)>, XcomError>;

    /// What `task` published in the iteration before, in a loop around both. For `most` see [`Self::pull`].
    async fn pull_previous(&self, id: TryId, task: &TaskId, key: &str, most: u64) -> Result<Pulled, XcomError>;

    /// What the task instance itself published under `key` in an earlier dispatch of the same try: before it was rescheduled.
    async fn pull_own(&self, id: TryId, key: &str) -> Result<Option<XcomValue>, XcomError>;

    /// The keys of all that, with the sizes of the values in bytes.
    async fn own_sizes(&self, id: TryId) -> Result<Vec<(String, u64)>, XcomError>;

    /// One element of the list or object at a path of what `task` published. Nothing where it is not there.
    async fn pull_element(
        &self,
        id: TryId,
        task: &TaskId,
        key: &str,
        path: &[model::template::Segment],
        index: u32,
    ) -> Result<Option<XcomValue>, XcomError>;
}

/// What a task instance saves of its progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// What a later try is given.
    pub bytes: Vec<u8>,
    /// The blobs that the bytes refer to: they are kept as long as the checkpoint is.
    pub blobs: Vec<BlobRef>,
}

/// Why a checkpoint call failed.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The try is no longer current.
    #[error("this try is no longer the current one of its task instance")]
    Stale,
    /// There is no room for it.
    #[error("{0}")]
    NoSpace(NoSpace),
    /// The database did not answer.
    #[error("cannot reach the checkpoint store")]
    Backend(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Reads and writes checkpoints, fenced by the dispatch number.
#[async_trait]
pub trait CheckpointBackend: Send + Sync + 'static {
    /// The bytes saved last.
    async fn load(&self, id: TryId) -> Result<Option<Vec<u8>>, CheckpointError>;
    /// Replaces the checkpoint (`None` removes it). Durable when it returns.
    async fn save(&self, id: TryId, checkpoint: Option<Checkpoint>) -> Result<(), CheckpointError>;
}

/// Why a blob call failed.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// There is none.
    #[error("blob {0} does not exist")]
    NotFound(Digest),
    /// The content does not match its name.
    #[error("blob {0} is damaged: its content does not match its digest")]
    Damaged(Digest),
    /// There is no room for it.
    #[error("{0}")]
    NoSpace(NoSpace),
    /// The storage failed.
    #[error("cannot {doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// A blob being read.
#[async_trait]
pub trait BlobReader: Send + 'static {
    /// The size of the whole blob.
    fn size(&self) -> u64;
    /// The next bytes, at most `max`; empty at the end.
    async fn read(&mut self, max: usize) -> Result<Bytes, BlobError>;
}

/// A blob being written. Dropped without `finish` it leaves nothing behind.
#[async_trait]
pub trait BlobWriter: Send + 'static {
    /// Appends.
    async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError>;
    /// Makes the blob durable (content and name) and answers its digest and size.
    async fn finish(self: Box<Self>) -> Result<(Digest, u64), BlobError>;
}

/// Content-addressed storage.
#[async_trait]
pub trait BlobStore: Send + Sync + 'static {
    /// Starts a blob.
    async fn create(&self) -> Result<Box<dyn BlobWriter>, BlobError>;
    /// Opens a blob.
    async fn open(&self, digest: Digest) -> Result<Box<dyn BlobReader>, BlobError>;
    /// Its size, if it exists.
    async fn size(&self, digest: Digest) -> Result<Option<u64>, BlobError>;
    /// Removes it; missing is fine.
    async fn delete(&self, digest: Digest) -> Result<(), BlobError>;
}
