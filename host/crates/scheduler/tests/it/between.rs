//! Runs that trigger runs of other DAGs and wait for them.

use std::sync::Arc;
use std::time::Duration;

use model::between::{IfExists, TriggerDag};
use model::{Cause, DagId, DagRunState, TaskId, TaskInstanceState, Timestamp, Work};
use ports::between::TriggerDagRequest;
use ports::control::{ClearRequest, Control as _, RunEvent};
use ports::executor::{TryOutcome, TryRequest, XcomPush};
use ports::query::RunRow;
use scheduler::MemoryStore;
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;

use crate::support::{DagBuilder, Fault, FaultyStore, Reply, Rig, RigBuilder, request, run_id};

pub(crate) fn triggers(dag: &str, edit: impl FnOnce(&mut TriggerDag)) -> Work {
    let mut step = TriggerDag {
        dag: Some(DagId::new(dag).unwrap()),
        allowed: Vec::new(),
        if_exists: IfExists::Fail,
        wait: true,
        allowed_states: vec![DagRunState::Success],
        result: None,
        timeout: None,
    };
    edit(&mut step);
    Work::TriggerDag(Box::new(step))
}

fn parent(edit: impl FnOnce(&mut TriggerDag)) -> DagBuilder {
    let work = triggers("child", edit);
    DagBuilder::new("parent")
        .task_with("solve", &[], |task| task.work = work)
        .task("next", &["solve"])
}

fn child() -> DagBuilder {
    DagBuilder::new("child").task("work", &[])
}

fn asks(conf: Value) -> Reply {
    let request = TriggerDagRequest {
        dag: None,
        conf,
        run_id: None,
        logical_date: None,
    };
    Reply::End(TryOutcome::TriggerDag(Box::new(request)), Vec::new())
}

/// Steps between DAGs render at once, other tasks go on until the test ends them.
fn held(request: &TryRequest) -> Reply {
    match &request.task.work {
        Work::TriggerDag(_) => asks(json!({})),
        _ => Reply::Start,
    }
}

fn at_once(request: &TryRequest) -> Reply {
    match &request.task.work {
        Work::TriggerDag(_) => asks(json!({})),
        _ => Reply::done(),
    }
}

pub(crate) async fn reached(events: &mut Receiver<RunEvent>, wanted: TaskInstanceState) {
    loop {
        if let RunEvent::TaskInstance { state, .. } = events.recv().await.unwrap()
            && state == wanted
        {
            return;
        }
    }
}

pub(crate) fn children(rig: &Rig, of: &RunRow) -> Vec<RunRow> {
    let mut runs = rig.store.inner.runs();
    runs.retain(|run| run.parent.as_ref().is_some_and(|parent| parent.run == of.key));
    runs.sort_by_key(|run| run.key);
    runs
}

/// A parent whose task is deferred, and its child, which runs.
async fn waiting(rig: &Rig) -> (RunRow, RunRow, TryRequest) {
    let mut events = rig.handle.subscribe();
    let run = rig.trigger("parent").await;
    reached(&mut events, TaskInstanceState::Deferred).await;
    loop {
        let dispatched = rig.executor.next().await;
        if matches!(dispatched.task.work, Work::Component(_)) {
            let child = children(rig, &run).pop().unwrap();
            return (run, child, dispatched);
        }
    }
}

async fn started(parent: DagBuilder) -> Rig {
    let rig = RigBuilder::new(held).start().await;
    rig.deploy(parent).await;
    rig.deploy(child()).await;
    rig
}

pub(crate) async fn restart(rig: Rig, script: impl Fn(&TryRequest) -> Reply + Send + Sync + 'static) -> Rig {
    let id = rig.store.inner.lease().unwrap().scheduler_id;
    let (store, clock) = rig.crash().await;
    let store = FaultyStore::new(Arc::clone(&store.inner), |_, _| Fault::None);
    RigBuilder::new(script)
        .store(store)
        .clock(clock)
        .config(|config| config.scheduler_id = id)
        .start()
        .await
}

