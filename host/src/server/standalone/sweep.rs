//! Maintenance: removes blobs that nothing refers to.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use blobs::FileBlobStore;
use model::Timestamp;
use ports::store::{BlobRefs, BlobUploads};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// A blob is written before the transaction that refers to it; this is far longer than any transaction waits.
const YOUNG: Duration = Duration::from_secs(3600);

/// Sweeps now and then until `shutdown`. `oldest_start` says when the try started that has been running longest: it refers to
/// what it wrote only at its end.
pub(crate) async fn run(
    store: FileBlobStore,
    refs: Arc<dyn BlobRefs>,
    uploads: Arc<dyn BlobUploads>,
    oldest_start: impl Fn() -> Option<Timestamp>,
    every: Duration,
    shutdown: CancellationToken,
) {
    let mut ticks = tokio::time::interval(every.max(Duration::from_secs(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The first tick is at once: not during the start.
    ticks.tick().await;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let now = SystemTime::now();
        let young = young(oldest_start(), now);
        let since = now
            .checked_sub(young)
            .and_then(|since| since.duration_since(SystemTime::UNIX_EPOCH).ok());
        let since = since.and_then(|since| i64::try_from(since.as_micros()).ok());
        // First, so that nothing refers any more to what is removed next.
        if let Some(since) = since
            && let Err(error) = uploads.forget_uploads(Timestamp(since)).await
        {
            warn!("cannot forget old uploads: {error}");
            continue;
        }
        let sweep = blobs::sweep(&store, refs.as_ref(), now, young);
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

/// Blobs that were written within this time are spared.
fn young(oldest_start: Option<Timestamp>, now: SystemTime) -> Duration {
    let running = oldest_start.and_then(|start| {
        let start = SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(start.0).ok()?);
        now.duration_since(start).ok()
    });
    // Clocks of files are coarser than this.
    running.map_or(YOUNG, |running| YOUNG.max(running + Duration::from_secs(60)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_running_try_may_have_written_is_young() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100_000);
        let start = |seconds: i64| Some(Timestamp(seconds * 1_000_000));
        assert_eq!(young(None, now), YOUNG);
        assert_eq!(young(start(99_000), now), YOUNG);
        assert_eq!(young(start(50_000), now), Duration::from_secs(50_060));
        assert_eq!(young(start(200_000), now), YOUNG, "the clock was set back");
    }
}
