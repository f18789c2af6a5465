//! Intents: what they promise comes back until it is done, and what is deleted goes bit by bit.

use std::sync::Arc;

use model::{DagRunKey, DagRunState, Digest, MapIndex, TaskInstanceState};
use ports::deploy::DagVersion;
use ports::intent::{ClearWork, Intent, IntentWork, IntentWrite};
use ports::query::{DagFilter, Metadata, Page, RunFilter, TiFilter, XcomFilter};
use ports::store::{BlobRefs as _, DagWrite, Lease, SchedulerStore as _, TickWrite};
use rstest::rstest;
use uuid::Uuid;

use crate::support::{
    Backend, TestDb, checkpoint, dag_id, deploy, key, new_run, purge, run_id, run_write, seconds, task_id, ti, tick,
    version, version_with, xcom,
};

fn intent(id: u128, runs: &[i64], work: IntentWork) -> Arc<Intent> {
    Arc::new(Intent {
        id: Uuid::from_u128(id),
        dag_id: dag_id("etl"),
        user: "admin".to_owned(),
        created_at: seconds(i64::try_from(id).unwrap()),
        runs: runs.iter().copied().map(DagRunKey).collect(),
        work,
    })
}

fn step(write: IntentWrite) -> TickWrite {
    TickWrite {
        dags: vec![DagWrite::Intent(write)],
        ..tick()
    }
}

/// An ended run of `width` task instances, each with a try, an XCom and a checkpoint that refers to a blob.
async fn ended_run(test: &TestDb, lease: &Lease, version: &DagVersion, run: i64, width: i32) {
    let at = |map_index| {
        let mut key = key(run, 0);
        key.map_index = MapIndex(map_index);
        key
    };
    let rows: Vec<_> = (0..width)
        .map(|index| ti(at(index), "load", TaskInstanceState::Success))
        .collect();
    let tick = TickWrite {
        new_runs: vec![new_run(version, run)],
        runs: vec![run_write(run, DagRunState::Success)],
        tries: rows.clone(),
        task_instances: rows,
        xcoms: (0..width).map(|index| xcom(at(index), "return_value", "1")).collect(),
        ..tick()
    };
    test.commit(lease, tick).await;
    for index in 0..width {
        let saved = checkpoint(b"x", &[Digest::of(b"blob")]);
        assert!(test.save(lease, at(index), 0, Some(saved)).await.unwrap());
    }
}

#[rstest]
#[tokio::test]
async fn an_intent_comes_back_with_the_runs_that_are_left(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let lease = test.with_dag(&version("etl", 1, &["load"])).await;
    let work = ClearWork {
        tasks: Some(vec![(task_id("load"), None), (task_id("load"), Some(MapIndex(3)))]),
        groups: vec!["a.b".to_owned()],
        include_upstream: false,
        include_downstream: true,
        only_failed: true,
        only_running: false,
    };
    let third = IntentWork::SetState {
        work: work.clone(),
        state: TaskInstanceState::Skipped,
    };
    let third = intent(3, &[], third);
    let second = intent(2, &[5, 7, 1 << 40], IntentWork::Clear(work));
    let first = intent(1, &[9], IntentWork::DeleteRuns);
    test.commit(&lease, step(IntentWrite::Begin(Arc::clone(&second)))).await;
    test.commit(
        &lease,
        TickWrite {
            intents: vec![Arc::clone(&first)],
            ..tick()
        },
    )
    .await;
    test.commit(&lease, step(IntentWrite::Begin(Arc::clone(&third)))).await;
    let state = DagRunState::Failed;
    let fourth = intent(4, &[9], IntentWork::EndRun { state });
    test.commit(&lease, step(IntentWrite::Begin(Arc::clone(&fourth)))).await;
    let db = test.again().await;
    assert_eq!(db.intents().await.unwrap()[2], Intent::clone(&third));
    assert_eq!(db.intents().await.unwrap()[3], Intent::clone(&fourth));
    for id in [third.id, fourth.id] {
        test.commit(&lease, step(IntentWrite::End { id, dag_id: None })).await;
    }
    let intents = || async { db.intents().await.unwrap() };
    assert_eq!(intents().await, [Intent::clone(&first), Intent::clone(&second)]);

    let done = TickWrite {
        intent_runs_done: vec![(second.id, DagRunKey(7)), (second.id, DagRunKey(9))],
        ..tick()
    };
    test.commit(&lease, done).await;
    let left = |intent: usize| async move { intents().await[intent].runs.clone() };
    assert_eq!(left(1).await, [DagRunKey(5), DagRunKey(1 << 40)]);
    assert_eq!(left(0).await, [DagRunKey(9)], "another intent's run is its own");
    let end = |id| step(IntentWrite::End { id, dag_id: None });
    test.commit(&lease, end(second.id)).await;
    assert_eq!(intents().await, [Intent::clone(&first)]);
    test.commit(&lease, end(first.id)).await;
    assert!(intents().await.is_empty());
    // Nothing is left of them: the same intent could begin again.
    test.commit(&lease, step(IntentWrite::Begin(second))).await;
}

