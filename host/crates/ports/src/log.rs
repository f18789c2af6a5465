//! Task logs. They never touch the commit path.

use async_trait::async_trait;
use model::Timestamp;
use serde::{Deserialize, Serialize};

use crate::callback::CallbackId;
use crate::executor::TryId;

/// Where a log line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogSource {
    /// The task's standard output.
    Stdout,
    /// The task's standard error.
    Stderr,
    /// The `log` interface.
    Log,
    /// Airtight itself: started, ended, limits.
    System,
}

/// The level of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// The finest.
    Trace,
    /// For developers.
    Debug,
    /// Ordinary.
    Info,
    /// Worth a look.
    Warning,
    /// Something failed.
    Error,
}

/// One line of a try's log. Text is what the guest wrote; control characters are escaped wherever a person reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When the host got it.
    pub timestamp: Timestamp,
    /// Its level.
    pub level: LogLevel,
    /// Where it came from.
    pub source: LogSource,
    /// The text, without a line end.
    pub event: String,
    /// A JSON object, for structured records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<serde_json::Value>,
}

/// Takes log lines. It never blocks the guest for long: the queue is bounded, and what does not fit is dropped and counted.
pub trait LogSink: Send + Sync + 'static {
    /// A dispatch starts: from now on the log of its try is live, and lines of earlier dispatches are refused.
    fn open(&self, id: TryId);
    /// Appends lines to the try's log.
    fn append(&self, id: TryId, lines: Vec<LogLine>);
    /// The dispatch ended: everything appended before is readable from now on, and followers see the end.
    fn close(&self, id: TryId);
}

/// A part of a log.
#[derive(Clone, Debug)]
pub struct LogPart {
    /// The lines.
    pub lines: Vec<LogLine>,
    /// Where to read on.
    pub next: u64,
    /// Whether the log has ended: nothing comes after `next`.
    pub ended: bool,
}

/// Names a try's log for readers, who know no dispatch number: the log holds all dispatches of the try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogKey {
    /// The run.
    pub run_uuid: model::RunUuid,
    /// The task.
    pub task: model::TaskIndex,
    /// The map index.
    pub map_index: model::MapIndex,
    /// The try.
    pub try_number: model::TryNumber,
    /// Set where it is the log of a callback, which is named by this and the run alone.
    pub callback: Option<CallbackId>,
}

impl LogKey {
    /// The log that a dispatch writes to.
    pub fn of(id: TryId) -> Self {
        if let Some(callback) = id.callback {
            return Self::of_callback(id.run_uuid, callback);
        }
        Self {
            run_uuid: id.run_uuid,
            task: id.ti.task,
            map_index: id.ti.map_index,
            try_number: id.try_number,
            callback: None,
        }
    }

    /// The log of a callback.
    pub const fn of_callback(run_uuid: model::RunUuid, callback: CallbackId) -> Self {
        Self {
            run_uuid,
            task: crate::executor::NO_TASK,
            map_index: model::MapIndex::UNMAPPED,
            try_number: model::TryNumber(0),
            callback: Some(callback),
        }
    }
}

/// Reads logs.
#[async_trait]
pub trait LogReader: Send + Sync + 'static {
    /// Up to `max_lines` from a position (0 is the start). A log that was never written is empty.
    async fn read(&self, key: LogKey, from: u64, max_lines: usize) -> std::io::Result<LogPart>;
    /// Waits until there is something after `from` or the log has ended (at once where it is not live). Where another process writes the log
    /// it may return although there is nothing: it is not known here whether the try is over.
    async fn wait(&self, key: LogKey, from: u64);
    /// Gives a log whose try is over a moment to be written to its end; `false` where more came meanwhile.
    async fn settle(&self, _key: LogKey) -> bool {
        true
    }
    /// Removes all logs of a run.
    async fn delete_run(&self, run: model::RunUuid) -> std::io::Result<()>;
}
