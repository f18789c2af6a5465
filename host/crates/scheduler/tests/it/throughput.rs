//! What the scheduler itself costs, without a database and without guests. The bound is loose: it catches anything that
//! grows with the size of the run, not a slow machine.

use std::time::{Duration, Instant};

use model::DagRunState;

use crate::support::{DagBuilder, Reply, RigBuilder};

async fn fan_out(n: usize) -> (Duration, Duration, u64) {
    let rig = RigBuilder::new(|_| Reply::done()).start().await;
    rig.deploy(DagBuilder::fan_out("fan", n).with(|dag| dag.max_active_tasks = 1_000))
        .await;
    let before = rig.commits();
    let began = Instant::now();
    let (_, state) = rig.run_to_end("fan").await;
    assert_eq!(state, DagRunState::Success);
    let elapsed = began.elapsed();
    let in_commits = Duration::from_micros(rig.store.micros());
    (elapsed, in_commits, rig.commits() - before)
}

#[tokio::test(start_paused = true)]
async fn the_cost_of_a_task_does_not_grow_with_the_run() {
    let (small, _, _) = fan_out(1_000).await;
    let (large, in_commits, commits) = fan_out(10_000).await;
    let micros = |time: Duration, n: u32| time.as_secs_f64() * 1e6 / f64::from(n);
    let (small, large) = (micros(small, 1_000), micros(large, 10_000));
    let store = micros(in_commits, 10_000);
    eprintln!("1,000: {small:.1} us a task; 10,000: {large:.1} us, {store:.1} of it in the store, {commits} commits");
    assert!(large < 6.0 * small + 50.0, "{small:.1} -> {large:.1} us a task");
    assert!(large < 2_000.0, "{large:.1} us a task");
}

async fn small_runs_beside_a_large_one() {
    let rig = RigBuilder::new(|_| Reply::done()).start().await;
    rig.deploy(DagBuilder::fan_out("large", 10_000).with(|dag| dag.max_active_tasks = 1_000))
        .await;
    rig.deploy(DagBuilder::chain("small", 1)).await;
    let large = rig.trigger("large").await;
    for _ in 0..10 {
        let before = rig.commits();
        let (_, state) = rig.run_to_end("small").await;
        assert_eq!(state, DagRunState::Success);
        let commits = rig.commits() - before;
        assert!(commits <= 6, "{commits} commits from trigger to end");
    }
    assert!(rig.handle.is_active(large.uuid), "the large run still goes on");
    assert_eq!(rig.finished(&large).await, DagRunState::Success);
}

#[tokio::test(start_paused = true)]
async fn a_small_run_does_not_wait_for_a_large_one() {
    // In a task of its own: the runtime gives the test's own future a turn only now and then.
    tokio::spawn(small_runs_beside_a_large_one()).await.unwrap();
}
