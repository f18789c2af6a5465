//! Checkpoints, and the blobs that only they refer to.

use std::time::{Duration, SystemTime};

use blobs::FileBlobStore;
use bytes::Bytes;
use model::{Digest, DispatchNumber, TaskInstanceState};
use ports::payload::{BlobStore as _, Checkpoint};
use ports::store::{BlobRefs as _, SchedulerStore as _, TickWrite};
use rstest::rstest;

use crate::support::{Backend, NOW, TestDb, checkpoint, key, new_run, save, ti, tick, version, xcom};

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
        let (test, lease) = (&test, &lease);
        async move {
            assert!(test.save(lease, key(1, task), 0, saved).await.unwrap());
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
    let stale = test.save(&lease, key(1, 0), 7, Some(checkpoint(b"2", &[]))).await;
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

#[rstest]
#[tokio::test]
async fn saves_of_one_transaction_are_in_order_and_each_is_fenced_by_itself(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let version = version("etl", 1, &["a", "b", "c", "d"]);
    let lease = test.with_dag(&version).await;
    let rows = [(0, "a", 1), (1, "b", 2), (2, "c", 3), (3, "d", 4)].map(|(task, name, dispatch)| {
        let mut row = ti(key(1, task), name, TaskInstanceState::Running);
        row.dispatch = DispatchNumber(dispatch);
        row
    });
    test.commit(
        &lease,
        TickWrite {
            new_runs: vec![new_run(&version, 1)],
            task_instances: rows.into(),
            ..tick()
        },
    )
    .await;
    let blobs = [Digest::of(b"first"), Digest::of(b"second")];
    let saves = [
        save(key(1, 0), 1, Some(checkpoint(b"1", &[blobs[0]]))),
        // Another dispatch has taken over, and there is no such task instance.
        save(key(1, 1), 1, Some(checkpoint(b"old", &[]))),
        save(key(7, 0), 1, Some(checkpoint(b"lost", &[]))),
        save(key(1, 2), 3, Some(checkpoint(b"gone", &blobs))),
        save(key(1, 0), 1, Some(checkpoint(b"2", &[blobs[1]]))),
        save(key(1, 2), 3, None),
        save(key(1, 3), 3, None),
    ];
    let saved = test.db.save_checkpoints(&lease, &saves, NOW).await.unwrap();
    assert_eq!(saved, [true, false, false, true, true, true, false]);
    let load = async |task| test.db.load_checkpoint(key(1, task)).await.unwrap();
    assert_eq!(load(0).await.as_deref(), Some(&b"2"[..]));
    assert_eq!((load(1).await, load(2).await, load(3).await), (None, None, None));
    assert_eq!(test.db.unreferenced(&blobs).await.unwrap(), [blobs[0]]);
    // What is refused altogether changes nothing.
    let saved = test.db.save_checkpoints(&lease, &saves[1..3], NOW).await.unwrap();
    assert_eq!(saved, [false, false]);
    assert!(test.db.save_checkpoints(&lease, &[], NOW).await.unwrap().is_empty());
    // And the connection is fit for what comes next.
    assert!(
        test.save(&lease, key(1, 3), 4, Some(checkpoint(b"3", &[])))
            .await
            .unwrap()
    );
    assert_eq!(load(3).await.as_deref(), Some(&b"3"[..]));
}
