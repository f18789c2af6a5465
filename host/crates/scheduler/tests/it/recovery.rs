//! What a new process makes of what a crashed one left.

use std::sync::Arc;
use std::time::Duration;

use model::{Cause, DagId, DagRunState, TaskInstanceState};
use ports::control::{ClearRequest, Control as _};
use ports::executor::TryRequest;
use scheduler::MemoryStore;

use crate::support::{DagBuilder, Fault, FaultyStore, Reply, Rig, RigBuilder};

/// Starts again on what the crashed one left.
async fn restart(rig: Rig, script: impl Fn(&TryRequest) -> Reply + Send + Sync + 'static) -> Rig {
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

#[tokio::test(start_paused = true)]
async fn a_dispatch_that_nobody_acknowledged_is_sent_again() {
    let rig = RigBuilder::new(|_| Reply::Nothing).start().await;
    rig.deploy(DagBuilder::chain("d", 2)).await;
    let run = rig.trigger("d").await;
    rig.executor.next().await;
    let rig = restart(rig, |_| Reply::done()).await;
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    let ti = rig.ti(run.key, "t0");
    assert_eq!((ti.try_number.0, ti.dispatch.0, ti.infra_losses), (1, 2, 0));
    assert_eq!(rig.handle.metrics().infrastructure_losses, 0);
}

#[tokio::test(start_paused = true)]
async fn what_must_not_run_twice_does_not_after_a_crash_right_after_its_dispatch() {
    for reply in [Reply::Start, Reply::Nothing] {
        let rig = RigBuilder::new(move |_| reply.clone()).start().await;
        rig.deploy(DagBuilder::new("d").task_with("a", &[], |task| {
            task.rerun_on_loss = false;
            task.retry.retries = 0;
        }))
        .await;
        let run = rig.trigger("d").await;
        rig.executor.next().await;
        assert!(!rig.ti(run.key, "a").acknowledged, "that it started is not stored yet");
        let rig = restart(rig, |_| Reply::done()).await;
        assert_eq!(rig.finished(&run).await, DagRunState::Failed);
        assert_eq!(rig.executor.count(), 0);
        let ti = rig.ti(run.key, "a");
        assert_eq!((ti.try_number.0, ti.cause), (1, Some(Cause::InfrastructureLost)));
        assert!(ti.message.unwrap().contains("rerun_on_loss"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_loss_does_not_spend_a_retry_until_there_are_too_many() {
    let mut rig = RigBuilder::new(|_| Reply::Start).start().await;
    rig.deploy(DagBuilder::new("d").task_with("a", &[], |task| {
        task.max_infra_retries = 2;
        task.retry.retries = 1;
    }))
    .await;
    let run = rig.trigger("d").await;
    for losses in 0..2 {
        rig.executor.next().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let ti = rig.ti(run.key, "a");
        assert_eq!((ti.state, ti.try_number.0), (TaskInstanceState::Running, 1));
        assert_eq!(ti.infra_losses, losses);
        rig = restart(rig, |_| Reply::Start).await;
    }
    rig.executor.next().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    rig = restart(rig, |_| Reply::done()).await;
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    let tries = rig.store.inner.tries(run.key);
    assert_eq!(tries[0].cause, Some(Cause::InfrastructureLost));
    assert_eq!(tries[0].state, TaskInstanceState::Failed);
    assert_eq!(rig.ti(run.key, "a").try_number.0, 2);
    assert_eq!(rig.handle.metrics().infrastructure_losses, 1);
}

#[tokio::test(start_paused = true)]
async fn timers_and_queued_runs_go_on_after_a_restart() {
    let rig = RigBuilder::new(|_| Reply::failed(false)).start().await;
    rig.deploy(
        DagBuilder::new("d")
            .task_with("a", &[], |task| {
                task.retry.retries = 1;
                task.retry.delay = Duration::from_secs(600);
            })
            .with(|dag| dag.max_active_runs = 1),
    )
    .await;
    let first = rig.trigger("d").await;
    let second = rig.trigger("d").await;
    rig.executor.next().await;
    while rig.state(first.key, "a") != TaskInstanceState::UpForRetry {
        tokio::task::yield_now().await;
    }
    let began = tokio::time::Instant::now();
    let rig = restart(rig, |_| Reply::done()).await;
    assert_eq!(rig.finished(&first).await, DagRunState::Success);
    assert!(began.elapsed() >= Duration::from_secs(590));
    assert_eq!(rig.finished(&second).await, DagRunState::Success);
}

#[tokio::test(start_paused = true)]
async fn an_ended_run_is_cleared_under_its_own_version_after_a_restart() {
    let rig = RigBuilder::new(|_| Reply::done()).start().await;
    rig.deploy(DagBuilder::chain("d", 3)).await;
    let (run, _) = rig.run_to_end("d").await;
    rig.handle
        .deploy(DagBuilder::new("d").task("other", &[]).manifest("2"), true, "tester")
        .await
        .unwrap();
    let rig = restart(rig, |_| Reply::done()).await;
    let clear = ClearRequest {
        run_id: Some(run.run_id.clone()),
        ..ClearRequest::default()
    };
    rig.handle.clear(&DagId::new("d").unwrap(), clear).await.unwrap();
    rig.executor.seen(3).await;
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    assert_eq!(rig.executor.tasks(), ["t0", "t1", "t2"]);
}

#[tokio::test(start_paused = true)]
async fn a_large_run_whose_rows_are_half_written_goes_on() {
    let store = FaultyStore::new(Arc::new(MemoryStore::new()), |attempt, _| {
        // The deploy, then the first tick of the run.
        if attempt == 2 { Fault::CrashBefore } else { Fault::None }
    });
    let rig = RigBuilder::new(|_| Reply::Nothing)
        .store(store)
        .config(|config| config.max_transitions_per_tick = 300)
        .start()
        .await;
    rig.deploy(DagBuilder::fan_out("d", 1_000).with(|dag| dag.max_active_tasks = 10))
        .await;
    let run = rig.trigger("d").await;
    rig.store
        .crashed
        .subscribe()
        .wait_for(|crashed| *crashed)
        .await
        .unwrap();
    assert!(rig.store.inner.task_instances(run.key).len() < 1_000);
    let rig = restart(rig, |_| Reply::done()).await;
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    assert_eq!(rig.store.inner.tries(run.key).len(), 1_000);
}

/// A mixed workload, crashed at every commit, before and after it was written.
#[tokio::test(start_paused = true)]
async fn a_crash_at_any_commit_loses_nothing_and_repeats_nothing() {
    for crash in [Fault::CrashBefore, Fault::CrashAfter] {
        let mut at = 1;
        loop {
            let store = FaultyStore::new(Arc::new(MemoryStore::new()), move |attempt, _| {
                if attempt == at { crash } else { Fault::None }
            });
            let script = |request: &TryRequest| match (request.task.task_id.as_str(), request.id.try_number.0) {
                ("flaky", 1) => Reply::failed(false),
                _ => Reply::done(),
            };
            let rig = RigBuilder::new(script).store(store).start().await;
            rig.deploy(
                DagBuilder::chain("d", 4)
                    .task_with("flaky", &["t0"], |task| task.retry.retries = 1)
                    .task("join", &["t3", "flaky"]),
            )
            .await;
            let mut crashed = rig.store.crashed.subscribe();
            // What was acknowledged must survive; what was not may or may not exist.
            let mut acknowledged = Vec::new();
            let work = async {
                for _ in 0..2 {
                    acknowledged.push(rig.trigger("d").await);
                }
                for run in acknowledged.clone() {
                    rig.finished(&run).await;
                }
            };
            let has_crashed = tokio::select! {
                () = work => false,
                crashed = crashed.wait_for(|crashed| *crashed) => crashed.is_ok(),
            };
            if !has_crashed {
                assert!(at > 6, "{crash:?}: the workload has more commits than {at}");
                break;
            }
            let rig = restart(rig, script).await;
            for run in rig.store.inner.runs() {
                assert_eq!(rig.finished(&run).await, DagRunState::Success, "{crash:?} at {at}");
                for ti in rig.store.inner.task_instances(run.key) {
                    let tries = if ti.task_id.as_str() == "flaky" { 2 } else { 1 };
                    assert_eq!(ti.try_number.0, tries, "{crash:?} at {at}: {}", ti.task_id);
                    assert_eq!(ti.state, TaskInstanceState::Success);
                }
                assert_eq!(rig.store.inner.tries(run.key).len(), 7);
            }
            for run in &acknowledged {
                rig.stored(run.key);
            }
            at += 1;
        }
    }
}
