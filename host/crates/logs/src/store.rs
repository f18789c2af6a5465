//! What writers and readers of logs see.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use async_trait::async_trait;
use model::{DispatchNumber, RunUuid, Timestamp};
use ports::executor::TryId;
use ports::log::{LogKey, LogLine, LogPart, LogReader, LogSink, LogSource};
use ports::space::{Space, Unwatched};
use tokio::sync::{oneshot, watch};

use crate::file;
use crate::writer::{Batch, Message, Writer};

/// Bytes that may wait for the writer.
const MAX_QUEUED_BYTES: usize = 32 << 20;
/// What a message takes beside its text.
const MESSAGE_BYTES: usize = 256;

/// Logs in files.
#[derive(Clone)]
pub struct FileLogStore {
    dir: PathBuf,
    shared: Arc<Shared>,
    messages: mpsc::Sender<Message>,
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
    /// Lines that did not fit the queue and that the log does not say yet, and when the last of them came.
    dropped: Option<(u64, Timestamp)>,
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
        Self::open_on(dir, Arc::new(Unwatched))
    }

    /// The same on a disk of which a part is kept: where less than that is free, lines of tasks are lost, and counted.
    pub fn open_on(dir: &Path, space: Arc<dyn Space>) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let shared = Arc::new(Shared::default());
        let (messages, receiver) = mpsc::channel();
        let writer = Writer::new(dir.to_owned(), Arc::clone(&shared), space);
        std::thread::Builder::new()
            .name("log-writer".into())
            .spawn(move || writer.run(&receiver))?;
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
                    dropped: None,
                    has_lines: false,
                    changed,
                });
            }
        }
    }

    fn append(&self, id: TryId, lines: Vec<LogLine>) {
        let key = LogKey::of(id);
        let count = lines.len() as u64;
        let refused = &self.shared.refused_lines;
        // Written out here: what waits is counted to the byte, and the thread that writes all logs does no more than that.
        let Some(batch) = batch(&lines) else { return };
        let mut live = self.shared.live();
        let Some(live) = live.get_mut(&key).filter(|live| live.dispatch == id.dispatch) else {
            refused.fetch_add(count, Ordering::Relaxed);
            return;
        };
        let bytes = batch.text.capacity() + MESSAGE_BYTES;
        if self.shared.queued_bytes.load(Ordering::Relaxed) + bytes > MAX_QUEUED_BYTES {
            let before = live.dropped.map_or(0, |(lines, _)| lines);
            live.dropped = Some((before.saturating_add(count), batch.at));
            refused.fetch_add(count, Ordering::Relaxed);
            return;
        }
        self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let dropped = live.dropped.take().map_or(0, |(lines, _)| lines);
        live.has_lines = true;
        // The writer only ends when all senders are gone.
        let _ = self.messages.send(Message::Lines {
            key,
            batch,
            bytes,
            dropped,
        });
    }

    fn close(&self, id: TryId) {
        let key = LogKey::of(id);
        let (generation, dropped) = {
            let mut live = self.shared.live();
            match live.get_mut(&key).filter(|log| log.dispatch == id.dispatch) {
                Some(log) if log.has_lines || log.dropped.is_some() => (log.generation, log.dropped.take()),
                // A try that said nothing is not worth waking the writer's thread for.
                Some(_) => {
                    live.remove(&key);
                    return;
                }
                None => return,
            }
        };
        let _ = self.messages.send(Message::Close {
            key,
            generation,
            dropped,
        });
    }
}

