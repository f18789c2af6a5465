//! Stopping gracefully.

use std::sync::Arc;
use std::time::Duration;

use model::{DagRunState, TaskInstanceState};
use ports::control::ControlError;
use ports::executor::ExecutorEvent;

use crate::support::{DagBuilder, Reply, RigBuilder};

#[tokio::test(start_paused = true)]
async fn a_shutdown_hands_running_tries_back_and_that_is_not_a_loss() {
    let rig = RigBuilder::new(|_| Reply::Start).start().await;
    rig.deploy(DagBuilder::chain("d", 2)).await;
    let run = rig.trigger("d").await;
    rig.executor.next().await;
    rig.handle.shutdown(Duration::from_secs(10)).await;
    rig.running.await.unwrap();
    assert!(rig.store.inner.lease().is_none(), "the lease is free");
    assert_eq!(rig.handle.metrics().handed_back, 1);
    let refused = ports::control::Control::trigger(&rig.handle, crate::support::request("d")).await;
    assert!(matches!(refused, Err(ControlError::Stopping)));
    assert_eq!(rig.executor.count(), 1, "nothing is dispatched any more");

    let rig = RigBuilder::new(|_| Reply::done())
        .store(Arc::clone(&rig.store))
        .clock(rig.clock)
        .start()
        .await;
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    let ti = rig.ti(run.key, "t0");
    assert_eq!((ti.try_number.0, ti.infra_losses), (1, 0));
    assert_eq!(rig.handle.metrics().infrastructure_losses, 0);
}

#[tokio::test(start_paused = true)]
async fn what_must_not_run_twice_runs_after_a_shutdown_that_handed_it_back_before_it_began() {
    let rig = RigBuilder::new(|_| Reply::Nothing).start().await;
    rig.deploy(DagBuilder::new("d").task_with("a", &[], |task| {
        task.rerun_on_loss = false;
        task.retry.retries = 0;
    }))
    .await;
    let run = rig.trigger("d").await;
    let id = rig.executor.next().await.id;
    // It waits for a slot of the executor.
    let hand_back = async { rig.executor.send(ExecutorEvent::HandedBack { id }) };
    tokio::join!(rig.handle.shutdown(Duration::from_secs(10)), hand_back);
    rig.running.await.unwrap();
    assert_eq!(rig.handle.metrics().handed_back, 1);
    assert_eq!(
        rig.store.inner.task_instance(id.ti).unwrap().state,
        TaskInstanceState::Scheduled
    );

    let rig = RigBuilder::new(|_| Reply::done())
        .store(Arc::clone(&rig.store))
        .clock(rig.clock)
        .start()
        .await;
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    assert_eq!(rig.executor.count(), 1);
    let ti = rig.ti(run.key, "a");
    assert_eq!((ti.try_number.0, ti.infra_losses), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn results_that_come_during_the_shutdown_are_committed() {
    let rig = RigBuilder::new(|_| Reply::Start).start().await;
    rig.deploy(DagBuilder::chain("d", 2)).await;
    let run = rig.trigger("d").await;
    let first = rig.executor.next().await;
    rig.executor.done(first.id);
    rig.handle.shutdown(Duration::ZERO).await;
    rig.running.await.unwrap();
    assert_eq!(rig.store.inner.tries(run.key).len(), 1);
    let rows = rig.store.inner.task_instances(run.key);
    assert_eq!(rows[0].state, TaskInstanceState::Success);
    assert!(!rows[1].acknowledged);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_is_told_when_the_scheduler_stops() {
    let rig = RigBuilder::new(|_| Reply::Start).start().await;
    rig.deploy(DagBuilder::chain("d", 1)).await;
    let run = rig.trigger("d").await;
    let day = Duration::from_secs(86_400);
    let wait = ports::control::Control::wait(&rig.handle, &run.dag_id, &run.run_id, day);
    let (waited, ()) = tokio::join!(wait, rig.handle.shutdown(Duration::ZERO));
    assert!(matches!(waited, Err(ControlError::Stopping)));
}
