//! The directory: where blobs lie, and what happens to one as a whole.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use async_trait::async_trait;
use model::Digest;
use ports::payload::{BlobError, BlobReader, BlobStore, BlobWriter};
use ports::space::{NoSpace, Space, Unwatched};

use crate::reader::FileReader;
use crate::writer::FileWriter;

/// Blocks of all readers that are read at a time.
const MAX_READS: usize = 64;

/// Blobs in a local directory: `<dir>/<first two digits>/<the other 62>`, and `<dir>/tmp` for what is not finished.
#[derive(Clone)]
pub struct FileBlobStore {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    dir: PathBuf,
    /// Blocks that are read at a time: each has a descriptor and a thread for that moment.
    pub(crate) reads: tokio::sync::Semaphore,
    space: Arc<dyn Space>,
    /// The shards whose names are known to be durable.
    made_shards: Mutex<HashSet<PathBuf>>,
}

impl FileBlobStore {
    /// Opens (or creates) the directory and removes what a process left unfinished that is gone. Several processes may use a directory.
    pub fn open(dir: &Path) -> io::Result<Self> {
        Self::open_on(dir, Arc::new(Unwatched))
    }

    /// The same on a disk of which a part is kept: where less than that is free, nothing new is taken.
    pub fn open_on(dir: &Path, space: Arc<dyn Space>) -> io::Result<Self> {
        let temporary = dir.join("tmp");
        fs::create_dir_all(&temporary)?;
        for entry in fs::read_dir(&temporary)? {
            let path = entry?.path();
            if let Err(error) = remove_abandoned(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove an unfinished blob");
            }
        }
        sync_dir(dir)?;
        Ok(Self {
            inner: Arc::new(Inner {
                dir: dir.to_owned(),
                reads: tokio::sync::Semaphore::new(MAX_READS),
                space,
                made_shards: Mutex::default(),
            }),
        })
    }

    /// Where the blob lies if it exists.
    pub fn path(&self, digest: Digest) -> PathBuf {
        self.inner.path(digest)
    }

    /// The blobs of one shard (0 to 255) with the time of their last write.
    pub(crate) fn shard(&self, shard: u8) -> io::Result<Vec<(Digest, SystemTime)>> {
        let prefix = format!("{shard:02x}");
        let mut blobs = Vec::new();
        let entries = match fs::read_dir(self.inner.dir.join(&prefix)) {
            // A shard is made with its first blob.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(blobs),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = format!("sha256:{prefix}{}", entry.file_name().to_string_lossy());
            if let Ok(digest) = name.parse() {
                blobs.push((digest, entry.metadata()?.modified()?));
            }
        }
        Ok(blobs)
    }

    /// Removes a blob unless it was written again after `cutoff`.
    pub(crate) fn remove_if_older(&self, digest: Digest, cutoff: SystemTime) -> io::Result<bool> {
        let naming = self.inner.naming()?;
        naming.lock()?;
        let path = self.inner.path(digest);
        if fs::metadata(&path)?.modified()? >= cutoff {
            return Ok(false);
        }
        fs::remove_file(path)?;
        Ok(true)
    }
}

impl Inner {
    /// Refuses what is new while the disk is nearly full.
    pub(crate) fn check_room(&self) -> Result<(), BlobError> {
        self.space.check().map_err(BlobError::NoSpace)
    }

    pub(crate) fn path(&self, digest: Digest) -> PathBuf {
        let hex = digest.hex();
        let (shard, rest) = hex.split_at(2);
        self.dir.join(shard).join(rest)
    }

    /// The file whose lock is held shared while a finished blob takes its name, exclusively while the sweep judges and removes one: so a blob that
    /// is written again just now is never removed under its writer, which may be another process. Opened anew each time: the lock is the open
    /// file's.
    pub(crate) fn naming(&self) -> io::Result<fs::File> {
        // For reading too: file systems of a network ask for it where a lock is shared.
        fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.dir.join("naming-lock"))
    }

    /// Makes the directory of a blob's shard where it is missing; its name is durable when this returns.
    pub(crate) fn make_shard(&self, blob: &Path) -> io::Result<()> {
        let Some(shard) = blob.parent() else { return Ok(()) };
        let mut made = self
            .made_shards
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if made.contains(shard) {
            return Ok(());
        }
        match fs::create_dir(shard) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            // Whoever made it may not have come to sync it.
            _ => sync_dir(&self.dir)?,
        }
        made.insert(shard.to_owned());
        Ok(())
    }

    pub(crate) fn temporary_dir(&self) -> PathBuf {
        self.dir.join("tmp")
    }
}

