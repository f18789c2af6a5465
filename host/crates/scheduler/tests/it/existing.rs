//! Tasks that ask for a run which is there already: they are skipped, share it, or make it run again.

use std::sync::Arc;

use model::between::{IfExists, TriggerDag};
use model::{DagId, DagRunState, RunId, TaskId, TaskInstanceState, Timestamp, Work};
use ports::between::TriggerDagRequest;
use ports::control::{ClearRequest, Control as _};
use ports::executor::{TryOutcome, TryRequest, XcomPush};
use ports::query::RunRow;
use scheduler::MemoryStore;
use serde_json::{Value, json};

use crate::between::{children, reached, restart, triggers, value};
use crate::support::{DagBuilder, Fault, FaultyStore, Reply, Rig, RigBuilder, request, run_id};

/// What the step of a run is given: a key for a name, and `conf`, if the run's own `conf` says one.
fn asks(request: &TryRequest) -> Reply {
    let own = &request.run.conf;
    let asked = TriggerDagRequest {
        dag: own["dag"].as_str().map(|dag| DagId::new(dag).unwrap()),
        conf: own.get("conf").cloned().unwrap_or_else(|| json!({})),
        run_id: own.get("dated").is_none().then(|| run_id("key")),
        logical_date: own["dated"].as_i64().map(Timestamp),
    };
    Reply::End(TryOutcome::TriggerDag(Box::new(asked)), Vec::new())
}

fn held(request: &TryRequest) -> Reply {
    match &request.task.work {
        Work::TriggerDag(_) => asks(request),
        _ => Reply::Start,
    }
}

fn at_once(request: &TryRequest) -> Reply {
    match &request.task.work {
        Work::TriggerDag(_) => asks(request),
        _ => Reply::done(),
    }
}

fn of(name: &str, if_exists: IfExists, edit: impl FnOnce(&mut TriggerDag)) -> DagBuilder {
    let work = triggers("child", |step| {
        step.if_exists = if_exists;
        edit(step);
    });
    DagBuilder::new(name).task_with("solve", &[], |task| task.work = work)
}

async fn deployed(rig: &Rig) {
    rig.deploy(DagBuilder::new("child").task("work", &[])).await;
    for if_exists in IfExists::ALL {
        rig.deploy(of(if_exists.as_str(), *if_exists, |_| {})).await;
    }
}

async fn started() -> Rig {
    let rig = RigBuilder::new(held).start().await;
    deployed(&rig).await;
    rig
}

/// A run of a DAG whose task waits for the run with the key.
async fn waits(rig: &Rig, dag: &str) -> RunRow {
    let mut events = rig.handle.subscribe();
    let run = rig.trigger(dag).await;
    reached(&mut events, TaskInstanceState::Deferred).await;
    run
}

/// The next dispatch of the child's task.
async fn work(rig: &Rig) -> TryRequest {
    loop {
        let dispatched = rig.executor.next().await;
        if matches!(dispatched.task.work, Work::Component(_)) {
            return dispatched;
        }
    }
}

fn child(rig: &Rig) -> RunRow {
    let mut runs = rig.store.inner.runs();
    runs.retain(|run| run.dag_id.as_str() == "child");
    assert_eq!(runs.len(), 1, "{runs:?}");
    runs.remove(0)
}

async fn cancel(rig: &Rig, run: &RunRow) {
    let failed = DagRunState::Failed;
    rig.handle
        .set_run_state(&run.dag_id, &run.run_id, failed, "ann")
        .await
        .unwrap();
}

async fn clear(rig: &Rig, run: &RunRow) {
    let clear = ClearRequest {
        run_id: Some(run.run_id.clone()),
        tasks: Some(vec![(TaskId::new("solve").unwrap(), None)]),
        user: "ann".to_owned(),
        ..ClearRequest::default()
    };
    rig.handle.clear(&run.dag_id, clear).await.unwrap();
}

fn code(rig: &Rig, run: &RunRow) -> Option<String> {
    rig.ti(run.key, "solve").code
}

