//! The gate of a try: open while the try counts as running. From a cancel, a deadline or a shutdown on it is closed, and
//! every later host call of the guest is refused, even if the guest has not been stopped yet.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use tokio_util::sync::CancellationToken;

/// Why a try was stopped from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// By a person or a program.
    Cancelled,
    /// The executor shuts down.
    HandedBack,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// 0 open, 1 cancelled, 2 handed back, 3 closed for any other reason.
    closed: AtomicU8,
    stopped: CancellationToken,
    denied: AtomicBool,
    /// Whether the guest looked for directories, of which there are none.
    files: AtomicBool,
}

/// A host call of a try that has ended. It unwinds the guest.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the try has ended; its host calls are refused")]
pub(crate) struct TryEnded;

impl Gate {
    /// Closes the gate and wakes whoever waits on [`Gate::stopped`]. The first reason holds.
    pub(crate) fn stop(&self, stop: Stop) {
        let reason = match stop {
            Stop::Cancelled => 1,
            Stop::HandedBack => 2,
        };
        let _ = self
            .closed
            .compare_exchange(0, reason, Ordering::SeqCst, Ordering::SeqCst);
        self.stopped.cancel();
    }

    /// Closes the gate because the try has ended in any other way.
    pub(crate) fn close(&self) {
        let _ = self.closed.compare_exchange(0, 3, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Why the try was stopped from outside, if it was.
    pub(crate) fn stop_reason(&self) -> Option<Stop> {
        match self.closed.load(Ordering::SeqCst) {
            1 => Some(Stop::Cancelled),
            2 => Some(Stop::HandedBack),
            _ => None,
        }
    }

    /// Waits for [`Gate::stop`].
    pub(crate) async fn stopped(&self) {
        self.stopped.cancelled().await;
    }

    /// Every host call goes through here first.
    pub(crate) fn pass(&self) -> Result<(), TryEnded> {
        if self.closed.load(Ordering::SeqCst) == 0 {
            Ok(())
        } else {
            Err(TryEnded)
        }
    }

    /// Notes that a host call was denied.
    pub(crate) fn note_denied(&self) {
        self.denied.store(true, Ordering::Relaxed);
    }

    /// Notes that the guest looked for directories.
    pub(crate) fn note_files(&self) {
        self.files.store(true, Ordering::Relaxed);
    }

    /// Whether the guest looked for directories.
    pub(crate) fn looked_for_files(&self) -> bool {
        self.files.load(Ordering::Relaxed)
    }

    /// Whether any host call was denied.
    pub(crate) fn was_denied(&self) -> bool {
        self.denied.load(Ordering::Relaxed)
    }
}
