//! Leases: one scheduler at a time, and an old one can no longer write.

use model::{DagRunKey, DispatchNumber, TaskInstanceState};
use ports::store::{CommitError, LeaseError, SchedulerStore, TickWrite};
use rstest::rstest;
use uuid::Uuid;

use crate::support::{Backend, NOW, TestDb, checkpoint, key, new_run, seconds, ti, tick, version};

const FIRST: Uuid = Uuid::from_u128(1);
const SECOND: Uuid = Uuid::from_u128(2);

#[rstest]
#[tokio::test]
async fn a_lease_in_use_is_not_given_away(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let other = test.again().await;
    test.db.acquire_lease(FIRST, NOW, seconds(30)).await.unwrap();
    let error = other.acquire_lease(SECOND, seconds(29), seconds(60)).await.unwrap_err();
    let LeaseError::InUse {
        scheduler_id,
        since,
        expires_at,
    } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!((scheduler_id, since, expires_at), (FIRST, NOW, seconds(30)));
}

#[rstest]
#[tokio::test]
async fn a_scheduler_without_the_lease_can_write_nothing(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let other = test.again().await;
    let version = version("etl", 1, &["load"]);
    let old = test.with_dag(&version).await;
    test.commit(
        &old,
        TickWrite {
            new_runs: vec![new_run(&version, 1)],
            task_instances: vec![ti(key(1, 0), "load", TaskInstanceState::Running)],
            ..tick()
        },
    )
    .await;
    let new = other.acquire_lease(SECOND, seconds(61), seconds(90)).await.unwrap();
    assert!(new.epoch > old.epoch);

    let late = TickWrite {
        new_runs: vec![new_run(&version, 2)],
        ..tick()
    };
    let fenced = |result: Result<(), CommitError>| matches!(result, Err(CommitError::Fenced));
    assert!(fenced(test.db.commit_tick(&old, &late).await));
    assert!(fenced(test.db.renew_lease(&old, seconds(62), seconds(99)).await));
    assert!(fenced(test.db.reserve_run_keys(&old, 10).await.map(drop)));
    let checkpoint = test.save(&old, key(1, 0), 0, Some(checkpoint(b"x", &[]))).await;
    assert!(fenced(checkpoint.map(drop)));
    test.db.release_lease(&old).await.unwrap();

    assert_eq!(other.active_runs().await.unwrap(), [DagRunKey(1)]);
    other.renew_lease(&new, seconds(62), seconds(99)).await.unwrap();
    other.commit_tick(&new, &late).await.unwrap();
}

#[rstest]
#[tokio::test]
async fn a_released_lease_is_free_at_once(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let first = test.db.acquire_lease(FIRST, NOW, seconds(30)).await.unwrap();
    test.db.release_lease(&first).await.unwrap();
    let second = test.db.acquire_lease(SECOND, NOW, seconds(30)).await.unwrap();
    assert!(second.epoch > first.epoch);
    // The own lease can be taken again, after a restart under the same id.
    let again = test.db.acquire_lease(SECOND, NOW, seconds(30)).await.unwrap();
    assert!(again.epoch > second.epoch);
}

#[rstest]
#[tokio::test]
async fn run_keys_are_never_given_twice(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let lease = test.lease().await;
    assert_eq!(test.db.reserve_run_keys(&lease, 100).await.unwrap(), DagRunKey(1));
    let db = test.again().await;
    assert_eq!(db.reserve_run_keys(&lease, 1).await.unwrap(), DagRunKey(101));
    assert_eq!(db.reserve_run_keys(&lease, 5).await.unwrap(), DagRunKey(102));
}

#[rstest]
#[tokio::test]
async fn a_checkpoint_is_fenced_by_its_dispatch(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let version = version("etl", 1, &["load"]);
    let lease = test.with_dag(&version).await;
    let mut row = ti(key(1, 0), "load", TaskInstanceState::Running);
    row.dispatch = DispatchNumber(4);
    test.commit(
        &lease,
        TickWrite {
            new_runs: vec![new_run(&version, 1)],
            task_instances: vec![row],
            ..tick()
        },
    )
    .await;
    let save = |dispatch, bytes: Option<&'static [u8]>| {
        let (test, lease) = (&test, &lease);
        async move {
            let saved = bytes.map(|bytes| checkpoint(bytes, &[]));
            test.save(lease, key(1, 0), dispatch, saved).await.unwrap()
        }
    };
    let load = || async { test.db.load_checkpoint(key(1, 0)).await.unwrap() };
    assert!(!save(3, Some(b"old")).await);
    assert_eq!(load().await, None);
    assert!(save(4, Some(b"\0first\xff")).await);
    assert!(save(4, Some(b"second")).await);
    assert_eq!(load().await.as_deref(), Some(&b"second"[..]));
    assert!(!save(3, None).await);
    assert_eq!(load().await.as_deref(), Some(&b"second"[..]));
    assert!(save(4, None).await);
    assert_eq!(load().await, None);
    assert!(save(4, Some(b"third")).await);
    test.commit(
        &lease,
        TickWrite {
            checkpoint_deletes: vec![key(1, 0), key(1, 1)],
            ..tick()
        },
    )
    .await;
    assert_eq!(load().await, None);
}
