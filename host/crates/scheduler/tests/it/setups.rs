//! Setups and teardowns under what people do to runs, and what is mapped over something that is made anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::dag::{Combine, Expansion, MapSource, MapValues, TaskRole};
use model::{DagId, DagRunState, MapIndex, TaskId, TaskIndex, TaskInstanceState, TriggerRule};
use ports::control::{ClearRequest, Control as _, SetNoteRequest, SetStateRequest};
use ports::executor::{ExecutorEvent, TryOutcome, TryReport, TryRequest, TryUsage};
use ports::query::RunRow;
use ports::store::SchedulerStore as _;

use crate::support::{DagBuilder, Fault, FaultyStore, Reply, Rig, RigBuilder};

fn task(id: &str) -> (TaskId, Option<MapIndex>) {
    (TaskId::new(id).unwrap(), None)
}

/// `up` → `w` → `x` → `down`, `other` beside them.
fn guarded() -> DagBuilder {
    DagBuilder::new("d")
        .task_with("up", &[], |task| task.role = TaskRole::Setup)
        .task("w", &["up"])
        .task("x", &["w"])
        .task_with("down", &["up", "x"], |task| {
            task.role = TaskRole::Teardown {
                on_failure_fail_dagrun: false,
            };
            task.trigger_rule = TriggerRule::AllDoneSetupSuccess;
        })
        .task("other", &[])
}

/// `w` fails until it is mended.
async fn broken() -> (Rig, Arc<AtomicBool>) {
    let mended = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&mended);
    let script = move |request: &TryRequest| match request.task.task_id.as_str() {
        "w" if !seen.load(Ordering::Relaxed) => Reply::failed(true),
        _ => Reply::done(),
    };
    let rig = RigBuilder::new(script).start().await;
    rig.deploy(guarded()).await;
    (rig, mended)
}

fn tries(rig: &Rig, run: &RunRow) -> [u32; 5] {
    ["up", "w", "x", "down", "other"].map(|task| rig.ti(run.key, task).try_number.0)
}

