//! Maintenance: gives the operating system back what a large run has left behind. glibc keeps the high tide of its arenas, however much of
//! it is free.

use std::time::Duration;

use ports::control::Control as _;
use scheduler::Handle;
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// How often it is looked whether there is a pause.
const EVERY: Duration = Duration::from_secs(5);

/// After fewer dispatches there is nothing worth giving back.
const MANY: u64 = 1_000;

/// Looks now and then until `shutdown`. It acts only while nothing runs: what is given back is asked for again by the next large run.
pub(crate) async fn run(handle: Handle, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut seen = 0;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let dispatches = handle.metrics().dispatches;
        if dispatches.saturating_sub(seen) >= MANY && handle.health().active_runs == 0 {
            seen = dispatches;
            let gave = tokio::task::spawn_blocking(give_back).await.unwrap_or(false);
            debug!(gave, "gave memory back that no run uses any more");
        }
    }
}

/// Whether there was something to give back.
#[cfg(target_env = "gnu")]
fn give_back() -> bool {
    #[expect(unsafe_code, reason = "glibc has no other way to be told")]
    // SAFETY: it only touches memory that the allocator holds as free, under the allocator's own locks.
    let gave = unsafe { libc::malloc_trim(0) };
    gave == 1
}

#[cfg(not(target_env = "gnu"))]
fn give_back() -> bool {
    false
}
