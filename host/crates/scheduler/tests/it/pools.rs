//! Pools: who may run, and the slots that are committed with it. `FaultyStore` compares the pools' counters with the task
//! instances after every commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use model::{DagRunState, TaskInstanceState};
use ports::control::{Control as _, ControlError, NewPool, PoolPatch};
use scheduler::MemoryStore;

use crate::support::{DagBuilder, Fault, FaultyStore, Reply, Rig, RigBuilder};

fn pool(name: &str, slots: i32) -> NewPool {
    NewPool {
        name: name.to_owned(),
        slots,
        description: None,
        include_deferred: false,
    }
}

fn slots(slots: i32) -> PoolPatch {
    PoolPatch {
        slots: Some(slots),
        ..PoolPatch::default()
    }
}

fn used(rig: &Rig, name: &str) -> i64 {
    let pools = rig.store.inner.all_pools();
    pools.into_iter().find(|pool| pool.name == name).unwrap().used
}

/// `count` tasks side by side in a pool, each with so many slots.
fn side_by_side(dag: &str, name: &str, count: usize, slots: u32) -> DagBuilder {
    (0..count).fold(DagBuilder::new(dag), |dag, at| {
        dag.task_with(&format!("s{at}"), &[], |task| {
            task.pool = name.to_owned();
            task.pool_slots = slots;
        })
    })
}

