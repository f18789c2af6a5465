//! Reading logs that another process writes.
//!
//! Nothing tells this process what is written, nor that a log has ended: the file is looked at, and whoever reads must ask elsewhere whether
//! the try is over.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use model::RunUuid;
use ports::log::{LogKey, LogPart, LogReader};

use crate::file;

/// How often a file is looked at while somebody waits for it.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often before whoever waits should ask whether the try is over.
const LOOKS: u32 = 5;
/// For how long the file of a try that is over must stay as it is, until it is taken that all is written.
const QUIET: Duration = Duration::from_millis(200);

/// The logs in a directory that another process writes to.
#[derive(Clone, Debug)]
pub struct SharedLogs {
    dir: PathBuf,
}

impl SharedLogs {
    /// Reads the directory; it need not exist yet.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    async fn length(&self, key: LogKey) -> u64 {
        tokio::fs::metadata(file::path(&self.dir, key))
            .await
            .map_or(0, |metadata| metadata.len())
    }
}

#[async_trait]
impl LogReader for SharedLogs {
    async fn read(&self, key: LogKey, from: u64, max_lines: usize) -> io::Result<LogPart> {
        let path = file::path(&self.dir, key);
        let (lines, next) = tokio::task::spawn_blocking(move || file::read(&path, from, max_lines))
            .await
            .map_err(io::Error::other)??;
        Ok(LogPart {
            lines,
            next,
            ended: false,
        })
    }

    async fn wait(&self, key: LogKey, from: u64) {
        for _ in 0..LOOKS {
            // Also before the first look: a line that is cut must not keep its reader busy.
            tokio::time::sleep(LOOK_EVERY).await;
            if self.length(key).await > from {
                return;
            }
        }
    }

    async fn settle(&self, key: LogKey) -> bool {
        let before = self.length(key).await;
        tokio::time::sleep(QUIET).await;
        self.length(key).await == before
    }

    async fn delete_run(&self, run: RunUuid) -> io::Result<()> {
        file::delete_run(&self.dir, run).await
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    fn key() -> LogKey {
        LogKey::of_callback(RunUuid(uuid::Uuid::from_u128(7)), ports::callback::CallbackId(3))
    }

    fn file(dir: &Path) -> fs::File {
        let path = file::path(dir, key());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::OpenOptions::new().create(true).append(true).open(path).unwrap()
    }

    const LINE: &str =
        "{\"timestamp\":\"1970-01-01T00:00:00Z\",\"level\":\"info\",\"source\":\"stdout\",\"event\":\"a\"}\n";

    #[tokio::test(start_paused = true)]
    async fn reads_what_another_writes_and_never_says_that_it_ended() {
        let dir = tempfile::tempdir().unwrap();
        let logs = SharedLogs::new(dir.path());
        let none = logs.read(key(), 0, 10).await.unwrap();
        assert_eq!((none.lines.len(), none.next, none.ended), (0, 0, false));
        // Nothing comes: whoever waits is sent to ask.
        logs.wait(key(), 0).await;
        let mut written = file(dir.path());
        written.write_all(LINE.as_bytes()).unwrap();
        logs.wait(key(), 0).await;
        let one = logs.read(key(), 0, 10).await.unwrap();
        assert_eq!((one.lines.len(), one.next, one.ended), (1, LINE.len() as u64, false));
        // A cut line is neither given out nor lost.
        let (start, end) = LINE.split_at(20);
        written.write_all(start.as_bytes()).unwrap();
        assert!(logs.read(key(), one.next, 10).await.unwrap().lines.is_empty());
        written.write_all(end.as_bytes()).unwrap();
        assert_eq!(logs.read(key(), one.next, 10).await.unwrap().lines.len(), 1);
        logs.delete_run(key().run_uuid).await.unwrap();
        assert!(logs.read(key(), 0, 10).await.unwrap().lines.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn settles_once_nothing_comes_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let logs = SharedLogs::new(dir.path());
        assert!(logs.settle(key()).await, "a try that says nothing has no file");
        let mut written = file(dir.path());
        let writing = async {
            // Between the two looks: `settle` has taken the length before it sleeps.
            tokio::time::sleep(QUIET / 2).await;
            written.write_all(LINE.as_bytes()).unwrap();
        };
        let (settled, ()) = tokio::join!(logs.settle(key()), writing);
        assert!(!settled);
        assert!(logs.settle(key()).await);
    }
}
