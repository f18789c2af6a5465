//! The thread that writes.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use ports::log::{LogKey, LogLevel, LogLine, LogSource};
use tokio::sync::{mpsc, oneshot};

use crate::file;
use crate::store::Shared;

/// Files that stay open.
const MAX_OPEN_FILES: usize = 128;

pub(crate) enum Message {
    Lines {
        key: LogKey,
        lines: Vec<LogLine>,
        bytes: usize,
        dropped: u64,
    },
    Close {
        key: LogKey,
        generation: u64,
    },
    /// Answers once all that came before is written.
    Barrier(oneshot::Sender<()>),
}

pub(crate) struct Writer {
    pub(crate) dir: PathBuf,
    pub(crate) shared: Arc<Shared>,
    pub(crate) files: HashMap<LogKey, fs::File>,
}

impl Writer {
    pub(crate) fn run(mut self, mut messages: mpsc::UnboundedReceiver<Message>) {
        while let Some(message) = messages.blocking_recv() {
            match message {
                Message::Lines {
                    key,
                    lines,
                    bytes,
                    dropped,
                } => {
                    if let Err(error) = self.append(key, lines, dropped) {
                        self.files.remove(&key);
                        tracing::warn!(run.uuid = %key.run_uuid, %error, "cannot write a task log");
                    }
                    self.shared.written(key, bytes);
                }
                Message::Close { key, generation } => {
                    self.files.remove(&key);
                    self.shared.closed(key, generation);
                }
                Message::Barrier(done) => {
                    let _ = done.send(());
                }
            }
        }
    }

    fn append(&mut self, key: LogKey, lines: Vec<LogLine>, dropped: u64) -> io::Result<()> {
        let mut text = Vec::new();
        if dropped > 0
            && let Some(first) = lines.first()
        {
            let event = format!("{dropped} lines were dropped: the log came faster than it could be written");
            let notice = LogLine {
                timestamp: first.timestamp,
                level: LogLevel::Warning,
                source: LogSource::System,
                event,
                fields: None,
            };
            serde_json::to_writer(&mut text, &notice)?;
            text.push(b'\n');
        }
        for line in lines {
            let start = text.len();
            serde_json::to_writer(&mut text, &line)?;
            if (text.len() - start) as u64 >= file::MAX_LINE_BYTES {
                text.truncate(start);
                continue;
            }
            text.push(b'\n');
        }
        self.file(key)?.write_all(&text)
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
