//! Components that another server took and did not finish compiling, because it was killed.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use model::Digest;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::inner::Catalog;

/// How often at least it is looked, and how often at most.
const SLOWEST_LOOK: Duration = Duration::from_secs(60);
const FASTEST_LOOK: Duration = Duration::from_millis(50);

impl Catalog {
    /// Compiles what stays `compiling` for so long, until `shutdown`. Whether another server still works on it is not known: the same component
    /// compiled twice comes to the same.
    pub async fn take_over_abandoned(self, patience: Duration, shutdown: CancellationToken) {
        let every = (patience / 5).clamp(FASTEST_LOOK, SLOWEST_LOOK);
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut waiting = Waiting::default();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let compiling = match self.inner.parts.store.compiling_components().await {
                Ok(compiling) => compiling,
                Err(error) => {
                    warn!("cannot look for components that nobody compiles any more: {error}");
                    continue;
                }
            };
            let others = compiling.into_iter().filter(|digest| !self.inner.is_pending(*digest));
            for digest in waiting.due(others.collect(), patience, Instant::now()) {
                info!(component.digest = %digest, "compiling {digest}, which another server has not finished");
                self.inner.enqueue(digest);
            }
        }
    }
}

/// What is being compiled elsewhere, since when it was seen.
#[derive(Default)]
struct Waiting(HashMap<Digest, Instant>);

impl Waiting {
    /// Those that were there for so long without a break.
    fn due(&mut self, now_there: HashSet<Digest>, patience: Duration, now: Instant) -> Vec<Digest> {
        self.0.retain(|digest, _| now_there.contains(digest));
        for digest in now_there {
            self.0.entry(digest).or_insert(now);
        }
        let mut due: Vec<_> = self
            .0
            .extract_if(|_, since| now.duration_since(*since) >= patience)
            .map(|(digest, _)| digest)
            .collect();
        due.sort_unstable();
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_is_due_and_what_was_gone_begins_anew() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let patience = Duration::from_secs(10);
        let start = Instant::now();
        let mut waiting = Waiting::default();
        let mut at = |seconds: u64, there: &[Digest]| {
            let there = there.iter().copied().collect();
            waiting.due(there, patience, start + Duration::from_secs(seconds))
        };
        assert!(at(0, &[a, b]).is_empty());
        assert!(at(5, &[a]).is_empty());
        assert_eq!(at(10, &[a, b]), [a]);
        assert!(at(11, &[a, b]).is_empty(), "it is compiled here now");
        assert_eq!(at(20, &[b]), [b], "it was ready in between");
    }
}
