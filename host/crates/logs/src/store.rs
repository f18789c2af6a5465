//! What writers and readers of logs see.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use model::{DispatchNumber, RunUuid};
use ports::executor::TryId;
use ports::log::{LogKey, LogLine, LogPart, LogReader, LogSink};
use tokio::sync::{mpsc, oneshot, watch};

use crate::file;
use crate::writer::{Message, Writer};

/// Bytes that may wait for the writer.
const MAX_QUEUED_BYTES: usize = 32 << 20;

/// Logs in files.
#[derive(Clone)]
pub struct FileLogStore {
    dir: PathBuf,
    shared: Arc<Shared>,
    messages: mpsc::UnboundedSender<Message>,
}

/// What the writer and the others share.
#[derive(Default)]
pub(crate) struct Shared {
    live: Mutex<HashMap<LogKey, Live>>,
    queued_bytes: AtomicUsize,
    refused_lines: AtomicU64,
}

/// A log that is being written.
struct Live {
    dispatch: DispatchNumber,
    /// Rises with each dispatch, so that the end of an earlier one does not end this one.
    generation: u64,
    dropped: u64,
    /// Whether the writer has heard of it.
    has_lines: bool,
    /// Counts what was written; dropped when the log ends.
    changed: watch::Sender<u64>,
}

impl Shared {
    fn live(&self) -> MutexGuard<'_, HashMap<LogKey, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn written(&self, key: LogKey, bytes: usize) {
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(live) = self.live().get(&key) {
            live.changed.send_modify(|count| *count += 1);
        }
    }

    pub(crate) fn closed(&self, key: LogKey, generation: u64) {
        let mut live = self.live();
        if live.get(&key).is_some_and(|live| live.generation == generation) {
            live.remove(&key);
        }
    }
}

impl FileLogStore {
    /// Opens (or creates) the directory and starts the writer. It ends when the last clone is dropped.
    pub fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let shared = Arc::new(Shared::default());
        let (messages, receiver) = mpsc::unbounded_channel();
        let writer = Writer {
            dir: dir.to_owned(),
            shared: Arc::clone(&shared),
            files: HashMap::new(),
        };
        std::thread::Builder::new()
            .name("log-writer".into())
            .spawn(move || writer.run(receiver))?;
        Ok(Self {
            dir: dir.to_owned(),
            shared,
            messages,
        })
    }

    /// Lines that were refused: they came from a dispatch that is no longer the current one, or did not fit the queue.
    pub fn refused_lines(&self) -> u64 {
        self.shared.refused_lines.load(Ordering::Relaxed)
    }

    /// Waits until all that was appended before is written.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.messages.send(Message::Barrier(done)).is_ok() {
            let _ = written.await;
        }
    }

    fn watch(&self, key: LogKey) -> Option<watch::Receiver<u64>> {
        self.shared.live().get(&key).map(|live| live.changed.subscribe())
    }

    async fn read_file(&self, key: LogKey, from: u64, max_lines: usize) -> io::Result<(Vec<LogLine>, u64)> {
        let path = file::path(&self.dir, key);
        tokio::task::spawn_blocking(move || file::read(&path, from, max_lines))
            .await
            .map_err(io::Error::other)?
    }
}

impl LogSink for FileLogStore {
    fn open(&self, id: TryId) {
        let mut live = self.shared.live();
        match live.entry(LogKey::of(id)) {
            std::collections::hash_map::Entry::Occupied(mut entry) => {
                let live = entry.get_mut();
                if id.dispatch > live.dispatch {
                    live.dispatch = id.dispatch;
                    live.generation += 1;
                }
            }
            std::collections::hash_map::Entry::Vacant(entry) => {
                let changed = watch::Sender::new(0);
                entry.insert(Live {
                    dispatch: id.dispatch,
                    generation: 0,
                    dropped: 0,
                    has_lines: false,
                    changed,
                });
            }
        }
    }

    fn append(&self, id: TryId, lines: Vec<LogLine>) {
        let key = LogKey::of(id);
        let bytes: usize = lines.iter().map(|line| line.event.len() + 128).sum();
        let mut live = self.shared.live();
        let refused = &self.shared.refused_lines;
        let Some(live) = live.get_mut(&key).filter(|live| live.dispatch == id.dispatch) else {
            refused.fetch_add(lines.len() as u64, Ordering::Relaxed);
            return;
        };
        if self.shared.queued_bytes.load(Ordering::Relaxed) + bytes > MAX_QUEUED_BYTES {
            live.dropped += lines.len() as u64;
            refused.fetch_add(lines.len() as u64, Ordering::Relaxed);
            return;
        }
        self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let dropped = std::mem::take(&mut live.dropped);
        live.has_lines = true;
        // The writer only ends when all senders are gone.
        let _ = self.messages.send(Message::Lines {
            key,
            lines,
            bytes,
            dropped,
        });
    }

    fn close(&self, id: TryId) {
        let key = LogKey::of(id);
        let generation = {
            let mut live = self.shared.live();
            match live.get(&key).filter(|log| log.dispatch == id.dispatch) {
                Some(log) if log.has_lines => log.generation,
                // A try that said nothing is not worth waking the writer's thread for.
                Some(_) => {
                    live.remove(&key);
                    return;
                }
                None => return,
            }
        };
        let _ = self.messages.send(Message::Close { key, generation });
    }
}