/// Removes a temporary file unless its writer is alive: that one holds its lock.
fn remove_abandoned(path: &Path) -> io::Result<()> {
    let file = match fs::OpenOptions::new().read(true).write(true).open(path) {
        // It has got its name, or was dropped.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    match file.try_lock() {
        Ok(()) => fs::remove_file(path),
        Err(fs::TryLockError::WouldBlock) => Ok(()),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

pub(crate) fn io_error(doing: &'static str) -> impl FnOnce(io::Error) -> BlobError {
    move |source| match NoSpace::of(&source) {
        Some(why) => BlobError::NoSpace(why),
        None => BlobError::Io { doing, source },
    }
}

/// Runs blocking file work; a panic of it is an error, not a panic of the caller.
pub(crate) async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, BlobError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(io_error(doing)),
        Err(error) => Err(BlobError::Io {
            doing,
            source: io::Error::other(error),
        }),
    }
}

#[async_trait]
impl BlobStore for FileBlobStore {
    async fn create(&self) -> Result<Box<dyn BlobWriter>, BlobError> {
        let inner = Arc::clone(&self.inner);
        Ok(Box::new(FileWriter::create(inner).await?))
    }

    async fn open(&self, digest: Digest) -> Result<Box<dyn BlobReader>, BlobError> {
        let size = self.size(digest).await?.ok_or(BlobError::NotFound(digest))?;
        Ok(Box::new(FileReader::new(Arc::clone(&self.inner), digest, size)))
    }

    async fn size(&self, digest: Digest) -> Result<Option<u64>, BlobError> {
        let path = self.inner.path(digest);
        blocking("look up a blob", move || match fs::metadata(path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }

    async fn delete(&self, digest: Digest) -> Result<(), BlobError> {
        let path = self.inner.path(digest);
        blocking("delete a blob", move || match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    async fn put(store: &FileBlobStore, parts: &[&[u8]]) -> (Digest, u64) {
        let mut writer = store.create().await.unwrap();
        for part in parts {
            writer.write(Bytes::copy_from_slice(part)).await.unwrap();
        }
        writer.finish().await.unwrap()
    }

    async fn get(store: &FileBlobStore, digest: Digest, max: usize) -> Vec<u8> {
        let mut reader = store.open(digest).await.unwrap();
        let mut all = Vec::new();
        loop {
            let bytes = reader.read(max).await.unwrap();
            assert!(bytes.len() <= max);
            if bytes.is_empty() {
                return all;
            }
            all.extend_from_slice(&bytes);
        }
    }

    #[tokio::test]
    async fn what_was_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileBlobStore::open(dir.path()).unwrap();
        let large: Vec<u8> = (0..9_000_000_u32).map(|n| (n % 251) as u8).collect();
        let parts: Vec<&[u8]> = large.chunks(70_001).collect();
        let (digest, size) = put(&store, &parts).await;
        assert_eq!((digest, size), (Digest::of(&large), 9_000_000));
        assert_eq!(get(&store, digest, 100_000).await, large);
        assert_eq!(store.size(digest).await.unwrap(), Some(size));
        let (empty, _) = put(&store, &[]).await;
        assert_eq!(empty, Digest::of(b""));
        assert!(get(&store, empty, 10).await.is_empty());
    }

    /// A disk that has as much room as a test says.
    struct Disk(std::sync::atomic::AtomicU64);

    impl Space for Disk {
        fn room(&self) -> ports::space::Room {
            ports::space::Room {
                free: Some(self.0.load(std::sync::atomic::Ordering::Relaxed)),
                floor: 1_000,
            }
        }
    }

    #[tokio::test]
    async fn what_is_kept_free_is_not_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(Disk(1_000.into()));
        let store = FileBlobStore::open_on(dir.path(), disk.clone()).unwrap();
        let (digest, _) = put(&store, &[b"before"]).await;
        let mut writer = store.create().await.unwrap();
        disk.0.store(999, std::sync::atomic::Ordering::Relaxed);
        let why = NoSpace::Reserve {
            free: 999,
            floor: 1_000,
        };
        // A blob that was begun before grows no further, and a new one is not begun. What is there can be read.
        let large = Bytes::from(vec![0; 600 << 10]);
        assert!(matches!(writer.write(large).await, Err(BlobError::NoSpace(no)) if no == why));
        assert!(matches!(store.create().await, Err(BlobError::NoSpace(no)) if no == why));
        assert_eq!(get(&store, digest, 10).await, b"before");
        drop(writer);
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
        disk.0.store(2_000, std::sync::atomic::Ordering::Relaxed);
        put(&store, &[b"after"]).await;
    }

    #[tokio::test]
    async fn a_full_disk_is_told_from_a_broken_one() {
        let full = io_error("write a blob")(io::ErrorKind::StorageFull.into());
        assert!(matches!(full, BlobError::NoSpace(NoSpace::Full)));
        let quota = io_error("write a blob")(io::ErrorKind::QuotaExceeded.into());
        assert!(matches!(quota, BlobError::NoSpace(NoSpace::Full)));
        let broken = io_error("write a blob")(io::ErrorKind::PermissionDenied.into());
        assert!(matches!(broken, BlobError::Io { .. }));
    }

    #[tokio::test]
    async fn readers_that_nobody_reads_from_have_no_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileBlobStore::open(dir.path()).unwrap();
        let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let (digest, _) = put(&store, &[&content]).await;
        let mut readers = Vec::new();
        for _ in 0..200 {
            let mut reader = store.open(digest).await.unwrap();
            assert_eq!(reader.read(1).await.unwrap().as_ref(), [0]);
            readers.push(reader);
        }
        let path = store.path(digest);
        let open = || {
            let all = fs::read_dir("/proc/self/fd").unwrap();
            all.filter(|entry| fs::read_link(entry.as_ref().unwrap().path()).is_ok_and(|link| link == path))
                .count()
        };
        // The last blocks ahead may still be read.
        while open() > 0 {
            tokio::task::yield_now().await;
        }
        for reader in &mut readers {
            assert_eq!(reader.read(2).await.unwrap().as_ref(), [1, 2]);
        }
        fs::remove_file(&path).unwrap();
        let mut all = Vec::new();
        let ended = loop {
            match readers[0].read(1 << 20).await {
                Ok(bytes) if bytes.is_empty() => break Ok(()),
                Ok(bytes) => all.extend_from_slice(&bytes),
                Err(error) => break Err(error),
            }
        };
        assert!(
            matches!(ended, Err(BlobError::NotFound(_))),
            "it is said, not cut short"
        );
    }

    #[tokio::test]
    async fn an_unfinished_blob_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileBlobStore::open(dir.path()).unwrap();
        let mut writer = store.create().await.unwrap();
        writer.write(Bytes::from_static(b"abc")).await.unwrap();
        drop(writer);
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
        assert!(matches!(
            store.open(Digest::of(b"abc")).await,
            Err(BlobError::NotFound(_))
        ));
    }