#[tokio::test(start_paused = true)]
async fn a_task_is_skipped_where_the_run_is_there() {
    let rig = started().await;
    let first = waits(&rig, "skip").await;
    let (second, state) = rig.run_to_end("skip").await;
    assert_eq!(state, DagRunState::Success);
    let ti = rig.ti(second.key, "solve");
    assert_eq!(ti.state, TaskInstanceState::Skipped);
    let message = ti.message.unwrap();
    assert!(message.contains("has the run `key` already"), "{message}");
    assert!(rig.store.inner.xcoms_of(second.key).is_empty());
    // Without the key, as ever.
    let (third, state) = rig.run_to_end("fail").await;
    assert_eq!(state, DagRunState::Failed);
    assert_eq!(code(&rig, &third).as_deref(), Some("trigger_run_exists"));
    rig.executor.done(work(&rig).await.id);
    assert_eq!(rig.finished(&first).await, DagRunState::Success);
}

#[tokio::test(start_paused = true)]
async fn several_wait_for_one_run_and_only_who_made_it_takes_it_along() {
    let rig = started().await;
    let maker = waits(&rig, "reuse").await;
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(waits(&rig, "reuse").await);
    }
    let run = child(&rig);
    assert_eq!(run.parent.as_ref().map(|of| of.run), Some(maker.key));
    let details = rig.ti(others[0].key, "solve").details.unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&details).unwrap(),
        json!({"dag_id": "child", "run_id": "key", "reused": true})
    );
    cancel(&rig, &others[0]).await;
    assert_eq!(rig.finished(&others[0]).await, DagRunState::Failed);
    assert_eq!(rig.stored(run.key).state, DagRunState::Running, "it is not theirs");
    rig.executor.done(work(&rig).await.id);
    for waiter in [&maker, &others[1], &others[2]] {
        assert_eq!(rig.finished(waiter).await, DagRunState::Success);
        assert_eq!(
            value(&rig, waiter, "return_value"),
            json!({"dag_id": "child", "run_id": "key", "state": "success"})
        );
    }

    let rig = started().await;
    let maker = waits(&rig, "reuse").await;
    let other = waits(&rig, "reuse").await;
    cancel(&rig, &maker).await;
    assert_eq!(rig.finished(&child(&rig)).await, DagRunState::Failed);
    assert_eq!(rig.finished(&other).await, DagRunState::Failed);
    assert_eq!(code(&rig, &other).as_deref(), Some("triggered_run_failed"));
}

#[tokio::test(start_paused = true)]
async fn what_a_run_that_has_ended_returned_is_taken() {
    let rig = started().await;
    rig.deploy(of("result", IfExists::Reuse, |step| {
        step.result = Some(TaskId::new("work").unwrap());
    }))
    .await;
    rig.deploy(of("bare", IfExists::Reuse, |step| step.wait = false)).await;
    let mut wanted = request("child");
    wanted.run_id = Some(run_id("key"));
    let run = rig.handle.trigger(wanted).await.unwrap();
    let result = XcomPush {
        key: "return_value".to_owned(),
        value: "7".into(),
        blobs: Vec::new(),
    };
    rig.executor
        .end_with(work(&rig).await.id, TryOutcome::Done { falsy: false }, vec![result]);
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    let (taker, state) = rig.run_to_end("result").await;
    assert_eq!(state, DagRunState::Success);
    assert_eq!(value(&rig, &taker, "return_value")["result"], 7);
    let (taker, state) = rig.run_to_end("bare").await;
    assert_eq!(state, DagRunState::Success);
    assert_eq!(value(&rig, &taker, "trigger_run_id"), json!("key"));
    assert!(child(&rig).parent.is_none(), "nobody's child");
    // By its date, too.
    let mut dated = request("child");
    dated.logical_date = Some(Timestamp(7));
    let run = rig.handle.trigger(dated).await.unwrap();
    rig.executor.done(work(&rig).await.id);
    rig.finished(&run).await;
    let mut wanted = request("reuse");
    wanted.conf = json!({"dated": 7});
    let taker = rig.handle.trigger(wanted).await.unwrap();
    assert_eq!(rig.finished(&taker).await, DagRunState::Success);
    assert_eq!(value(&rig, &taker, "trigger_run_id"), json!(run.run_id));
}

