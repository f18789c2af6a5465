//! The three kinds of commits that fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::DagRunState;
use ports::control::{Control as _, ControlError};
use scheduler::MemoryStore;

use crate::support::{DagBuilder, Fault, FaultyStore, Reply, Rig, RigBuilder};

/// A scheduler whose commits fail as `plan` says, from the first trigger on.
async fn rig(plan: impl Fn(u64) -> Fault + Send + 'static) -> Rig {
    let mut first = None;
    let store = FaultyStore::new(Arc::new(MemoryStore::new()), move |attempt, tick| {
        if !tick.new_runs.is_empty() {
            first.get_or_insert(attempt);
        }
        first.map_or(Fault::None, |first| plan(attempt - first))
    });
    let rig = RigBuilder::new(|_| Reply::done()).store(store).start().await;
    rig.deploy(DagBuilder::chain("d", 3)).await;
    rig
}

#[tokio::test(start_paused = true)]
async fn a_passing_failure_is_tried_again_and_releases_nothing() {
    for failing in 0..4 {
        let rig = rig(move |attempt| {
            if attempt == failing {
                Fault::Passing
            } else {
                Fault::None
            }
        })
        .await;
        let before = rig.commits();
        let (run, state) = rig.run_to_end("d").await;
        assert_eq!(state, DagRunState::Success);
        assert_eq!(rig.commits() - before, 4);
        assert_eq!(
            rig.executor.tasks(),
            ["t0", "t1", "t2"],
            "no dispatch was released twice"
        );
        assert_eq!(rig.store.inner.tries(run.key).len(), 3);
        assert_eq!(rig.handle.metrics().commits_failed_passing, 1);
        assert!(rig.handle.health().healthy);
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_scheduler_takes_requests_again_once_the_database_commits() {
    let broken = Arc::new(AtomicBool::new(false));
    let plan = Arc::clone(&broken);
    let store = FaultyStore::new(Arc::new(MemoryStore::new()), move |_, _| {
        if plan.load(Ordering::SeqCst) {
            Fault::Passing
        } else {
            Fault::None
        }
    });
    let rig = RigBuilder::new(|_| Reply::done()).store(store).start().await;
    rig.deploy(DagBuilder::chain("d", 1)).await;
    broken.store(true, Ordering::SeqCst);
    rig.store.is_full.store(true, Ordering::SeqCst);
    assert!(matches!(rig.try_trigger("d").await, Err(ControlError::Unavailable)));
    // Nothing is left to commit: only a request would show that commits fail, and requests are refused.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let health = rig.handle.health();
    assert!(health.problem.is_some_and(|problem| problem.contains("disk full")));
    broken.store(false, Ordering::SeqCst);
    rig.store.is_full.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(rig.handle.health().healthy);
    let (_, state) = rig.run_to_end("d").await;
    assert_eq!(state, DagRunState::Success);
}

#[tokio::test(start_paused = true)]
async fn while_commits_fail_health_says_so_and_writes_are_unavailable() {
    let broken = Arc::new(AtomicBool::new(false));
    let plan = Arc::clone(&broken);
    let store = FaultyStore::new(Arc::new(MemoryStore::new()), move |_, _| {
        if plan.load(Ordering::SeqCst) {
            Fault::Passing
        } else {
            Fault::None
        }
    });
    let rig = RigBuilder::new(|_| Reply::Start).store(store).start().await;
    rig.deploy(DagBuilder::chain("d", 2)).await;
    let run = rig.trigger("d").await;
    let first = rig.executor.next().await;
    broken.store(true, Ordering::SeqCst);
    rig.executor.done(first.id);
    let refused = rig.try_trigger("d").await;
    assert!(matches!(refused, Err(ControlError::Unavailable)), "{refused:?}");
    assert!(matches!(rig.try_trigger("d").await, Err(ControlError::Unavailable)));
    let health = rig.handle.health();
    assert!(!health.healthy && health.problem.unwrap().contains("disk full"));
    assert_eq!(rig.executor.count(), 1, "nothing was released");
    broken.store(false, Ordering::SeqCst);
    let second = rig.executor.next().await;
    assert_eq!(second.task.task_id.as_str(), "t1");
    rig.executor.done(second.id);
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    assert!(rig.handle.health().healthy);
    assert_eq!(rig.store.inner.runs().len(), 1, "the refused triggers left nothing");
    assert_eq!(rig.trigger("d").await.state, DagRunState::Running);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_read_back_before_anything_else() {
    for fault in [Fault::UnknownWritten, Fault::UnknownLost] {
        for failing in 0..4 {
            let rig = rig(move |attempt| if attempt == failing { fault } else { Fault::None }).await;
            let before = rig.commits();
            let (run, state) = rig.run_to_end("d").await;
            assert_eq!(state, DagRunState::Success);
            assert_eq!(rig.commits() - before, 4, "{fault:?} at {failing}: written once");
            assert_eq!(rig.executor.tasks(), ["t0", "t1", "t2"]);
            assert_eq!(rig.store.inner.tries(run.key).len(), 3);
            assert_eq!(rig.handle.metrics().commits_unknown, 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_data_is_refused_is_set_aside_and_all_others_go_on() {
    let store = FaultyStore::new(Arc::new(MemoryStore::new()), |_, tick| {
        let poisoned = tick.xcoms.iter().any(|xcom| xcom.key == "poison");
        if poisoned { Fault::Data } else { Fault::None }
    });
    let rig = RigBuilder::new(|_| Reply::Nothing).store(store).start().await;
    rig.deploy(DagBuilder::chain("d", 2)).await;
    let mut runs = Vec::new();
    let mut first = Vec::new();
    for _ in 0..8 {
        runs.push(rig.trigger("d").await);
        first.push(rig.executor.next().await);
    }
    // All results arrive together: one tick has to be taken apart.
    for (at, request) in first.iter().enumerate() {
        let key = if at == 5 { "poison" } else { "fine" };
        let push = ports::executor::XcomPush {
            key: key.to_owned(),
            value: "1".into(),
            blobs: Vec::new(),
        };
        let done = ports::executor::TryOutcome::Done { falsy: false };
        rig.executor.end_with(request.id, done, vec![push]);
    }
    for _ in 0..7 {
        let request = rig.executor.next().await;
        assert!(request.run.run_id != runs[5].run_id);
        rig.executor.done(request.id);
    }
    for (at, run) in runs.iter().enumerate() {
        if at != 5 {
            assert_eq!(rig.finished(run).await, DagRunState::Success);
        }
    }
    let bad = &runs[5];
    assert_eq!(rig.stored(bad.key).set_aside.as_deref(), Some("value out of range"));
    assert_eq!(rig.handle.health().set_aside_runs, [format!("d/{}", bad.run_id)]);
    assert!(rig.handle.health().healthy);
    assert!(!rig.handle.is_active(bad.uuid));
    assert_eq!(rig.handle.metrics().runs_set_aside, 1);

    // A person who acts on the run gives it another chance.
    let clear = ports::control::ClearRequest {
        run_id: Some(bad.run_id.clone()),
        ..Default::default()
    };
    rig.handle.clear(&bad.dag_id, clear).await.unwrap();
    for _ in 0..2 {
        let request = rig.executor.next().await;
        rig.executor.done(request.id);
    }
    assert_eq!(rig.finished(bad).await, DagRunState::Success);
    assert_eq!(rig.stored(bad.key).set_aside, None);
    assert!(rig.handle.health().set_aside_runs.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_trigger_or_deploy_whose_data_is_refused_fails_alone() {
    let store = FaultyStore::new(Arc::new(MemoryStore::new()), |_, tick| {
        let bad_run = tick.new_runs.iter().any(|run| run.note.as_deref() == Some("bad"));
        let bad_dag = tick.dags.iter().any(
            |dag| matches!(dag, ports::store::DagWrite::Deploy { version, .. } if version.dag.id.as_str() == "bad"),
        );
        if bad_run || bad_dag { Fault::Data } else { Fault::None }
    });
    let rig = RigBuilder::new(|_| Reply::done()).store(store).start().await;
    rig.deploy(DagBuilder::chain("d", 1)).await;
    let mut bad = crate::support::request("d");
    bad.note = Some("bad".to_owned());
    let (good, bad, other) = tokio::join!(rig.try_trigger("d"), rig.handle.trigger(bad), rig.try_trigger("d"));
    assert!(matches!(bad, Err(ControlError::Internal(_))), "{bad:?}");
    for run in [good.unwrap(), other.unwrap()] {
        assert_eq!(rig.finished(&run).await, DagRunState::Success);
    }
    let refused = rig
        .handle
        .deploy(DagBuilder::chain("bad", 1).manifest("1"), true, "tester");
    let good = rig
        .handle
        .deploy(DagBuilder::chain("good", 1).manifest("1"), true, "tester");
    let (refused, good) = tokio::join!(refused, good);
    assert!(matches!(refused, Err(ControlError::Internal(_))));
    good.unwrap();
    assert!(matches!(
        rig.try_trigger("bad").await,
        Err(ControlError::DagNotFound(_))
    ));
    assert_eq!(rig.run_to_end("good").await.1, DagRunState::Success);
}