    #[tokio::test]
    async fn a_restart_removes_what_was_not_finished() {
        let dir = tempfile::tempdir().unwrap();
        FileBlobStore::open(dir.path()).unwrap();
        fs::write(dir.path().join("tmp/left"), b"half").unwrap();
        FileBlobStore::open(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_another_process_is_writing_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileBlobStore::open(dir.path()).unwrap();
        let mut writer = store.create().await.unwrap();
        writer.write(Bytes::from_static(b"abc")).await.unwrap();
        // A lock belongs to the open file: a second store sees what a second process would.
        let beside = FileBlobStore::open(dir.path()).unwrap();
        let (digest, _) = writer.finish().await.unwrap();
        assert_eq!(get(&beside, digest, 10).await, b"abc");
    }

    #[tokio::test]
    async fn the_sweep_waits_for_a_blob_that_takes_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileBlobStore::open(dir.path()).unwrap();
        let (digest, _) = put(&store, &[b"abc"]).await;
        let old = SystemTime::now() - std::time::Duration::from_secs(7200);
        let blob = fs::File::open(store.path(digest)).unwrap();
        blob.set_modified(old).unwrap();
        let naming = store.inner.naming().unwrap();
        naming.lock_shared().unwrap();
        let beside = FileBlobStore::open(dir.path()).unwrap();
        let cutoff = old + std::time::Duration::from_secs(60);
        let sweeping = std::thread::spawn(move || beside.remove_if_older(digest, cutoff));
        // Another process writes the same content again.
        blob.set_modified(SystemTime::now()).unwrap();
        drop(naming);
        assert!(!sweeping.join().unwrap().unwrap());
        assert_eq!(get(&store, digest, 10).await, b"abc");
    }

    #[tokio::test]
    async fn a_truncated_file_is_damaged_not_short() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileBlobStore::open(dir.path()).unwrap();
        let (digest, _) = put(&store, &[b"0123456789"]).await;
        let mut reader = store.open(digest).await.unwrap();
        fs::OpenOptions::new()
            .write(true)
            .open(store.path(digest))
            .unwrap()
            .set_len(3)
            .unwrap();
        assert!(matches!(reader.read(100).await, Err(BlobError::Damaged(_))));
    }
}
