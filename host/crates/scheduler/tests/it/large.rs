//! Runs that are too large for one tick: what happens to them goes on in bounded steps, beside other runs, and exactly once whatever
//! fails on the way. And how large they may be.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use model::dag::{Combine, Expansion, MapSource, MapValues};
use model::{DagRunState, MapIndex, TaskId, TaskInstanceState, TiKey};
use ports::control::{ClearRequest, Control as _, ControlError, SetNoteRequest, SetStateRequest};
use ports::executor::TryRequest;
use ports::query::RunRow;
use ports::store::{SchedulerStore as _, TickWrite};
use scheduler::MemoryStore;

use crate::support::{DagBuilder, Fault, FaultyStore, Reply, Rig, RigBuilder, request};

/// The most rows of task instances that a tick of these tests writes: one large run's step, rows that had waited, and what else
/// happens.
const ROWS: usize = 250;

fn many(length: u32) -> Expansion {
    Expansion {
        how: Combine::Product,
        sources: vec![MapSource {
            name: "x".to_owned(),
            values: MapValues::Literal {
                value: (0..length).collect::<Vec<u32>>().into(),
            },
        }],
        limit: 1_000_000,
    }
}

/// `first`, then so many instances of `work`, then `last`.
fn wide(id: &str, width: u32) -> DagBuilder {
    DagBuilder::new(id)
        .task("first", &[])
        .task_with("work", &["first"], |task| task.expand = Some(many(width)))
        .task("last", &["work"])
}

fn builder(script: impl Fn(&TryRequest) -> Reply + Send + Sync + 'static) -> RigBuilder {
    RigBuilder::new(script).config(|config| {
        config.max_transitions_per_event = 50;
        config.max_transitions_per_step = 20;
        config.intent_patience = Duration::ZERO;
    })
}

/// `work` goes on until it is ended.
fn works(request: &TryRequest) -> Reply {
    match request.task.task_id.as_str() {
        "work" => Reply::Start,
        _ => Reply::done(),
    }
}

async fn restart(rig: Rig, script: impl Fn(&TryRequest) -> Reply + Send + Sync + 'static) -> Rig {
    let id = rig.store.inner.lease().unwrap().scheduler_id;
    let (store, clock) = rig.crash().await;
    let store = FaultyStore::new(Arc::clone(&store.inner), |_, _| Fault::None);
    builder(script)
        .store(store)
        .clock(clock)
        .config(|config| config.scheduler_id = id)
        .start()
        .await
}

