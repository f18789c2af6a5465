//! The log of a try, as the guest writes it: lines out of byte streams, a limit on what is stored, and the tail of standard error
//! for the message of a trap.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::{Clock, OnLogLimit};
use ports::executor::TryId;
use ports::log::{LogLevel, LogLine, LogSink, LogSource};
use tokio::sync::Notify;

pub(crate) use self::budget::LogFull;
use self::budget::{Budget, Entry};
pub(crate) use self::stream::MAX_LINE_BYTES;
use self::stream::Stream;

mod budget;
mod stream;

/// How much of standard error is kept for the message of a trap.
const TAIL_BYTES: usize = 8 << 10;
/// After how long a line that has no end yet is shown.
const SHOWN_AFTER: Duration = Duration::from_millis(500);
/// Bytes that are made into lines at a time.
const PIECE_BYTES: usize = 16 << 10;

/// See the module.
pub(crate) struct TryLog {
    id: TryId,
    sink: Arc<dyn LogSink>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// A line without an end is there.
    unfinished: Notify,
}

struct State {
    stdout: Stream,
    stderr: Stream,
    tail: Vec<u8>,
    budget: Budget,
    /// Whether `unfinished` was notified and nobody has looked since.
    announced: bool,
}

impl TryLog {
    pub(crate) fn new(
        id: TryId,
        sink: Arc<dyn LogSink>,
        clock: Arc<dyn Clock>,
        limit: u64,
        on_limit: OnLogLimit,
    ) -> Self {
        Self {
            id,
            sink,
            clock,
            state: Mutex::new(State {
                stdout: Stream::default(),
                stderr: Stream::default(),
                tail: Vec::new(),
                budget: Budget::new(limit, on_limit),
                announced: false,
            }),
            unfinished: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the guest wrote to standard output or error.
    pub(crate) fn write(&self, source: LogSource, bytes: &[u8]) -> Result<(), LogFull> {
        let mut state = self.state();
        if source == LogSource::Stderr {
            keep_tail(&mut state.tail, bytes);
        }
        for piece in bytes.chunks(PIECE_BYTES) {
            let mut lines = Vec::new();
            state.stream(source).push(piece, |line| lines.push(line));
            self.append(&mut state, source, lines)?;
        }
        if state.stream(source).is_unfinished() && !state.announced {
            state.announced = true;
            self.unfinished.notify_one();
        }
        Ok(())
    }

    /// Takes a structured record.
    pub(crate) fn record(
        &self,
        level: LogLevel,
        message: String,
        fields: Option<serde_json::Value>,
    ) -> Result<(), LogFull> {
        let mut state = self.state();
        self.flush(&mut state)?;
        let line = LogLine {
            timestamp: self.clock.now(),
            level,
            source: LogSource::Log,
            event: message,
            fields,
        };
        self.take(&mut state, vec![line])
    }

    /// A line of Airtight itself. It does not count against the limit.
    pub(crate) fn system(&self, level: LogLevel, text: &str) {
        let mut state = self.state();
        // Where the log is full the try dies of that anyway, or the line is in what is left out.
        let _ = self.flush(&mut state);
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

    /// Shows lines that have no end yet within a second, for as long as it is polled.
    pub(crate) async fn show_unfinished(&self) -> Infallible {
        loop {
            self.unfinished.notified().await;
            tokio::time::sleep(SHOWN_AFTER).await;
            let mut state = self.state();
            state.announced = false;
            for source in [LogSource::Stdout, LogSource::Stderr] {
                let shown: Vec<_> = state.stream(source).show().into_iter().collect();
                // Where the log is full, the guest's next write says so.
                let _ = self.append(&mut state, source, shown);
            }
        }
    }

    /// The guest writes no more: what has no end yet, and the end of a log that was cut, are appended.
    pub(crate) fn guest_ended(&self) {
        let mut state = self.state();
        let _ = self.flush(&mut state);
        let now = self.clock.now();
        let end = state.budget.end(now);
        if !end.is_empty() {
            self.sink.append(self.id, end);
        }
    }

    /// The same, and says that nothing comes any more.
    pub(crate) fn close(&self) {
        self.guest_ended();
        self.sink.close(self.id);
    }

    /// What the try's log takes, in bytes as they are stored, without the lines of Airtight itself.
    pub(crate) fn used(&self) -> u64 {
        self.state().budget.stored()
    }

    /// Whether the limit was reached and the try ends of it.
    pub(crate) fn is_full(&self) -> bool {
        self.state().budget.is_full()
    }

    /// The end of what the guest wrote to standard error.
    pub(crate) fn stderr_tail(&self) -> String {
        String::from_utf8_lossy(&self.state().tail).into_owned()
    }

    /// Appends lines that have no end yet.
    fn flush(&self, state: &mut State) -> Result<(), LogFull> {
        for source in [LogSource::Stdout, LogSource::Stderr] {
            if let Some(line) = state.stream(source).flush() {
                self.append(state, source, vec![line])?;
            }
        }
        Ok(())
    }

    fn append(&self, state: &mut State, source: LogSource, lines: Vec<String>) -> Result<(), LogFull> {
        if lines.is_empty() {
            return Ok(());
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
        self.take(state, lines.collect())
    }

    /// Passes on what the limit lets through.
    fn take(&self, state: &mut State, lines: Vec<LogLine>) -> Result<(), LogFull> {
        let mut passed = Vec::with_capacity(lines.len().min(1_024));
        let mut full = Ok(());
        for line in lines {
            match state.budget.enter(line) {
                Entry::Passed(line) => passed.push(line),
                Entry::Cut(notice) => passed.push(notice),
                Entry::Kept => {}
                Entry::Full(error) => {
                    full = Err(error);
                    break;
                }
            }
        }
        if !passed.is_empty() {
            self.sink.append(self.id, passed);
        }
        full
    }
}

impl State {
    fn stream(&mut self, source: LogSource) -> &mut Stream {
        match source {
            LogSource::Stderr => &mut self.stderr,
            LogSource::Stdout | LogSource::Log | LogSource::System => &mut self.stdout,
        }
    }
}

fn keep_tail(tail: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = bytes.get(bytes.len().saturating_sub(TAIL_BYTES)..).unwrap_or_default();
    let excess = (tail.len() + bytes.len()).saturating_sub(TAIL_BYTES);
    tail.drain(..excess.min(tail.len()));
    tail.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use model::{DagRunKey, DispatchNumber, MapIndex, RunUuid, TaskIndex, TiKey, Timestamp, TryNumber};

    use super::*;

    #[derive(Default)]
    struct Kept(Mutex<Vec<LogLine>>);

    impl LogSink for Kept {
        fn open(&self, _: TryId) {}

        fn append(&self, _: TryId, lines: Vec<LogLine>) {
            self.0.lock().unwrap().extend(lines);
        }

        fn close(&self, _: TryId) {}
    }

    impl Kept {
        fn texts(&self) -> Vec<String> {
            self.0.lock().unwrap().iter().map(|line| line.event.clone()).collect()
        }

        fn bytes(&self) -> u64 {
            self.0.lock().unwrap().iter().map(LogLine::stored_bytes).sum()
        }
    }

    struct Epoch;

    impl Clock for Epoch {
        fn now(&self) -> Timestamp {
            Timestamp(0)
        }
    }

    fn log(limit: u64, on_limit: OnLogLimit) -> (Arc<Kept>, Arc<TryLog>) {
        let id = TryId {
            ti: TiKey {
                run: DagRunKey(1),
                task: TaskIndex(2),
                map_index: MapIndex::UNMAPPED,
            },
            run_uuid: RunUuid(uuid::Uuid::from_u128(7)),
            try_number: TryNumber(1),
            dispatch: DispatchNumber(1),
            callback: None,
        };
        let kept = Arc::new(Kept::default());
        let log = TryLog::new(id, kept.clone(), Arc::new(Epoch), limit, on_limit);
        (kept, Arc::new(log))
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_without_an_end_is_shown_within_a_second() {
        let (kept, log) = log(1 << 20, OnLogLimit::Cut);
        let showing = tokio::spawn({
            let log = Arc::clone(&log);
            async move { log.show_unfinished().await }
        });
        log.write(LogSource::Stdout, b"whole\n10 % of \xc3").unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(kept.texts(), ["whole"], "not yet: the rest may come");
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert_eq!(kept.texts(), ["whole", "10 % of "], "no half of a character");
        log.write(LogSource::Stdout, b"\xa9\n").unwrap();
        // The end of a line that was shown already is no line of its own.
        log.write(LogSource::Stderr, b"loading").unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        log.write(LogSource::Stderr, b"\n").unwrap();
        log.write(LogSource::Stderr, b" done\r\n").unwrap();
        assert_eq!(kept.texts(), ["whole", "10 % of ", "é", "loading", " done"]);
        showing.abort();
    }

    #[test]
    fn a_progress_bar_is_a_line_each_time() {
        let (kept, log) = log(1 << 20, OnLogLimit::Cut);
        for piece in ["\r10 %", "\r20 %\r", "30 %\r\n", "\r\n", "done\r", "\n", "\n"] {
            log.write(LogSource::Stdout, piece.as_bytes()).unwrap();
        }
        assert_eq!(kept.texts(), ["10 %", "20 %", "30 %", "", "done", ""]);
    }

    #[test]
    fn empty_lines_and_records_cost_what_they_take() {
        for limit in [0, 1, 10_000] {
            let (kept, printing) = log(limit, OnLogLimit::Fail);
            assert!(printing.write(LogSource::Stdout, &[b'\n'; 10_000]).is_err());
            assert!(kept.bytes() <= limit && printing.is_full(), "{limit}");
            assert_eq!(printing.used(), kept.bytes());
            let (kept, recording) = log(limit, OnLogLimit::Fail);
            let full = (0..10_000).find(|_| recording.record(LogLevel::Info, String::new(), None).is_err());
            assert!(
                full.is_some_and(|lines| lines <= limit / 80) && kept.bytes() <= limit,
                "{full:?}"
            );
        }
        // Escapes are counted as they are written: six bytes for one.
        let (kept, log) = log(10_000, OnLogLimit::Fail);
        let mut odd = vec![1; 2_000];
        odd.push(b'\n');
        assert!(log.write(LogSource::Stdout, &odd).is_err());
        assert_eq!(kept.bytes(), 0);
    }

    #[test]
    fn a_cut_log_has_its_beginning_its_end_and_what_is_missing() {
        let limit = 300_000;
        let (kept, log) = log(limit, OnLogLimit::Cut);
        let lines: u64 = 30_000;
        for number in 0..lines {
            log.write(LogSource::Stdout, format!("line {number}\n").as_bytes())
                .unwrap();
        }
        assert!(!log.is_full());
        log.system(LogLevel::Warning, "of the server");
        log.write(LogSource::Stdout, b"no end").unwrap();
        let before = kept.texts();
        log.guest_ended();
        log.system(LogLevel::Error, "failed");
        log.close();
        let texts = kept.texts();
        // While it runs: the beginning, and that it is cut.
        let head = before.len() - 2;
        assert!(
            before[head].contains("300000 bytes") || before[head].contains("292.9 KiB"),
            "{}",
            before[head]
        );
        assert_eq!(
            (before[head - 1].as_str(), before[head + 1].as_str()),
            (&*format!("line {}", head - 1), "of the server")
        );
        // At its end: one line that says how much is missing, the last lines, and the server's own.
        let end: Vec<&str> = texts[before.len()..].iter().map(String::as_str).collect();
        assert_eq!(&end[end.len() - 3..], ["line 29999", "no end", "failed"]);
        let shown = end.len() as u64 - 2;
        let dropped = lines + 1 - head as u64 - shown;
        assert!(
            end[0].starts_with(&format!("{dropped} lines (")) && end[0].contains("limits.log"),
            "{}",
            end[0]
        );
        assert_eq!(end[1], format!("line {}", lines + 1 - shown));
        assert!(kept.bytes() < limit + (64 << 10) + 1_000, "{}", kept.bytes());
        let most = limit + (64 << 10);
        assert!((most - 1_000..=most).contains(&log.used()), "{}", log.used());
    }

    #[test]
    fn a_log_that_is_hardly_over_its_limit_loses_nothing() {
        let (kept, log) = log(10_000, OnLogLimit::Cut);
        for number in 0..150 {
            log.record(
                LogLevel::Info,
                format!("{number}"),
                Some(serde_json::json!({"n": number})),
            )
            .unwrap();
        }
        log.close();
        let lines = kept.0.lock().unwrap();
        let told: Vec<_> = lines.iter().filter(|line| line.source == LogSource::System).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        let numbers = lines.iter().filter_map(|line| line.fields.as_ref()?["n"].as_u64());
        assert!(numbers.eq(0..150));
    }

    #[test]
    fn what_is_kept_of_a_cut_log_is_bounded() {
        let (kept, log) = log(100 << 10, OnLogLimit::Cut);
        let list = serde_json::json!({ "list": vec![0; 16 << 10] });
        for _ in 0..200 {
            log.record(LogLevel::Info, String::new(), Some(list.clone())).unwrap();
        }
        assert!(log.state().budget.kept_bytes() <= 64 << 10);
        log.close();
        assert!(kept.bytes() <= 165 << 10, "{}", kept.bytes());
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
