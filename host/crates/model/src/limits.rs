//! Limits of one try. All of them are always on; the manifest can change them within the server's bounds.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What one try may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// All linear memories and tables of the store, and what the host buffers for it, in bytes.
    pub memory_bytes: u64,
    /// Wall time of one try.
    pub timeout: Duration,
    /// CPU time of one try.
    pub cpu_time: Duration,
    /// What the try may write to its log, in bytes.
    pub log_bytes: u64,
    /// One XCom value, in bytes of JSON text.
    pub xcom_value_bytes: u64,
    /// All XCom values of one try, in bytes of JSON text.
    pub xcom_total_bytes: u64,
    /// XCom keys of one try.
    pub xcom_keys: u32,
    /// The sum of all blobs that one try writes, in bytes.
    pub blob_bytes: u64,
    /// A checkpoint, in bytes.
    pub checkpoint_bytes: u64,
    /// Live host resources (handles).
    pub resources: u32,
    /// Elements of all tables.
    pub table_elements: u64,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: u64 = 1 << 20;
        Self {
            memory_bytes: 512 * MIB,
            timeout: Duration::from_secs(3600),
            cpu_time: Duration::from_secs(3600),
            log_bytes: 10 * MIB,
            xcom_value_bytes: MIB,
            xcom_total_bytes: 16 * MIB,
            xcom_keys: 1_000,
            blob_bytes: 10 << 30,
            checkpoint_bytes: MIB,
            resources: 10_000,
            table_elements: 1_000_000,
        }
    }
}
