//! How far the task is, for people; shown live.

use crate::host;

/// Reports a fraction from 0 to 1 (or `None` when it is not known) and a note. It is cheap, but not free: report steps, not rows.
///
/// ```
/// use airtight_sdk::prelude::*;
///
/// /// Takes a while.
/// #[task]
/// fn long() {
///     for epoch in 0..10 {
///         progress(f64::from(epoch) / 10.0, &format!("epoch {epoch}"));
///     }
///     progress(None, "cleaning up");
/// }
/// # long();
/// ```
pub fn report(fraction: impl Into<Option<f64>>, note: &str) {
    host::progress_report(
        fraction
            .into()
            .filter(|fraction| fraction.is_finite())
            .map(|f| f.clamp(0.0, 1.0)),
        note,
    );
}
