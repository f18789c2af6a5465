//! The catalog's parts and the list of what is being compiled.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use model::{Clock, Digest};
use ports::component::ComponentCompiler;
use ports::control::Control;
use ports::payload::BlobStore;
use ports::query::QueryError;
use ports::store::ComponentStore;
use tokio::sync::{mpsc, watch};

use crate::compile::CompileService;
use crate::config::Config;

/// Where the compiler finds a component's bytes as a file. A local blob store answers the path that it has; a remote one
/// fetches.
#[async_trait]
pub trait WasmFiles: Send + Sync + 'static {
    /// The file that holds the content.
    async fn path(&self, digest: Digest) -> std::io::Result<PathBuf>;
}

/// What the catalog stands on.
#[derive(Clone)]
pub struct Parts {
    /// The rows.
    pub store: Arc<dyn ComponentStore>,
    /// The bytes.
    pub blobs: Arc<dyn BlobStore>,
    /// The bytes as files.
    pub files: Arc<dyn WasmFiles>,
    /// Compiles and describes.
    pub compiler: Arc<dyn ComponentCompiler>,
    /// Stores DAG versions.
    pub control: Arc<dyn Control>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// The catalog. Cheap to clone.
#[derive(Clone)]
pub struct Catalog {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) parts: Parts,
    pub(crate) config: Config,
    queue: mpsc::UnboundedSender<Digest>,
    /// What is queued or being compiled.
    pending: Mutex<Pending>,
    /// Counts the ends of compilations, to wake who waits for one.
    ended: watch::Sender<u64>,
}

/// The compile queue, as others see it.
#[derive(Default)]
struct Pending {
    entries: HashMap<Digest, Entry>,
    /// Counts what was ever queued.
    queued: u64,
}

struct Entry {
    /// What was queued before it has a lower one.
    number: u64,
    begun: bool,
    /// It was asked for again meanwhile.
    again: bool,
}

impl Pending {
    fn add(&mut self, digest: Digest) {
        self.queued += 1;
        let entry = Entry {
            number: self.queued,
            begun: false,
            again: false,
        };
        self.entries.insert(digest, entry);
    }

    fn position(&self, digest: Digest) -> Option<u32> {
        let entry = self.entries.get(&digest)?;
        if entry.begun {
            return Some(0);
        }
        let waiting = self.entries.values().filter(|other| !other.begun);
        let before = waiting.filter(|other| other.number <= entry.number).count();
        u32::try_from(before).ok()
    }
}

impl Catalog {
    /// The catalog, and the service that compiles for it.
    pub fn new(parts: Parts, config: Config) -> (Self, CompileService) {
        let (queue, receiver) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner {
            parts,
            config,
            queue,
            pending: Mutex::default(),
            ended: watch::Sender::new(0),
        });
        let catalog = Self { inner: inner.clone() };
        (catalog, CompileService::new(inner, receiver))
    }

    /// Queues what an earlier process left `compiling`; answers how many there are.
    pub async fn resume(&self) -> Result<usize, QueryError> {
        let digests = self.inner.parts.store.compiling_components().await?;
        for digest in &digests {
            self.inner.enqueue(*digest);
        }
        Ok(digests.len())
    }
}

impl Inner {
    /// The place of a component in the queue: 0 while it is compiled, 1 if it is the next. None where it is not queued here.
    pub(crate) fn queue_position(&self, digest: Digest) -> Option<u32> {
        self.pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .position(digest)
    }

    /// A component's turn has come.
    pub(crate) fn begin(&self, digest: Digest) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = pending.entries.get_mut(&digest) {
            entry.begun = true;
        }
    }

    /// Has a component compiled. Once, however often it is asked for.
    pub(crate) fn enqueue(&self, digest: Digest) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = pending.entries.get_mut(&digest) {
            entry.again = true;
            return;
        }
        pending.add(digest);
        // The service is gone only while the process stops; what is `compiling` then is resumed at the next start.
        self.queue.send(digest).ok();
    }

    /// Whether it is queued or being compiled here.
    pub(crate) fn is_pending(&self, digest: Digest) -> bool {
        let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.entries.contains_key(&digest)
    }

    /// A compilation has ended and its result is stored. Answers whether it was asked for again while it ran.
    pub(crate) fn settle(&self, digest: Digest) -> bool {
        let again = self
            .pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entries
            .remove(&digest)
            .is_some_and(|entry| entry.again);
        self.ended.send_modify(|count| *count = count.wrapping_add(1));
        again
    }

    /// Wakes at each end of a compilation.
    pub(crate) fn ends(&self) -> watch::Receiver<u64> {
        self.ended.subscribe()
    }
}
