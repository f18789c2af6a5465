//! The log of a try, as the guest writes it: lines out of a byte stream, a limit, and the tail of standard error for the
//! message of a trap.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use model::Clock;
use ports::executor::TryId;
use ports::log::{LogLevel, LogLine, LogSink, LogSource};

/// The longest line. A longer one is cut into several.
pub(crate) const MAX_LINE_BYTES: usize = 16 << 10;
/// How much of standard error is kept for the message of a trap.
const TAIL_BYTES: usize = 8 << 10;

/// The log limit of the try was reached. It unwinds the guest.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the try wrote more than {0} bytes to its log")]
pub(crate) struct LogFull(pub(crate) u64);

/// See the module.
pub(crate) struct TryLog {
    id: TryId,
    sink: Arc<dyn LogSink>,
    clock: Arc<dyn Clock>,
    limit: u64,
    used: AtomicU64,
    full: AtomicBool,
    partial: Mutex<Partial>,
}

#[derive(Default)]
struct Partial {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    tail: Vec<u8>,
}

impl TryLog {
    pub(crate) fn new(id: TryId, sink: Arc<dyn LogSink>, clock: Arc<dyn Clock>, limit: u64) -> Self {
        Self {
            id,
            sink,
            clock,
            limit,
            used: AtomicU64::new(0),
            full: AtomicBool::new(false),
            partial: Mutex::new(Partial::default()),
        }
    }

    /// Takes what the guest wrote to standard output or error. What fits under the limit is kept.
    pub(crate) fn write(&self, source: LogSource, bytes: &[u8]) -> Result<(), LogFull> {
        let room = self.take(bytes.len());
        let kept = bytes.get(..room).unwrap_or(bytes);
        let mut lines = Vec::new();
        {
            let mut partial = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
            if source == LogSource::Stderr {
                keep_tail(&mut partial.tail, kept);
            }
            let buffer = match source {
                LogSource::Stderr => &mut partial.stderr,
                LogSource::Stdout | LogSource::Log | LogSource::System => &mut partial.stdout,
            };
            buffer.extend_from_slice(kept);
            cut_lines(buffer, &mut lines);
        }
        self.append(source, lines);
        if room < bytes.len() { Err(self.full()) } else { Ok(()) }
    }

    /// Takes a structured record.
    pub(crate) fn record(
        &self,
        level: LogLevel,
        message: String,
        fields: Option<serde_json::Value>,
        bytes: usize,
    ) -> Result<(), LogFull> {
        if self.take(bytes) < bytes {
            return Err(self.full());
        }
        self.flush();
        self.sink.append(
            self.id,
            vec![LogLine {
                timestamp: self.clock.now(),
                level,
                source: LogSource::Log,
                event: message,
                fields,
            }],
        );
        Ok(())
    }

    /// A line of Airtight itself. It does not count against the limit.
    pub(crate) fn system(&self, level: LogLevel, text: &str) {
        self.flush();
        let timestamp = self.clock.now();
        let lines = text.lines().map(|line| LogLine {
            timestamp,
            level,
            source: LogSource::System,
            event: line.to_owned(),
            fields: None,
        });
        self.sink.append(self.id, lines.collect());
    }

    /// Appends lines that have no end yet.
    pub(crate) fn flush(&self) {
        let (stdout, stderr) = {
            let mut partial = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
            (std::mem::take(&mut partial.stdout), std::mem::take(&mut partial.stderr))
        };
        for (source, bytes) in [(LogSource::Stdout, stdout), (LogSource::Stderr, stderr)] {
            if !bytes.is_empty() {
                self.append(source, vec![text_of(&bytes)]);
            }
        }
    }

    /// Flushes, and says that the try writes no more.
    pub(crate) fn close(&self) {
        self.flush();
        self.sink.close(self.id);
    }