#[async_trait]
impl LogReader for FileLogStore {
    async fn read(&self, key: LogKey, from: u64, max_lines: usize) -> io::Result<LogPart> {
        let was_live = self.watch(key).is_some();
        if was_live {
            self.flush().await;
        }
        // Asked before reading: a log that has ended cannot grow any more.
        let ended = self.watch(key).is_none();
        let (lines, next) = self.read_file(key, from, max_lines).await?;
        let ended = ended && lines.len() < max_lines;
        Ok(LogPart { lines, next, ended })
    }

    async fn wait(&self, key: LogKey, from: u64) {
        let Some(mut changed) = self.watch(key) else { return };
        loop {
            changed.borrow_and_update();
            let length = tokio::fs::metadata(file::path(&self.dir, key))
                .await
                .map_or(0, |metadata| metadata.len());
            if length > from || changed.changed().await.is_err() {
                return;
            }
        }
    }

    async fn delete_run(&self, run: RunUuid) -> io::Result<()> {
        file::delete_run(&self.dir, run).await
    }
}

#[cfg(test)]
mod tests {
    use model::{DagRunKey, MapIndex, TaskIndex, TiKey, Timestamp, TryNumber};
    use ports::log::{LogLevel, LogSource};

    use super::*;

    fn try_id(dispatch: u32) -> TryId {
        TryId {
            ti: TiKey {
                run: DagRunKey(1),
                task: TaskIndex(2),
                map_index: MapIndex::UNMAPPED,
            },
            run_uuid: RunUuid(uuid::Uuid::from_u128(7)),
            try_number: TryNumber(1),
            dispatch: DispatchNumber(dispatch),
            callback: None,
        }
    }

    fn line(text: &str) -> LogLine {
        LogLine {
            timestamp: Timestamp(0),
            level: LogLevel::Info,
            source: LogSource::Stdout,
            event: text.into(),
            fields: None,
        }
    }

    fn texts(part: &LogPart) -> Vec<&str> {
        part.lines.iter().map(|line| line.event.as_str()).collect()
    }

    #[tokio::test]
    async fn lines_are_readable_while_live_and_after() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileLogStore::open(dir.path()).unwrap();
        let (id, key) = (try_id(1), LogKey::of(try_id(1)));
        store.open(id);
        store.append(id, vec![line("one"), line("two")]);
        let part = store.read(key, 0, 100).await.unwrap();
        assert_eq!((texts(&part), part.ended), (vec!["one", "two"], false));
        store.append(id, vec![line("last")]);
        store.close(id);
        store.wait(key, part.next).await;
        store.flush().await;
        let rest = store.read(key, part.next, 100).await.unwrap();
        assert_eq!((texts(&rest), rest.ended), (vec!["last"], true));
        let first = store.read(key, 0, 1).await.unwrap();
        assert_eq!((texts(&first), first.ended), (vec!["one"], false));
    }

    #[tokio::test]
    async fn a_follower_wakes_for_lines_and_for_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileLogStore::open(dir.path()).unwrap();
        let (id, key) = (try_id(1), LogKey::of(try_id(1)));
        store.open(id);
        let follower = tokio::spawn({
            let store = store.clone();
            async move {
                let (mut from, mut seen) = (0, Vec::new());
                loop {
                    let part = store.read(key, from, 100).await.unwrap();
                    seen.extend(part.lines.into_iter().map(|line| line.event));
                    from = part.next;
                    if part.ended {
                        return seen;
                    }
                    store.wait(key, from).await;
                }
            }
        });
        for text in ["a", "b", "c"] {
            store.append(id, vec![line(text)]);
            tokio::task::yield_now().await;
        }
        store.close(id);
        assert_eq!(follower.await.unwrap(), ["a", "b", "c"]);
    }

    #[tokio::test]
    async fn a_log_without_lines_ends_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileLogStore::open(dir.path()).unwrap();
        let (id, key) = (try_id(1), LogKey::of(try_id(1)));
        store.open(id);
        store.close(try_id(0));
        assert!(store.watch(key).is_some(), "another dispatch does not end it");
        store.close(id);
        assert!(store.watch(key).is_none());
        assert!(store.read(key, 0, 100).await.unwrap().ended);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn lines_of_an_earlier_dispatch_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileLogStore::open(dir.path()).unwrap();
        store.open(try_id(1));
        store.append(try_id(1), vec![line("first")]);
        store.open(try_id(2));
        store.append(try_id(1), vec![line("late")]);
        store.close(try_id(1));
        store.append(try_id(2), vec![line("second")]);
        let part = store.read(LogKey::of(try_id(2)), 0, 100).await.unwrap();
        assert_eq!((texts(&part), part.ended), (vec!["first", "second"], false));
        assert_eq!(store.refused_lines(), 1);
        store.delete_run(try_id(1).run_uuid).await.unwrap();
        assert!(
            store
                .read(LogKey::of(try_id(2)), 0, 100)
                .await
                .unwrap()
                .lines
                .is_empty()
        );
    }

    #[tokio::test]
    async fn a_line_that_was_cut_by_a_crash_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let key = LogKey::of(try_id(1));
        let path = file::path(dir.path(), key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "{\"timestamp\":\"1970-01").unwrap();
        let store = FileLogStore::open(dir.path()).unwrap();
        store.open(try_id(1));
        store.append(try_id(1), vec![line("whole")]);
        let part = store.read(key, 0, 100).await.unwrap();
        assert_eq!(texts(&part), ["whole"]);
    }
}
