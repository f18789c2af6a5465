//! Progress of long work, drawn on standard error where it is a terminal and left out where it is not.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::term;

/// A bar over bytes.
pub(crate) fn bytes(total: u64, what: &str) -> ProgressBar {
    if !term::stderr_is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}")
        .expect("the template is well-formed")
        .progress_chars("=> ");
    ProgressBar::new(total).with_style(style).with_message(what.to_owned())
}

/// Something that takes an unknown time.
pub(crate) fn spinner(what: &str) -> ProgressBar {
    if !term::stderr_is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}").expect("the template is well-formed");
    let bar = ProgressBar::new_spinner()
        .with_style(style)
        .with_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