    /// What the try wrote, in bytes.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether the limit was reached.
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// The end of what the guest wrote to standard error.
    pub(crate) fn stderr_tail(&self) -> String {
        let partial = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&partial.tail).into_owned()
    }

    fn full(&self) -> LogFull {
        self.full.store(true, Ordering::Relaxed);
        LogFull(self.limit)
    }

    /// Counts bytes; answers how many of them fit.
    fn take(&self, bytes: usize) -> usize {
        let wanted = u64::try_from(bytes).unwrap_or(u64::MAX);
        let before = self.used.fetch_add(wanted, Ordering::Relaxed);
        let room = self.limit.saturating_sub(before);
        usize::try_from(room.min(wanted)).unwrap_or(bytes)
    }

    fn append(&self, source: LogSource, lines: Vec<String>) {
        if lines.is_empty() {
            return;
        }
        let timestamp = self.clock.now();
        let level = match source {
            LogSource::Stderr => LogLevel::Warning,
            LogSource::Stdout | LogSource::Log | LogSource::System => LogLevel::Info,
        };
        let lines = lines.into_iter().map(|event| LogLine {
            timestamp,
            level,
            source,
            event,
            fields: None,
        });
        self.sink.append(self.id, lines.collect());
    }
}

/// Moves the finished lines out of the buffer.
fn cut_lines(buffer: &mut Vec<u8>, lines: &mut Vec<String>) {
    let mut start = 0;
    loop {
        let rest = buffer.get(start..).unwrap_or_default();
        let line_end = rest.iter().take(MAX_LINE_BYTES + 1).position(|byte| *byte == b'\n');
        let (length, skip) = match line_end {
            Some(end) => (end, 1),
            None if rest.len() > MAX_LINE_BYTES => (char_boundary(rest, MAX_LINE_BYTES), 0),
            None => break,
        };
        lines.push(text_of(rest.get(..length).unwrap_or_default()));
        start += length + skip;
    }
    buffer.drain(..start);
}

/// The last position at or before `at` that does not cut a UTF-8 sequence.
fn char_boundary(bytes: &[u8], at: usize) -> usize {
    (at.saturating_sub(3)..=at)
        .rev()
        .find(|position| bytes.get(*position).is_none_or(|byte| byte & 0xC0 != 0x80))
        .unwrap_or(at)
}

fn text_of(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    String::from_utf8_lossy(line).into_owned()
}

fn keep_tail(tail: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = bytes.get(bytes.len().saturating_sub(TAIL_BYTES)..).unwrap_or_default();
    let excess = (tail.len() + bytes.len()).saturating_sub(TAIL_BYTES);
    tail.drain(..excess.min(tail.len()));
    tail.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(bytes: &[u8]) -> (Vec<String>, Vec<u8>) {
        let (mut buffer, mut lines) = (bytes.to_vec(), Vec::new());
        cut_lines(&mut buffer, &mut lines);
        (lines, buffer)
    }

    #[test]
    fn cuts_lines_and_keeps_the_rest() {
        assert_eq!(
            cut(b"a\r\n\nb\xff\nc"),
            (
                vec!["a".to_owned(), String::new(), "b\u{fffd}".to_owned()],
                b"c".to_vec()
            )
        );
    }

    #[test]
    fn cuts_long_lines_between_characters() {
        let text = "é".repeat(MAX_LINE_BYTES);
        let (lines, rest) = cut(text.as_bytes());
        assert!(
            lines
                .iter()
                .all(|line| line.len() <= MAX_LINE_BYTES && !line.contains('\u{fffd}'))
        );
        assert_eq!(lines.concat().len() + rest.len(), text.len());
    }

    #[test]
    fn keeps_the_tail() {
        let mut tail = Vec::new();
        keep_tail(&mut tail, &[b'a'; TAIL_BYTES]);
        keep_tail(&mut tail, b"end");
        assert_eq!(tail.len(), TAIL_BYTES);
        assert!(tail.ends_with(b"aend"));
    }
}
