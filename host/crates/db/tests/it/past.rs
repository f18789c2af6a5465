//! What a run came to, for the run after it.

use model::{DagRunKey, DagRunState, MapIndex, TaskIndex, TaskInstanceState, TiKey};
use ports::query::{HiddenFailure, Metadata as _};
use ports::store::{DagPause, DagWrite, RunWrite, SchedulerStore as _, TiNote, TickWrite};
use rstest::rstest;

use crate::support::{
    Backend, TestDb, dag_id, deploy, key, new_run, purge, run_write, seconds, task_id, ti, tick, version,
};

#[rstest]
#[tokio::test]
async fn what_a_success_hides_stays_until_the_run_is_written_without_it(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let etl = version("etl", 1, &["load"]);
    let lease = test.with_dag(&etl).await;
    let hidden = vec![HiddenFailure {
        task_id: task_id("load"),
        reason: "`clean` (all_done) ends \"well\"".to_owned(),
        advice: "ändere das".to_owned(),
    }];
    let write = |hidden_failures: &[HiddenFailure]| RunWrite {
        hidden_failures: hidden_failures.to_vec(),
        ..run_write(1, DagRunState::Success)
    };
    let tick_of = |run| TickWrite {
        runs: vec![run],
        ..tick()
    };
    let created = TickWrite {
        new_runs: vec![new_run(&etl, 1)],
        ..tick()
    };
    test.commit(&lease, created).await;
    let stored = async || {
        let row = test.db.run_row(DagRunKey(1)).await.unwrap().unwrap();
        row.hidden_failures
    };
    assert_eq!(stored().await, []);
    test.commit(&lease, tick_of(write(&hidden))).await;
    assert_eq!(stored().await, hidden);
    test.commit(&lease, tick_of(write(&[]))).await;
    assert_eq!(stored().await, []);
}

#[rstest]
#[tokio::test]
async fn the_run_before_is_the_latest_one_with_an_earlier_logical_date(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let old = version("etl", 1, &["load", "gone"]);
    let new = version("etl", 2, &["load", "move"]);
    let other = version("other", 1, &["load"]);
    let lease = test.with_dag(&old).await;
    test.commit(&lease, deploy(&new)).await;
    test.commit(&lease, deploy(&other)).await;
    let mapped = |map_index, state| {
        let mut of = key(5, 0);
        of.map_index = MapIndex(map_index);
        ti(of, "load", state)
    };
    let mut undated = new_run(&new, 6);
    let context = std::sync::Arc::make_mut(&mut undated.context);
    context.logical_date = None;
    let runs = TickWrite {
        // The keys are not in the order of the logical dates: a run for an older date may come later.
        new_runs: vec![
            new_run(&old, 3),
            new_run(&new, 5),
            undated,
            new_run(&other, 8),
            new_run(&new, 9),
        ],
        runs: vec![run_write(5, DagRunState::Failed)],
        task_instances: vec![
            mapped(0, TaskInstanceState::Success),
            mapped(1, TaskInstanceState::Failed),
            mapped(2, TaskInstanceState::Success),
            ti(key(5, 1), "move", TaskInstanceState::UpstreamFailed),
        ],
        ..tick()
    };
    test.commit(&lease, runs).await;

    let before = test.db.run_before(&dag_id("etl"), seconds(9)).await.unwrap().unwrap();
    assert_eq!(
        (before.key, before.version, before.state),
        (DagRunKey(5), new.uuid, DagRunState::Failed)
    );
    let mut states = before.states;
    states.sort_by_key(|(task, state, _)| (*task, state.as_str()));
    assert_eq!(
        states,
        [
            (TaskIndex(0), TaskInstanceState::Failed, 1),
            (TaskIndex(0), TaskInstanceState::Success, 2),
            (TaskIndex(1), TaskInstanceState::UpstreamFailed, 1),
        ]
    );
    let before = test.db.run_before(&dag_id("etl"), seconds(5)).await.unwrap().unwrap();
    assert_eq!((before.key, before.states), (DagRunKey(3), Vec::new()));
    assert!(test.db.run_before(&dag_id("etl"), seconds(3)).await.unwrap().is_none());

    for (task, date, there) in [
        ("gone", 5, true),
        ("gone", 3, false),
        ("move", 5, false),
        ("move", 6, true),
    ] {
        let found = test
            .db
            .has_task_before(&dag_id("etl"), seconds(date), &task_id(task))
            .await;
        assert_eq!(found.unwrap(), there, "{task} before {date}");
    }
}

