//! Removing blobs that nothing refers to.

use std::time::{Duration, SystemTime};

use ports::query::QueryError;
use ports::store::BlobRefs;

use crate::store::FileBlobStore;

/// How many digests are judged in one question to the database.
const BATCH: usize = 500;

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Blobs that exist.
    pub seen: u64,
    /// Blobs that were removed.
    pub removed: u64,
}

/// Why a sweep stopped early.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The directory could not be read.
    #[error("cannot read the blob directory")]
    Io(#[from] std::io::Error),
    /// The database did not answer.
    #[error(transparent)]
    Query(#[from] QueryError),
}

/// Removes the blobs that no row refers to and that were written at least `young` before `now`: a blob is written before the
/// transaction that refers to it.
pub async fn sweep(
    store: &FileBlobStore,
    refs: &dyn BlobRefs,
    now: SystemTime,
    young: Duration,
) -> Result<SweepReport, SweepError> {
    let cutoff = now.checked_sub(young).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut report = SweepReport::default();
    for shard in 0..=255 {
        let listing = store.clone();
        let blobs = tokio::task::spawn_blocking(move || listing.shard(shard))
            .await
            .map_err(std::io::Error::other)??;
        report.seen += blobs.len() as u64;
        let old: Vec<_> = blobs
            .into_iter()
            .filter(|(_, written)| *written < cutoff)
            .map(|(digest, _)| digest)
            .collect();
        for batch in old.chunks(BATCH) {
            for digest in refs.unreferenced(batch).await? {
                match store.remove_if_older(digest, cutoff) {
                    Ok(true) => report.removed += 1,
                    Ok(false) => {}
                    Err(error) => tracing::warn!(%digest, %error, "cannot remove a blob"),
                }
            }
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use bytes::Bytes;
    use model::Digest;
    use ports::payload::BlobStore as _;

    use super::*;

    struct Keep(Vec<Digest>);

    #[async_trait]
    impl BlobRefs for Keep {
        async fn unreferenced(&self, digests: &[Digest]) -> Result<Vec<Digest>, QueryError> {
            Ok(digests
                .iter()
                .copied()
                .filter(|digest| !self.0.contains(digest))
                .collect())
        }
    }

    #[tokio::test]
    async fn removes_old_blobs_without_a_reference_and_spares_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileBlobStore::open(dir.path()).unwrap();
        let mut digests = Vec::new();
        for content in ["kept", "old", "young"] {
            let mut writer = store.create().await.unwrap();
            writer.write(Bytes::from(content)).await.unwrap();
            digests.push(writer.finish().await.unwrap().0);
        }
        let hour = Duration::from_secs(3600);
        let now = SystemTime::now();
        for digest in &digests[..2] {
            std::fs::File::open(store.path(*digest))
                .unwrap()
                .set_modified(now - 2 * hour)
                .unwrap();
        }
        let refs = Keep(vec![digests[0]]);
        assert_eq!(
            sweep(&store, &refs, now, hour).await.unwrap(),
            SweepReport { seen: 3, removed: 1 }
        );
        assert_eq!(store.size(digests[0]).await.unwrap(), Some(4));
        assert_eq!(store.size(digests[1]).await.unwrap(), None);
        assert_eq!(store.size(digests[2]).await.unwrap(), Some(5));
    }
}
