//! Lists: every filter and every order, on both databases alike.

use model::{Cause, DagRunKey, DagRunState, DagRunType, MapIndex, TaskInstanceState, TryNumber};
use ports::query::{DagField, DagFilter, Metadata, OrderBy, Page, RunField, RunFilter, TiField, TiFilter, TimeRange};
use ports::store::{DagWrite, SchedulerStore, TickWrite};
use rstest::rstest;

use crate::support::{
    Backend, TestDb, dag_id, deploy, key, new_run, run_id, run_write, seconds, task_id, ti, tick, version, version_with,
};

const PAGE: Page = Page { limit: 100, offset: 0 };

fn by<F>(field: F, descending: bool) -> OrderBy<F> {
    OrderBy { field, descending }
}

#[rstest]
#[tokio::test]
async fn dags_are_filtered_and_ordered(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let lease = test.lease().await;
    let etl = version_with("etl", 1, &["load"], |dag| {
        dag.tags = vec!["daily".into(), "core".into()]
    });
    let ml = version_with("ml.100", 1, &["train"], |dag| {
        dag.tags = vec!["daily".into()];
        dag.owner = "data".into();
    });
    for version in [
        &etl,
        &ml,
        &version("Etl_Two", 1, &["load"]),
        &version("other", 1, &["load"]),
    ] {
        test.commit(&lease, deploy(version)).await;
    }
    test.commit(
        &lease,
        TickWrite {
            dags: vec![DagWrite::SetPaused {
                dag_id: dag_id("other"),
                paused: true,
            }],
            new_runs: vec![new_run(&etl, 1), new_run(&etl, 2), new_run(&ml, 3)],
            runs: vec![run_write(1, DagRunState::Success), run_write(2, DagRunState::Failed)],
            ..tick()
        },
    )
    .await;

    let list = |filter: DagFilter| {
        let db = &test.db;
        async move {
            let listed = db.dags(&filter, PAGE).await.unwrap();
            assert_eq!(listed.total, listed.items.len() as u64);
            listed
                .items
                .iter()
                .map(|row| row.dag_id.to_string())
                .collect::<Vec<_>>()
        }
    };
    let default = DagFilter::default;
    assert_eq!(list(default()).await, ["Etl_Two", "etl", "ml.100", "other"]);
    let pattern = |pattern: &str| DagFilter {
        dag_id_pattern: Some(pattern.into()),
        ..default()
    };
    assert_eq!(list(pattern("ETL%")).await, ["Etl_Two", "etl"]);
    assert_eq!(list(pattern("%\\_%")).await, ["Etl_Two"]);
    assert_eq!(list(pattern("et_")).await, ["etl"]);
    assert!(list(pattern("etl\\")).await.is_empty());
    assert!(list(pattern("' OR 1=1 --")).await.is_empty());
    let tags = |all, tags: &[&str]| DagFilter {
        tags: tags.iter().map(|tag| (*tag).into()).collect(),
        tags_match_all: all,
        ..default()
    };
    assert_eq!(list(tags(false, &["core", "daily"])).await, ["etl", "ml.100"]);
    assert_eq!(list(tags(true, &["core", "daily", "core"])).await, ["etl"]);
    let filter = DagFilter {
        paused: Some(true),
        ..default()
    };
    assert_eq!(list(filter).await, ["other"]);
    let filter = DagFilter {
        owners: vec!["data".into(), "nobody".into()],
        ..default()
    };
    assert_eq!(list(filter).await, ["ml.100"]);
    let filter = DagFilter {
        last_run_state: Some(DagRunState::Failed),
        ..default()
    };
    assert_eq!(list(filter).await, ["etl"]);

    let ordered = |field, descending| DagFilter {
        order_by: vec![by(field, descending)],
        ..default()
    };
    assert_eq!(
        list(ordered(DagField::DagId, true)).await,
        ["other", "ml.100", "etl", "Etl_Two"]
    );
    assert_eq!(list(ordered(DagField::Paused, true)).await[0], "other");
    // Without a run first, or last when descending.
    let expected = ["Etl_Two", "other", "etl", "ml.100"];
    assert_eq!(list(ordered(DagField::LastRunState, false)).await, expected);
    assert_eq!(list(ordered(DagField::LastRunStartDate, true)).await[0], "etl");
    assert_eq!(list(ordered(DagField::UpdatedAt, false)).await.len(), 4);

    let page = test.db.dags(&default(), Page { limit: 2, offset: 1 }).await.unwrap();
    let ids: Vec<_> = page.items.iter().map(|row| row.dag_id.as_str()).collect();
    assert_eq!((page.total, ids), (4, vec!["etl", "ml.100"]));
    assert!(Metadata::dag(&test.db, &dag_id("none")).await.unwrap().is_none());
}