/// Lines as they are stored. None where there are none.
fn batch(lines: &[LogLine]) -> Option<Batch> {
    let last = lines.last()?;
    let mut text = Vec::with_capacity(lines.iter().map(|line| line.event.len() + 128).sum());
    let mut count = 0;
    for line in lines {
        let start = text.len();
        line.store(&mut text);
        if (text.len() - start) as u64 >= file::MAX_LINE_BYTES {
            text.truncate(start);
        } else {
            count += 1;
        }
    }
    Some(Batch {
        text,
        lines: count,
        at: last.timestamp,
        ours: lines.iter().all(|line| line.source == LogSource::System),
    })
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
        file::delete_run(&self.dir, run).await?;
        let _ = self.messages.send(Message::Deleted(run));
        Ok(())
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

    /// A disk of which a test says whether there is room.
    #[derive(Default)]
    struct Disk(std::sync::atomic::AtomicBool);

    impl Space for Disk {
        fn room(&self) -> ports::space::Room {
            let full = self.0.load(Ordering::Relaxed);
            ports::space::Room {
                free: Some(if full { 0 } else { 10 << 20 }),
                floor: 5 << 20,
            }
        }
    }

    fn system(text: &str) -> LogLine {
        LogLine {
            source: LogSource::System,
            ..line(text)
        }
    }

    #[tokio::test]
    async fn what_a_full_disk_swallows_is_counted_in_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileLogStore::open(dir.path()).unwrap();
        let (id, key) = (try_id(1), LogKey::of(try_id(1)));
        let path = file::path(dir.path(), key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // Every write to it fails as on a full disk.
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        store.open(id);
        store.append(id, vec![line("lost"), line("lost")]);
        store.append(id, vec![line("lost too")]);
        store.flush().await;
        fs::remove_file(&path).unwrap();
        store.append(id, vec![line("there is room again")]);
        store.close(id);
        store.flush().await;
        let part = store.read(key, 0, 100).await.unwrap();
        assert_eq!(
            texts(&part),
            [
                "3 lines are missing here: the server could not write to this log (the server's disk is full)",
                "there is room again"
            ]
        );
        assert_eq!(part.lines[0].source, LogSource::System);
    }

    #[tokio::test]
    async fn a_log_that_ended_on_a_full_disk_says_so_later() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(Disk::default());
        let store = FileLogStore::open_on(dir.path(), disk.clone()).unwrap();
        let (id, key) = (try_id(1), LogKey::of(try_id(1)));
        let path = file::path(dir.path(), key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        store.open(id);
        store.append(id, vec![line("lost")]);
        store.close(id);
        store.flush().await;
        fs::remove_file(&path).unwrap();
        store.flush().await;
        let part = store.read(key, 0, 100).await.unwrap();
        assert_eq!(part.lines.len(), 1);
        assert!(texts(&part)[0].starts_with("1 line is missing here"), "{part:?}");
    }

    #[tokio::test]
    async fn what_is_kept_free_is_for_the_server_s_own_lines() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(Disk::default());
        let store = FileLogStore::open_on(dir.path(), disk.clone()).unwrap();
        let (id, key) = (try_id(1), LogKey::of(try_id(1)));
        store.open(id);
        store.append(id, vec![line("before")]);
        store.flush().await;
        disk.0.store(true, Ordering::Relaxed);
        store.append(id, vec![line("a")]);
        store.flush().await;
        store.append(id, vec![line("b")]);
        store.append(id, vec![system("failed: boom")]);
        store.append(id, vec![line("c")]);
        store.close(id);
        store.flush().await;
        let part = store.read(key, 0, 100).await.unwrap();
        let texts = texts(&part);
        assert_eq!(texts.len(), 4, "{texts:?}");
        assert_eq!((texts[0], texts[2]), ("before", "failed: boom"));
        assert!(
            texts[1].starts_with("2 lines are missing here") && texts[1].contains("keeps 5 MiB for itself"),
            "{texts:?}"
        );
        assert!(texts[3].starts_with("1 line is missing here"), "{texts:?}");
    }

    #[tokio::test]
    async fn what_a_deleted_run_lost_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileLogStore::open(dir.path()).unwrap();
        let (id, key) = (try_id(1), LogKey::of(try_id(1)));
        let path = file::path(dir.path(), key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        store.open(id);
        store.append(id, vec![line("lost")]);
        store.close(id);
        store.flush().await;
        store.delete_run(id.run_uuid).await.unwrap();
        store.flush().await;
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_a_line_costs_is_what_it_takes() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileLogStore::open(dir.path()).unwrap();
        let (id, key) = (try_id(1), LogKey::of(try_id(1)));
        store.open(id);
        store.append(id, vec![line(""), line("\u{1}\"")]);
        store.flush().await;
        assert_eq!(store.shared.queued_bytes.load(Ordering::Relaxed), 0);
        let stored = fs::metadata(file::path(dir.path(), key)).unwrap().len();
        assert_eq!(stored, line("").stored_bytes() + line("\u{1}\"").stored_bytes());
    }

    /// A file system of its own in memory; none where this process may not make one.
    struct SmallDisk(tempfile::TempDir);

    impl SmallDisk {
        fn mount(kib: u32) -> Option<Self> {
            let dir = tempfile::tempdir().unwrap();
            let mut mount = std::process::Command::new("mount");
            mount
                .args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"])
                .arg(dir.path());
            mount.stderr(std::process::Stdio::null());
            mount.status().is_ok_and(|status| status.success()).then_some(Self(dir))
        }
    }

    impl Drop for SmallDisk {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount")
                .arg("-l")
                .arg(self.0.path())
                .status();
        }
    }

    /// Notes a skipped test loudly: on standard error, and in the file that the test command counts.
    fn skip(test: &str, reason: &str) {
        use std::io::Write as _;
        let line = format!("{test}: {reason}");
        let _ = writeln!(std::io::stderr(), "skipped: {line}");
        if let Some(path) = std::env::var_os("AIRTIGHT_SKIP_LOG") {
            let mut file = fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
            writeln!(file, "{line}").unwrap();
        }
    }

    #[tokio::test]
    async fn a_disk_that_fills_up_tears_no_line() {
        let Some(disk) = SmallDisk::mount(64) else {
            skip("a_disk_that_fills_up_tears_no_line", "only root can mount a small disk");
            return;
        };
        let store = FileLogStore::open(disk.0.path()).unwrap();
        let (id, key) = (try_id(1), LogKey::of(try_id(1)));
        let ballast = disk.0.path().join("ballast");
        fs::write(&ballast, vec![0; 32 << 10]).unwrap();
        store.open(id);
        for round in 0..100 {
            store.append(
                id,
                (0..10)
                    .map(|n| line(&format!("line {round} {n} {}", "x".repeat(n * 7))))
                    .collect(),
            );
        }
        store.flush().await;
        let kept = store.read(key, 0, 10_000).await.unwrap().lines.len();
        let text = fs::read_to_string(file::path(disk.0.path(), key)).unwrap();
        assert_eq!(text.lines().count(), kept, "every line can be read");
        assert!(text.ends_with('\n') && kept > 10 && kept < 1_000, "{kept}");
        fs::remove_file(&ballast).unwrap();
        store.append(id, vec![line("last")]);
        store.close(id);
        store.flush().await;
        let part = store.read(key, 0, 10_000).await.unwrap();
        let says = texts(&part)[kept];
        assert!(
            says.starts_with(&format!("{} lines are missing here", 1_000 - kept)),
            "{says}"
        );
        assert_eq!(texts(&part)[kept + 1], "last");
    }

    /// Fills the queue while the writer waits for a pipe that nobody reads.
    #[tokio::test]
    async fn the_queue_counts_fields_and_empty_lines() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileLogStore::open(dir.path()).unwrap();
        let (id, key) = (try_id(1), LogKey::of(try_id(1)));
        let path = file::path(dir.path(), key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.is_ok_and(|status| status.success()), "mkfifo is there");
        store.open(id);
        let large = LogLine {
            fields: Some(serde_json::json!({ "list": vec![0; 16 << 10] })),
            ..line("")
        };
        // It is opened for reading and writing, so that it opens at once; what it holds is 64 KiB.
        for _ in 0..1_500 {
            store.append(id, vec![large.clone()]);
        }
        let most = MAX_QUEUED_BYTES + (1 << 20);
        let queued = store.shared.queued_bytes.load(Ordering::Relaxed);
        assert!(queued > MAX_QUEUED_BYTES / 2 && queued <= most, "{queued}");
        assert!(store.refused_lines() > 300, "{}", store.refused_lines());
        store.close(id);
        // Somebody reads: the writer goes on, and the log says what did not fit.
        let pipe = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let reading = std::thread::spawn(move || {
            use std::io::{BufRead as _, BufReader};
            let found = BufReader::new(pipe)
                .lines()
                .map_while(Result::ok)
                .find(|line| line.contains("were dropped"));
            found.is_some()
        });
        assert!(reading.join().unwrap());
    }
}
