//! The epoch ticker: a thread that makes busy guests yield. It sleeps while no guest runs.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use wasmtime::Engine;

/// How long a guest runs before it yields its thread.
pub const TICK: Duration = Duration::from_millis(2);
/// How many ticks the thread goes on after the last guest stopped, so that a chain of short tasks need not wake it each time.
const LINGER_TICKS: u32 = 50;

/// Owns the thread; it ends with this value.
pub(crate) struct EpochTicker {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    running: AtomicUsize,
    entered: AtomicU64,
    /// Whether the thread waits on the condition variable, or shall end.
    state: Mutex<State>,
    wake: Condvar,
    asleep: AtomicUsize,
}

#[derive(Default)]
struct State {
    stop: bool,
}

/// Exists while a guest is being polled.
pub(crate) struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl EpochTicker {
    pub(crate) fn start(engine: Engine) -> Self {
        let shared = Arc::new(Shared::default());
        let thread = std::thread::Builder::new()
            .name("airtight-epoch".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || run(&engine, &shared)
            })
            .inspect_err(|error| tracing::error!(%error, "cannot start the epoch thread; guests will not yield"))
            .ok();
        Self { shared, thread }
    }

    /// A guest runs on this thread until the guard is dropped.
    pub(crate) fn enter(&self) -> Running<'_> {
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        self.shared.entered.fetch_add(1, Ordering::Relaxed);
        // The ticker publishes `asleep` before it looks at `running` a last time, so one of the two sees the other.
        if self.shared.asleep.load(Ordering::SeqCst) == 1 {
            let _state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            self.shared.wake.notify_one();
        }
        Running(&self.shared)
    }

    /// Whether the thread sleeps.
    #[cfg(test)]
    pub(crate) fn is_asleep(&self) -> bool {
        self.shared.asleep.load(Ordering::SeqCst) == 1
    }
}

impl Drop for EpochTicker {
    fn drop(&mut self) {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // It ends within a tick; the result of a panicked thread is of no interest here.
            let _ = thread.join();
        }
    }
}

fn run(engine: &Engine, shared: &Shared) {
    let mut idle_ticks = 0;
    let mut entered = 0;
    loop {
        {
            let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            if idle_ticks >= LINGER_TICKS {
                shared.asleep.store(1, Ordering::SeqCst);
                while shared.running.load(Ordering::SeqCst) == 0 && !state.stop {
                    state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                shared.asleep.store(0, Ordering::SeqCst);
                idle_ticks = 0;
            }
            if state.stop {
                return;
            }
        }
        std::thread::sleep(TICK);
        engine.increment_epoch();
        let now = shared.entered.load(Ordering::Relaxed);
        if shared.running.load(Ordering::SeqCst) == 0 && now == entered {
            idle_ticks += 1;
        } else {
            idle_ticks = 0;
        }
        entered = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeps_when_idle_and_wakes_for_a_guest() {
        let engine = crate::engine::on_demand_engine().unwrap();
        let ticker = EpochTicker::start(engine);
        while !ticker.is_asleep() {
            std::thread::yield_now();
        }
        let running = ticker.enter();
        while ticker.is_asleep() {
            std::thread::yield_now();
        }
        drop(running);
        while !ticker.is_asleep() {
            std::thread::yield_now();
        }
    }
}
