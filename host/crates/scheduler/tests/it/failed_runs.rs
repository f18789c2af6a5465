//! DAGs that are paused after too many failed runs in a row.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::{DagId, DagRunState};
use ports::control::DagChange;
use ports::control::{ClearRequest, Control as _, RunEvent};
use ports::query::RunRow;

use crate::support::{DagBuilder, Fault, FaultyStore, Reply, Rig, RigBuilder};

fn dag() -> DagId {
    DagId::new("d").unwrap()
}

fn manifest(most: u32) -> DagBuilder {
    DagBuilder::chain("d", 1).with(|dag| {
        dag.max_consecutive_failed_dag_runs = most;
        dag.max_active_runs = 1;
    })
}

/// Runs fail while the flag is up.
async fn rig(most: u32) -> (Rig, Arc<AtomicBool>) {
    let fails = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&fails);
    let script = move |_: &_| match flag.load(Ordering::SeqCst) {
        true => Reply::failed(false),
        false => Reply::done(),
    };
    let rig = RigBuilder::new(script).start().await;
    rig.deploy(manifest(most)).await;
    (rig, fails)
}

/// Runs until the end, each later than the one before.
async fn run(rig: &Rig) -> RunRow {
    let run = rig.run_to_end("d").await.0;
    tokio::time::sleep(Duration::from_secs(1)).await;
    run
}

fn is_paused(rig: &Rig) -> bool {
    rig.store.inner.paused(&dag()).unwrap().0
}

#[tokio::test(start_paused = true)]
async fn the_tick_that_ends_the_run_pauses_its_dag_and_says_why() {
    let (rig, _) = rig(3).await;
    run(&rig).await;
    run(&rig).await;
    assert!(!is_paused(&rig));
    let mut events = rig.handle.subscribe();
    let before = rig.commits();
    let last = rig.trigger("d").await;
    let waiting = rig.trigger("d").await;
    assert_eq!(rig.finished(&last).await, DagRunState::Failed);
    let reason = "its last 3 runs failed (`max_consecutive_failed_dag_runs`)";
    assert_eq!(rig.store.inner.paused(&dag()), Some((true, Some(reason.to_owned()))));
    assert!(rig.commits() - before <= 4, "there is no commit of its own for it");
    let line = rig
        .store
        .inner
        .audit_log()
        .into_iter()
        .find(|line| line.event == "paused")
        .unwrap();
    assert_eq!((line.user.as_str(), line.dag_id), ("scheduler", Some(dag())));
    assert!(line.extra.unwrap().contains(reason));
    let mut told = false;
    while let Ok(event) = events.try_recv() {
        told |= matches!(event, RunEvent::Dag { change: DagChange::Paused, .. });
    }
    assert!(told);
    // What is queued stays queued until somebody unpauses; the reason goes with it.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.stored(waiting.key).state, DagRunState::Queued);
    rig.handle.set_paused(&dag(), false, "tester").await.unwrap();
    assert_eq!(rig.finished(&waiting).await, DagRunState::Failed);
    assert!(rig.store.inner.paused(&dag()).unwrap().0, "it failed once more");
    rig.handle.set_paused(&dag(), false, "tester").await.unwrap();
    assert_eq!(rig.store.inner.paused(&dag()), Some((false, None)));
}

#[tokio::test(start_paused = true)]
async fn a_success_in_between_and_a_hand_that_fails_a_run_do_not_count() {
    let (rig, fails) = rig(2).await;
    run(&rig).await;
    fails.store(false, Ordering::SeqCst);
    run(&rig).await;
    fails.store(true, Ordering::SeqCst);
    let failed = run(&rig).await;
    assert!(!is_paused(&rig));
    // The failure is mended.
    fails.store(false, Ordering::SeqCst);
    let clear = ClearRequest {
        run_id: Some(failed.run_id.clone()),
        ..ClearRequest::default()
    };
    rig.handle.clear(&dag(), clear).await.unwrap();
    assert_eq!(rig.finished(&failed).await, DagRunState::Success);
    tokio::time::sleep(Duration::from_secs(1)).await;
    fails.store(true, Ordering::SeqCst);
    let last = run(&rig).await;
    assert!(!is_paused(&rig));
    rig.handle
        .set_run_state(&dag(), &failed.run_id, DagRunState::Failed, "tester")
        .await
        .unwrap();
    assert!(!is_paused(&rig), "a person is not a failure");
    // The last run goes, so the latest two are a success (of long ago) and the one that was set to failed.
    rig.handle.delete_run(&dag(), &last.run_id, "tester").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    run(&rig).await;
    assert!(is_paused(&rig), "with the one that was set to failed these are two");
}

#[tokio::test(start_paused = true)]
async fn failures_before_a_restart_and_before_a_deploy_count() {
    let (rig, _) = rig(0).await;
    run(&rig).await;
    run(&rig).await;
    rig.handle
        .deploy(manifest(4).manifest("2"), true, "tester")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    run(&rig).await;
    assert!(!is_paused(&rig));
    let id = rig.store.inner.lease().unwrap().scheduler_id;
    let (store, clock) = rig.crash().await;
    let rig = RigBuilder::new(|_| Reply::failed(false))
        .store(FaultyStore::new(Arc::clone(&store.inner), |_, _| Fault::None))
        .clock(clock)
        .config(|config| config.scheduler_id = id)
        .start()
        .await;
    run(&rig).await;
    assert!(is_paused(&rig));
}

#[tokio::test(start_paused = true)]
async fn a_tick_that_is_not_committed_pauses_nothing_and_is_decided_again() {
    // The third commit is that of the end of the run (deploy, trigger with dispatch, end).
    for at in 2..5 {
        let store = FaultyStore::new(Arc::new(scheduler::MemoryStore::new()), move |attempt, _| {
            if attempt == at { Fault::Passing } else { Fault::None }
        });
        let rig = RigBuilder::new(|_| Reply::failed(false)).store(store).start().await;
        rig.deploy(manifest(1)).await;
        let last = rig.trigger("d").await;
        assert_eq!(rig.finished(&last).await, DagRunState::Failed);
        assert!(is_paused(&rig), "{at}");
        let lines = rig.store.inner.audit_log();
        assert_eq!(lines.iter().filter(|line| line.event == "paused").count(), 1, "{at}");
    }
}
