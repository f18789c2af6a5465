//! What executors say of their own failures.

use std::time::Duration;

use model::{Cause, DagRunState};
use ports::executor::{TryFailure, TryOutcome};

use crate::support::{DagBuilder, Reply, RigBuilder};

/// What an executor reports that failed itself.
fn broken() -> TryOutcome {
    TryOutcome::Failed(TryFailure {
        cause: Cause::InfrastructureLost,
        message: "the server failed while it served this try".to_owned(),
        fatal: false,
        code: None,
        details: None,
    })
}

#[tokio::test(start_paused = true)]
async fn an_executor_that_fails_spends_no_retry_of_the_task() {
    let rig = RigBuilder::new(|request| match request.id.dispatch.0 {
        1 | 2 => Reply::End(broken(), Vec::new()),
        _ => Reply::done(),
    })
    .start()
    .await;
    rig.deploy(DagBuilder::new("d").task_with("a", &[], |task| {
        task.max_infra_retries = 2;
        task.retry.retries = 0;
    }))
    .await;
    let (run, state) = rig.run_to_end("d").await;
    assert_eq!(state, DagRunState::Success);
    let ti = rig.ti(run.key, "a");
    assert_eq!((ti.try_number.0, ti.dispatch.0, ti.infra_losses), (1, 3, 2));
    assert_eq!(ti.message, None);
    assert_eq!(rig.store.inner.tries(run.key).len(), 1);
    assert_eq!(rig.handle.metrics().infrastructure_losses, 2);
}

#[tokio::test(start_paused = true)]
async fn an_executor_that_fails_too_often_fails_the_try_and_retries_apply() {
    let rig = RigBuilder::new(|request| match request.id.try_number.0 {
        1 => Reply::End(broken(), Vec::new()),
        _ => Reply::done(),
    })
    .start()
    .await;
    rig.deploy(DagBuilder::new("d").task_with("a", &[], |task| {
        task.max_infra_retries = 1;
        task.retry.retries = 1;
        task.retry.delay = Duration::ZERO;
    }))
    .await;
    let (run, state) = rig.run_to_end("d").await;
    assert_eq!(state, DagRunState::Success);
    let tries = rig.store.inner.tries(run.key);
    assert_eq!(tries.len(), 2);
    assert_eq!(
        (tries[0].cause, tries[0].dispatch.0, tries[0].infra_losses),
        (Some(Cause::InfrastructureLost), 2, 2)
    );
    let message = tries[0].message.as_deref();
    assert_eq!(message, Some("the server failed while it served this try"));
    assert_eq!((tries[1].try_number.0, tries[1].dispatch.0), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn an_executor_that_fails_with_what_must_not_run_twice_fails_the_try() {
    let rig = RigBuilder::new(|_| Reply::End(broken(), Vec::new())).start().await;
    rig.deploy(DagBuilder::new("d").task_with("a", &[], |task| {
        task.rerun_on_loss = false;
        task.retry.retries = 0;
    }))
    .await;
    let (run, state) = rig.run_to_end("d").await;
    assert_eq!((state, rig.executor.count()), (DagRunState::Failed, 1));
    assert_eq!(rig.ti(run.key, "a").cause, Some(Cause::InfrastructureLost));
}
