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

impl LogLine {
    /// The line as it is stored: JSON and a line end.
    pub fn store(&self, into: &mut Vec<u8>) {
        let start = into.len();
        // Text keys and numbers can always be written to memory.
        if serde_json::to_writer(&mut *into, self).is_err() {
            into.truncate(start);
            return;
        }
        into.push(b'\n');
    }

    /// The number of bytes [`LogLine::store`] makes, without making them.
    pub fn stored_bytes(&self) -> u64 {
        const ENVELOPE: usize =
            r#"{"timestamp":"1970-01-01T00:00:00.000000Z","level":"","source":"","event":}"#.len() + 1;
        let level = match self.level {
            LogLevel::Info => 4,
            LogLevel::Trace | LogLevel::Debug | LogLevel::Error => 5,
            LogLevel::Warning => 7,
        };
        let source = match self.source {
            LogSource::Log => 3,
            LogSource::Stdout | LogSource::Stderr | LogSource::System => 6,
        };
        let fields = self.fields.as_ref().map_or(0, |fields| {
            let mut counter = Counter(0);
            // A counter takes everything.
            let _ = serde_json::to_writer(&mut counter, fields);
            r#","fields":"#.len() + counter.0
        });
        (ENVELOPE + level + source + quoted_bytes(&self.event) + fields) as u64
    }
}

/// A text as a JSON string.
fn quoted_bytes(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 1,
        0..=0x1f => 5,
        _ => 0,
    };
    2 + text.len() + text.bytes().map(escaped).sum::<usize>()
}

/// Counts what is written to it.
struct Counter(usize);

impl std::io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_line_costs_is_what_is_stored() {
        let odd: String = (0..0x3000).filter_map(char::from_u32).collect();
        let texts = ["", "plain", "\u{1b}[31m\"quoted\"\\\t\r\n\u{8}\u{c}\u{7f}", &odd];
        let fields = [
            None,
            Some(serde_json::json!({})),
            Some(serde_json::json!({"a\n": [1, 2.5, null, {"b": "\u{1}"}]})),
        ];
        for level in [
            LogLevel::Trace,
            LogLevel::Debug,
            LogLevel::Info,
            LogLevel::Warning,
            LogLevel::Error,
        ] {
            for source in [LogSource::Stdout, LogSource::Stderr, LogSource::Log, LogSource::System] {
                for (text, fields) in texts
                    .iter()
                    .flat_map(|text| fields.iter().map(move |fields| (text, fields)))
                {
                    for timestamp in [Timestamp(0), Timestamp(1_796_000_000_123_456)] {
                        let line = LogLine {
                            timestamp,
                            level,
                            source,
                            event: (*text).to_owned(),
                            fields: fields.clone(),
                        };
                        let mut stored = Vec::new();
                        line.store(&mut stored);
                        assert_eq!(line.stored_bytes(), stored.len() as u64, "{line:?}");
                    }
                }
            }
        }
    }
}
