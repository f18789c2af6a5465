//! One tick, one commit: what costs how many.

use std::time::Duration;

use model::DagRunState;
use ports::control::Control as _;

use crate::support::{DagBuilder, Reply, RigBuilder};

#[tokio::test(start_paused = true)]
async fn a_chain_of_n_tasks_costs_n_plus_one_commits() {
    for n in [1, 2, 40] {
        let rig = RigBuilder::new(|_| Reply::done()).start().await;
        rig.deploy(DagBuilder::chain("chain", n)).await;
        let before = rig.commits();
        let (_, state) = rig.run_to_end("chain").await;
        assert_eq!(state, DagRunState::Success);
        assert_eq!(rig.commits() - before, n as u64 + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_trigger_is_dispatched_by_one_commit() {
    let rig = RigBuilder::new(|_| Reply::Nothing).start().await;
    rig.deploy(DagBuilder::chain("chain", 1)).await;
    let before = rig.commits();
    rig.trigger("chain").await;
    rig.executor.next().await;
    assert_eq!(rig.commits() - before, 1);
}

#[tokio::test(start_paused = true)]
async fn start_marks_wait_for_a_tick_and_get_their_own_write_after_a_while() {
    let rig = RigBuilder::new(|_| Reply::Start).start().await;
    rig.deploy(DagBuilder::fan_out("fan", 20)).await;
    let run = rig.trigger("fan").await;
    rig.executor.seen(20).await;
    let before = rig.commits();
    let rows = |rig: &crate::support::Rig| {
        let rows = rig.store.inner.task_instances(run.key);
        rows.iter()
            .filter(|ti| ti.state == model::TaskInstanceState::Running && ti.acknowledged)
            .count()
    };
    assert_eq!(rows(&rig), 0);
    let mut shown = ports::store::SchedulerStore::ti_rows(&*rig.store, run.key)
        .await
        .unwrap();
    rig.handle.overlay(run.key, &mut shown);
    assert!(shown.iter().all(|ti| ti.state == model::TaskInstanceState::Running));
    tokio::time::advance(Duration::from_millis(501)).await;
    while rows(&rig) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(rows(&rig), 20, "one write takes all that wait");
    assert_eq!(rig.commits() - before, 1);
}

#[tokio::test(start_paused = true)]
async fn what_arrives_during_a_commit_is_committed_together() {
    // Up to 48 items, or half of what waits.
    for (count, commits) in [(48, 1), (64, 2)] {
        let rig = RigBuilder::new(|_| Reply::Nothing).start().await;
        rig.deploy(DagBuilder::fan_out("fan", count)).await;
        let run = rig.trigger("fan").await;
        rig.executor.seen(count).await;
        let before = rig.commits();
        let ids: Vec<_> = (0..count)
            .map(|at| rig.executor.dispatched.lock().unwrap()[at].id)
            .collect();
        for id in ids {
            rig.executor.done(id);
        }
        assert_eq!(rig.finished(&run).await, DagRunState::Success);
        assert_eq!(rig.commits() - before, commits, "{count} results");
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_scheduler_writes_nothing() {
    let rig = RigBuilder::new(|_| Reply::done()).start().await;
    rig.deploy(DagBuilder::chain("chain", 3)).await;
    rig.run_to_end("chain").await;
    let (before, attempts) = (rig.commits(), rig.store.attempts());
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!((rig.commits(), rig.store.attempts()), (before, attempts));
    assert!(rig.handle.health().healthy);
}