#[rstest]
#[tokio::test]
async fn versions_are_listed_newest_first(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let lease = test.lease().await;
    for number in [1, 2, 3] {
        test.commit(&lease, deploy(&version("etl", number, &["load"]))).await;
    }
    let id = dag_id("etl");
    let listed = test.db.dag_versions(&id, Page { limit: 2, offset: 0 }).await.unwrap();
    let numbers: Vec<_> = listed.items.iter().map(|version| version.number).collect();
    assert_eq!((listed.total, numbers), (3, vec![3, 2]));
    assert_eq!(test.db.dag_version(&id, 2).await.unwrap().unwrap().number, 2);
    assert!(test.db.dag_version(&id, 4).await.unwrap().is_none());
}

#[rstest]
#[tokio::test]
async fn runs_are_filtered_and_ordered(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let (etl, two) = (version("etl", 1, &["load"]), version("etl", 2, &["load", "train"]));
    let other = version("other", 1, &["load"]);
    let lease = test.lease().await;
    for version in [&etl, &two, &other] {
        test.commit(&lease, deploy(version)).await;
    }
    let mut scheduled = new_run(&two, 3);
    scheduled.run_type = DagRunType::Scheduled;
    let mut context = (*scheduled.context).clone();
    context.logical_date = None;
    scheduled.context = context.into();
    test.commit(
        &lease,
        TickWrite {
            new_runs: vec![new_run(&etl, 1), new_run(&other, 2), scheduled, new_run(&etl, 4)],
            runs: vec![run_write(1, DagRunState::Success), run_write(2, DagRunState::Running)],
            ..tick()
        },
    )
    .await;
    test.commit(
        &lease,
        TickWrite {
            now: Some(seconds(50)),
            runs: vec![run_write(4, DagRunState::Failed)],
            ..tick()
        },
    )
    .await;

    let list = |filter: RunFilter| {
        let db = &test.db;
        async move {
            let listed = db.runs(&filter, PAGE).await.unwrap();
            assert_eq!(listed.total, listed.items.len() as u64);
            listed.items.iter().map(|row| row.key.0).collect::<Vec<_>>()
        }
    };
    let default = RunFilter::default;
    macro_rules! filtered {
        ($($field:ident: $value:expr),+) => { list(RunFilter { $($field: $value,)+ ..default() }).await };
    }
    let from = |second| TimeRange {
        gte: Some(seconds(second)),
        ..TimeRange::default()
    };
    assert_eq!(list(default()).await, [1, 2, 3, 4]);
    assert_eq!(filtered!(dag_id: Some(dag_id("etl"))), [1, 3, 4]);
    assert_eq!(filtered!(run_id_pattern: Some("MANUAL\\_\\__".into())), [1, 2, 3, 4]);
    assert_eq!(filtered!(run_id_pattern: Some("%4".into())), [4]);
    assert_eq!(
        filtered!(states: vec![DagRunState::Running, DagRunState::Queued]),
        [2, 3]
    );
    assert_eq!(filtered!(run_types: vec![DagRunType::Scheduled]), [3]);
    assert_eq!(filtered!(version_numbers: vec![2, 7]), [3]);
    assert_eq!(filtered!(run_after: from(3)), [3, 4]);
    assert_eq!(filtered!(logical_date: from(2)), [2, 4]);
    assert_eq!(filtered!(start_date: from(0)), [1, 2, 4]);
    assert_eq!(filtered!(end_date: from(0)), [1, 4]);
    assert_eq!(filtered!(updated_at: from(50)), [4]);
    let between = TimeRange {
        gt: Some(seconds(1)),
        lt: Some(seconds(4)),
        ..TimeRange::default()
    };
    assert_eq!(filtered!(run_after: between), [2, 3]);
    let until = TimeRange {
        lte: Some(seconds(2)),
        ..TimeRange::default()
    };
    assert_eq!(filtered!(run_after: until, dag_id: Some(dag_id("etl"))), [1]);

    for field in [
        RunField::DagId,
        RunField::RunId,
        RunField::State,
        RunField::RunAfter,
        RunField::StartDate,
        RunField::EndDate,
        RunField::UpdatedAt,
        RunField::DataIntervalStart,
        RunField::DataIntervalEnd,
    ] {
        assert_eq!(filtered!(order_by: vec![by(field, true)]).len(), 4);
    }
    assert_eq!(filtered!(order_by: vec![by(RunField::Key, true)]), [4, 3, 2, 1]);
    assert_eq!(
        filtered!(order_by: vec![by(RunField::LogicalDate, false)]),
        [3, 1, 2, 4]
    );
    assert_eq!(filtered!(order_by: vec![by(RunField::LogicalDate, true)]), [4, 2, 1, 3]);
    let two_columns = vec![by(RunField::DagId, true), by(RunField::State, false)];
    assert_eq!(filtered!(order_by: two_columns), [2, 4, 3, 1]);

    let row = Metadata::run(&test.db, &dag_id("etl"), &run_id("manual__3"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (row.key, row.version_number, row.run_type),
        (DagRunKey(3), 2, DagRunType::Scheduled)
    );
    assert_eq!(row.triggering_user.as_deref(), Some("admin"));
    assert!(
        Metadata::run(&test.db, &dag_id("other"), &run_id("manual__3"))
            .await
            .unwrap()
            .is_none()
    );
}

#[rstest]
#[tokio::test]
async fn task_instances_are_filtered_and_ordered(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let etl = version_with("etl", 1, &["load", "train", "report"], |dag| {
        dag.tasks[1].pool = "gpu".into()
    });
    let other = version("other", 1, &["load"]);
    let lease = test.lease().await;
    test.commit(&lease, deploy(&etl)).await;
    test.commit(&lease, deploy(&other)).await;
    let mut train = ti(key(1, 1), "train", TaskInstanceState::Failed);
    train.cause = Some(Cause::TimedOut);
    train.try_number = TryNumber(2);
    (train.start_date, train.end_date) = (Some(seconds(10)), Some(seconds(20)));
    let mut load = ti(key(1, 0), "load", TaskInstanceState::Success);
    load.cause = Some(Cause::Returned);
    (load.start_date, load.end_date) = (Some(seconds(1)), Some(seconds(30)));
    let mut mapped = ti(key(2, 0), "load", TaskInstanceState::Running);
    mapped.key.map_index = MapIndex(5);
    mapped.start_date = Some(seconds(5));
    test.commit(
        &lease,
        TickWrite {
            new_runs: vec![new_run(&etl, 1), new_run(&other, 2)],
            task_instances: vec![
                train,
                load,
                ti(key(1, 2), "report", TaskInstanceState::NoStatus),
                mapped,
            ],
            ..tick()
        },
    )
    .await;

    let list = |filter: TiFilter| {
        let db = &test.db;
        async move {
            let listed = Metadata::task_instances(db, &filter, PAGE).await.unwrap();
            assert_eq!(listed.total, listed.items.len() as u64);
            let name = |row: &ports::query::TiRow| (row.key.run.0, row.key.task.0);
            listed.items.iter().map(name).collect::<Vec<_>>()
        }
    };
    macro_rules! filtered {
        ($($field:ident: $value:expr),+) => { list(TiFilter { $($field: $value,)+ ..TiFilter::default() }).await };
    }
    let from = |second| TimeRange {
        gte: Some(seconds(second)),
        ..TimeRange::default()
    };
    assert_eq!(list(TiFilter::default()).await, [(1, 0), (1, 1), (1, 2), (2, 0)]);
    assert_eq!(filtered!(dag_id: Some(dag_id("other"))), [(2, 0)]);
    assert_eq!(filtered!(run_id: Some(run_id("manual__1"))).len(), 3);
    assert_eq!(
        filtered!(task_ids: vec![task_id("load"), task_id("train")]),
        [(1, 0), (1, 1), (2, 0)]
    );
    assert_eq!(filtered!(task_id_pattern: Some("%OR%".into())), [(1, 2)]);
    assert_eq!(filtered!(map_index: Some(MapIndex(5))), [(2, 0)]);
    assert_eq!(filtered!(only_mapped: true), [(2, 0)]);
    let states = vec![TaskInstanceState::Failed, TaskInstanceState::NoStatus];
    assert_eq!(filtered!(states: states), [(1, 1), (1, 2)]);
    assert_eq!(filtered!(causes: vec![Cause::TimedOut]), [(1, 1)]);
    assert_eq!(filtered!(pools: vec!["gpu".into()]), [(1, 1)]);
    assert_eq!(filtered!(pools: vec!["default_pool".into(), "x".into()]).len(), 3);
    assert_eq!(filtered!(start_date: from(5)), [(1, 1), (2, 0)]);
    assert_eq!(filtered!(end_date: from(25)), [(1, 0)]);
    assert_eq!(filtered!(logical_date: from(2)), [(2, 0)]);
    assert_eq!(filtered!(run_after: from(2)), [(2, 0)]);
    assert_eq!(filtered!(updated_at: from(1)), []);
    assert_eq!(filtered!(updated_at: from(0)).len(), 4);
    assert_eq!(filtered!(try_numbers: vec![2, 3]), [(1, 1)]);

    for field in [
        TiField::TaskId,
        TiField::MapIndex,
        TiField::State,
        TiField::StartDate,
        TiField::RunAfter,
        TiField::LogicalDate,
        TiField::TryNumber,
        TiField::RenderedMapIndex,
    ] {
        assert_eq!(filtered!(order_by: vec![by(field, true)]).len(), 4);
    }
    let key_descending = vec![by(TiField::Key, true)];
    assert_eq!(filtered!(order_by: key_descending), [(2, 0), (1, 2), (1, 1), (1, 0)]);
    let duration = vec![by(TiField::Duration, true)];
    assert_eq!(filtered!(order_by: duration), [(1, 0), (1, 1), (1, 2), (2, 0)]);
    let end = vec![by(TiField::EndDate, false)];
    assert_eq!(filtered!(order_by: end), [(1, 2), (2, 0), (1, 1), (1, 0)]);

    let get = |run, task, index| {
        let db = &test.db;
        async move {
            let row = db
                .task_instance(&dag_id("other"), &run_id(run), &task_id(task), MapIndex(index))
                .await;
            row.unwrap().map(|row| row.key)
        }
    };
    assert_eq!(get("manual__2", "load", 5).await.unwrap().map_index, MapIndex(5));
    assert!(get("manual__2", "load", -1).await.is_none());
    assert!(get("manual__1", "load", -1).await.is_none());
    let page = Page { limit: 2, offset: 3 };
    let listed = Metadata::task_instances(&test.db, &TiFilter::default(), page)
        .await
        .unwrap();
    assert_eq!((listed.total, listed.items.len()), (4, 1));
    assert_eq!(listed.items[0].logical_date, Some(seconds(2)));
}

#[rstest]
#[tokio::test]
async fn there_is_a_default_pool(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let pools = SchedulerStore::pools(&test.db).await.unwrap();
    assert_eq!(pools.len(), 1);
    assert_eq!(
        (pools[0].name.as_str(), pools[0].slots),
        (model::dag::DEFAULT_POOL, 128)
    );
    assert_eq!(Metadata::pools(&test.db).await.unwrap().len(), 1);
    test.db.ping().await.unwrap();
}
