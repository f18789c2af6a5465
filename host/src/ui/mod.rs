//! What a person or a script sees: text made safe for terminals, tables, JSON and YAML, diagnostics, progress.

pub mod diagnostics;
pub mod escape;
pub mod format;
pub mod output;
pub mod progress;
pub mod run_view;
pub mod term;
