//! The inbox: what is asked stays until it is answered, and is settled by the tick that does it or not at all.

use model::{DagRunState, Timestamp};
use ports::inbox::{InboxStore as _, SeenScheduler};
use ports::store::{AuditWrite, CommitError, Lease, SchedulerStore as _, TickWrite};
use rstest::rstest;
use uuid::Uuid;

use crate::support::{Backend, NOW, TestDb, new_run, run_write, seconds, tick, version};

const FIRST: Uuid = Uuid::from_u128(1);
const SECOND: Uuid = Uuid::from_u128(2);
const THIRD: Uuid = Uuid::from_u128(3);

/// A tick that does what a request asks for.
fn does(request: Uuid) -> TickWrite {
    TickWrite {
        audit: vec![
            line(None),
            AuditWrite {
                settles: Some(request),
                ..line(None)
            },
        ],
        ..tick()
    }
}

fn line(settles: Option<Uuid>) -> AuditWrite {
    AuditWrite {
        event: "patch_dag",
        user: "admin".to_owned(),
        dag_id: None,
        run_id: None,
        extra: None,
        settles,
    }
}

/// The requests that are left, with whether they are settled.
async fn left(test: &TestDb) -> Vec<(Uuid, bool)> {
    let rows = test.db.inbox(&[], 10).await.unwrap();
    rows.into_iter().map(|row| (row.id, row.settled)).collect()
}

