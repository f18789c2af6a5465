//! Room on the disk of the data directory: a part of it is kept for the control plane, so that tasks and uploads cannot keep it from
//! committing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ports::executor::TryId;
use ports::payload::{Checkpoint, CheckpointBackend, CheckpointError};
use ports::space::{Room, Space};

/// For how long what was seen holds: whoever writes meanwhile writes no more than a disk can take in this time.
const HOLDS: Duration = Duration::from_millis(20);
/// Of which size a part is kept unless somebody says how much, and the most of it.
const PART: u64 = 20;
const MOST: u64 = 2 << 30;
/// Stands for what nobody knows.
const UNKNOWN: u64 = u64::MAX;

/// The disk of a directory.
#[derive(Debug)]
pub(crate) struct DiskSpace {
    dir: PathBuf,
    floor: u64,
    start: Instant,
    /// When it was looked last, in microseconds since the start.
    looked_at: AtomicU64,
    free: AtomicU64,
}

impl DiskSpace {
    /// Keeps so many bytes free, or a twentieth of the disk and 2 GiB at most.
    pub(crate) fn new(dir: &Path, floor: Option<u64>) -> Self {
        let size = rustix::fs::statvfs(dir).map_or(0, |disk| disk.f_blocks.saturating_mul(disk.f_frsize));
        let space = Self {
            dir: dir.to_owned(),
            floor: floor.unwrap_or_else(|| (size / PART).min(MOST)),
            start: Instant::now(),
            looked_at: AtomicU64::new(0),
            free: AtomicU64::new(UNKNOWN),
        };
        space.look();
        space
    }

    fn look(&self) {
        let free = match rustix::fs::statvfs(&self.dir) {
            // What an ordinary user may still take.
            Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize),
            Err(error) => {
                tracing::debug!("cannot see how much room the disk has: {error}");
                UNKNOWN
            }
        };
        self.free.store(free, Ordering::Relaxed);
    }
}

impl Space for DiskSpace {
    fn room(&self) -> Room {
        let now = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let last = self.looked_at.load(Ordering::Relaxed);
        let holds = u64::try_from(HOLDS.as_micros()).unwrap_or(u64::MAX);
        if now.saturating_sub(last) >= holds
            && self
                .looked_at
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.look();
        }
        let free = self.free.load(Ordering::Relaxed);
        Room {
            free: (free != UNKNOWN).then_some(free),
            floor: self.floor,
        }
    }
}

/// Checkpoints on such a disk: while it is nearly full, tasks can load and clear theirs, and save nothing.
pub(crate) struct Checkpoints<B> {
    pub(crate) backend: B,
    pub(crate) space: Arc<dyn Space>,
}

#[async_trait]
impl<B: CheckpointBackend> CheckpointBackend for Checkpoints<B> {
    async fn load(&self, id: TryId) -> Result<Option<Vec<u8>>, CheckpointError> {
        self.backend.load(id).await
    }

    async fn save(&self, id: TryId, checkpoint: Option<Checkpoint>) -> Result<(), CheckpointError> {
        if checkpoint.is_some() {
            self.space.check().map_err(CheckpointError::NoSpace)?;
        }
        self.backend.save(id, checkpoint).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_a_part_of_the_disk_or_what_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let standard = DiskSpace::new(dir.path(), None).room();
        assert!(standard.floor > 0 && standard.floor <= MOST, "{standard:?}");
        assert!(standard.free.is_some_and(|free| free > 0));
        assert!(DiskSpace::new(dir.path(), Some(0)).check().is_ok());
        assert!(DiskSpace::new(dir.path(), Some(u64::MAX - 1)).check().is_err());
        let nowhere = DiskSpace::new(Path::new("/nowhere/at/all"), Some(1)).room();
        assert_eq!((nowhere.free, nowhere.check()), (None, Ok(())));
    }
}
