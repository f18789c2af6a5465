//! Counters of a scheduler: plain atomics, read by whoever renders metrics. Names follow the fields.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// What the scheduler has counted since it started.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $($(#[$doc])* pub(crate) $name: AtomicU64,)+
        }

        /// The counters at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
        pub struct MetricsSnapshot {
            $($(#[$doc])* pub $name: u64,)+
        }

        impl Metrics {
            /// Reads all counters.
            pub fn snapshot(&self) -> MetricsSnapshot {
                MetricsSnapshot { $($name: self.$name.load(Ordering::Relaxed),)+ }
            }
        }

        impl MetricsSnapshot {
            /// The counters by name, in the order of declaration.
            pub fn fields(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)+]
            }
        }
    };
}

counters! {
    /// Ticks that were committed.
    ticks,
    /// Microseconds spent in commits that succeeded.
    commit_micros,
    /// Transitions that were committed.
    transitions,
    /// Dispatches that were handed to the executor.
    dispatches,
    /// Results, marks and checkpoints with a dispatch number that is not the current one.
    stale_events,
    /// Infrastructure losses: found when runs were recovered or by silence, or reported by an executor that failed.
    infrastructure_losses,
    /// Tries that a graceful shutdown handed back.
    handed_back,
    /// Attempts of callbacks that were begun.
    callback_attempts,
    /// Callbacks that failed for good.
    callbacks_failed,
    /// Commits that failed for a passing reason.
    commits_failed_passing,
    /// Commits that failed because of their data.
    commits_failed_data,
    /// Commits that were refused because a pool had fewer free slots than memory knew of.
    commits_failed_slots,
    /// Commits whose outcome had to be read back.
    commits_unknown,
    /// Runs that were set aside.
    runs_set_aside,
    /// Runs that ended.
    runs_finished,
    /// XCom pulls answered from memory.
    xcom_cache_hits,
    /// XCom pulls that had to read the database.
    xcom_cache_misses,
}

impl Metrics {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn count(counter: &AtomicU64) {
        Self::add(counter, 1);
    }
}
