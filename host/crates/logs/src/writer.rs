//! The thread that writes.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use model::{RunUuid, Timestamp};
use ports::log::{LogKey, LogLevel, LogLine, LogSource};
use ports::space::{NoSpace, Space};
use tokio::sync::oneshot;

use crate::complaint::Complaint;
use crate::file;
use crate::store::Shared;

/// Files that stay open.
const MAX_OPEN_FILES: usize = 128;
/// How often it is tried to tell logs that nobody writes to any more what they lost.
const RETRY: Duration = Duration::from_secs(1);
/// The number of logs that are told at a time.
const TOLD_AT_A_TIME: usize = 64;
/// Logs that are remembered by themselves. What more of them lose is in the server's own log alone.
const MAX_OWED: usize = 10_000;

/// Lines, as they are stored.
pub(crate) struct Batch {
    pub(crate) text: Vec<u8>,
    pub(crate) lines: u64,
    /// When the last of them was written.
    pub(crate) at: Timestamp,
    /// Whether all of them are the server's own: those may use the room that is kept.
    pub(crate) ours: bool,
}

pub(crate) enum Message {
    Lines {
        key: LogKey,
        batch: Batch,
        /// What this takes of the queue.
        bytes: usize,
        /// Lines before these that did not fit the queue.
        dropped: u64,
    },
    Close {
        key: LogKey,
        generation: u64,
        /// The last lines that did not fit the queue, and when the last of them came.
        dropped: Option<(u64, Timestamp)>,
    },
    /// The logs of a run were removed.
    Deleted(RunUuid),
    /// Answers once all that came before is written.
    Barrier(oneshot::Sender<()>),
}

/// What a log has lost because it could not be written, and does not say yet.
struct Lost {
    lines: u64,
    why: String,
    at: Timestamp,
}

pub(crate) struct Writer {
    pub(crate) dir: PathBuf,
    pub(crate) shared: Arc<Shared>,
    pub(crate) space: Arc<dyn Space>,
    files: HashMap<LogKey, fs::File>,
    owed: HashMap<LogKey, Lost>,
    complaint: Complaint,
    retry_at: Option<Instant>,
}

/// Whole lines that were not written, and why.
struct Unwritten {
    lines: u64,
    error: io::Error,
}

impl Writer {
    pub(crate) fn new(dir: PathBuf, shared: Arc<Shared>, space: Arc<dyn Space>) -> Self {
        Self {
            dir,
            shared,
            space,
            files: HashMap::new(),
            owed: HashMap::new(),
            complaint: Complaint::default(),
            retry_at: None,
        }
    }

    pub(crate) fn run(mut self, messages: &Receiver<Message>) {
        loop {
            let message = if self.owed.is_empty() && !self.complaint.waits() {
                messages.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                messages.recv_timeout(RETRY)
            };
            match message {
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let now = Instant::now();
            if !self.owed.is_empty() && self.retry_at.is_none_or(|at| now >= at) {
                self.retry_at = Some(now + RETRY);
                self.settle();
            }
            self.complaint.say_if_due(now);
        }
        self.settle();
        self.complaint.say();
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Lines {
                key,
                batch,
                bytes,
                dropped,
            } => {
                if dropped > 0 {
                    self.write(key, &dropped_notice(dropped, batch.at));
                }
                self.write(key, &batch);
                self.shared.written(key, bytes);
            }
            Message::Close {
                key,
                generation,
                dropped,
            } => {
                if let Some((lines, at)) = dropped {
                    self.write(key, &dropped_notice(lines, at));
                }
                self.tell(key);
                self.files.remove(&key);
                self.shared.closed(key, generation);
            }
            Message::Deleted(run) => {
                self.files.retain(|key, _| key.run_uuid != run);
                self.owed.retain(|key, _| key.run_uuid != run);
            }
            Message::Barrier(done) => {
                self.settle();
                let _ = done.send(());
            }
        }
    }

    /// Writes lines, or notes that they are lost and why.
    fn write(&mut self, key: LogKey, batch: &Batch) {
        let lost = |lines, why: String| Lost {
            lines,
            why,
            at: batch.at,
        };
        if !batch.ours
            && let Err(full) = self.space.check()
        {
            self.lose(key, lost(batch.lines, full.to_string()));
            return;
        }
        // In order: what is lost came before these.
        if !self.tell(key) {
            let why = self.owed.get(&key).map(|owed| owed.why.clone()).unwrap_or_default();
            self.lose(key, lost(batch.lines, why));
            return;
        }
        if let Err(Unwritten { lines, error }) = self.append(key, &batch.text) {
            self.lose(key, lost(lines, reason(&error)));
        }
    }