async fn ask(test: &TestDb, ids: &[Uuid]) {
    let other = test.again().await;
    for id in ids {
        other.ask(*id, r#"{"a":"b\u0000"}"#, NOW).await.unwrap();
    }
}

#[rstest]
#[tokio::test]
async fn a_request_is_left_until_it_is_answered(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let lease = test.lease().await;
    ask(&test, &[SECOND, FIRST, THIRD]).await;
    assert_eq!(left(&test).await, [(FIRST, false), (SECOND, false), (THIRD, false)]);
    let rows = test.db.inbox(&[FIRST], 1).await.unwrap();
    let row = rows.first().unwrap();
    assert_eq!((rows.len(), row.id, row.asked_at), (1, SECOND, NOW));
    assert_eq!(row.request, r#"{"a":"b\u0000"}"#);
    assert!(test.db.inbox(&[], 0).await.unwrap().is_empty());

    test.commit(&lease, does(SECOND)).await;
    assert_eq!(left(&test).await, [(FIRST, false), (SECOND, true), (THIRD, false)]);

    let asked = [FIRST, SECOND, THIRD];
    assert!(test.db.answers(&asked).await.unwrap().is_empty());
    let answers = [(SECOND, "2".to_owned()), (FIRST, "1".to_owned())];
    test.db.answer_inbox(&lease, &answers, seconds(5)).await.unwrap();
    // An answer that is there stays as it is.
    let again = [(FIRST, "other".to_owned())];
    test.db.answer_inbox(&lease, &again, seconds(6)).await.unwrap();
    assert_eq!(left(&test).await, [(THIRD, false)]);
    let mut answers = test.db.answers(&asked).await.unwrap();
    answers.sort();
    assert_eq!(answers, [(FIRST, "1".to_owned()), (SECOND, "2".to_owned())]);
    assert_eq!(test.db.answers(&[SECOND]).await.unwrap(), [(SECOND, "2".to_owned())]);
    assert!(test.db.answers(&[]).await.unwrap().is_empty());

    // What has no answer is not forgotten, whatever is asked for.
    test.db.forget(&[FIRST, THIRD]).await.unwrap();
    assert_eq!(test.db.answers(&asked).await.unwrap(), [(SECOND, "2".to_owned())]);
    test.db.sweep_inbox(&lease, seconds(5)).await.unwrap();
    assert_eq!(test.db.answers(&asked).await.unwrap().len(), 1);
    test.db.sweep_inbox(&lease, seconds(6)).await.unwrap();
    assert!(test.db.answers(&asked).await.unwrap().is_empty());
    assert_eq!(left(&test).await, [(THIRD, false)]);
}

#[rstest]
#[tokio::test]
async fn a_request_is_settled_with_the_tick_that_does_it_or_not_at_all(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let version = version("etl", 1, &["load"]);
    let lease = test.with_dag(&version).await;
    ask(&test, &[FIRST]).await;
    // A run whose version does not exist.
    let mut refused = does(FIRST);
    let mut run = new_run(&version, 1);
    run.version = Uuid::from_u128(99);
    refused.new_runs.push(run);
    let error = test.db.commit_tick(&lease, &refused).await.unwrap_err();
    assert!(matches!(error, CommitError::Data(_)), "{error:?}");
    assert_eq!(left(&test).await, [(FIRST, false)]);

    let next = test.again().await;
    let new = next.acquire_lease(SECOND, seconds(61), seconds(99)).await.unwrap();
    let fenced = |result: Result<(), CommitError>| matches!(result, Err(CommitError::Fenced));
    assert!(fenced(test.db.commit_tick(&lease, &does(FIRST)).await));
    let answer = [(FIRST, "too late".to_owned())];
    assert!(fenced(test.db.answer_inbox(&lease, &answer, NOW).await));
    assert!(fenced(test.db.sweep_inbox(&lease, Timestamp(i64::MAX)).await));
    assert_eq!(left(&test).await, [(FIRST, false)]);
    next.commit_tick(&new, &does(FIRST)).await.unwrap();
    assert_eq!(left(&test).await, [(FIRST, true)]);
}

#[rstest]
#[tokio::test]
async fn everybody_sees_who_schedules(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let other = test.again().await;
    assert_eq!(other.scheduler().await.unwrap().scheduler_id, None);
    let version = version("etl", 1, &["load"]);
    let lease: Lease = test.with_dag(&version).await;
    let mut aside = run_write(2, DagRunState::Running);
    aside.set_aside = Some("value out of range".to_owned());
    test.commit(
        &lease,
        TickWrite {
            new_runs: (1..=3).map(|run| new_run(&version, run)).collect(),
            runs: vec![aside, run_write(3, DagRunState::Success)],
            ..tick()
        },
    )
    .await;
    test.db.renew_lease(&lease, seconds(7), seconds(67)).await.unwrap();
    let name = new_run(&version, 2).context.run_id.clone();
    let seen = SeenScheduler {
        scheduler_id: Some(lease.scheduler_id),
        renewed_at: seconds(7),
        expires_at: seconds(67),
        active_runs: 2,
        set_aside_runs: vec![format!("etl/{name}")],
    };
    assert_eq!(other.scheduler().await.unwrap(), seen);
    test.db.release_lease(&lease).await.unwrap();
    assert_eq!(other.scheduler().await.unwrap().scheduler_id, None);
}

#[rstest]
#[tokio::test]
async fn a_run_names_its_owner(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let version = version("etl", 1, &["load"]);
    let first = test.with_dag(&version).await;
    let runs = TickWrite {
        new_runs: (1..=3).map(|run| new_run(&version, run)).collect(),
        runs: vec![run_write(3, DagRunState::Success)],
        ..tick()
    };
    test.commit(&first, runs).await;
    let owned = async || test.db.scheduler().await.unwrap().active_runs;
    assert_eq!(owned().await, 2);
    // Whoever comes next owns what is active, and not what has ended.
    let second = test.db.acquire_lease(SECOND, seconds(61), seconds(99)).await.unwrap();
    assert_eq!(owned().await, 2);
    // An ended run that is started over belongs to whoever does that.
    let over = TickWrite {
        runs: vec![run_write(3, DagRunState::Running)],
        ..tick()
    };
    test.commit(&second, over).await;
    assert_eq!(owned().await, 3);
    let fourth = TickWrite {
        new_runs: vec![new_run(&version, 4)],
        ..tick()
    };
    test.commit(&second, fourth).await;
    assert_eq!(owned().await, 4);
}
