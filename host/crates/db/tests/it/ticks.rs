//! Ticks: everything or nothing, and everything comes back as it was written.

use std::time::Duration;

use model::{Cause, DagRunKey, DagRunState, DispatchNumber, MapIndex, TaskInstanceState, TryNumber};
use ports::executor::TryUsage;
use ports::query::Metadata;
use ports::store::{AuditWrite, CommitError, DagWrite, HeartbeatWrite, RunWrite, SchedulerStore, TiWrite, TickWrite};
use rstest::rstest;
use uuid::Uuid;

use crate::support::{
    Backend, NOW, TestDb, dag_id, deploy, key, new_run, purge, run_id, run_write, seconds, task_id, ti, tick, version,
    version_with, xcom,
};

/// A row with a value in every column.
fn full(mut row: TiWrite) -> TiWrite {
    row.try_number = TryNumber(2);
    row.max_tries = 3;
    row.dispatch = DispatchNumber(7);
    row.infra_losses = 1;
    row.acknowledged = true;
    row.cause = Some(Cause::OutOfMemory);
    row.message = Some("no \"memory\"\nleft\u{1F980}".into());
    row.code = Some("oom".into());
    row.details = Some(r#"{"a":[1,2.5,null]}"#.into());
    row.scheduled_at = Some(seconds(1));
    row.queued_at = Some(seconds(2));
    row.start_date = Some(seconds(3));
    row.end_date = Some(seconds(4));
    row.next_at = Some(seconds(5));
    row.retry_rule = std::num::NonZeroU8::new(3);
    row.raised_memory_kib = std::num::NonZeroU32::new(2048);
    row.usage = Some(TryUsage {
        cpu: Duration::from_micros(123_456),
        peak_memory_bytes: 1 << 40,
        log_bytes: 17,
    });
    row.facts = Some(model::run::Facts {
        chosen: Some(vec![0, 4, 2]),
        measured: vec![7],
        poked_since: Some(1_700_000_000_000_001),
        outlived: true,
        cancelled: true,
    });
    row.rendered_map_index = Some("file \u{1F980}.csv".into());
    row
}

#[rstest]
#[tokio::test]
async fn a_run_comes_back_as_it_was_written(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let version = version("etl", 1, &["load", "train"]);
    let lease = test.with_dag(&version).await;
    let new = new_run(&version, 1);
    let context = new.context.clone();
    let mut mapped = ti(key(1, 1), "train", TaskInstanceState::Running);
    mapped.key.map_index = MapIndex(3);
    let rows = vec![full(mapped), ti(key(1, 0), "load", TaskInstanceState::NoStatus)];
    test.commit(
        &lease,
        TickWrite {
            new_runs: vec![new],
            runs: vec![run_write(1, DagRunState::Running)],
            task_instances: rows.clone(),
            ..tick()
        },
    )
    .await;

    // Through another handle, so that nothing comes from memory.
    let db = test.again().await;
    assert_eq!(db.active_runs().await.unwrap(), [DagRunKey(1)]);
    let stored = db.load_run(DagRunKey(1)).await.unwrap().unwrap();
    assert_eq!(stored.version, version.uuid);
    assert_eq!(stored.context.params, context.params);
    assert_eq!(stored.context.conf, context.conf);
    assert_eq!(stored.context.run_after, context.run_after);
    assert_eq!(stored.row.state, DagRunState::Running);
    assert_eq!(stored.row.start_date, Some(seconds(1)));
    assert_eq!(stored.row.uuid, context.uuid);
    assert_eq!(&*stored.row.conf, r#"{"big":9007199254740993}"#);
    let expected = [&rows[1], &rows[0]];
    assert_eq!(format!("{:?}", stored.task_instances), format!("{expected:?}"));

    let loaded = db.load_version(version.uuid).await.unwrap().unwrap();
    assert_eq!(loaded.source, version.source);
    assert_eq!(
        serde_json::to_value(&*loaded.dag).unwrap(),
        serde_json::to_value(&*version.dag).unwrap()
    );
    assert_eq!(db.load_dags().await.unwrap().len(), 1);
    assert!(db.load_run(DagRunKey(2)).await.unwrap().is_none());

    let shown = &db.ti_rows(DagRunKey(1)).await.unwrap()[1];
    assert_eq!(
        (shown.operator_name.as_str(), shown.operator.as_str()),
        ("do_train", "ml@1.0")
    );
    assert_eq!((shown.pool.as_str(), shown.version_number), ("default_pool", 1));
    assert_eq!(shown.usage, rows[0].usage);
    assert_eq!(shown.rendered_map_index, rows[0].rendered_map_index);
    test.db.close().await;
    db.close().await;
}

/// What was one task instance becomes many: the row with −1 goes, those with indexes come, and a tick may do both to one key.
#[rstest]
#[tokio::test]
async fn renumbered_task_instances_leave_no_row(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let version = version("etl", 1, &["load", "train"]);
    let lease = test.with_dag(&version).await;
    let at = |task: u32, map_index: i32, state| {
        let mut row = ti(key(1, task), if task == 0 { "load" } else { "train" }, state);
        row.key.map_index = MapIndex(map_index);
        row
    };
    let waiting = TaskInstanceState::NoStatus;
    test.commit(
        &lease,
        TickWrite {
            new_runs: vec![new_run(&version, 1)],
            runs: vec![run_write(1, DagRunState::Running)],
            task_instances: vec![at(0, -1, waiting), at(1, -1, waiting)],
            ..tick()
        },
    )
    .await;
    let ready = TaskInstanceState::Scheduled;
    test.commit(
        &lease,
        TickWrite {
            task_instance_deletes: vec![at(1, -1, waiting).key, at(1, 7, waiting).key],
            task_instances: vec![at(1, 0, ready), at(1, 1, ready), at(1, 7, ready)],
            ..tick()
        },
    )
    .await;
    let stored = test.db.load_run(DagRunKey(1)).await.unwrap().unwrap();
    let rows: Vec<_> = stored
        .task_instances
        .iter()
        .map(|ti| (ti.key.task.0, ti.key.map_index.0, ti.state))
        .collect();
    assert_eq!(rows, [(0, -1, waiting), (1, 0, ready), (1, 1, ready), (1, 7, ready)]);
}

#[rstest]
#[tokio::test]
async fn a_failed_tick_leaves_nothing_behind(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let version = version("etl", 1, &["load"]);
    let lease = test.with_dag(&version).await;
    let first = TickWrite {
        new_runs: vec![new_run(&version, 1)],
        ..tick()
    };
    let committed = first.tick_id;
    test.commit(&lease, first).await;
    // The second run has the first one's name.
    let mut repeat = new_run(&version, 2);
    repeat.context = new_run(&version, 1).context;
    let failing = TickWrite {
        new_runs: vec![new_run(&version, 3), repeat],
        task_instances: vec![ti(key(1, 0), "load", TaskInstanceState::Scheduled)],
        ..tick()
    };
    let error = test.db.commit_tick(&lease, &failing).await.unwrap_err();
    assert!(matches!(error, CommitError::Data(_)), "{error:?}");
    assert!(!test.db.tick_committed(failing.tick_id).await.unwrap());
    assert!(test.db.tick_committed(committed).await.unwrap());
    assert_eq!(test.db.active_runs().await.unwrap(), [DagRunKey(1)]);
    assert!(test.db.ti_rows(DagRunKey(1)).await.unwrap().is_empty());
    // And the connection is as good as before.
    let next = TickWrite {
        new_runs: vec![new_run(&version, 3)],
        ..tick()
    };
    test.commit(&lease, next).await;
    assert_eq!(test.db.active_runs().await.unwrap(), [DagRunKey(1), DagRunKey(3)]);
}

#[rstest]
#[tokio::test]
async fn two_runs_of_a_dag_cannot_share_a_logical_date(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let version = version("etl", 1, &["load"]);
    let lease = test.with_dag(&version).await;
    let run = |key: i64, logical_date| {
        let mut run = new_run(&version, key);
        let mut context = (*run.context).clone();
        context.logical_date = logical_date;
        run.context = context.into();
        TickWrite {
            new_runs: vec![run],
            ..tick()
        }
    };
    test.commit(&lease, run(1, Some(NOW))).await;
    let error = test.db.commit_tick(&lease, &run(2, Some(NOW))).await.unwrap_err();
    assert!(matches!(error, CommitError::Data(_)), "{error:?}");
    test.commit(&lease, run(3, None)).await;
    test.commit(&lease, run(4, None)).await;
    let found = test.db.find_run_by_logical_date(&dag_id("etl"), NOW).await.unwrap();
    assert_eq!(found, Some(run_id("manual__1")));
}

#[rstest]
#[tokio::test]
async fn the_last_write_of_a_row_in_a_tick_wins(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let version = version("etl", 1, &["load", "train"]);
    let lease = test.with_dag(&version).await;
    let note = |state, note: Option<&str>| RunWrite {
        note: note.map(Into::into),
        ..run_write(1, state)
    };
    test.commit(
        &lease,
        TickWrite {
            new_runs: vec![new_run(&version, 1)],
            runs: vec![
                note(DagRunState::Running, Some("a note")),
                note(DagRunState::Success, Some("second")),
            ],
            task_instances: vec![
                ti(key(1, 1), "train", TaskInstanceState::Queued),
                ti(key(1, 0), "load", TaskInstanceState::Running),
                ti(key(1, 1), "train", TaskInstanceState::Skipped),
            ],
            xcoms: vec![
                xcom(key(1, 0), "return_value", "1"),
                xcom(key(1, 0), "return_value", "2"),
            ],
            ..tick()
        },
    )
    .await;
    // No note leaves the one that there is.
    test.commit(
        &lease,
        TickWrite {
            runs: vec![note(DagRunState::Failed, None)],
            ..tick()
        },
    )
    .await;
    let run = test.db.run_row(DagRunKey(1)).await.unwrap().unwrap();
    assert_eq!((run.state, run.note.as_deref()), (DagRunState::Failed, Some("second")));
    let rows = test.db.ti_rows(DagRunKey(1)).await.unwrap();
    let states: Vec<_> = rows.iter().map(|row| row.state).collect();
    assert_eq!(states, [TaskInstanceState::Running, TaskInstanceState::Skipped]);
    let values = test.values(1, 0, "return_value").await;
    assert_eq!(&*values[0].1.value, "2");
}

#[rstest]
#[tokio::test]
async fn a_cleared_task_instance_loses_its_old_values(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let version = version("etl", 1, &["load"]);
    let lease = test.with_dag(&version).await;
    let write = |row: TiWrite, runs| TickWrite {
        new_runs: runs,
        task_instances: vec![row],
        ..tick()
    };
    let row = || ti(key(1, 0), "load", TaskInstanceState::NoStatus);
    test.commit(&lease, write(full(row()), vec![new_run(&version, 1)]))
        .await;
    test.commit(&lease, write(row(), Vec::new())).await;
    let stored = test.db.load_run(DagRunKey(1)).await.unwrap().unwrap();
    assert_eq!(format!("{:?}", stored.task_instances[0]), format!("{:?}", row()));
}

#[rstest]
#[tokio::test]
async fn ended_tries_are_listed_before_the_current_one(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let version = version("etl", 1, &["load"]);
    let lease = test.with_dag(&version).await;
    let at = |number, state| TiWrite {
        try_number: TryNumber(number),
        ..ti(key(1, 0), "load", state)
    };
    test.commit(
        &lease,
        TickWrite {
            new_runs: vec![new_run(&version, 1)],
            task_instances: vec![at(3, TaskInstanceState::Running)],
            tries: vec![at(2, TaskInstanceState::Failed), at(1, TaskInstanceState::UpForRetry)],
            ..tick()
        },
    )
    .await;
    let numbers =
        |rows: Vec<ports::query::TiRow>| rows.iter().map(|row| (row.try_number.0, row.state)).collect::<Vec<_>>();
    let listed = numbers(test.db.tries(key(1, 0)).await.unwrap());
    let ended = [(1, TaskInstanceState::UpForRetry), (2, TaskInstanceState::Failed)];
    assert_eq!(listed[..2], ended);
    assert_eq!(listed[2..], [(3, TaskInstanceState::Running)]);

    // The last try ends: it is in both tables and listed once. A repeat replaces.
    test.commit(
        &lease,
        TickWrite {
            task_instances: vec![at(3, TaskInstanceState::Success)],
            tries: vec![at(3, TaskInstanceState::Success), at(2, TaskInstanceState::Skipped)],
            ..tick()
        },
    )
    .await;
    let listed = numbers(test.db.tries(key(1, 0)).await.unwrap());
    assert_eq!(
        listed[1..],
        [(2, TaskInstanceState::Skipped), (3, TaskInstanceState::Success)]
    );
}

#[rstest]
#[tokio::test]
async fn a_message_with_a_nul_character_cannot_break_a_tick(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let version = version("etl", 1, &["load"]);
    let lease = test.with_dag(&version).await;
    let mut row = ti(key(1, 0), "load", TaskInstanceState::Failed);
    row.message = Some("before\0after".into());
    test.commit(
        &lease,
        TickWrite {
            new_runs: vec![new_run(&version, 1)],
            task_instances: vec![row],
            ..tick()
        },
    )
    .await;
    let rows = test.db.ti_rows(DagRunKey(1)).await.unwrap();
    assert_eq!(rows[0].message.as_deref(), Some("before\u{fffd}after"));
}

#[rstest]
#[tokio::test]
async fn the_same_content_is_the_same_version(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let first = version_with("etl", 1, &["load"], |dag| {
        dag.tags = vec!["b".into(), "a".into(), "b".into()]
    });
    let second = version_with("etl", 2, &["load", "train"], |dag| dag.owner = "somebody".into());
    let lease = test.with_dag(&first).await;
    assert_eq!(test.db.dag_tags().await.unwrap(), ["a", "b"]);
    test.commit(&lease, deploy(&second)).await;
    assert!(test.db.dag_tags().await.unwrap().is_empty());
    // The content of the first again, under a UUID of its own.
    let again = version_with("etl", 1, &["load"], |dag| dag.tags = vec!["b".into(), "a".into()]);
    test.commit(&lease, deploy(&again)).await;
    let db = test.again().await;
    let dag = Metadata::dag(&db, &dag_id("etl")).await.unwrap().unwrap();
    assert_eq!((dag.version.uuid, dag.version.number), (first.uuid, 1));
    assert_eq!(test.db.load_dags().await.unwrap()[0].version.uuid, first.uuid);
    let (found, highest) = db.find_version(&dag_id("etl"), first.digest).await.unwrap();
    assert_eq!((found.unwrap().uuid, highest), (first.uuid, 2));
    let (found, highest) = db.find_version(&dag_id("other"), first.digest).await.unwrap();
    assert_eq!((found.is_some(), highest), (false, 0));
}

#[rstest]
#[tokio::test]
async fn paused_holds_only_for_a_new_dag(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let version = version("etl", 1, &["load"]);
    let lease = test.lease().await;
    let deploy = |paused| TickWrite {
        dags: vec![DagWrite::Deploy {
            version: version.clone(),
            paused,
        }],
        ..tick()
    };
    let paused = || async { test.db.load_dags().await.unwrap()[0].paused };
    test.commit(&lease, deploy(Some(true))).await;
    assert!(paused().await);
    test.commit(&lease, deploy(Some(false))).await;
    assert!(paused().await);
    let set = DagWrite::SetPaused {
        dag_id: dag_id("etl"),
        paused: false,
    };
    test.commit(
        &lease,
        TickWrite {
            dags: vec![set],
            ..tick()
        },
    )
    .await;
    assert!(!paused().await);
}

#[rstest]
#[tokio::test]
async fn finds_runs_by_time_for_clearing(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let version = version("etl", 1, &["load"]);
    let lease = test.with_dag(&version).await;
    let mut runs: Vec<_> = (1..=5).map(|key| new_run(&version, key)).collect();
    let mut context = (*runs[4].context).clone();
    context.logical_date = None;
    runs[4].context = context.into();
    test.commit(
        &lease,
        TickWrite {
            new_runs: runs,
            runs: vec![run_write(2, DagRunState::Success)],
            ..tick()
        },
    )
    .await;
    let find = |start, end, limit| {
        let db = &test.db;
        async move {
            let keys = db.runs_between(&dag_id("etl"), start, end, limit).await.unwrap();
            keys.into_iter().map(|key| key.0).collect::<Vec<_>>()
        }
    };
    assert_eq!(find(None, None, 10).await, [1, 2, 3, 4, 5]);
    assert_eq!(find(Some(seconds(2)), Some(seconds(4)), 10).await, [2, 3, 4]);
    assert_eq!(find(Some(seconds(5)), None, 10).await, [5]);
    assert_eq!(find(None, None, 2).await, [1, 2]);
    assert_eq!(
        test.db.find_run(&dag_id("etl"), &run_id("manual__4")).await.unwrap(),
        Some(DagRunKey(4))
    );
    assert_eq!(
        test.db.find_run(&dag_id("etl"), &run_id("manual__9")).await.unwrap(),
        None
    );
    let active: Vec<_> = test
        .db
        .active_runs()
        .await
        .unwrap()
        .into_iter()
        .map(|key| key.0)
        .collect();
    assert_eq!(active, [1, 3, 4, 5]);
}

#[rstest]
#[tokio::test]
async fn a_large_tick_is_written_whole(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    const ROWS: u32 = 5_000;
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let names: Vec<String> = (0..ROWS).map(|index| format!("t{index}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let version = version("wide", 1, &names);
    let lease = test.with_dag(&version).await;
    let rows = |state| {
        (0..ROWS)
            .rev()
            .map(|task| ti(key(1, task), names[task as usize], state))
            .collect()
    };
    let keys: Vec<_> = (0..ROWS).map(|task| key(1, task)).collect();
    test.commit(
        &lease,
        TickWrite {
            new_runs: vec![new_run(&version, 1)],
            task_instances: rows(TaskInstanceState::NoStatus),
            ..tick()
        },
    )
    .await;
    test.commit(
        &lease,
        TickWrite {
            task_instances: rows(TaskInstanceState::Success),
            xcom_deletes: keys.clone(),
            xcoms: keys.iter().map(|key| xcom(*key, "return_value", "\"x\"")).collect(),
            ..tick()
        },
    )
    .await;
    let stored = test.db.load_run(DagRunKey(1)).await.unwrap().unwrap().task_instances;
    assert_eq!(stored.len(), ROWS as usize);
    assert!(stored.iter().all(|row| row.state == TaskInstanceState::Success));
    assert!(stored.is_sorted_by_key(|row| row.key));
    let filter = ports::query::XcomFilter::default();
    let page = ports::query::Page {
        limit: 3,
        offset: 4_990,
    };
    let listed = Metadata::xcoms(&test.db, &filter, page).await.unwrap();
    assert_eq!((listed.total, listed.items.len()), (u64::from(ROWS), 3));
    assert_eq!(listed.items[0].task_id, task_id("t4990"));
}

#[rstest]
#[tokio::test]
async fn the_audit_log_is_newest_first(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let lease = test.lease().await;
    let line = |event, dag: Option<&str>| AuditWrite {
        event,
        user: "admin".into(),
        dag_id: dag.map(dag_id),
        run_id: dag.map(|_| run_id("manual__1")),
        extra: dag.map(|_| "{}".into()),
        settles: None,
    };
    test.commit(
        &lease,
        TickWrite {
            audit: vec![
                line("first", None),
                line("second", Some("etl")),
                line("third", Some("other")),
            ],
            ..tick()
        },
    )
    .await;
    let page = ports::query::Page { limit: 2, offset: 0 };
    let listed = test.db.audit_log(None, page).await.unwrap();
    let events: Vec<_> = listed.items.iter().map(|row| row.event.as_str()).collect();
    assert_eq!((listed.total, events), (3, vec!["third", "second"]));
    assert_eq!((listed.items[0].at, listed.items[0].user.as_str()), (NOW, "admin"));
    let listed = test.db.audit_log(Some(&dag_id("etl")), page).await.unwrap();
    assert_eq!((listed.total, listed.items[0].extra.as_deref()), (1, Some("{}")));
}

#[rstest]
#[tokio::test]
async fn a_heartbeat_is_shown_with_its_dispatch(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let version = version("etl", 1, &["load"]);
    let lease = test.with_dag(&version).await;
    let mut row = ti(key(1, 0), "load", TaskInstanceState::Running);
    row.dispatch = DispatchNumber(2);
    let beat = |dispatch, at| HeartbeatWrite {
        ti: key(1, 0),
        dispatch: DispatchNumber(dispatch),
        at,
    };
    let first = TickWrite {
        new_runs: vec![new_run(&version, 1)],
        task_instances: vec![row.clone()],
        heartbeats: vec![beat(2, seconds(1)), beat(2, seconds(2))],
        ..tick()
    };
    test.commit(&lease, first).await;
    let shown = async || test.db.ti_rows(DagRunKey(1)).await.unwrap()[0].last_heartbeat_at;
    assert_eq!(shown().await, Some(seconds(2)));
    row.dispatch = DispatchNumber(3);
    let next = TickWrite {
        task_instances: vec![row],
        ..tick()
    };
    test.commit(&lease, next).await;
    assert_eq!(shown().await, None, "the next dispatch has not been heard of");
    let beats = TickWrite {
        heartbeats: vec![beat(3, seconds(9))],
        ..tick()
    };
    test.commit(&lease, beats).await;
    assert_eq!(shown().await, Some(seconds(9)));
    // They go with the run.
    let deleted = TickWrite {
        run_deletes: vec![DagRunKey(1)],
        ..tick()
    };
    test.commit(&lease, deleted).await;
    assert!(test.db.has_rows(&[DagRunKey(1)]).await.unwrap());
    while test.db.has_rows(&[DagRunKey(1)]).await.unwrap() {
        let step = TickWrite {
            dags: vec![purge(&[1], 1)],
            ..tick()
        };
        test.commit(&lease, step).await;
    }
}

#[rstest]
#[tokio::test]
async fn an_unknown_tick_was_not_committed(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    assert!(!test.db.tick_committed(Uuid::now_v7()).await.unwrap());
}
