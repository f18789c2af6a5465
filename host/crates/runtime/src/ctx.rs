//! What one try carries: the data of its store, and the view of it that the host interfaces get.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use indexmap::IndexMap;
use model::Digest;
use ports::executor::{BlobRef, ExecutorEvent, TryRequest, XcomPush};
use wasmtime::component::{HasData, ResourceTable};
use wasmtime_wasi::WasiCtx;

use crate::bounded::Random;
use crate::executor::Services;
use crate::gate::Gate;
use crate::limits::{Account, TryLimiter};
use crate::try_log::TryLog;
use crate::wasi::{DeniedFiles, DeniedNetwork};

/// The data of a store.
pub(crate) struct TryState {
    pub(crate) wasi: WasiCtx,
    pub(crate) table: ResourceTable,
    pub(crate) limiter: TryLimiter,
    pub(crate) ctx: TaskCtx,
}

impl TryState {
    pub(crate) fn task(&mut self) -> TaskCtxView<'_> {
        TaskCtxView {
            ctx: &mut self.ctx,
            table: &mut self.table,
        }
    }

    pub(crate) fn denied_network(&mut self) -> DeniedNetwork<'_> {
        DeniedNetwork {
            log: &self.ctx.log,
            gate: &self.ctx.gate,
        }
    }

    pub(crate) fn denied_files(&mut self) -> DeniedFiles<'_> {
        DeniedFiles { gate: &self.ctx.gate }
    }

    pub(crate) fn random(&mut self) -> Random<'_> {
        Random {
            account: &self.ctx.account,
            gate: &self.ctx.gate,
        }
    }
}

/// What the host interfaces of a try work on.
pub(crate) struct TaskCtx {
    pub(crate) request: Arc<TryRequest>,
    pub(crate) services: Arc<Services>,
    pub(crate) log: Arc<TryLog>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) account: Arc<Account>,
    pub(crate) pushes: Pushes,
    pub(crate) openable: Openable,
    /// Bytes of all blobs that this try wrote.
    pub(crate) blob_bytes: u64,
    /// Blobs that are open for writing: each costs a descriptor.
    pub(crate) open_writers: u32,
    /// How many there may be.
    pub(crate) open_writers_limit: u32,
    pub(crate) progress: Progress,
}

/// What an interface sees.
pub(crate) struct TaskCtxView<'a> {
    pub(crate) ctx: &'a mut TaskCtx,
    pub(crate) table: &'a mut ResourceTable,
}

/// See wasmtime's `HasData`.
pub(crate) struct HasTask;

impl HasData for HasTask {
    type Data<'a> = TaskCtxView<'a>;
}

/// XComs that wait for the end of the try.
#[derive(Default)]
pub(crate) struct Pushes {
    pub(crate) by_key: IndexMap<String, XcomPush>,
    /// Of all values, those of `earlier` included.
    pub(crate) bytes: u64,
    /// What earlier dispatches of the same try have published and this one has not replaced, with the sizes. None where nobody has looked.
    pub(crate) earlier: Option<HashMap<String, u64>>,
}

/// The blobs that a try may open, with their sizes. A digest is a name, not a permission.
#[derive(Default)]
pub(crate) struct Openable(HashMap<Digest, u64>);

impl Openable {
    pub(crate) fn allow(&mut self, blobs: &[BlobRef]) {
        self.0.extend(blobs.iter().map(|blob| (blob.digest, blob.size)));
    }

    /// The size of a blob that may be opened.
    pub(crate) fn size(&self, digest: Digest) -> Option<u64> {
        self.0.get(&digest).copied()
    }

    /// The first reference that this try may not make: the blob is none of its own, or the size is not the blob's.
    pub(crate) fn first_foreign<'a>(&self, blobs: &'a [BlobRef]) -> Option<&'a BlobRef> {
        blobs.iter().find(|blob| self.size(blob.digest) != Some(blob.size))
    }
}

/// What waits to be reported, so that a busy guest does not flood whoever watches.
#[derive(Default)]
pub(crate) struct Progress {
    pub(crate) sent_at: Option<Instant>,
    pub(crate) pending: Option<(Option<f64>, String)>,
}

impl TaskCtx {
    pub(crate) fn send_progress(&self, fraction: Option<f64>, note: String) {
        self.services.events.send(ExecutorEvent::Progress {
            id: self.request.id,
            fraction,
            note,
        });
    }
}
