//! What of a try's lines is stored: up to the limit, in bytes as they are stored, and where the log is cut, also its end.

use std::collections::VecDeque;

use model::{OnLogLimit, Timestamp};
use ports::log::{LogLevel, LogLine, LogSource};

use crate::outcome::bytes;

/// How much of the end of a log that was cut is kept.
const END_BYTES: u64 = 64 << 10;

/// The log limit of the try was reached. It unwinds the guest.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the try wrote more than {0} bytes to its log")]
pub(crate) struct LogFull(u64);

/// See the module.
pub(super) struct Budget {
    limit: u64,
    on_limit: OnLogLimit,
    stored: u64,
    full: bool,
    cut: Option<End>,
}

/// The end of a log that is cut: the last lines as they are stored, so that what they take is known to the byte.
#[derive(Default)]
struct End {
    lines: VecDeque<Box<[u8]>>,
    bytes: u64,
    dropped_lines: u64,
    dropped_bytes: u64,
}

/// What becomes of a line.
pub(super) enum Entry {
    /// It is stored.
    Passed(LogLine),
    /// The log is cut here; this says so. The line is kept for the end.
    Cut(LogLine),
    /// It is kept for the end, for as long as no others push it out.
    Kept,
    /// The try ends.
    Full(LogFull),
}

impl Budget {
    pub(super) fn new(limit: u64, on_limit: OnLogLimit) -> Self {
        Self {
            limit,
            on_limit,
            stored: 0,
            full: false,
            cut: None,
        }
    }

    pub(super) fn enter(&mut self, line: LogLine) -> Entry {
        if self.full {
            return Entry::Full(LogFull(self.limit));
        }
        let most = END_BYTES.min(self.limit);
        if let Some(end) = &mut self.cut {
            end.push(&line, most);
            return Entry::Kept;
        }
        let stored = self.stored.saturating_add(line.stored_bytes());
        if stored <= self.limit {
            self.stored = stored;
            return Entry::Passed(line);
        }
        match self.on_limit {
            OnLogLimit::Fail => {
                self.full = true;
                Entry::Full(LogFull(self.limit))
            }
            OnLogLimit::Cut => {
                let notice = notice(
                    line.timestamp,
                    format!(
                        "the log is cut here: it has reached its limit of {} (`limits.log`); of what follows only the last {} are kept, \
                         and shown when the try ends",
                        bytes(self.limit),
                        bytes(most)
                    ),
                );
                self.cut.insert(End::default()).push(&line, most);
                Entry::Cut(notice)
            }
        }
    }

    /// The end of a log that was cut, and in front of it what is missing. Nothing where it was not cut.
    pub(super) fn end(&mut self, now: Timestamp) -> Vec<LogLine> {
        let Some(end) = &mut self.cut else { return Vec::new() };
        let dropped = (
            std::mem::take(&mut end.dropped_lines),
            std::mem::take(&mut end.dropped_bytes),
        );
        self.stored = self.stored.saturating_add(std::mem::take(&mut end.bytes));
        let kept = std::mem::take(&mut end.lines);
        let kept: Vec<LogLine> = kept
            .iter()
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect();
        let mut lines = Vec::with_capacity(kept.len() + 1);
        if dropped.0 > 0 {
            let at = kept.first().map_or(now, |line| line.timestamp);
            let what = if dropped.0 == 1 { "line" } else { "lines" };
            lines.push(notice(
                at,
                format!(
                    "{} {what} ({}) were dropped here: the log is over its limit of {} (`limits.log`)",
                    dropped.0,
                    bytes(dropped.1),
                    bytes(self.limit)
                ),
            ));
        }
        lines.extend(kept);
        lines
    }

    /// Bytes that are stored.
    pub(super) fn stored(&self) -> u64 {
        self.stored
    }

    /// Whether the try ends of it.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> u64 {
        self.cut.as_ref().map_or(0, |end| end.bytes)
    }
}

impl End {
    /// Keeps a line, and lets the first ones go that are too many.
    fn push(&mut self, line: &LogLine, most: u64) {
        let mut stored = Vec::new();
        line.store(&mut stored);
        self.bytes = self.bytes.saturating_add(stored.len() as u64);
        self.lines.push_back(stored.into_boxed_slice());
        while self.bytes > most {
            let Some(first) = self.lines.pop_front() else { return };
            let size = first.len() as u64;
            self.bytes = self.bytes.saturating_sub(size);
            self.dropped_lines = self.dropped_lines.saturating_add(1);
            self.dropped_bytes = self.dropped_bytes.saturating_add(size);
        }
    }
}

fn notice(timestamp: Timestamp, event: String) -> LogLine {
    LogLine {
        timestamp,
        level: LogLevel::Warning,
        source: LogSource::System,
        event,
        fields: None,
    }
}
