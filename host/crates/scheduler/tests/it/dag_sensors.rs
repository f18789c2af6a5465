//! Sensors on runs of other DAGs, which somebody else triggers.

use std::sync::Arc;
use std::time::Duration;

use model::between::{Awaited, States, WaitForDag};
use model::sensor::Sensor;
use model::{Cause, DagId, DagRunState, TaskId, TaskInstanceState, Timestamp, Work};
use ports::between::RunSelector;
use ports::control::Control as _;
use ports::executor::{TryOutcome, TryRequest};
use ports::query::RunRow;
use scheduler::MemoryStore;

use crate::between::{reached, restart};
use crate::support::{DagBuilder, Fault, FaultyStore, Reply, Rig, RigBuilder, request, run_id};

fn sensor(awaited: Awaited, edit: impl FnOnce(&mut Sensor)) -> DagBuilder {
    let mut settings = Sensor::default();
    edit(&mut settings);
    DagBuilder::new("watcher").task_with("wait", &[], |task| {
        task.work = Work::WaitForDag(Box::new(WaitForDag {
            dag: DagId::new("other").unwrap(),
            awaited,
        }));
        task.sensor = Some(settings);
    })
}

fn run_states(failed: &[DagRunState]) -> Awaited {
    Awaited::Run {
        states: States {
            allowed: vec![DagRunState::Success],
            failed: failed.to_vec(),
            skipped: Vec::new(),
        },
    }
}

fn task_states(task: &str) -> Awaited {
    Awaited::Task {
        task: TaskId::new(task).unwrap(),
        states: States {
            allowed: vec![TaskInstanceState::Success],
            failed: vec![TaskInstanceState::Failed],
            skipped: vec![TaskInstanceState::Skipped],
        },
    }
}

/// The sensor waits for the run `one`; tasks of the other DAG go on until the test ends them.
fn watching(request: &TryRequest) -> Reply {
    match &request.task.work {
        Work::WaitForDag(_) => Reply::End(TryOutcome::WaitForDag(RunSelector::RunId(run_id("one"))), Vec::new()),
        _ => Reply::Start,
    }
}

async fn other(rig: &Rig) -> RunRow {
    let mut one = request("other");
    one.run_id = Some(run_id("one"));
    rig.handle.trigger(one).await.unwrap()
}

