//! What executors say of the dispatches that they have, and what becomes of those of which nobody speaks.

use std::time::Duration;

use model::{Cause, DagRunState, TaskInstanceState};
use ports::control::{ClearRequest, Control as _};
use ports::executor::{ExecutorEvent, TryId};
use ports::store::SchedulerStore as _;

use crate::support::{DagBuilder, Reply, Rig, RigBuilder};

const SILENCE: Duration = Duration::from_secs(60);

async fn rig(starts: bool) -> Rig {
    RigBuilder::new(move |_| if starts { Reply::Start } else { Reply::Nothing })
        .config(|config| config.heartbeat_timeout = Some(SILENCE))
        .start()
        .await
}

fn beat(rig: &Rig, ids: &[TryId]) {
    rig.executor.send(ExecutorEvent::Heartbeat {
        ids: ids.to_vec(),
        at: rig.now(),
    });
}

/// Long enough for what is lost to be found.
async fn silence() {
    tokio::time::sleep(SILENCE + SILENCE / 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_is_stored_with_the_next_tick_or_after_a_while() {
    let rig = rig(true).await;
    rig.deploy(DagBuilder::chain("d", 1)).await;
    let run = rig.trigger("d").await;
    let request = rig.executor.next().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = rig.commits();
    let at = rig.now();
    let mut stale = request.id;
    stale.dispatch.0 += 1;
    beat(&rig, &[request.id, stale]);
    let shown = async || rig.store.ti_rows(run.key).await.unwrap()[0].last_heartbeat_at;
    assert_eq!(shown().await, None);
    tokio::time::sleep(Duration::from_millis(501)).await;
    assert_eq!(shown().await, Some(at));
    assert_eq!(rig.commits() - before, 1);
    assert_eq!(rig.handle.metrics().stale_events, 1, "what is not current is counted");
    // It belongs to the dispatch: another one has not been heard of.
    rig.handle.clear(&run.dag_id, ClearRequest::default()).await.unwrap();
    assert_eq!(shown().await, None);
}

#[tokio::test(start_paused = true)]
async fn what_an_executor_speaks_of_goes_on_and_what_nobody_speaks_of_is_lost() {
    let rig = rig(true).await;
    rig.deploy(DagBuilder::fan_out("d", 2)).await;
    let run = rig.trigger("d").await;
    let first = rig.executor.next().await.id;
    let second = rig.executor.next().await.id;
    for _ in 0..16 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        beat(&rig, &[first]);
    }
    let again = rig.executor.next().await.id;
    assert_eq!(again.ti, second.ti);
    assert_eq!(
        (again.try_number, again.dispatch.0),
        (second.try_number, second.dispatch.0 + 1)
    );
    assert!(
        rig.executor.cancelled.lock().unwrap().contains(&second),
        "whoever has it after all is to stop"
    );
    // What the lost one says now comes too late.
    rig.executor.done(second);
    rig.executor.done(first);
    rig.executor.done(again);
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    let losses: Vec<_> = rig
        .store
        .inner
        .task_instances(run.key)
        .iter()
        .map(|ti| ti.infra_losses)
        .collect();
    let mut expected = vec![0, 0];
    expected[usize::try_from(second.ti.task.0).unwrap()] = 1;
    assert_eq!(losses, expected);
    assert_eq!(rig.handle.metrics().infrastructure_losses, 1);
}

#[tokio::test(start_paused = true)]
async fn a_dispatch_that_no_executor_ever_took_is_sent_again_and_is_no_loss() {
    let rig = rig(false).await;
    rig.deploy(DagBuilder::chain("d", 1)).await;
    let run = rig.trigger("d").await;
    for dispatch in 1..=5 {
        let request = rig.executor.next().await;
        assert_eq!(request.id.dispatch.0, dispatch);
        silence().await;
    }
    rig.executor.done(rig.executor.next().await.id);
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    let ti = rig.ti(run.key, "t0");
    assert_eq!((ti.try_number.0, ti.infra_losses), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn too_many_losses_fail_the_try() {
    let rig = rig(true).await;
    rig.deploy(DagBuilder::new("d").task_with("a", &[], |task| {
        task.max_infra_retries = 2;
        task.retry.retries = 0;
    }))
    .await;
    let run = rig.trigger("d").await;
    for _ in 0..3 {
        rig.executor.next().await;
        silence().await;
    }
    assert_eq!(rig.finished(&run).await, DagRunState::Failed);
    let ti = rig.ti(run.key, "a");
    assert_eq!(
        (ti.state, ti.cause),
        (TaskInstanceState::Failed, Some(Cause::InfrastructureLost))
    );
}

#[tokio::test(start_paused = true)]
async fn a_process_that_slept_loses_nothing_by_it() {
    let rig = rig(true).await;
    rig.deploy(DagBuilder::chain("d", 1)).await;
    let run = rig.trigger("d").await;
    let request = rig.executor.next().await;
    // Nobody runs for an hour: not the loop, and no executor.
    tokio::time::advance(Duration::from_secs(3_600)).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    beat(&rig, &[request.id]);
    tokio::time::sleep(Duration::from_secs(50)).await;
    rig.executor.done(request.id);
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    assert_eq!(rig.executor.count(), 1);
}
