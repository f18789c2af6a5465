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
    /// What the try may write to its log, in bytes as they are stored: each line with its time, level, source and escapes.
    pub log_bytes: u64,
    /// What becomes of a try that writes more.
    #[serde(default, skip_serializing_if = "OnLogLimit::is_default")]
    pub on_log_limit: OnLogLimit,
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

/// What becomes of a try that writes more to its log than it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLogLimit {
    /// The log is cut: its beginning and its end are kept, a line says how much was left out, and the task goes on.
    #[default]
    Cut,
    /// The try ends with `output_limit`.
    Fail,
}

impl OnLogLimit {
    /// All of them, by their names in manifests.
    pub const NAMES: &'static [&'static str] = &["cut", "fail"];

    /// The name in manifests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Fail => "fail",
        }
    }

    /// By its name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Cut, Self::Fail]
            .into_iter()
            .find(|choice| choice.as_str() == name)
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: u64 = 1 << 20;
        Self {
            memory_bytes: 512 * MIB,
            timeout: Duration::from_secs(3600),
            cpu_time: Duration::from_secs(3600),
            log_bytes: 10 * MIB,
            on_log_limit: OnLogLimit::Cut,
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