#[tokio::test(start_paused = true)]
async fn a_pool_bounds_the_tasks_of_all_dags() {
    let rig = RigBuilder::new(|_| Reply::Nothing).start().await;
    rig.handle.create_pool(pool("db", 3), "ada").await.unwrap();
    rig.deploy(side_by_side("a", "db", 2, 2)).await;
    rig.deploy(side_by_side("b", "db", 2, 1)).await;
    let a = rig.trigger("a").await;
    let first = rig.executor.next().await;
    assert_eq!(used(&rig, "db"), 2);
    let b = rig.trigger("b").await;
    let second = rig.executor.next().await;
    assert_eq!((second.run.dag_id.as_str(), used(&rig, "db")), ("b", 3));
    assert_eq!(rig.executor.count(), 2, "the rest waits");
    // What is given back and what is taken instead are one commit.
    let commits = rig.commits();
    rig.executor.done(first.id);
    let third = rig.executor.next().await;
    assert_eq!(rig.commits() - commits, 1);
    assert_eq!(used(&rig, "db"), 3);
    rig.executor.done(second.id);
    rig.executor.done(third.id);
    let fourth = rig.executor.next().await;
    rig.executor.done(fourth.id);
    assert_eq!(rig.finished(&a).await, DagRunState::Success);
    assert_eq!(rig.finished(&b).await, DagRunState::Success);
    assert_eq!(used(&rig, "db"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_changed_changes_what_may_run() {
    let rig = RigBuilder::new(|_| Reply::Nothing).start().await;
    rig.handle.create_pool(pool("db", 1), "ada").await.unwrap();
    rig.deploy(side_by_side("d", "db", 4, 1)).await;
    let run = rig.trigger("d").await;
    let mut out = vec![rig.executor.next().await];
    assert_eq!(rig.executor.count(), 1);
    let changed = rig.handle.change_pool("db", slots(3), "ada").await.unwrap();
    assert_eq!((changed.slots, changed.used), (3, 3), "taken with the same commit");
    out.push(rig.executor.next().await);
    out.push(rig.executor.next().await);
    // What runs goes on in a pool that got smaller, and nothing else starts.
    rig.handle.change_pool("db", slots(0), "ada").await.unwrap();
    for request in out {
        rig.executor.done(request.id);
    }
    rig.handle.change_pool("db", PoolPatch::default(), "ada").await.unwrap();
    while used(&rig, "db") > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.executor.count(), 3);
    rig.handle.change_pool("db", slots(-1), "ada").await.unwrap();
    let last = rig.executor.next().await;
    rig.executor.done(last.id);
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    let lines = rig.store.inner.audit_log();
    let of_pools: Vec<_> = lines
        .iter()
        .filter(|line| line.event.ends_with("_pool"))
        .map(|line| (line.event, line.user.as_str(), line.extra.as_deref().unwrap()))
        .collect();
    assert_eq!(of_pools[0], ("post_pool", "ada", r#"{"pool":"db","slots":1}"#));
    assert_eq!(of_pools[1], ("patch_pool", "ada", r#"{"pool":"db","slots":3}"#));
    assert_eq!(of_pools.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn pools_that_are_needed_stay() {
    let rig = RigBuilder::new(|_| Reply::Nothing).start().await;
    let rename = |name: &str| PoolPatch {
        name: Some(name.to_owned()),
        ..PoolPatch::default()
    };
    for name in ["one", "two"] {
        rig.handle.create_pool(pool(name, 1), "ada").await.unwrap();
    }
    let twice = rig.handle.create_pool(pool("one", 5), "ada").await;
    assert!(matches!(twice, Err(ControlError::PoolExists(_))), "{twice:?}");
    let gone = rig.handle.delete_pool("default_pool", "ada").await;
    assert!(matches!(gone, Err(ControlError::DefaultPool)), "{gone:?}");
    let renamed = rig.handle.change_pool("default_pool", rename("other"), "ada").await;
    assert!(matches!(renamed, Err(ControlError::DefaultPool)), "{renamed:?}");
    let unknown = rig.handle.change_pool("three", slots(1), "ada").await;
    assert!(matches!(unknown, Err(ControlError::PoolNotFound(_))), "{unknown:?}");
    let taken = rig.handle.change_pool("two", rename("one"), "ada").await;
    assert!(matches!(taken, Err(ControlError::PoolExists(_))), "{taken:?}");

    // One DAG uses the pool now; another did when its run began.
    rig.deploy(side_by_side("now", "one", 1, 1)).await;
    rig.deploy(side_by_side("before", "one", 1, 1)).await;
    let run = rig.trigger("before").await;
    let request = rig.executor.next().await;
    let manifest = DagBuilder::chain("before", 1).manifest("2");
    rig.handle.deploy(manifest, true, "tester").await.unwrap();
    for refused in [
        rig.handle.delete_pool("one", "ada").await,
        rig.handle.change_pool("one", rename("uno"), "ada").await.map(drop),
    ] {
        let Err(ControlError::PoolInUse { dags, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(
            dags.iter().map(|dag| dag.as_str()).collect::<Vec<_>>(),
            ["before", "now"]
        );
    }
    rig.executor.done(request.id);
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    rig.handle.delete_dag(&"now".parse().unwrap(), "ada").await.unwrap();
    rig.handle.delete_pool("one", "ada").await.unwrap();
    let renamed = rig.handle.change_pool("two", rename("one"), "ada").await.unwrap();
    assert_eq!((renamed.name.as_str(), renamed.slots), ("one", 1));
    let names: Vec<_> = rig.store.inner.all_pools().into_iter().map(|pool| pool.name).collect();
    assert_eq!(names, ["default_pool", "one"]);
    // Between the check of a manifest and its deploy a pool may go.
    let late = rig
        .handle
        .deploy(side_by_side("late", "two", 1, 1).manifest("1"), true, "ada")
        .await;
    assert!(matches!(late, Err(ControlError::PoolNotFound(_))), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_somebody_made_smaller_loses_nothing() {
    let rig = RigBuilder::new(|_| Reply::Nothing).start().await;
    rig.handle.create_pool(pool("db", 8), "ada").await.unwrap();
    rig.deploy(side_by_side("d", "db", 5, 2)).await;
    rig.store.inner.set_slots("db", 5);
    let run = rig.trigger("d").await;
    let mut out = vec![rig.executor.next().await, rig.executor.next().await];
    assert_eq!((rig.executor.count(), used(&rig, "db")), (2, 4));
    assert_eq!(rig.store.recounts(), 1);
    let metrics = rig.handle.metrics();
    assert_eq!((metrics.commits_failed_slots, metrics.commits_failed_passing), (1, 0));
    assert!(rig.handle.health().healthy);
    // Smaller than what is in use: one for one needs no free slot, and what is given back is given back.
    rig.store.inner.set_slots("db", 1);
    for _ in 0..3 {
        rig.executor.done(out.remove(0).id);
        out.push(rig.executor.next().await);
        assert_eq!(used(&rig, "db"), 4);
    }
    for request in out {
        rig.executor.done(request.id);
    }
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    assert_eq!((used(&rig, "db"), rig.store.recounts()), (0, 1));
    // Nothing fits at all now: the run waits, and goes on once somebody tells the server of a larger pool.
    let run = rig.trigger("d").await;
    assert_eq!((rig.executor.count(), rig.store.recounts()), (5, 2));
    rig.handle.change_pool("db", slots(6), "ada").await.unwrap();
    for _ in 0..5 {
        let request = rig.executor.next().await;
        assert!(used(&rig, "db") <= 6);
        rig.executor.done(request.id);
    }
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    assert!(rig.handle.health().healthy);
}

#[tokio::test(start_paused = true)]
async fn slots_go_from_run_to_run_although_their_tick_is_taken_apart() {
    let broken = Arc::new(AtomicBool::new(false));
    let plan = Arc::clone(&broken);
    let store = FaultyStore::new(Arc::new(MemoryStore::new()), move |_, tick| {
        let poisoned = plan.load(Ordering::SeqCst) && tick.xcoms.iter().any(|xcom| xcom.key == "poison");
        if poisoned { Fault::Data } else { Fault::None }
    });
    let rig = RigBuilder::new(|_| Reply::Nothing).store(store).start().await;
    rig.handle.create_pool(pool("db", 3), "ada").await.unwrap();
    rig.deploy(side_by_side("holds", "db", 1, 1)).await;
    rig.deploy(side_by_side("waits", "db", 1, 1)).await;
    let (mut holding, mut waiting, mut out) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        holding.push(rig.trigger("holds").await);
        out.push(rig.executor.next().await);
    }
    for _ in 0..2 {
        waiting.push(rig.trigger("waits").await);
    }
    broken.store(true, Ordering::SeqCst);
    // One tick: it touches those that wait first, so that the half of it which takes comes before the half which gives back.
    let note = |at: usize| {
        let run = &waiting[at];
        rig.handle.set_run_note(&run.dag_id, &run.run_id, "soon", "ada")
    };
    let ends = async {
        for (at, request) in out.iter().enumerate() {
            let push = ports::executor::XcomPush {
                key: if at == 1 { "poison" } else { "fine" }.to_owned(),
                value: "1".into(),
                blobs: Vec::new(),
            };
            let done = ports::executor::TryOutcome::Done { falsy: false };
            rig.executor.end_with(request.id, done, vec![push]);
        }
    };
    let (first, second, ()) = tokio::join!(note(0), note(1), ends);
    first.and(second).unwrap();
    let mut keys = Vec::new();
    for _ in 0..2 {
        let request = rig.executor.next().await;
        keys.push(request.id.ti.run);
        rig.executor.done(request.id);
    }
    keys.sort_unstable();
    assert_eq!(keys, [waiting[0].key, waiting[1].key]);
    for run in [&holding[0], &holding[2], &waiting[0], &waiting[1]] {
        assert_eq!(rig.finished(run).await, DagRunState::Success);
    }
    assert!(
        rig.handle.metrics().commits_failed_slots > 0,
        "the halves were tried the wrong way round"
    );
    assert_eq!(rig.store.recounts(), 0, "and then the right way");
    let bad = &holding[1];
    assert!(rig.stored(bad.key).set_aside.is_some());
    assert_eq!(used(&rig, "db"), 0, "a run that is set aside holds nothing");
    // It comes back with what it has out, even where the pool has no slots.
    broken.store(false, Ordering::SeqCst);
    rig.handle.change_pool("db", slots(0), "ada").await.unwrap();
    let note = rig.handle.set_run_note(&bad.dag_id, &bad.run_id, "again", "ada").await;
    assert!(note.is_ok(), "{note:?}");
    assert!(rig.stored(bad.key).set_aside.is_none());
    assert_eq!(used(&rig, "db"), 1);
    let request = rig.executor.next().await;
    rig.executor.done(request.id);
    assert_eq!(rig.finished(bad).await, DagRunState::Success);
    assert_eq!(rig.state(bad.key, "s0"), TaskInstanceState::Success);
    assert_eq!(used(&rig, "db"), 0);
    assert!(rig.handle.health().healthy);
}

#[tokio::test(start_paused = true)]
async fn a_restart_counts_the_slots_anew() {
    let rig = RigBuilder::new(|_| Reply::Start).start().await;
    rig.handle.create_pool(pool("db", 4), "ada").await.unwrap();
    rig.deploy(side_by_side("d", "db", 3, 2)).await;
    let run = rig.trigger("d").await;
    rig.executor.next().await;
    rig.executor.next().await;
    let id = rig.store.inner.lease().unwrap().scheduler_id;
    let (store, clock) = rig.crash().await;
    let again = RigBuilder::new(|_| Reply::Nothing)
        .store(store)
        .clock(clock)
        .config(|config| config.scheduler_id = id)
        .start()
        .await;
    assert_eq!(used(&again, "db"), 4, "what was out still is");
    for _ in 0..3 {
        let request = again.executor.next().await;
        assert!(used(&again, "db") <= 4);
        again.executor.done(request.id);
    }
    assert_eq!(again.finished(&run).await, DagRunState::Success);
    assert_eq!(used(&again, "db"), 0);
}
