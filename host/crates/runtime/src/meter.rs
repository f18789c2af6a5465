//! Polls a guest's future: sums the CPU time of its polls, tells the epoch ticker that a guest runs, and contains panics of
//! host code within the try.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::engine::TaskEngine;

/// Why the future was given up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum GivenUp {
    /// The CPU time is used up.
    CpuExhausted,
    /// Host code panicked.
    Panicked(String),
}

/// CPU time that a try has used, readable after its future is gone.
#[derive(Debug, Default)]
pub(crate) struct CpuClock(AtomicU64);

impl CpuClock {
    pub(crate) fn used(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    /// Adds what was used for the try on another thread.
    pub(crate) fn add(&self, nanos: u64) {
        self.0.fetch_add(nanos, Ordering::Relaxed);
    }
}

/// A guest's future with its meters.
pub(crate) struct Metered<F> {
    future: Pin<Box<F>>,
    engine: Arc<TaskEngine>,
    clock: Arc<CpuClock>,
    limit: Duration,
}

impl<F: Future> Metered<F> {
    pub(crate) fn new(future: F, engine: Arc<TaskEngine>, clock: Arc<CpuClock>, limit: Duration) -> Self {
        Self {
            future: Box::pin(future),
            engine,
            clock,
            limit,
        }
    }
}

impl<F: Future> Future for Metered<F> {
    type Output = Result<F::Output, GivenUp>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let before = thread_cpu_nanos();
        let polled = {
            let _running = this.engine.ticker().enter();
            // The future is never polled again after a panic, so no broken state can be seen.
            std::panic::catch_unwind(AssertUnwindSafe(|| this.future.as_mut().poll(cx)))
        };
        let used = thread_cpu_nanos().saturating_sub(before);
        let total = this.clock.0.fetch_add(used, Ordering::Relaxed).saturating_add(used);
        match polled {
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Ok(Poll::Pending) if Duration::from_nanos(total) > this.limit => Poll::Ready(Err(GivenUp::CpuExhausted)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(panic) => Poll::Ready(Err(GivenUp::Panicked(panic_text(panic.as_ref())))),
        }
    }
}

/// The CPU time of this thread.
pub(crate) fn thread_cpu_nanos() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec)
        .unwrap_or(0)
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
