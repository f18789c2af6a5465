//! Checkpoints, and the blobs that only they refer to.

use std::time::{Duration, SystemTime};

use blobs::FileBlobStore;
use bytes::Bytes;
use model::{Digest, DispatchNumber, TaskInstanceState};
use ports::payload::{BlobStore as _, Checkpoint};
use ports::store::{BlobRefs as _, SchedulerStore as _, TickWrite};
use rstest::rstest;

use crate::support::{Backend, NOW, TestDb, checkpoint, key, new_run, ti, tick, version, xcom};

const HOUR: Duration = Duration::from_secs(3600);

async fn put(store: &FileBlobStore, content: &'static str) -> Digest {
    let mut writer = store.create().await.unwrap();
    writer.write(Bytes::from(content)).await.unwrap();
    writer.finish().await.unwrap().0
}

#[rstest]
#[tokio::test]
async fn a_blob_that_only_a_checkpoint_refers_to_lives_as_long_as_that(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let version = version("etl", 1, &["load", "train"]);
    let lease = test.with_dag(&version).await;
    test.commit(
        &lease,
        TickWrite {
            new_runs: vec![new_run(&version, 1)],
            task_instances: [(0, "load"), (1, "train")]
                .map(|(task, name)| ti(key(1, task), name, TaskInstanceState::Running))
                .into(),
            xcoms: vec![xcom(key(1, 0), "partial", "1")],
            ..tick()
        },
    )
    .await;
    let directory = tempfile::tempdir().unwrap();
    let store = FileBlobStore::open(directory.path()).unwrap();
    let (first, second) = (put(&store, "first").await, put(&store, "second").await);
    let save = |task, saved: Option<Checkpoint>| {
        let (db, lease) = (&test.db, &lease);
        async move {
            let saved = db
                .save_checkpoint(lease, key(1, task), DispatchNumber(0), saved.as_ref(), NOW)
                .await;
            assert!(saved.unwrap());
        }
    };
    // All that is here is older than an hour two hours from now.
    let sweep = || async {
        let now = SystemTime::now() + 2 * HOUR;
        blobs::sweep(&store, &test.db, now, HOUR).await.unwrap();
        let size = async |digest| store.size(digest).await.unwrap().is_some();
        (size(first).await, size(second).await)
    };

    // The same blob twice, in two checkpoints.
    save(0, Some(checkpoint(b"1", &[first, second, first]))).await;
    save(1, Some(checkpoint(b"1", &[first]))).await;
    assert_eq!(sweep().await, (true, true));
    // A new try deletes the XComs; the checkpoint is what survives.
    test.commit(
        &lease,
        TickWrite {
            xcom_deletes: vec![key(1, 0)],
            ..tick()
        },
    )
    .await;
    assert_eq!(sweep().await, (true, true));
    // A stale dispatch changes nothing, a repeat replaces.
    let stale = test
        .db
        .save_checkpoint(&lease, key(1, 0), DispatchNumber(7), Some(&checkpoint(b"2", &[])), NOW)
        .await;
    assert!(!stale.unwrap());
    assert_eq!(sweep().await, (true, true));
    save(0, Some(checkpoint(b"2", &[first]))).await;
    assert_eq!(sweep().await, (true, false));
    // Cleared by the task, then by a tick.
    save(0, None).await;
    assert_eq!(sweep().await, (true, false));
    test.commit(
        &lease,
        TickWrite {
            checkpoint_deletes: vec![key(1, 1)],
            ..tick()
        },
    )
    .await;
    assert_eq!(test.db.unreferenced(&[first]).await.unwrap(), [first]);
    assert_eq!(sweep().await, (false, false));
}