pub(crate) fn value(rig: &Rig, run: &RunRow, key: &str) -> Value {
    let xcoms = rig.store.inner.xcoms_of(run.key);
    let (_, _, _, value) = xcoms.into_iter().find(|(_, _, name, _)| name == key).unwrap();
    serde_json::from_str(&value.value).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_task_waits_for_the_run_that_it_triggers_and_publishes_what_came_of_it() {
    let rig = started(parent(|step| step.result = Some(TaskId::new("work").unwrap()))).await;
    let (run, child, work) = waiting(&rig).await;
    assert_eq!(child.run_id.as_str(), format!("manual__{}", child.run_after));
    assert_eq!(child.run_type.as_str(), "manual");
    let of = child.parent.as_deref().unwrap();
    assert_eq!(
        (of.run_id.clone(), of.task_id.as_str(), of.depth),
        (run.run_id.clone(), "solve", 1)
    );
    let pools = rig.store.inner.all_pools();
    assert_eq!(pools[0].used, 1, "the child's task alone holds a slot");
    let result = XcomPush {
        key: "return_value".to_owned(),
        value: r#"{"gain":9007199254740993}"#.into(),
        blobs: Vec::new(),
    };
    rig.executor
        .end_with(work.id, TryOutcome::Done { falsy: false }, vec![result]);
    let next = rig.executor.next().await;
    assert_eq!(next.task.task_id.as_str(), "next");
    rig.executor.done(next.id);
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    assert_eq!(
        value(&rig, &run, "return_value"),
        json!({"dag_id": "child", "run_id": child.run_id, "state": "success", "result": {"gain": 9_007_199_254_740_993_u64}})
    );
    assert_eq!(value(&rig, &run, "trigger_run_id"), json!(child.run_id));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_does_not_wait_ends_with_the_start_of_the_run() {
    let rig = RigBuilder::new(at_once).start().await;
    rig.deploy(parent(|step| step.wait = false)).await;
    rig.deploy(child()).await;
    let (run, state) = rig.run_to_end("parent").await;
    assert_eq!(state, DagRunState::Success);
    let child = children(&rig, &run).pop().unwrap();
    assert_eq!(rig.finished(&child).await, DagRunState::Success);
    assert_eq!(
        value(&rig, &run, "return_value"),
        json!({"dag_id": "child", "run_id": child.run_id})
    );
    assert_eq!(value(&rig, &run, "trigger_run_id"), json!(child.run_id));
}

#[tokio::test(start_paused = true)]
async fn a_failed_run_fails_the_try_and_a_retry_triggers_another_one() {
    let script = |request: &TryRequest| match (&request.task.work, request.run.run_id.as_str()) {
        (Work::TriggerDag(_), _) => asks(json!({"try": request.id.try_number.0})),
        _ if request.run.conf["try"] == 1 => Reply::failed(true),
        _ => Reply::done(),
    };
    let rig = RigBuilder::new(script).start().await;
    let work = triggers("child", |_| {});
    rig.deploy(DagBuilder::new("parent").task_with("solve", &[], |task| {
        task.work = work;
        task.retry.retries = 1;
    }))
    .await;
    rig.deploy(child()).await;
    let (run, state) = rig.run_to_end("parent").await;
    assert_eq!(state, DagRunState::Success);
    let states: Vec<DagRunState> = children(&rig, &run).iter().map(|run| run.state).collect();
    assert_eq!(states, [DagRunState::Failed, DagRunState::Success]);
    let tries = rig.store.inner.tries(run.key);
    assert_eq!(tries[0].code.as_deref(), Some("triggered_run_failed"));
    assert_eq!(tries[0].cause, Some(Cause::Failed));
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_allowed_is_a_success_whatever_it_is() {
    let script = |request: &TryRequest| match (&request.task.work, request.task.task_id.as_str()) {
        (Work::TriggerDag(_), _) => asks(json!({})),
        (_, "work") => Reply::failed(true),
        _ => Reply::done(),
    };
    let rig = RigBuilder::new(script).start().await;
    rig.deploy(parent(|step| step.allowed_states = vec![DagRunState::Failed]))
        .await;
    rig.deploy(child()).await;
    let (run, state) = rig.run_to_end("parent").await;
    assert_eq!(state, DagRunState::Success);
    assert_eq!(value(&rig, &run, "return_value")["state"], "failed");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_triggered_fails_the_try_and_says_why() {
    let script = |request: &TryRequest| match &request.task.work {
        Work::TriggerDag(step) => {
            let request = TriggerDagRequest {
                dag: None,
                conf: json!({"limit": "many"}),
                run_id: (step.dag.as_ref().is_some_and(|dag| dag.as_str() == "named")).then(|| run_id("taken")),
                logical_date: (step.dag.as_ref().is_some_and(|dag| dag.as_str() == "dated")).then_some(Timestamp(7)),
            };
            Reply::End(TryOutcome::TriggerDag(Box::new(request)), Vec::new())
        }
        _ => Reply::Start,
    };
    let rig = RigBuilder::new(script).start().await;
    for name in ["named", "dated", "paused", "bare"] {
        rig.deploy(DagBuilder::new(name).task("work", &[])).await;
    }
    let strict = DagBuilder::new("strict").task("work", &[]).with(|dag| {
        let param = model::dag::Param {
            schema: json!({"type": "integer"}),
            default: None,
        };
        dag.params.insert("limit".to_owned(), param);
    });
    rig.deploy(strict).await;
    rig.handle
        .set_paused(&DagId::new("paused").unwrap(), true, "ann")
        .await
        .unwrap();
    let mut taken = request("named");
    taken.run_id = Some(run_id("taken"));
    rig.handle.trigger(taken).await.unwrap();
    let mut dated = request("dated");
    dated.logical_date = Some(Timestamp(7));
    rig.handle.trigger(dated).await.unwrap();
    for (dag, code) in [
        ("missing", "trigger_dag_not_found"),
        ("paused", "trigger_dag_paused"),
        ("strict", "trigger_conf_invalid"),
        ("named", "trigger_run_exists"),
        ("dated", "trigger_run_exists"),
        ("bare", "trigger_result_unknown"),
    ] {
        let work = triggers(dag, |step| {
            if dag == "bare" {
                step.result = Some(TaskId::new("nothing").unwrap());
            }
        });
        // The builder tells versions apart by the DAG's name.
        let name = format!("to_{dag}");
        rig.deploy(DagBuilder::new(&name).task_with("solve", &[], |task| task.work = work))
            .await;
        let (run, state) = rig.run_to_end(&name).await;
        assert_eq!(state, DagRunState::Failed, "{dag}");
        let ti = rig.ti(run.key, "solve");
        assert_eq!(
            (ti.code.as_deref(), ti.cause),
            (Some(code), Some(Cause::Failed)),
            "{dag}"
        );
        assert!(ti.message.is_some(), "{dag}");
        assert!(children(&rig, &run).is_empty(), "{dag}");
    }
}

#[tokio::test(start_paused = true)]
async fn runs_that_trigger_themselves_end_at_a_depth() {
    let rig = RigBuilder::new(at_once)
        .config(|config| config.max_trigger_depth = 3)
        .start()
        .await;
    let work = triggers("d", |_| {});
    rig.deploy(DagBuilder::new("d").task_with("again", &[], |task| {
        task.work = work;
        task.retry.retries = 5;
        task.retry.delay = Duration::from_secs(86_400 * 7);
    }))
    .await;
    let run = rig.trigger("d").await;
    // The deepest does not try again; those above it do, in a week.
    let mut events = rig.handle.subscribe();
    reached(&mut events, TaskInstanceState::UpForRetry).await;
    let mut runs = rig.store.inner.runs();
    runs.sort_by_key(|run| run.key);
    let depths: Vec<u32> = runs
        .iter()
        .map(|run| run.parent.as_ref().map_or(0, |parent| parent.depth))
        .collect();
    assert_eq!(depths, [0, 1, 2, 3]);
    let deepest = rig.ti(runs[3].key, "again");
    assert_eq!(
        (deepest.code.as_deref(), deepest.try_number.0),
        (Some("trigger_too_deep"), 1)
    );
    assert_eq!(rig.stored(run.key).state, DagRunState::Running);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_waited_for_is_cancelled_with_the_wait() {
    type Act = fn(&Rig, &RunRow) -> futures::future::BoxFuture<'static, ()>;
    let acts: [(&str, Act, DagRunState); 4] = [
        (
            "cancel",
            |rig, run| {
                let (handle, run) = (rig.handle.clone(), run.clone());
                Box::pin(async move {
                    let failed = DagRunState::Failed;
                    handle
                        .set_run_state(&run.dag_id, &run.run_id, failed, "ann")
                        .await
                        .unwrap();
                })
            },
            DagRunState::Failed,
        ),
        (
            "mark",
            |rig, run| {
                let (handle, run) = (rig.handle.clone(), run.clone());
                Box::pin(async move {
                    let request = ports::control::SetStateRequest {
                        groups: Vec::new(),
                        include_past: false,
                        include_future: false,
                        dag_id: run.dag_id.clone(),
                        run_id: run.run_id.clone(),
                        tasks: vec![(TaskId::new("solve").unwrap(), None)],
                        include_upstream: false,
                        include_downstream: false,
                        state: TaskInstanceState::Failed,
                        dry_run: false,
                        user: "ann".to_owned(),
                    };
                    handle.set_task_instance_state(request).await.unwrap();
                })
            },
            DagRunState::Failed,
        ),
        (
            "wait",
            |_, _| Box::pin(tokio::time::sleep(Duration::from_secs(61))),
            DagRunState::Failed,
        ),
        (
            "delete",
            |rig, run| {
                let (handle, run) = (rig.handle.clone(), run.clone());
                Box::pin(async move { handle.delete_run(&run.dag_id, &run.run_id, "ann").await.unwrap() })
            },
            DagRunState::Failed,
        ),
    ];
    for (name, act, state) in acts {
        let rig = started(parent(|step| step.timeout = Some(Duration::from_secs(60)))).await;
        let (run, child, work) = waiting(&rig).await;
        act(&rig, &run).await;
        assert_eq!(rig.finished(&child).await, DagRunState::Failed, "{name}");
        assert!(rig.executor.cancelled.lock().unwrap().contains(&work.id), "{name}");
        if name == "wait" {
            let message = rig.ti(run.key, "solve").message.unwrap_or_default();
            assert!(message.contains("longer than the task's `timeout`"), "{message}");
        }
        if name != "delete" {
            assert_eq!(rig.finished(&run).await, state, "{name}");
        }
        // Both are in one commit.
        let together = rig.store.committed().into_iter().any(|tick| {
            let mut keys: Vec<_> = tick.runs.iter().map(|run| run.key).collect();
            keys.extend(tick.run_deletes.iter().copied());
            keys.contains(&child.key)
                && (keys.contains(&run.key) || tick.task_instances.iter().any(|ti| ti.key.run == run.key))
        });
        assert!(together, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn clearing_a_task_that_waits_cancels_the_run_and_triggers_another_one() {
    let rig = started(parent(|_| {})).await;
    let (run, first, _) = waiting(&rig).await;
    let clear = ClearRequest {
        run_id: Some(run.run_id.clone()),
        tasks: Some(vec![(TaskId::new("solve").unwrap(), None)]),
        user: "ann".to_owned(),
        ..ClearRequest::default()
    };
    rig.handle.clear(&run.dag_id, clear).await.unwrap();
    assert_eq!(rig.finished(&first).await, DagRunState::Failed);
    loop {
        let dispatched = rig.executor.next().await;
        if dispatched.task.task_id.as_str() == "work" && dispatched.run.key != first.key {
            rig.executor.done(dispatched.id);
            break;
        }
    }
    let next = rig.executor.next().await;
    rig.executor.done(next.id);
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    let states: Vec<DagRunState> = children(&rig, &run).iter().map(|run| run.state).collect();
    assert_eq!(states, [DagRunState::Failed, DagRunState::Success]);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_deleted_while_it_is_waited_for_fails_the_try() {
    let rig = started(parent(|_| {})).await;
    let (run, child, _) = waiting(&rig).await;
    rig.handle
        .delete_run(&child.dag_id, &child.run_id, "ann")
        .await
        .unwrap();
    assert_eq!(rig.finished(&run).await, DagRunState::Failed);
    assert_eq!(rig.ti(run.key, "solve").code.as_deref(), Some("triggered_run_deleted"));
}

#[tokio::test(start_paused = true)]
async fn a_restart_finds_what_became_of_the_run_meanwhile() {
    // It goes on.
    let rig = started(parent(|_| {})).await;
    let (run, _, _) = waiting(&rig).await;
    let rig = restart(rig, at_once).await;
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    assert_eq!(children(&rig, &run).len(), 1);

    // Its end was the last thing that was committed.
    let store = FaultyStore::new(Arc::new(MemoryStore::new()), |_, tick| {
        let ends = |run: &ports::store::RunWrite| run.state == DagRunState::Success;
        if tick.runs.iter().any(ends) {
            Fault::CrashAfter
        } else {
            Fault::None
        }
    });
    let rig = RigBuilder::new(held).store(store).start().await;
    rig.deploy(parent(|_| {})).await;
    rig.deploy(child()).await;
    let (run, child, work) = waiting(&rig).await;
    let mut crashed = rig.store.crashed.subscribe();
    rig.executor.done(work.id);
    crashed.wait_for(|crashed| *crashed).await.unwrap();
    let rig = restart(rig, at_once).await;
    assert_eq!(rig.stored(child.key).state, DagRunState::Success);
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    assert_eq!(children(&rig, &run).len(), 1);
}

/// Whatever is lost: each run is triggered once, in the transaction that moves the task which asked for it.
#[tokio::test(start_paused = true)]
async fn a_crash_at_any_commit_triggers_each_run_once() {
    for crash in [Fault::CrashBefore, Fault::CrashAfter] {
        let mut at = 2;
        loop {
            let store = FaultyStore::new(Arc::new(MemoryStore::new()), move |attempt, _| {
                if attempt == at { crash } else { Fault::None }
            });
            let rig = RigBuilder::new(at_once).store(store).start().await;
            rig.deploy(parent(|_| {})).await;
            rig.deploy(child()).await;
            let mut crashed = rig.store.crashed.subscribe();
            let work = async {
                let run = rig.trigger("parent").await;
                rig.finished(&run).await;
            };
            let has_crashed = tokio::select! {
                () = work => false,
                crashed = crashed.wait_for(|crashed| *crashed) => crashed.is_ok(),
            };
            if !has_crashed {
                assert!(at > 5, "{crash:?}: there are more commits than {at}");
                break;
            }
            let rig = restart(rig, at_once).await;
            let parents: Vec<RunRow> = rig
                .store
                .inner
                .runs()
                .into_iter()
                .filter(|run| run.parent.is_none())
                .collect();
            for run in parents {
                assert_eq!(rig.finished(&run).await, DagRunState::Success, "{crash:?} at {at}");
                assert_eq!(children(&rig, &run).len(), 1, "{crash:?} at {at}");
            }
            at += 1;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_taken_is_passed_over() {
    let rig = RigBuilder::new(at_once).start().await;
    rig.deploy(parent(|_| {})).await;
    rig.deploy(child()).await;
    // As another process leaves them behind whose clock was ahead. Time stands still until something waits.
    let now = Timestamp(1_767_225_600_000_000);
    for later in 0..10 {
        let mut taken = request("child");
        taken.run_id = Some(run_id(&format!("manual__{}", now.plus(Duration::from_micros(later)))));
        rig.handle.trigger(taken).await.unwrap();
    }
    let run = rig.trigger("parent").await;
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    assert_eq!(children(&rig, &run).len(), 1);
    assert_eq!(rig.handle.health().set_aside_runs, Vec::<String>::new());
}

/// Of failing commits some were written and some were not: nothing is triggered twice or lost.
#[tokio::test(start_paused = true)]
async fn failing_commits_neither_lose_nor_double_a_run() {
    for fault in [Fault::Passing, Fault::UnknownWritten, Fault::UnknownLost] {
        let store = FaultyStore::new(Arc::new(MemoryStore::new()), move |attempt, _| {
            if attempt > 1 && attempt % 2 == 0 {
                fault
            } else {
                Fault::None
            }
        });
        let rig = RigBuilder::new(at_once).store(store).start().await;
        rig.deploy(parent(|_| {})).await;
        while rig.handle.deploy(child().manifest("1"), true, "ann").await.is_err() {}
        let mut runs = Vec::new();
        for _ in 0..5 {
            runs.push(rig.trigger("parent").await);
        }
        for run in &runs {
            assert_eq!(rig.finished(run).await, DagRunState::Success, "{fault:?}");
            assert_eq!(children(&rig, run).len(), 1, "{fault:?}");
        }
        for tick in rig.store.committed() {
            for new in tick.new_runs.iter().filter_map(|new| new.parent.as_ref()) {
                let moved = |ti: &ports::store::TiWrite| {
                    ti.key.run == new.run && ti.state == TaskInstanceState::Deferred && ti.dispatch == new.dispatch
                };
                assert!(tick.task_instances.iter().any(moved), "{fault:?}: one transaction");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_data_is_refused_takes_its_parent_along_and_nobody_else() {
    let store = FaultyStore::new(Arc::new(MemoryStore::new()), |_, tick| {
        let poisoned = |new: &ports::store::NewRun| new.context.conf["poison"] == true;
        if tick.new_runs.iter().any(poisoned) {
            Fault::Data
        } else {
            Fault::None
        }
    });
    let script = |request: &TryRequest| match &request.task.work {
        Work::TriggerDag(_) => asks(json!({"poison": request.run.conf["bad"]})),
        _ => Reply::done(),
    };
    let rig = RigBuilder::new(script).store(store).start().await;
    rig.deploy(parent(|_| {})).await;
    rig.deploy(child()).await;
    let mut bad = request("parent");
    bad.conf = json!({"bad": true});
    let bad = rig.handle.trigger(bad).await.unwrap();
    let mut good = Vec::new();
    for _ in 0..8 {
        let mut request = request("parent");
        request.conf = json!({"bad": false});
        good.push(rig.handle.trigger(request).await.unwrap());
    }
    for run in good {
        assert_eq!(rig.finished(&run).await, DagRunState::Success);
    }
    assert!(children(&rig, &bad).is_empty());
    assert_eq!(rig.handle.health().set_aside_runs, [format!("parent/{}", bad.run_id)]);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_leaves_waits_alone() {
    let rig = started(parent(|_| {})).await;
    let (run, child, _) = waiting(&rig).await;
    rig.handle.shutdown(Duration::ZERO).await;
    let (stopped, clock) = (Arc::clone(&rig.store), Arc::clone(&rig.clock));
    assert_eq!(rig.state(run.key, "solve"), TaskInstanceState::Deferred);
    assert_eq!(rig.stored(child.key).state, DagRunState::Running);
    let rig = RigBuilder::new(at_once)
        .store(FaultyStore::new(Arc::clone(&stopped.inner), |_, _| Fault::None))
        .clock(clock)
        .start()
        .await;
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    assert_eq!(children(&rig, &run).len(), 1);
}