#[rstest]
#[tokio::test]
async fn a_dag_is_paused_with_a_reason_which_goes_when_somebody_pauses_or_unpauses(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let etl = version("etl", 1, &["load"]);
    let lease = test.with_dag(&etl).await;
    let runs = TickWrite {
        new_runs: vec![new_run(&etl, 3), new_run(&etl, 1), new_run(&etl, 2)],
        runs: vec![run_write(1, DagRunState::Failed), run_write(3, DagRunState::Success)],
        ..tick()
    };
    test.commit(&lease, runs).await;
    let latest = test.db.latest_runs(&dag_id("etl"), 2).await.unwrap();
    assert_eq!(
        latest,
        [
            (DagRunKey(3), seconds(3), DagRunState::Success),
            (DagRunKey(2), seconds(2), DagRunState::Queued),
        ]
    );
    let pause = TickWrite {
        pauses: vec![DagPause {
            run: DagRunKey(1),
            dag_id: dag_id("etl"),
            reason: "its last run failed".to_owned(),
        }],
        ..tick()
    };
    test.commit(&lease, pause).await;
    let stored = async || {
        let dag = test.db.dag(&dag_id("etl")).await.unwrap().unwrap();
        (dag.paused, dag.paused_reason)
    };
    assert_eq!(stored().await, (true, Some("its last run failed".to_owned())));
    assert!(test.db.load_dags().await.unwrap()[0].paused);
    let unpause = TickWrite {
        dags: vec![DagWrite::SetPaused {
            dag_id: dag_id("etl"),
            paused: false,
        }],
        ..tick()
    };
    test.commit(&lease, unpause).await;
    assert_eq!(stored().await, (false, None));
}

#[rstest]
#[tokio::test]
async fn the_last_note_of_a_task_instance_is_shown_and_goes_with_its_run(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let etl = version("etl", 1, &["load", "move"]);
    let lease = test.with_dag(&etl).await;
    let note = |task, content: &str| TiNote {
        ti: key(1, task),
        content: content.to_owned(),
        user: "admin".to_owned(),
    };
    let created = TickWrite {
        new_runs: vec![new_run(&etl, 1)],
        task_instances: vec![
            ti(key(1, 0), "load", TaskInstanceState::Success),
            ti(key(1, 1), "move", TaskInstanceState::Success),
        ],
        notes: vec![note(1, "x"), note(0, "first"), note(0, "sécond")],
        ..tick()
    };
    test.commit(&lease, created).await;
    let notes = async || -> Vec<Option<String>> {
        let rows = test.db.ti_rows(DagRunKey(1)).await.unwrap();
        rows.into_iter().map(|row| row.note).collect()
    };
    assert_eq!(notes().await, [Some("sécond".to_owned()), Some("x".to_owned())]);
    let emptied = TickWrite {
        notes: vec![note(1, "")],
        ..tick()
    };
    test.commit(&lease, emptied).await;
    assert_eq!(notes().await, [Some("sécond".to_owned()), None]);

    // Renumbered: the note moves with its task instance, but over no other one.
    let index = |task, map_index| TiKey {
        map_index: MapIndex(map_index),
        ..key(1, task)
    };
    let at = |task: u32, map_index, name| {
        let mut row = ti(key(1, task), name, TaskInstanceState::Success);
        row.key = index(task, map_index);
        row
    };
    let moved = TickWrite {
        task_instance_deletes: vec![key(1, 0)],
        task_instances: vec![at(0, 0, "load"), at(0, 1, "load")],
        note_moves: vec![(key(1, 0), MapIndex(0))],
        ..tick()
    };
    test.commit(&lease, moved).await;
    assert_eq!(notes().await, [Some("sécond".to_owned()), None, None]);
    let over = TickWrite {
        notes: vec![TiNote {
            ti: index(0, 1),
            ..note(0, "its own")
        }],
        note_moves: vec![(index(0, 1), MapIndex(7)), (index(0, 5), MapIndex(6))],
        ..tick()
    };
    test.commit(&lease, over).await;
    let again = TickWrite {
        note_moves: vec![(index(0, 1), MapIndex(0))],
        ..tick()
    };
    test.commit(&lease, again).await;
    assert_eq!(notes().await, [Some("sécond".to_owned()), None, None]);

    let deleted = TickWrite {
        run_deletes: vec![DagRunKey(1)],
        ..tick()
    };
    test.commit(&lease, deleted).await;
    assert!(test.db.has_rows(&[DagRunKey(1)]).await.unwrap());
    while test.db.has_rows(&[DagRunKey(1)]).await.unwrap() {
        let some = TickWrite {
            dags: vec![purge(&[1], 1)],
            ..tick()
        };
        test.commit(&lease, some).await;
    }
}
