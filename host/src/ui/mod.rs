//! What a person or a script sees: text made safe for terminals, tables, JSON and YAML, diagnostics, progress.

pub(crate) mod diagnostics;
pub(crate) mod escape;
pub(crate) mod events;
pub(crate) mod format;
pub(crate) mod mapped;
pub(crate) mod output;
pub(crate) mod pretty;
pub(crate) mod progress;
pub(crate) mod run_view;
pub(crate) mod term;