async fn dispatched(rig: &Rig, task: &str) -> TryRequest {
    loop {
        let next = rig.executor.next().await;
        if next.task.task_id.as_str() == task {
            return next;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_sensor_waits_for_a_run_that_does_not_exist_yet() {
    let rig = RigBuilder::new(watching).start().await;
    rig.deploy(sensor(run_states(&[]), |_| {})).await;
    let mut events = rig.handle.subscribe();
    let run = rig.trigger("watcher").await;
    reached(&mut events, TaskInstanceState::Deferred).await;
    // Another run of that DAG is not the one.
    rig.deploy(DagBuilder::chain("other", 2)).await;
    let mut another = request("other");
    another.run_id = Some(run_id("another"));
    let another = rig.handle.trigger(another).await.unwrap();
    for task in ["t0", "t1"] {
        let next = dispatched(&rig, task).await;
        rig.executor.done(next.id);
    }
    assert_eq!(rig.finished(&another).await, DagRunState::Success);
    assert_eq!(rig.state(run.key, "wait"), TaskInstanceState::Deferred);
    other(&rig).await;
    for task in ["t0", "t1"] {
        let next = dispatched(&rig, task).await;
        rig.executor.done(next.id);
    }
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
}

#[tokio::test(start_paused = true)]
async fn a_sensor_sees_what_has_happened_before_it_began_to_wait() {
    let rig = RigBuilder::new(watching).start().await;
    rig.deploy(sensor(task_states("t0"), |_| {})).await;
    rig.deploy(DagBuilder::chain("other", 2)).await;
    let run = other(&rig).await;
    let first = dispatched(&rig, "t0").await;
    rig.executor.done(first.id);
    let second = dispatched(&rig, "t1").await;
    // The other run is active: it is judged as it is in memory.
    assert_eq!(rig.run_to_end("watcher").await.1, DagRunState::Success);
    rig.executor.done(second.id);
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    // It has ended: it is judged by its rows.
    assert_eq!(rig.run_to_end("watcher").await.1, DagRunState::Success);
}

#[tokio::test(start_paused = true)]
async fn a_sensor_fails_skips_or_gives_up() {
    for (outcome, soft_fail, state, code) in [
        (
            Reply::failed(true),
            false,
            TaskInstanceState::Failed,
            Some("external_failed"),
        ),
        (Reply::failed(true), true, TaskInstanceState::Skipped, None),
        (
            Reply::End(TryOutcome::Skip { reason: String::new() }, Vec::new()),
            false,
            TaskInstanceState::Skipped,
            None,
        ),
    ] {
        let script = move |request: &TryRequest| match &request.task.work {
            Work::WaitForDag(_) => watching(request),
            _ => outcome.clone(),
        };
        let rig = RigBuilder::new(script).start().await;
        rig.deploy(sensor(task_states("t0"), |sensor| sensor.soft_fail = soft_fail))
            .await;
        rig.deploy(DagBuilder::chain("other", 1)).await;
        other(&rig).await;
        let (run, _) = rig.run_to_end("watcher").await;
        let ti = rig.ti(run.key, "wait");
        assert_eq!((ti.state, ti.code.as_deref()), (state, code));
        assert!(ti.message.is_some());
    }
    let rig = RigBuilder::new(watching).start().await;
    rig.deploy(sensor(task_states("nothing"), |_| {})).await;
    rig.deploy(DagBuilder::chain("other", 1)).await;
    other(&rig).await;
    let (run, _) = rig.run_to_end("watcher").await;
    assert_eq!(rig.ti(run.key, "wait").code.as_deref(), Some("external_task_not_found"));

    let rig = RigBuilder::new(watching).start().await;
    rig.deploy(sensor(run_states(&[]), |sensor| {
        sensor.timeout = Duration::from_secs(60)
    }))
    .await;
    let (run, state) = rig.run_to_end("watcher").await;
    assert_eq!(state, DagRunState::Failed);
    let ti = rig.ti(run.key, "wait");
    assert_eq!(ti.cause, Some(Cause::TimedOut));
    assert_eq!(
        ti.message.as_deref(),
        Some("the sensor has waited longer than its `timeout`")
    );
}

#[tokio::test(start_paused = true)]
async fn a_sensor_waits_on_after_a_restart() {
    let rig = RigBuilder::new(watching).start().await;
    rig.deploy(sensor(run_states(&[DagRunState::Failed]), |_| {})).await;
    rig.deploy(DagBuilder::chain("other", 1)).await;
    let mut events = rig.handle.subscribe();
    let run = rig.trigger("watcher").await;
    reached(&mut events, TaskInstanceState::Deferred).await;
    let rig = restart(rig, watching).await;
    assert_eq!(rig.state(run.key, "wait"), TaskInstanceState::Deferred);
    other(&rig).await;
    let next = dispatched(&rig, "t0").await;
    rig.executor.done(next.id);
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
}

/// The sensor and what it waits for, crashed at every commit.
#[tokio::test(start_paused = true)]
async fn a_crash_at_any_commit_loses_no_wait() {
    let script = |request: &TryRequest| match &request.task.work {
        Work::WaitForDag(_) => watching(request),
        _ => Reply::done(),
    };
    for crash in [Fault::CrashBefore, Fault::CrashAfter] {
        let mut at = 2;
        loop {
            let store = FaultyStore::new(Arc::new(MemoryStore::new()), move |attempt, _| {
                if attempt == at { crash } else { Fault::None }
            });
            let rig = RigBuilder::new(script).store(store).start().await;
            rig.deploy(sensor(run_states(&[]), |_| {})).await;
            rig.deploy(DagBuilder::chain("other", 2)).await;
            let mut crashed = rig.store.crashed.subscribe();
            let work = async {
                let run = rig.trigger("watcher").await;
                other(&rig).await;
                rig.finished(&run).await;
            };
            let has_crashed = tokio::select! {
                () = work => false,
                crashed = crashed.wait_for(|crashed| *crashed) => crashed.is_ok(),
            };
            if !has_crashed {
                assert!(at > 4, "{crash:?}: there are more commits than {at}");
                break;
            }
            let rig = restart(rig, script).await;
            if !rig.store.inner.runs().iter().any(|run| run.run_id == run_id("one")) {
                other(&rig).await;
            }
            let watchers: Vec<RunRow> = rig
                .store
                .inner
                .runs()
                .into_iter()
                .filter(|run| run.dag_id.as_str() == "watcher")
                .collect();
            for run in watchers {
                assert_eq!(rig.finished(&run).await, DagRunState::Success, "{crash:?} at {at}");
            }
            at += 1;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_sensor_finds_its_run_by_the_logical_date_and_a_mark_ends_the_wait() {
    let script = |request: &TryRequest| match &request.task.work {
        Work::WaitForDag(_) => Reply::End(
            TryOutcome::WaitForDag(RunSelector::LogicalDate(Timestamp(7))),
            Vec::new(),
        ),
        _ => Reply::Start,
    };
    let rig = RigBuilder::new(script).start().await;
    rig.deploy(sensor(task_states("t0"), |_| {})).await;
    rig.deploy(DagBuilder::chain("other", 2)).await;
    let mut events = rig.handle.subscribe();
    let (first, second) = (rig.trigger("watcher").await, rig.trigger("watcher").await);
    reached(&mut events, TaskInstanceState::Deferred).await;
    reached(&mut events, TaskInstanceState::Deferred).await;
    let mark = ports::control::SetStateRequest {
        groups: Vec::new(),
        include_past: false,
        include_future: false,
        dag_id: first.dag_id.clone(),
        run_id: first.run_id.clone(),
        tasks: vec![(TaskId::new("wait").unwrap(), None)],
        include_upstream: false,
        include_downstream: false,
        state: TaskInstanceState::Success,
        dry_run: false,
        user: "ann".to_owned(),
    };
    rig.handle.set_task_instance_state(mark).await.unwrap();
    assert_eq!(rig.finished(&first).await, DagRunState::Success);
    // A run without a date is another one.
    rig.trigger("other").await;
    let other = dispatched(&rig, "t0").await;
    rig.executor.done(other.id);
    let mut dated = request("other");
    dated.logical_date = Some(Timestamp(7));
    rig.handle.trigger(dated).await.unwrap();
    let wanted = loop {
        let next = dispatched(&rig, "t0").await;
        if next.run.logical_date.is_some() {
            break next;
        }
    };
    assert_eq!(rig.state(second.key, "wait"), TaskInstanceState::Deferred);
    rig.executor.done(wanted.id);
    assert_eq!(rig.finished(&second).await, DagRunState::Success);
}
