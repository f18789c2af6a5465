//! Maintenance: removes blobs that nothing refers to.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use blobs::FileBlobStore;
use ports::store::BlobRefs;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// A blob is written before the transaction that refers to it; this is far longer than any transaction waits.
const YOUNG: Duration = Duration::from_secs(3600);

/// Sweeps now and then until `shutdown`.
pub(crate) async fn run(store: FileBlobStore, refs: Arc<dyn BlobRefs>, every: Duration, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(every.max(Duration::from_secs(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The first tick is at once: not during the start.
    ticks.tick().await;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let sweep = blobs::sweep(&store, refs.as_ref(), SystemTime::now(), YOUNG);
        let swept = tokio::select! {
            () = shutdown.cancelled() => return,
            swept = sweep => swept,
        };
        match swept {
            Ok(report) if report.removed > 0 => {
                info!(
                    seen = report.seen,
                    removed = report.removed,
                    "removed {} blobs that nothing refers to",
                    report.removed
                );
            }
            Ok(report) => debug!(seen = report.seen, "no blob to remove"),
            Err(error) => warn!("the sweep of blobs stopped early: {error}"),
        }
    }
}