/// Waits until nothing is promised.
async fn carried_out(rig: &Rig) {
    while !rig.store.inner.intents().await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn written(rig: &Rig, run: &RunRow, state: DagRunState) {
    while rig.stored(run.key).state != state {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn states(rig: &Rig, run: &RunRow) -> HashMap<TaskInstanceState, usize> {
    let mut states = HashMap::new();
    for ti in rig.store.inner.task_instances(run.key) {
        *states.entry(ti.state).or_default() += 1;
    }
    states
}

fn largest(ticks: &[TickWrite]) -> usize {
    ticks.iter().map(|tick| tick.task_instances.len()).max().unwrap_or(0)
}

fn everything(run: &RunRow) -> ClearRequest {
    ClearRequest {
        run_id: Some(run.run_id.clone()),
        user: "tester".to_owned(),
        ..ClearRequest::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_run_starts_and_expands_beside_small_ones() {
    let rig = builder(|_| Reply::done()).start().await;
    rig.deploy(wide("d", 3_000)).await;
    rig.deploy(DagBuilder::chain("small", 1)).await;
    let run = rig.trigger("d").await;
    let before = rig.commits();
    assert_eq!(rig.run_to_end("small").await.1, DagRunState::Success);
    assert!(rig.commits() - before <= 8, "{}", rig.commits() - before);
    assert!(rig.handle.is_active(run.uuid));
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    written(&rig, &run, DagRunState::Success).await;
    assert_eq!(states(&rig, &run), HashMap::from([(TaskInstanceState::Success, 3_002)]));
    // The first rows of a new run are written at once, for whoever looks at it.
    assert!(largest(&rig.store.committed()) <= 1_100);
}

#[tokio::test(start_paused = true)]
async fn cancelling_is_promised_and_goes_on_in_steps() {
    let rig = builder(works).start().await;
    rig.deploy(wide("d", 2_000)).await;
    rig.deploy(DagBuilder::chain("small", 1)).await;
    let run = rig.trigger("d").await;
    rig.executor.seen(1 + 64).await;
    let before = rig.store.committed().len();
    let answered = rig
        .handle
        .set_run_state(&run.dag_id, &run.run_id, DagRunState::Failed, "tester")
        .await
        .unwrap();
    assert_eq!(answered.state, DagRunState::Running, "it is only promised");
    let dispatched = rig.executor.count();
    let promised = rig.store.inner.intents().await.unwrap();
    assert_eq!(promised.len(), 1);
    assert_eq!(promised[0].runs, [run.key]);

    let commits = rig.commits();
    assert_eq!(rig.run_to_end("small").await.1, DagRunState::Success);
    assert!(rig.commits() - commits <= 8);
    assert!(!rig.store.inner.intents().await.unwrap().is_empty(), "it goes on");

    carried_out(&rig).await;
    assert_eq!(rig.stored(run.key).state, DagRunState::Failed);
    let expected = HashMap::from([
        (TaskInstanceState::Success, 1),
        (TaskInstanceState::Failed, 64),
        (TaskInstanceState::Skipped, 1_937),
    ]);
    assert_eq!(states(&rig, &run), expected);
    assert_eq!(rig.executor.count(), dispatched + 1, "nothing of it was begun since");
    assert_eq!(rig.executor.cancelled.lock().unwrap().len(), 64);
    let ticks = rig.store.committed().split_off(before);
    assert!(largest(&ticks) <= ROWS, "{}", largest(&ticks));
    let lines = rig.store.inner.audit_log();
    assert_eq!(lines.iter().filter(|line| line.event == "patch_dag_run").count(), 1);
    assert!(!rig.handle.is_active(run.uuid));
    for pool in rig.store.inner.all_pools() {
        assert_eq!(pool.used, 0);
    }
}

/// The process dies at each commit in turn, before or after it, from the promise on.
async fn with_a_crash<F: AsyncFn(&Rig, &RunRow), G: AsyncFn(&Rig, &RunRow, bool)>(
    script: impl Fn(&TryRequest) -> Reply + Send + Sync + Clone + 'static,
    begin: impl AsyncFn(&Rig) -> RunRow,
    ask: F,
    check: G,
) -> u32 {
    let mut crashes = 0;
    for at in 0..40 {
        for fault in [Fault::CrashBefore, Fault::CrashAfter] {
            let armed = Arc::new(std::sync::atomic::AtomicU64::new(u64::MAX));
            let plan = Arc::clone(&armed);
            let store = FaultyStore::new(Arc::new(MemoryStore::new()), move |attempt, _| {
                match attempt == plan.load(std::sync::atomic::Ordering::SeqCst) {
                    true => fault,
                    false => Fault::None,
                }
            });
            let rig = builder(script.clone()).store(store).start().await;
            let run = begin(&rig).await;
            armed.store(rig.store.attempts() + at, std::sync::atomic::Ordering::SeqCst);
            let mut crashed = rig.store.crashed.subscribe();
            let mut died = true;
            tokio::select! {
                _ = crashed.wait_for(|crashed| *crashed) => {}
                () = async { ask(&rig, &run).await; carried_out(&rig).await; } => died = false,
            }
            let ended_before = history(&rig);
            let promised = !rig.store.inner.intents().await.unwrap().is_empty();
            let asked = rig.store.inner.audit_log().iter().any(|line| {
                matches!(
                    line.event,
                    "patch_dag_run" | "clear_task_instances" | "patch_task_instance"
                )
            });
            assert!(asked || !promised);
            let rig = restart(rig, script.clone()).await;
            carried_out(&rig).await;
            check(&rig, &run, asked).await;
            let mut ended = ended_before;
            for (of, times) in history(&rig) {
                *ended.entry(of).or_default() += times;
            }
            assert!(ended.values().all(|times| *times == 1), "a try ends once");
            crashes += u32::from(died);
            let _ = rig.crash().await;
        }
    }
    crashes
}

/// How often each try has ended.
fn history(rig: &Rig) -> HashMap<(TiKey, u32), u32> {
    let mut ended = HashMap::new();
    for tick in rig.store.committed() {
        for write in &tick.tries {
            *ended.entry((write.key, write.try_number.0)).or_default() += 1;
        }
    }
    ended
}

#[tokio::test(start_paused = true)]
async fn a_cancel_survives_a_crash_at_any_commit() {
    let crashes = with_a_crash(
        works,
        async |rig| {
            rig.deploy(wide("d", 300)).await;
            let run = rig.trigger("d").await;
            rig.executor.seen(1 + 64).await;
            run
        },
        async |rig, run| {
            let state = DagRunState::Failed;
            let _ = rig
                .handle
                .set_run_state(&run.dag_id, &run.run_id, state, "tester")
                .await;
        },
        async |rig, run, asked| {
            if !asked {
                return;
            }
            assert_eq!(rig.stored(run.key).state, DagRunState::Failed);
            let states = states(rig, run);
            assert_eq!(states.values().sum::<usize>(), 302);
            assert!(states.keys().all(|state| state.is_finished()), "{states:?}");
            let again = rig.executor.tasks();
            assert!(
                !again.iter().any(|task| task == "work"),
                "nothing is begun after the promise: {again:?}"
            );
        },
    )
    .await;
    assert!(crashes >= 30, "{crashes}");
}

#[tokio::test(start_paused = true)]
async fn clearing_a_large_run_survives_a_crash_at_any_commit() {
    let crashes = with_a_crash(
        |_: &TryRequest| Reply::done(),
        async |rig| {
            rig.deploy(wide("d", 100)).await;
            let (run, state) = rig.run_to_end("d").await;
            assert_eq!(state, DagRunState::Success);
            written(rig, &run, DagRunState::Success).await;
            run
        },
        async |rig, run| {
            let _ = rig.handle.clear(&run.dag_id, everything(run)).await;
        },
        async |rig, run, asked| {
            written(rig, run, DagRunState::Success).await;
            let tries = if asked { 2 } else { 1 };
            for ti in rig.store.inner.task_instances(run.key) {
                assert_eq!(
                    (ti.state, ti.try_number.0),
                    (TaskInstanceState::Success, tries),
                    "{:?}",
                    ti.key
                );
            }
        },
    )
    .await;
    assert!(crashes >= 30, "{crashes}");
}

#[tokio::test(start_paused = true)]
async fn clearing_a_large_run_goes_on_in_steps() {
    let rig = builder(|_| Reply::done()).start().await;
    rig.deploy(wide("d", 1_500)).await;
    rig.deploy(DagBuilder::chain("small", 1)).await;
    let (run, _) = rig.run_to_end("d").await;
    written(&rig, &run, DagRunState::Success).await;
    let before = rig.store.committed().len();
    let dispatched = rig.executor.count();
    let answered = rig.handle.clear(&run.dag_id, everything(&run)).await.unwrap();
    assert_eq!(answered.len(), 1_502);
    let commits = rig.commits();
    assert_eq!(rig.run_to_end("small").await.1, DagRunState::Success);
    assert!(rig.commits() - commits <= 8);
    assert!(!rig.store.inner.intents().await.unwrap().is_empty());
    assert!(
        rig.handle.is_active(run.uuid),
        "whoever waits for its end waits for the new one"
    );
    assert_eq!(
        rig.executor.count(),
        dispatched + 1,
        "it is not begun before all is cleared"
    );
    carried_out(&rig).await;
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    for ti in rig.store.inner.task_instances(run.key) {
        assert_eq!(ti.try_number.0, 2);
    }
    let ticks = rig.store.committed().split_off(before);
    assert!(largest(&ticks) <= ROWS, "{}", largest(&ticks));
    // One of many is cleared at once.
    let one = ClearRequest {
        tasks: Some(vec![(TaskId::new("work").unwrap(), Some(MapIndex(7)))]),
        ..everything(&run)
    };
    rig.handle.clear(&run.dag_id, one).await.unwrap();
    assert!(rig.store.inner.intents().await.unwrap().is_empty());
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
}

#[tokio::test(start_paused = true)]
async fn what_is_cleared_of_a_large_run_that_goes_on_runs_again() {
    let rig = builder(|request| match request.task.task_id.as_str() {
        "last" => Reply::Start,
        _ => Reply::done(),
    })
    .start()
    .await;
    rig.deploy(wide("d", 200)).await;
    let run = rig.trigger("d").await;
    rig.executor.seen(202).await;
    let clear = ClearRequest {
        tasks: Some(vec![(TaskId::new("work").unwrap(), None)]),
        include_downstream: true,
        ..everything(&run)
    };
    rig.handle.clear(&run.dag_id, clear).await.unwrap();
    carried_out(&rig).await;
    rig.executor.seen(403).await;
    let last = rig.executor.dispatched.lock().unwrap().last().unwrap().clone();
    assert_eq!(last.task.task_id.as_str(), "last");
    rig.executor.done(last.id);
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    for ti in rig.store.inner.task_instances(run.key) {
        let tries = if ti.task_id.as_str() == "first" { 1 } else { 2 };
        assert_eq!(ti.try_number.0, tries);
    }
}

fn mark(run: &RunRow, task: &str, state: TaskInstanceState) -> SetStateRequest {
    SetStateRequest {
        dag_id: run.dag_id.clone(),
        run_id: run.run_id.clone(),
        include_past: false,
        include_future: false,
        tasks: vec![(TaskId::new(task).unwrap(), None)],
        groups: Vec::new(),
        include_upstream: false,
        include_downstream: false,
        state,
        dry_run: false,
        user: "tester".to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn one_end_that_ends_many_and_one_mark_that_clears_them_go_on_in_steps() {
    let rig = builder(|request| match request.task.task_id.as_str() {
        "first" => Reply::failed(true),
        _ => Reply::done(),
    })
    .start()
    .await;
    rig.deploy(wide("d", 1_500)).await;
    let (run, state) = rig.run_to_end("d").await;
    assert_eq!(state, DagRunState::Failed);
    written(&rig, &run, DagRunState::Failed).await;
    let expected = HashMap::from([
        (TaskInstanceState::Failed, 1),
        (TaskInstanceState::UpstreamFailed, 1_501),
    ]);
    assert_eq!(states(&rig, &run), expected);
    let ticks = rig.store.committed();
    // The first rows of a new run are written at once.
    assert!(largest(&ticks[3..]) <= ROWS, "{}", largest(&ticks[3..]));

    let before = ticks.len();
    let marked = rig
        .handle
        .set_task_instance_state(mark(&run, "first", TaskInstanceState::Success));
    marked.await.unwrap();
    carried_out(&rig).await;
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    written(&rig, &run, DagRunState::Success).await;
    assert_eq!(states(&rig, &run), HashMap::from([(TaskInstanceState::Success, 1_502)]));
    let ticks = rig.store.committed().split_off(before);
    assert!(largest(&ticks) <= ROWS, "{}", largest(&ticks));
    let nothing = rig
        .handle
        .set_task_instance_state(mark(&run, "work", TaskInstanceState::Success));
    assert!(matches!(nothing.await, Err(ControlError::Conflict(_))));
}

#[tokio::test(start_paused = true)]
async fn a_note_about_many_goes_on_in_steps() {
    let rig = builder(works).start().await;
    rig.deploy(wide("d", 1_000)).await;
    let run = rig.trigger("d").await;
    rig.executor.seen(1 + 64).await;
    let before = rig.store.committed().len();
    let note = SetNoteRequest {
        dag_id: run.dag_id.clone(),
        run_id: run.run_id.clone(),
        tasks: vec![(TaskId::new("work").unwrap(), None)],
        groups: Vec::new(),
        note: "look here".to_owned(),
        user: "tester".to_owned(),
    };
    assert_eq!(rig.handle.set_task_instance_note(note).await.unwrap().len(), 1_000);
    carried_out(&rig).await;
    let ticks = rig.store.committed().split_off(before);
    let notes = ticks.iter().flat_map(|tick| &tick.notes);
    let noted: std::collections::HashSet<TiKey> = notes.map(|note| note.ti).collect();
    assert_eq!(noted.len(), 1_000);
    assert!(ticks.iter().all(|tick| tick.notes.len() <= 100));
    for id in rig
        .executor
        .dispatched
        .lock()
        .unwrap()
        .iter()
        .filter(|of| of.task.task_id.as_str() == "work")
    {
        rig.executor.done(id.id);
    }
    // It goes on: what waits is admitted.
    rig.executor.seen(1 + 128).await;
}

#[tokio::test(start_paused = true)]
async fn marking_many_survives_a_crash_at_any_commit() {
    let crashes = with_a_crash(
        |request: &TryRequest| match request.task.task_id.as_str() {
            "work" => Reply::failed(true),
            _ => Reply::done(),
        },
        async |rig| {
            rig.deploy(wide("d", 200)).await;
            let (run, state) = rig.run_to_end("d").await;
            assert_eq!(state, DagRunState::Failed);
            written(rig, &run, DagRunState::Failed).await;
            run
        },
        async |rig, run| {
            let marked = mark(run, "work", TaskInstanceState::Success);
            let _ = rig.handle.set_task_instance_state(marked).await;
        },
        async |rig, run, asked| {
            if !asked {
                return assert_eq!(rig.stored(run.key).state, DagRunState::Failed);
            }
            written(rig, run, DagRunState::Success).await;
            assert_eq!(states(rig, run), HashMap::from([(TaskInstanceState::Success, 202)]));
            assert_eq!(rig.ti(run.key, "last").try_number.0, 1);
        },
    )
    .await;
    assert!(crashes >= 20, "{crashes}");
}

#[tokio::test(start_paused = true)]
async fn a_large_run_is_deleted_at_once() {
    let rig = builder(works).start().await;
    rig.deploy(wide("d", 2_000)).await;
    let run = rig.trigger("d").await;
    rig.executor.seen(1 + 64).await;
    let before = rig.store.committed().len();
    // Whatever else is promised of it.
    let state = DagRunState::Failed;
    rig.handle
        .set_run_state(&run.dag_id, &run.run_id, state, "tester")
        .await
        .unwrap();
    rig.handle.delete_run(&run.dag_id, &run.run_id, "tester").await.unwrap();
    carried_out(&rig).await;
    assert!(rig.store.inner.task_instances(run.key).is_empty());
    assert_eq!(rig.executor.cancelled.lock().unwrap().len(), 64);
    let ticks = rig.store.committed().split_off(before);
    assert!(largest(&ticks) <= ROWS, "{}", largest(&ticks));
    for pool in rig.store.inner.all_pools() {
        assert_eq!(pool.used, 0);
    }
    let (again, _) = (rig.trigger("d").await, ());
    assert!(rig.handle.is_active(again.uuid));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_would_be_too_large_is_refused() {
    let limited = |run: u32, all: u32| {
        RigBuilder::new(works).config(move |config| {
            config.max_task_instances_per_run = run;
            config.max_task_instances = all;
        })
    };
    // Of one run: where it is declared, and where it is triggered.
    let rig = limited(100_000, 1_000_000).start().await;
    let refused = rig.handle.deploy(wide("d", 99_999).manifest("1"), true, "tester").await;
    let Err(ControlError::TooManyTaskInstances(why)) = refused else {
        panic!("{refused:?}");
    };
    assert!(
        why.contains("100001 task instances") && why.contains("at most 100000"),
        "{why}"
    );
    let id = rig.store.inner.lease().unwrap().scheduler_id;
    rig.deploy(wide("d", 100)).await;
    let (store, clock) = rig.crash().await;
    let rig = limited(101, 1_000_000)
        .store(store)
        .clock(clock)
        .config(move |config| config.scheduler_id = id)
        .start()
        .await;
    let refused = rig.try_trigger("d").await;
    assert!(
        matches!(refused, Err(ControlError::TooManyTaskInstances(_))),
        "{refused:?}"
    );
    assert!(rig.store.inner.runs().is_empty());

    // Of all together: as soon as one has ended there is room.
    let rig = limited(1_000, 250).start().await;
    rig.deploy(wide("d", 100)).await;
    let (first, second) = (rig.trigger("d").await, rig.trigger("d").await);
    let refused = rig.try_trigger("d").await;
    let Err(ControlError::TooManyTaskInstances(why)) = refused else {
        panic!("{refused:?}");
    };
    assert!(why.contains("204") && why.contains("250"), "{why}");
    for run in [&first, &second] {
        let state = DagRunState::Failed;
        rig.handle
            .set_run_state(&run.dag_id, &run.run_id, state, "tester")
            .await
            .unwrap();
    }
    written(&rig, &second, DagRunState::Failed).await;
    rig.trigger("d").await;
    let one_more = rig.handle.trigger(request("d")).await;
    assert!(one_more.is_ok(), "{one_more:?}");

    // What is small always has room.
    let rig = limited(3_000, 2_000).start().await;
    rig.deploy(wide("d", 1_990)).await;
    rig.deploy(DagBuilder::chain("small", 2)).await;
    let large = rig.trigger("d").await;
    let many: Vec<RunRow> = futures::future::join_all((0..10).map(|_| rig.trigger("small"))).await;
    assert_eq!(many.len(), 10);
    assert!(rig.handle.is_active(large.uuid));
    assert!(matches!(
        rig.try_trigger("d").await,
        Err(ControlError::TooManyTaskInstances(_))
    ));
}
