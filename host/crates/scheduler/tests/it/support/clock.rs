//! A clock that moves with tokio's, so that paused time is the only time there is.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use model::{Clock, Timestamp};
use tokio::time::Instant;

/// 2026-01-01T00:00:00Z plus what has passed on tokio's clock.
#[derive(Debug)]
pub(crate) struct TokioClock {
    began: Instant,
    set_back_us: AtomicI64,
}

impl TokioClock {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            set_back_us: AtomicI64::new(0),
        }
    }

    /// Somebody sets the clock back.
    pub(crate) fn set_back(&self, by: Duration) {
        let by = i64::try_from(by.as_micros()).unwrap();
        self.set_back_us.fetch_add(by, Ordering::Relaxed);
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        let began = 1_767_225_600_000_000 - self.set_back_us.load(Ordering::Relaxed);
        Timestamp(began).plus(self.began.elapsed())
    }
}