#[tokio::test(start_paused = true)]
async fn what_is_cleared_never_runs_on_what_was_torn_down() {
    let only_failed = || ClearRequest {
        only_failed: true,
        ..ClearRequest::default()
    };
    let one = |include_upstream| ClearRequest {
        tasks: Some(vec![task("w")]),
        include_upstream,
        include_downstream: true,
        ..ClearRequest::default()
    };
    let further = || ClearRequest {
        tasks: Some(vec![task("x")]),
        include_upstream: true,
        ..ClearRequest::default()
    };
    for (what, clear) in [
        ("only_failed", only_failed()),
        ("w", one(false)),
        ("w and upstream", one(true)),
        ("x and upstream", further()),
    ] {
        for many in [false, true] {
            let (rig, mended) = broken().await;
            let (run, state) = rig.run_to_end("d").await;
            assert_eq!(state, DagRunState::Failed);
            assert_eq!(tries(&rig, &run), [1, 1, 0, 1, 1]);
            mended.store(true, Ordering::Relaxed);
            let request = |dry_run| ClearRequest {
                run_id: (!many).then(|| run.run_id.clone()),
                dry_run,
                ..clear.clone()
            };
            let dag = DagId::new("d").unwrap();
            let names = |rows: Vec<ports::query::TiRow>| -> Vec<String> {
                rows.iter().map(|row| row.task_id.to_string()).collect()
            };
            let shown = names(rig.handle.clear(&dag, request(true)).await.unwrap());
            assert_eq!(shown, ["up", "w", "x", "down"], "{what}");
            let cleared = names(rig.handle.clear(&dag, request(false)).await.unwrap());
            assert_eq!(cleared, shown, "{what}");
            while rig.ti(run.key, "down").try_number.0 < 2 || rig.stored(run.key).state != DagRunState::Success {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // Whatever is prepared is cleaned up once, after all that used it.
            assert_eq!(tries(&rig, &run), [2, 2, 1, 2, 1], "{what}");
            let ends = ["up", "w", "x"].map(|task| rig.ti(run.key, task).end_date.unwrap());
            let down = rig.ti(run.key, "down").start_date.unwrap();
            assert!(ends.iter().all(|end| *end <= down), "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_still_stands_is_not_prepared_again() {
    let script = |request: &TryRequest| match request.task.task_id.as_str() {
        "w" if request.id.try_number.0 == 1 => Reply::failed(true),
        "slow" => Reply::Start,
        _ => Reply::done(),
    };
    let rig = RigBuilder::new(script).start().await;
    let dag = DagBuilder::new("d")
        .task_with("up", &[], |task| task.role = TaskRole::Setup)
        .task("w", &["up"])
        .task("slow", &["up"])
        .task_with("down", &["up", "w", "slow"], |task| {
            task.role = TaskRole::Teardown {
                on_failure_fail_dagrun: false,
            };
            task.trigger_rule = TriggerRule::AllDoneSetupSuccess;
        });
    rig.deploy(dag).await;
    let run = rig.trigger("d").await;
    let slow = loop {
        let next = rig.executor.next().await;
        if next.task.task_id.as_str() == "slow" {
            break next;
        }
    };
    while rig.state(run.key, "w") != TaskInstanceState::Failed {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let clear = ClearRequest {
        run_id: Some(run.run_id.clone()),
        only_failed: true,
        ..ClearRequest::default()
    };
    let cleared = rig.handle.clear(&run.dag_id, clear).await.unwrap();
    assert_eq!(cleared.len(), 1, "`slow` goes on with what `up` prepared: {cleared:?}");
    while rig.state(run.key, "w") != TaskInstanceState::Success {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    rig.executor.done(slow.id);
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    assert_eq!(rig.ti(run.key, "up").try_number.0, 1);
    assert_eq!(rig.ti(run.key, "down").try_number.0, 1);
}

#[tokio::test(start_paused = true)]
async fn a_mark_with_all_that_follows_stops_before_teardowns() {
    let rig = RigBuilder::new(|request: &TryRequest| match request.task.task_id.as_str() {
        "w" => Reply::Start,
        _ => Reply::done(),
    })
    .start()
    .await;
    rig.deploy(guarded()).await;
    let run = rig.trigger("d").await;
    while rig.executor.next().await.task.task_id.as_str() != "w" {}
    let set = |dry_run| SetStateRequest {
        dag_id: run.dag_id.clone(),
        run_id: run.run_id.clone(),
        include_past: false,
        include_future: false,
        tasks: vec![task("w")],
        groups: Vec::new(),
        include_upstream: false,
        include_downstream: true,
        state: TaskInstanceState::Success,
        dry_run,
        user: "tester".to_owned(),
    };
    for dry_run in [true, false] {
        let rows = rig.handle.set_task_instance_state(set(dry_run)).await.unwrap();
        let names: Vec<&str> = rows.iter().map(|row| row.task_id.as_str()).collect();
        assert_eq!(names, ["w", "x"], "what `up` prepared has still to be cleaned up");
    }
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    assert_eq!(tries(&rig, &run)[3], 1);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_run_fails_also_where_the_server_dies_before_its_teardowns_end() {
    for until in ["up", "w", "x"] {
        let script = move |request: &TryRequest| match request.task.task_id.as_str() {
            name if name == until || name == "down" => Reply::Start,
            _ => Reply::done(),
        };
        let builder = || RigBuilder::new(script).config(|config| config.max_transitions_per_tick = 1);
        let rig = builder().start().await;
        rig.deploy(guarded()).await;
        let run = rig.trigger("d").await;
        while rig.executor.next().await.task.task_id.as_str() != until {}
        rig.handle
            .set_run_state(&run.dag_id, &run.run_id, DagRunState::Failed, "tester")
            .await
            .unwrap();
        let id = rig.store.inner.lease().unwrap().scheduler_id;
        let (store, clock) = rig.crash().await;
        let store = FaultyStore::new(Arc::clone(&store.inner), |_, _| Fault::None);
        let rig = RigBuilder::new(|_| Reply::done())
            .store(store)
            .clock(clock)
            .config(|config| config.scheduler_id = id)
            .start()
            .await;
        assert_eq!(rig.finished(&run).await, DagRunState::Failed, "cancelled in `{until}`");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_mark_lets_run_again_does_not_run_on_what_was_torn_down() {
    // Alone: `x` follows, and needs what `up` prepares. With all that follows: nothing is left to run.
    for (include_downstream, expected) in [(false, [2, 1, 1, 2, 1]), (true, [1, 1, 0, 1, 1])] {
        let (rig, _) = broken().await;
        let (run, state) = rig.run_to_end("d").await;
        assert_eq!(state, DagRunState::Failed);
        let set = SetStateRequest {
            dag_id: run.dag_id.clone(),
            run_id: run.run_id.clone(),
            include_past: false,
            include_future: false,
            tasks: vec![task("w")],
            groups: Vec::new(),
            include_upstream: false,
            include_downstream,
            state: TaskInstanceState::Success,
            dry_run: false,
            user: "tester".to_owned(),
        };
        rig.handle.set_task_instance_state(set).await.unwrap();
        assert_eq!(rig.finished(&run).await, DagRunState::Success);
        assert_eq!(tries(&rig, &run), expected);
    }
}

fn over_list() -> Expansion {
    Expansion {
        how: Combine::Product,
        sources: vec![MapSource {
            name: "x".to_owned(),
            values: MapValues::Xcom {
                task: TaskIndex(0),
                key: "return_value".to_owned(),
                path: Vec::new(),
                measure: 0,
            },
        }],
        limit: 10,
    }
}

fn mapped() -> DagBuilder {
    DagBuilder::new("d")
        .task("list", &[])
        .task_with("each", &["list"], |task| {
            task.expand = Some(over_list());
            task.retry.retries = 2;
            task.retry.delay = Duration::from_secs(60);
        })
}

fn report(rig: &Rig, request: &TryRequest, outcome: TryOutcome, measured: Vec<u32>) {
    rig.executor.send(ExecutorEvent::Finished(Box::new(TryReport {
        id: request.id,
        outcome,
        xcoms: Vec::new(),
        measured,
        rendered_map_index: None,
        started_at: rig.now(),
        ended_at: rig.now(),
        usage: TryUsage::default(),
    })));
}

async fn next(rig: &Rig, name: &str) -> TryRequest {
    let next = rig.executor.next().await;
    assert_eq!(next.task.task_id.as_str(), name);
    next
}

#[tokio::test(start_paused = true)]
async fn a_retry_of_another_element_finds_no_checkpoint() {
    let rig = RigBuilder::new(|_| Reply::Start).start().await;
    rig.deploy(mapped()).await;
    let run = rig.trigger("d").await;
    let list = next(&rig, "list").await;
    report(&rig, &list, TryOutcome::Done { falsy: false }, vec![1]);
    let each = next(&rig, "each").await;
    report(
        &rig,
        &each,
        crate::support::failure(model::Cause::Failed, false),
        Vec::new(),
    );
    while rig.state(run.key, "each") != TaskInstanceState::UpForRetry {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let clear = ClearRequest {
        run_id: Some(run.run_id.clone()),
        tasks: Some(vec![task("list")]),
        ..ClearRequest::default()
    };
    rig.handle.clear(&run.dag_id, clear).await.unwrap();
    let list = next(&rig, "list").await;
    let before = rig.store.committed().len();
    report(&rig, &list, TryOutcome::Done { falsy: false }, vec![1]);
    let again = next(&rig, "each").await;
    assert_eq!(
        (again.id.try_number.0, again.task.max_tries),
        (2, 4),
        "with all tries to come"
    );
    let deleted = rig.store.committed().split_off(before);
    let deleted: Vec<_> = deleted.iter().flat_map(|tick| &tick.checkpoint_deletes).collect();
    assert!(deleted.iter().any(|ti| **ti == each.id.ti), "{deleted:?}");
}

#[tokio::test(start_paused = true)]
async fn a_note_on_what_is_not_expanded_yet_survives_its_expansion() {
    for crash in [false, true] {
        let mut rig = RigBuilder::new(|_| Reply::Start).start().await;
        rig.deploy(mapped()).await;
        let run = rig.trigger("d").await;
        let list = next(&rig, "list").await;
        let note = SetNoteRequest {
            dag_id: run.dag_id.clone(),
            run_id: run.run_id.clone(),
            tasks: vec![task("each")],
            groups: Vec::new(),
            note: "look here".to_owned(),
            user: "tester".to_owned(),
        };
        rig.handle.set_task_instance_note(note).await.unwrap();
        let mut list = list;
        if crash {
            let id = rig.store.inner.lease().unwrap().scheduler_id;
            let (store, clock) = rig.crash().await;
            let store = FaultyStore::new(Arc::clone(&store.inner), |_, _| Fault::None);
            rig = RigBuilder::new(|_| Reply::Start)
                .store(store)
                .clock(clock)
                .config(|config| config.scheduler_id = id)
                .start()
                .await;
            list = next(&rig, "list").await;
        }
        report(&rig, &list, TryOutcome::Done { falsy: false }, vec![2]);
        next(&rig, "each").await;
        next(&rig, "each").await;
        let rows = rig.store.inner.ti_rows(run.key).await.unwrap();
        let noted: Vec<(i32, Option<String>)> = rows
            .into_iter()
            .filter(|row| row.task_id.as_str() == "each")
            .map(|row| (row.key.map_index.0, row.note))
            .collect();
        assert_eq!(noted, [(0, Some("look here".to_owned())), (1, None)]);
    }
}
