//! What the handlers share: the traits that the binary wired, and a few bounded caches.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::{Clock, DagId};
use ports::component::Components;
use ports::control::Control;
use ports::deploy::Deployer;
use ports::log::LogReader;
use ports::payload::BlobStore;
use ports::query::Metadata;
use ports::space::Space;
use ports::store::BlobUploads;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::auth::Authenticator;
use crate::error::ApiError;
use crate::shape::DagVersionResponse;

/// Versions never change, so a cache of them needs no invalidation; it is emptied when it is full.
const VERSION_CACHE: usize = 1_024;

/// What the API is built on.
pub struct State {
    /// The scheduler.
    pub control: Arc<dyn Control>,
    /// The database, for reading.
    pub metadata: Arc<dyn Metadata>,
    /// The component catalog.
    pub components: Arc<dyn Components>,
    /// Checks and deploys manifests.
    pub deployer: Arc<dyn Deployer>,
    /// Task logs.
    pub logs: Arc<dyn LogReader>,
    /// Large values.
    pub blobs: Arc<dyn BlobStore>,
    /// Which of them were uploaded.
    pub uploads: Arc<dyn BlobUploads>,
    /// Room on the disk.
    pub space: Arc<dyn Space>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Who may call.
    pub authenticator: Authenticator,
    /// Bounds on bodies and streams.
    pub limits: BodyLimits,
    /// Whose events `control` tells.
    pub events_of: EventsOf,
    /// Counts the descriptors of this process.
    pub descriptors: fn() -> Descriptors,
    /// Cancelled when the server stops: open streams end.
    pub shutdown: CancellationToken,
}

/// File descriptors of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// How many are open. None where they cannot be counted: that costs one.
    pub open: Option<u64>,
    /// How many there may be. None is no limit.
    pub limit: Option<u64>,
}

impl Descriptors {
    /// How many are kept for the server itself: with fewer left it is short.
    pub const RESERVE: u64 = 64;

    /// Whether fewer are left than the server needs for itself.
    pub fn is_short(self) -> bool {
        match (self.open, self.limit) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(open), Some(limit)) => open.saturating_add(Self::RESERVE) > limit,
        }
    }
}

/// Whose events a server tells.
#[derive(Clone, Debug)]
pub enum EventsOf {
    /// Those of the scheduler in this process, by its id.
    This(Uuid),
    /// Those that another process tells this one; the number rises where some may have been missed.
    Another(watch::Receiver<u64>),
}

/// Bounds on what one request may send, and on how slowly.
#[derive(Clone, Debug)]
pub struct BodyLimits {
    /// A JSON body or a manifest, in bytes.
    pub json_bytes: u64,
    /// A component, in bytes.
    pub component_bytes: u64,
    /// A blob, in bytes.
    pub blob_bytes: u64,
    /// How long a body may take before `min_rate` counts.
    pub body_grace: Duration,
    /// Bytes a second that a body must keep up with, on average, once the grace is over.
    pub min_rate: u64,
    /// Open event, log and wait streams.
    pub streams: usize,
    /// How often a silent stream says that it is alive.
    pub heartbeat: Duration,
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self {
            json_bytes: 1 << 20,
            component_bytes: 256 << 20,
            blob_bytes: 10 << 30,
            body_grace: Duration::from_secs(30),
            min_rate: 16 << 10,
            streams: 512,
            heartbeat: Duration::from_secs(15),
        }
    }
}

/// `State` with the caches of this crate.
pub(crate) struct App {
    pub(crate) state: State,
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) openapi: bytes::Bytes,
    versions: Mutex<HashMap<Uuid, DagVersionResponse>>,
}

impl std::ops::Deref for App {
    type Target = State;
    fn deref(&self) -> &State {
        &self.state
    }
}

impl App {
    pub(crate) fn new(state: State, openapi: bytes::Bytes) -> Self {
        Self {
            streams: Arc::new(Semaphore::new(state.limits.streams)),
            openapi,
            versions: Mutex::default(),
            state,
        }
    }

    /// The version of a run or task instance, as answers show it.
    pub(crate) async fn version(
        &self,
        dag_id: &DagId,
        number: u32,
        uuid: Uuid,
    ) -> Result<Option<DagVersionResponse>, ApiError> {
        let cached = |app: &Self| {
            let versions = app.versions.lock().unwrap_or_else(PoisonError::into_inner);
            versions.get(&uuid).cloned()
        };
        if let Some(version) = cached(self) {
            return Ok(Some(version));
        }
        let Some(version) = self.metadata.dag_version(dag_id, number).await? else {
            return Ok(None);
        };
        let shape = DagVersionResponse::new(dag_id, &version);
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        if versions.len() >= VERSION_CACHE {
            versions.clear();
        }
        versions.insert(uuid, shape.clone());
        Ok(Some(shape))
    }
}