#[rstest]
#[tokio::test]
async fn a_deleted_run_is_gone_at_once_and_its_rows_go_bit_by_bit(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let version = version("etl", 1, &["load"]);
    let lease = test.with_dag(&version).await;
    ended_run(&test, &lease, &version, 1, 1).await;
    ended_run(&test, &lease, &version, 2, 20).await;
    test.commit(
        &lease,
        TickWrite {
            run_deletes: vec![DagRunKey(2)],
            intents: vec![intent(1, &[2], IntentWork::DeleteRuns)],
            ..tick()
        },
    )
    .await;
    let db = &test.db;
    let rows = |run: i64| async move { db.has_rows(&[DagRunKey(run)]).await.unwrap() };
    assert!(db.load_run(DagRunKey(2)).await.unwrap().is_none());
    assert!(db.run(&dag_id("etl"), &run_id("manual__2")).await.unwrap().is_none());
    let all = Page { limit: 100, offset: 0 };
    assert_eq!(db.task_instances(&TiFilter::default(), all).await.unwrap().total, 1);
    assert!(rows(2).await);
    // Its name and its date are free.
    let again = TickWrite {
        new_runs: vec![{
            let mut again = new_run(&version, 2);
            let mut context = ports::executor::RunContext::clone(&again.context);
            context.key = DagRunKey(3);
            again.context = Arc::new(context);
            again
        }],
        ..tick()
    };
    test.commit(&lease, again).await;

    let mut steps = 0;
    while rows(2).await {
        let before = db.unreferenced(&[Digest::of(b"blob")]).await.unwrap();
        assert!(before.is_empty(), "referred to by what is left");
        let purge = TickWrite {
            dags: vec![purge(&[2], 8)],
            ..tick()
        };
        test.commit(&lease, purge).await;
        steps += 1;
    }
    assert_eq!(steps, 20, "one large row a step, eight small ones");
    assert!(rows(1).await, "another run keeps what it has");
    assert!(db.load_run(DagRunKey(1)).await.unwrap().is_some());
    assert!(db.load_run(DagRunKey(3)).await.unwrap().is_some());
    assert_eq!(db.load_checkpoint(key(2, 0)).await.unwrap(), None);
}

#[rstest]
#[tokio::test]
async fn a_dag_that_is_being_deleted_is_listed_nowhere_and_goes_bit_by_bit(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let tagged = |dag, number| version_with(dag, number, &["load"], |parts| parts.tags = vec![format!("of {dag}")]);
    let (first, other) = (tagged("etl", 1), tagged("other", 1));
    let lease = test.with_dag(&first).await;
    test.commit(&lease, deploy(&other)).await;
    ended_run(&test, &lease, &other, 9, 2).await;
    for run in [1, 2, 3] {
        ended_run(&test, &lease, &first, run, 5).await;
    }
    for number in [2, 3, 4] {
        test.commit(&lease, deploy(&tagged("etl", number))).await;
    }
    let delete = intent(1, &[], IntentWork::DeleteDag);
    let mark = DagWrite::Delete {
        dag_id: dag_id("etl"),
        intent: Arc::clone(&delete),
    };
    test.commit(
        &lease,
        TickWrite {
            dags: vec![mark],
            ..tick()
        },
    )
    .await;
    let db = &test.db;
    assert_eq!(db.intents().await.unwrap(), [Intent::clone(&delete)]);
    let etl = dag_id("etl");
    let page = Page { limit: 100, offset: 0 };
    assert_eq!(db.load_dags().await.unwrap().len(), 1);
    assert!(db.dag(&etl).await.unwrap().is_none());
    assert_eq!(db.dags(&DagFilter::default(), page).await.unwrap().total, 1);
    assert_eq!(db.dag_tags().await.unwrap(), ["of other"]);
    assert_eq!(db.runs(&RunFilter::default(), page).await.unwrap().total, 1);
    assert!(db.run(&etl, &run_id("manual__1")).await.unwrap().is_none());
    assert_eq!(db.task_instances(&TiFilter::default(), page).await.unwrap().total, 2);
    let xcoms = Metadata::xcoms(db, &XcomFilter::default(), page).await.unwrap();
    assert_eq!(xcoms.total, 2);
    assert!(db.dag_version(&etl, 1).await.unwrap().is_none());

    let runs = || async { db.runs_between(&etl, None, None, 2).await.unwrap() };
    let mut steps = 0;
    loop {
        let some = runs().await;
        if some.is_empty() {
            break;
        }
        test.commit(&lease, step(IntentWrite::Purge { runs: some, rows: 16 }))
            .await;
        steps += 1;
    }
    assert!((8..=10).contains(&steps), "fifteen large rows, two a step: {steps}");
    let mut versions = Vec::new();
    loop {
        let old = db.old_versions(&etl).await.unwrap();
        versions.push(old);
        if old == 0 {
            break;
        }
        let some = IntentWrite::PurgeVersions {
            dag_id: etl.clone(),
            versions: 2,
        };
        test.commit(&lease, step(some)).await;
    }
    assert_eq!(versions, [3, 1, 0]);
    let end = IntentWrite::End {
        id: delete.id,
        dag_id: Some(etl.clone()),
    };
    test.commit(&lease, step(end)).await;
    assert!(db.intents().await.unwrap().is_empty());
    let fresh = test.again().await;
    assert!(fresh.load_version(first.uuid).await.unwrap().is_none());
    assert_eq!(db.find_version(&etl, first.digest).await.unwrap().1, 0);
    assert!(
        db.load_run(DagRunKey(9)).await.unwrap().is_some(),
        "another DAG keeps its runs"
    );
    assert!(db.has_rows(&[DagRunKey(9)]).await.unwrap());
    // Nothing stands in the way of the same DAG.
    test.commit(&lease, deploy(&first)).await;
    assert_eq!(db.load_dags().await.unwrap().len(), 2);
}