#[tokio::test(start_paused = true)]
async fn who_reuses_a_run_waits_on_after_a_restart_and_is_told_when_it_goes() {
    let rig = started().await;
    let maker = waits(&rig, "reuse").await;
    let other = waits(&rig, "reuse").await;
    let rig = restart(rig, at_once).await;
    for run in [&maker, &other] {
        assert_eq!(rig.finished(run).await, DagRunState::Success);
    }

    let rig = started().await;
    let mut wanted = request("child");
    wanted.run_id = Some(run_id("key"));
    let run = rig.handle.trigger(wanted).await.unwrap();
    let waiter = waits(&rig, "reuse").await;
    rig.handle.delete_run(&run.dag_id, &run.run_id, "ann").await.unwrap();
    assert_eq!(rig.finished(&waiter).await, DagRunState::Failed);
    assert_eq!(code(&rig, &waiter).as_deref(), Some("triggered_run_deleted"));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_reset_runs_again_as_the_child_of_who_reset_it() {
    let rig = started().await;
    let first = waits(&rig, "reset").await;
    rig.executor.done(work(&rig).await.id);
    assert_eq!(rig.finished(&first).await, DagRunState::Success);
    let second = waits(&rig, "reset").await;
    let again = work(&rig).await;
    assert_eq!(again.id.try_number.0, 2);
    let run = child(&rig);
    assert_eq!(
        (run.state, run.parent.as_ref().map(|of| of.run)),
        (DagRunState::Running, Some(second.key))
    );
    // Both are in one commit.
    let together = rig.store.committed().into_iter().any(|tick| {
        let deferred = |ti: &ports::store::TiWrite| ti.key.run == second.key && ti.state == TaskInstanceState::Deferred;
        tick.task_instances.iter().any(deferred)
            && tick.parents.iter().any(|write| write.run == run.key)
            && tick
                .runs
                .iter()
                .any(|write| write.key == run.key && !write.state.is_finished())
    });
    assert!(together);
    // Clearing the parent clears the child, whoever waits for it.
    clear(&rig, &second).await;
    let third = work(&rig).await;
    assert_eq!((third.run.key, third.id.try_number.0), (run.key, 3));
    rig.executor.done(third.id);
    assert_eq!(rig.finished(&second).await, DagRunState::Success);
    assert_eq!(child(&rig).key, run.key);
    // It ends with the wait, as any child.
    let fourth = waits(&rig, "reset").await;
    cancel(&rig, &fourth).await;
    assert_eq!(rig.finished(&run).await, DagRunState::Failed);
}

#[tokio::test(start_paused = true)]
async fn who_waited_for_a_run_that_another_resets_waits_on() {
    for restarts in [false, true] {
        let rig = started().await;
        let maker = waits(&rig, "reset").await;
        let first = work(&rig).await;
        let taker = waits(&rig, "reset").await;
        assert!(rig.executor.cancelled.lock().unwrap().contains(&first.id));
        assert_eq!(child(&rig).parent.as_ref().map(|of| of.run), Some(taker.key));
        if restarts {
            let rig = restart(rig, at_once).await;
            for run in [&maker, &taker] {
                assert_eq!(rig.finished(run).await, DagRunState::Success);
            }
            continue;
        }
        cancel(&rig, &maker).await;
        assert_eq!(rig.finished(&maker).await, DagRunState::Failed);
        assert!(!child(&rig).state.is_finished(), "it is another's by now");
        rig.executor
            .end(first.id, crate::support::failure(model::Cause::Cancelled, false));
        rig.executor.done(work(&rig).await.id);
        assert_eq!(rig.finished(&taker).await, DagRunState::Success);
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_reset_says_why() {
    let rig = RigBuilder::new(at_once).start().await;
    deployed(&rig).await;
    let mut wanted = request("child");
    wanted.run_id = Some(run_id("key"));
    wanted.conf = json!({"a": 1});
    let run = rig.handle.trigger(wanted).await.unwrap();
    rig.finished(&run).await;
    let asked = async |conf: Value| {
        let mut wanted = request("reset");
        wanted.conf = conf;
        let asker = rig.handle.trigger(wanted).await.unwrap();
        rig.finished(&asker).await;
        code(&rig, &asker)
    };
    assert_eq!(
        asked(json!({"conf": {"a": 2}})).await.as_deref(),
        Some("trigger_conf_differs")
    );
    assert_eq!(asked(json!({"conf": {"a": 1}})).await, None);
    assert_eq!(asked(json!({})).await, None, "it runs with what it has");
    let tries = rig.ti(run.key, "work").try_number.0;
    assert_eq!(tries, 3);
    rig.handle
        .set_paused(&DagId::new("child").unwrap(), true, "ann")
        .await
        .unwrap();
    assert_eq!(asked(json!({})).await.as_deref(), Some("trigger_dag_paused"));
    // A run that is gone is made.
    rig.handle
        .set_paused(&DagId::new("child").unwrap(), false, "ann")
        .await
        .unwrap();
    rig.handle.delete_run(&run.dag_id, &run.run_id, "ann").await.unwrap();
    assert_eq!(asked(json!({})).await, None);
    assert_ne!(child(&rig).key, run.key);
}

#[tokio::test(start_paused = true)]
async fn runs_that_would_wait_for_each_other_are_refused() {
    let key = || Some(run_id("key"));
    for if_exists in [IfExists::Reuse, IfExists::Reset] {
        // A run waits for itself.
        let rig = RigBuilder::new(at_once).start().await;
        let work = triggers("d", |step| step.if_exists = if_exists);
        rig.deploy(DagBuilder::new("d").task_with("solve", &[], |task| {
            task.work = work;
            task.retry.retries = 3;
        }))
        .await;
        let mut wanted = request("d");
        wanted.run_id = key();
        let run = rig.handle.trigger(wanted).await.unwrap();
        assert_eq!(rig.finished(&run).await, DagRunState::Failed);
        assert_eq!(code(&rig, &run).as_deref(), Some("trigger_waits_for_itself"));
        assert_eq!(rig.ti(run.key, "solve").try_number.0, 1, "no try can help");
        // Two wait for each other.
        for (dag, other) in [("a", "b"), ("b", "a")] {
            let work = triggers(other, |step| step.if_exists = if_exists);
            rig.deploy(DagBuilder::new(dag).task_with("solve", &[], |task| task.work = work))
                .await;
        }
        let mut wanted = request("a");
        wanted.run_id = key();
        let run = rig.handle.trigger(wanted).await.unwrap();
        assert_eq!(rig.finished(&run).await, DagRunState::Failed);
        let below = children(&rig, &run).remove(0);
        assert_eq!(code(&rig, &below).as_deref(), Some("trigger_waits_for_itself"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_template_chooses_among_the_dags_that_are_allowed() {
    let rig = RigBuilder::new(at_once).start().await;
    deployed(&rig).await;
    let chooses = triggers("child", |step| {
        step.dag = None;
        step.allowed = vec![DagId::new("child").unwrap(), DagId::new("gone").unwrap()];
    });
    rig.deploy(DagBuilder::new("chooses").task_with("solve", &[], |task| task.work = chooses))
        .await;
    for (dag, code) in [
        ("child", None),
        ("gone", Some("trigger_dag_not_found")),
        // The executor refuses it before; whoever says it all the same gets nothing.
        ("reuse", Some("trigger_dag_not_allowed")),
    ] {
        let mut wanted = request("chooses");
        wanted.conf = json!({"dag": dag});
        let run = rig.handle.trigger(wanted).await.unwrap();
        let state = rig.finished(&run).await;
        assert_eq!(state == DagRunState::Success, code.is_none(), "{dag}");
        assert_eq!(self::code(&rig, &run).as_deref(), code, "{dag}");
    }
}

/// Whoever comes first makes the run, all others share it: also where they come at once.
#[tokio::test(start_paused = true)]
async fn a_key_makes_one_run_however_many_ask_at_once() {
    let rig = RigBuilder::new(at_once).start().await;
    deployed(&rig).await;
    let mut runs = Vec::new();
    for _ in 0..8 {
        runs.push(rig.trigger("reuse").await);
    }
    for run in &runs {
        assert_eq!(rig.finished(run).await, DagRunState::Success);
    }
    assert_eq!(rig.ti(child(&rig).key, "work").try_number.0, 1);
}

/// Whatever is lost: a run is reset, shared or made in the transaction that moves the task which asked for it, and everybody ends.
#[tokio::test(start_paused = true)]
async fn a_crash_at_any_commit_leaves_nobody_waiting() {
    for (dag, crash) in ["reuse", "reset"]
        .into_iter()
        .flat_map(|dag| [Fault::CrashBefore, Fault::CrashAfter].map(|crash| (dag, crash)))
    {
        let mut at = 6;
        loop {
            let store = FaultyStore::new(Arc::new(MemoryStore::new()), move |attempt, _| {
                if attempt == at { crash } else { Fault::None }
            });
            let rig = RigBuilder::new(at_once).store(store).start().await;
            let mut crashed = rig.store.crashed.subscribe();
            let work = async {
                deployed(&rig).await;
                let mut runs = Vec::new();
                for _ in 0..3 {
                    runs.push(rig.trigger(dag).await);
                }
                for run in &runs {
                    rig.finished(run).await;
                }
            };
            let has_crashed = tokio::select! {
                () = work => false,
                crashed = crashed.wait_for(|crashed| *crashed) => crashed.is_ok(),
            };
            if !has_crashed {
                assert!(at > 10, "{dag} {crash:?}: there are more commits than {at}");
                break;
            }
            let rig = restart(rig, at_once).await;
            let asking: Vec<RunRow> = rig
                .store
                .inner
                .runs()
                .into_iter()
                .filter(|run| run.dag_id.as_str() == dag)
                .collect();
            for run in &asking {
                assert_eq!(rig.finished(run).await, DagRunState::Success, "{dag} {crash:?} at {at}");
            }
            if !asking.is_empty() {
                assert_eq!(rig.finished(&child(&rig)).await, DagRunState::Success);
            }
            at += 1;
        }
    }
}

/// Nobody's name is lost between two that ask: `RunId` of the key stays one run's.
#[tokio::test(start_paused = true)]
async fn a_date_that_another_run_has_is_refused() {
    let script = |request: &TryRequest| match &request.task.work {
        Work::TriggerDag(_) => {
            let asked = TriggerDagRequest {
                dag: None,
                conf: json!({}),
                run_id: RunId::new("mine").ok(),
                logical_date: Some(Timestamp(7)),
            };
            Reply::End(TryOutcome::TriggerDag(Box::new(asked)), Vec::new())
        }
        _ => Reply::done(),
    };
    let rig = RigBuilder::new(script).start().await;
    deployed(&rig).await;
    let mut wanted = request("child");
    wanted.logical_date = Some(Timestamp(7));
    rig.handle.trigger(wanted).await.unwrap();
    for dag in ["skip", "reuse", "reset"] {
        let (run, state) = rig.run_to_end(dag).await;
        assert_eq!(state, DagRunState::Failed, "{dag}");
        assert_eq!(code(&rig, &run).as_deref(), Some("trigger_run_exists"), "{dag}");
    }
}

/// Two that reset each other and wait for nobody go round only as often as runs may trigger runs.
#[tokio::test(start_paused = true)]
async fn runs_that_reset_each_other_end_at_a_depth() {
    let rig = RigBuilder::new(at_once)
        .config(|config| config.max_trigger_depth = 3)
        .start()
        .await;
    for (dag, other) in [("a", "b"), ("b", "a")] {
        let work = triggers(other, |step| {
            step.if_exists = IfExists::Reset;
            step.wait = false;
        });
        rig.deploy(DagBuilder::new(dag).task_with("solve", &[], |task| task.work = work))
            .await;
    }
    let mut events = rig.handle.subscribe();
    let mut wanted = request("a");
    wanted.run_id = Some(run_id("key"));
    rig.handle.trigger(wanted).await.unwrap();
    reached(&mut events, TaskInstanceState::Failed).await;
    let runs = rig.store.inner.runs();
    assert_eq!(runs.len(), 2);
    let mut depths: Vec<_> = runs.iter().map(|run| run.parent.as_ref().map(|of| of.depth)).collect();
    depths.sort();
    assert_eq!(depths, [Some(2), Some(3)]);
    let codes: Vec<_> = runs.iter().filter_map(|run| code(&rig, run)).collect();
    assert_eq!(codes, ["trigger_too_deep"]);
}
