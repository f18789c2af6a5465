//! `airtight:task/progress`: how far the task is, at most ten times a second. What comes faster waits, and is replaced by what comes
//! after it. What waits is sent when the task reports again later than that, or when the try ends, however it ends: the last report is always sent,
//! but maybe not before the end.

use std::time::{Duration, Instant};

use crate::bindings::progress;
use crate::ctx::{TaskCtx, TaskCtxView};

/// The shortest time between two reports.
const INTERVAL: Duration = Duration::from_millis(100);
/// The longest note.
const MAX_NOTE_BYTES: usize = 1 << 10;

impl progress::Host for TaskCtxView<'_> {
    async fn report(&mut self, fraction: Option<f64>, mut note: String) -> wasmtime::Result<()> {
        self.ctx.gate.pass()?;
        note.truncate(note.floor_char_boundary(MAX_NOTE_BYTES));
        let fraction = fraction
            .filter(|fraction| !fraction.is_nan())
            .map(|fraction| fraction.clamp(0.0, 1.0));
        let now = Instant::now();
        if self
            .ctx
            .progress
            .sent_at
            .is_some_and(|sent_at| now.duration_since(sent_at) < INTERVAL)
        {
            self.ctx.progress.pending = Some((fraction, note));
        } else {
            self.ctx.progress.sent_at = Some(now);
            self.ctx.progress.pending = None;
            self.ctx.send_progress(fraction, note);
        }
        Ok(())
    }
}

/// A try that traps, runs into its time limit or is cancelled ends here, too: its store is dropped before it is reported.
impl Drop for TaskCtx {
    fn drop(&mut self) {
        if let Some((fraction, note)) = self.progress.pending.take() {
            self.send_progress(fraction, note);
        }
    }
}