    fn lose(&mut self, key: LogKey, lost: Lost) {
        self.complaint.note(lost.lines, &lost.why);
        let has_room = self.owed.len() < MAX_OWED;
        match self.owed.get_mut(&key) {
            Some(owed) => {
                owed.lines = owed.lines.saturating_add(lost.lines);
                owed.at = lost.at;
            }
            None if has_room => {
                self.owed.insert(key, lost);
            }
            None => {}
        }
    }

    /// Has the log say what it lost; `false` where that cannot be written either.
    fn tell(&mut self, key: LogKey) -> bool {
        let Some(owed) = self.owed.get(&key) else { return true };
        let what = if owed.lines == 1 {
            "1 line is".to_owned()
        } else {
            format!("{} lines are", owed.lines)
        };
        let notice = notice(
            format!(
                "{what} missing here: the server could not write to this log ({})",
                owed.why
            ),
            owed.at,
        );
        let told = self.append(key, &notice.text).is_ok();
        if told {
            self.owed.remove(&key);
        }
        told
    }

    /// Tries to tell logs what they lost, also those that have ended. Not while more is being lost: a log says it once, with the whole count.
    fn settle(&mut self) {
        if self.space.check().is_err() {
            return;
        }
        let keys: Vec<_> = self.owed.keys().copied().take(TOLD_AT_A_TIME).collect();
        for key in keys {
            if !self.tell(key) {
                return;
            }
            self.shared.written(key, 0);
        }
    }

    /// Writes whole lines. Of lines that do not fit the disk no part stays.
    fn append(&mut self, key: LogKey, text: &[u8]) -> Result<(), Unwritten> {
        let mut done = 0;
        let written = self.file(key).and_then(|file| {
            while let Some(rest) = text.get(done..).filter(|rest| !rest.is_empty()) {
                match file.write(rest) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(length) => done += length,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
        let Err(error) = written else { return Ok(()) };
        let whole = text
            .get(..done)
            .and_then(|written| written.iter().rposition(|byte| *byte == b'\n'))
            .map_or(0, |end| end + 1);
        if let Some(file) = self.files.remove(&key)
            && whole < done
            && let Ok(metadata) = file.metadata()
        {
            // Where this fails too, the torn line is ended when the file is opened again, and passed over by readers.
            let torn = (done - whole) as u64;
            let _ = file.set_len(metadata.len().saturating_sub(torn));
        }
        let missing = text.get(whole..).unwrap_or_default();
        Err(Unwritten {
            lines: missing.iter().filter(|byte| **byte == b'\n').count() as u64,
            error,
        })
    }

    fn file(&mut self, key: LogKey) -> io::Result<&mut fs::File> {
        if self.files.len() >= MAX_OPEN_FILES && !self.files.contains_key(&key) {
            self.files.clear();
        }
        match self.files.entry(key) {
            std::collections::hash_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::hash_map::Entry::Vacant(entry) => {
                fs::create_dir_all(file::run_dir(&self.dir, key.run_uuid))?;
                let path = file::path(&self.dir, key);
                let mut file = fs::OpenOptions::new().create(true).append(true).read(true).open(path)?;
                end_cut_line(&mut file)?;
                Ok(entry.insert(file))
            }
        }
    }
}

fn reason(error: &io::Error) -> String {
    NoSpace::of(error).map_or_else(|| error.to_string(), |full| full.to_string())
}

fn dropped_notice(lines: u64, at: Timestamp) -> Batch {
    notice(
        format!("{lines} lines were dropped: the log came faster than it could be written"),
        at,
    )
}

/// A line of the server itself.
fn notice(event: String, at: Timestamp) -> Batch {
    let mut text = Vec::new();
    LogLine {
        timestamp: at,
        level: LogLevel::Warning,
        source: LogSource::System,
        event,
        fields: None,
    }
    .store(&mut text);
    Batch {
        text,
        lines: 1,
        at,
        ours: true,
    }
}

/// A crash may have cut the last line of a log that goes on now.
fn end_cut_line(file: &mut fs::File) -> io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let length = file.metadata()?.len();
    if let Some(last) = length.checked_sub(1) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, last)?;
        if byte != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(())
}
