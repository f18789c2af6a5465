//! A clock that moves with tokio's, so that paused time is the only time there is.

use model::{Clock, Timestamp};
use tokio::time::Instant;

/// 2026-01-01T00:00:00Z plus what has passed on tokio's clock.
#[derive(Debug)]
pub(crate) struct TokioClock {
    began: Instant,
}

impl TokioClock {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now() }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        Timestamp(1_767_225_600_000_000).plus(self.began.elapsed())
    }
}
