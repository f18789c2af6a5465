//! What an operator may change about the catalog.

use std::time::Duration;

/// Bounds of uploads and of the compile queue.
#[derive(Clone, Debug)]
pub struct Config {
    /// The largest upload, in bytes.
    pub max_component_bytes: u64,
    /// How many components are compiled at a time. One compilation uses several cores by itself.
    pub compile_slots: usize,
    /// How often a compilation is started again when this machine failed it (no memory, no process, a full disk).
    pub compile_retries: u32,
    /// The wait before the first of these; it doubles with each.
    pub compile_retry_delay: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_component_bytes: 256 << 20,
            compile_slots: 2,
            compile_retries: 4,
            compile_retry_delay: Duration::from_secs(1),
        }
    }
}
