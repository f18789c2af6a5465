//! Limits that would lock each other: run slots and the run before, slots of pools, and what waits for runs of its own.

use std::time::Duration;

use model::between::{IfExists, TriggerDag};
use model::dag::{Combine, Expansion, MapSource, MapValues};
use model::past::Past;
use model::{DagId, DagRunState, MapIndex, TaskInstanceState, Timestamp, Work};
use ports::between::TriggerDagRequest;
use ports::control::{ClearRequest, Control as _, NewPool, PoolPatch};
use ports::executor::{TryOutcome, TryRequest};
use ports::query::RunRow;

use crate::between::restart;
use crate::support::{DagBuilder, Reply, Rig, RigBuilder, request};

const DAY: i64 = 86_400_000_000;

/// Each run adds to what the run before left.
fn ledger(max_active_runs: u32) -> DagBuilder {
    DagBuilder::new("d")
        .task_with("add", &[], |task| task.past = Past::DependsOnPast)
        .task("publish", &["add"])
        .with(|dag| dag.max_active_runs = max_active_runs)
}

/// `add` fails in its first try on these days.
fn fails_on(days: &'static [i64]) -> impl Fn(&TryRequest) -> Reply + Send + Sync + Clone + 'static {
    move |request| {
        let day = request.run.logical_date.map(|date| date.0 / DAY);
        let fails = day.is_some_and(|day| days.contains(&day)) && request.id.try_number.0 == 1;
        match request.task.task_id.as_str() {
            "add" if fails => Reply::failed(false),
            _ => Reply::done(),
        }
    }
}

async fn dated(rig: &Rig, day: i64) -> RunRow {
    let mut request = request("d");
    request.logical_date = Some(Timestamp(day * DAY));
    rig.handle.trigger(request).await.unwrap()
}

async fn clear(rig: &Rig, run: &RunRow) {
    let all = ClearRequest {
        run_id: Some(run.run_id.clone()),
        ..ClearRequest::default()
    };
    rig.handle.clear(&DagId::new("d").unwrap(), all).await.unwrap();
}

/// Lets everything happen that can happen by itself.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(5)).await;
}

async fn all_succeed(rig: &Rig, runs: &[RunRow]) {
    for run in runs {
        let states: Vec<_> = runs.iter().map(|run| rig.stored(run.key).state).collect();
        assert_eq!(rig.finished(run).await, DagRunState::Success, "{states:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_waits_for_the_run_before_gives_it_its_only_slot() {
    let rig = RigBuilder::new(fails_on(&[1])).start().await;
    rig.deploy(ledger(1)).await;
    let first = dated(&rig, 1).await;
    assert_eq!(rig.finished(&first).await, DagRunState::Failed);
    let second = dated(&rig, 2).await;
    let third = dated(&rig, 3).await;
    settle().await;
    let states = [&second, &third].map(|run| rig.stored(run.key).state);
    assert_eq!(
        states,
        [DagRunState::Running, DagRunState::Queued],
        "as long as nobody clears the first, it keeps its slot"
    );
    let commits = rig.commits();
    clear(&rig, &first).await;
    all_succeed(&rig, &[first.clone(), second.clone(), third]).await;
    assert!(rig.commits() - commits < 20, "it is given away once");
    let (before, after) = (rig.ti(first.key, "publish"), rig.ti(second.key, "add"));
    assert!(
        before.end_date <= after.queued_at,
        "one run at a time: {before:?} {after:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn several_runs_that_are_cleared_find_their_order() {
    for (max_active_runs, days) in [(1, [1, 2, 3, 4]), (2, [4, 3, 2, 1]), (1, [3, 1, 4, 2])] {
        let rig = RigBuilder::new(fails_on(&[1, 2, 3, 4])).start().await;
        let all_at_once = DagBuilder::new("d").task("add", &[]);
        rig.deploy(all_at_once).await;
        let mut runs = Vec::new();
        for day in days {
            runs.push(dated(&rig, day).await);
        }
        for run in &runs {
            assert_eq!(rig.finished(run).await, DagRunState::Failed);
        }
        let next = ledger(max_active_runs).manifest("2");
        rig.handle.deploy(next, true, "tester").await.unwrap();
        // A new one waits for the last of them. All are cleared, the latest first.
        let last = dated(&rig, 5).await;
        settle().await;
        assert_eq!(rig.stored(last.key).state, DagRunState::Running);
        for run in runs.iter().rev() {
            clear(&rig, run).await;
            settle().await;
        }
        runs.push(last);
        all_succeed(&rig, &runs).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_chain_of_waiting_runs_lets_the_first_of_them_through() {
    let rig = RigBuilder::new(fails_on(&[1])).start().await;
    rig.deploy(ledger(2)).await;
    let mut runs = Vec::new();
    for day in 1..6 {
        runs.push(dated(&rig, day).await);
        settle().await;
    }
    let states: Vec<_> = runs.iter().map(|run| rig.stored(run.key).state).collect();
    assert_eq!(states[0], DagRunState::Failed);
    assert_eq!(states[1..3], [DagRunState::Running; 2]);
    clear(&rig, &runs[0]).await;
    all_succeed(&rig, &runs).await;
}

#[tokio::test(start_paused = true)]
async fn an_earlier_run_that_becomes_due_later_gets_the_slot_then() {
    let rig = RigBuilder::new(fails_on(&[])).start().await;
    rig.deploy(ledger(1)).await;
    let mut early = request("d");
    early.logical_date = Some(Timestamp(DAY));
    early.run_after = Some(rig.now().plus(Duration::from_secs(3_000)));
    let first = rig.handle.trigger(early).await.unwrap();
    let second = dated(&rig, 2).await;
    settle().await;
    assert_eq!(rig.stored(second.key).state, DagRunState::Running);
    assert_eq!(rig.executor.count(), 0);
    all_succeed(&rig, &[first, second]).await;
}

#[tokio::test(start_paused = true)]
async fn a_run_without_a_past_does_not_wait_behind_one_that_cannot_go_on() {
    let rig = RigBuilder::new(fails_on(&[1])).start().await;
    rig.deploy(ledger(1)).await;
    let first = dated(&rig, 1).await;
    assert_eq!(rig.finished(&first).await, DagRunState::Failed);
    let second = dated(&rig, 2).await;
    settle().await;
    let undated = rig.trigger("d").await;
    assert_eq!(rig.finished(&undated).await, DagRunState::Success);
    settle().await;
    assert_eq!(
        rig.stored(second.key).state,
        DagRunState::Running,
        "it has its slot again"
    );
    clear(&rig, &first).await;
    all_succeed(&rig, &[first, second]).await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_gave_its_slot_away_goes_on_after_a_restart() {
    let script = |request: &TryRequest| match fails_on(&[1])(request) {
        Reply::End(TryOutcome::Done { .. }, _) => Reply::Start,
        other => other,
    };
    let rig = RigBuilder::new(script).start().await;
    rig.deploy(ledger(1)).await;
    let first = dated(&rig, 1).await;
    assert_eq!(rig.finished(&first).await, DagRunState::Failed);
    let second = dated(&rig, 2).await;
    settle().await;
    clear(&rig, &first).await;
    settle().await;
    let states = [&first, &second].map(|run| rig.stored(run.key).state);
    assert_eq!(states, [DagRunState::Running, DagRunState::Queued]);
    let rig = restart(rig, |_| Reply::done()).await;
    all_succeed(&rig, &[first, second]).await;
}

#[tokio::test(start_paused = true)]
async fn a_run_with_something_else_to_do_keeps_its_slot() {
    let rig = RigBuilder::new(|request| match request.task.task_id.as_str() {
        "other" if request.run.logical_date == Some(Timestamp(2 * DAY)) => Reply::Start,
        _ => fails_on(&[1])(request),
    })
    .start()
    .await;
    rig.deploy(ledger(1).task("other", &[])).await;
    let first = dated(&rig, 1).await;
    assert_eq!(rig.finished(&first).await, DagRunState::Failed);
    let second = dated(&rig, 2).await;
    settle().await;
    clear(&rig, &first).await;
    settle().await;
    let states = [&first, &second].map(|run| rig.stored(run.key).state);
    assert_eq!(states, [DagRunState::Queued, DagRunState::Running]);
    let other = {
        let dispatched = rig.executor.dispatched.lock().unwrap();
        let of_second = dispatched.iter().rfind(|request| request.run.key == second.key);
        of_second.unwrap().id
    };
    rig.executor.done(other);
    all_succeed(&rig, &[first, second]).await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_ends_and_is_cleared_at_once_is_told_of_its_past_again() {
    let rig = RigBuilder::new(fails_on(&[1])).start().await;
    rig.deploy(ledger(3)).await;
    let first = dated(&rig, 1).await;
    assert_eq!(rig.finished(&first).await, DagRunState::Failed);
    let second = dated(&rig, 2).await;
    settle().await;
    clear(&rig, &first).await;
    assert_eq!(rig.finished(&first).await, DagRunState::Success);
    for _ in 0..3 {
        let fail = rig
            .handle
            .set_run_state(&second.dag_id, &second.run_id, DagRunState::Failed, "tester");
        let (failed, ()) = tokio::join!(fail, clear(&rig, &second));
        failed.unwrap();
        settle().await;
    }
    assert_eq!(rig.finished(&second).await, DagRunState::Success);
}

async fn pool(rig: &Rig, slots: i32, include_deferred: bool) {
    let pool = NewPool {
        name: "p".to_owned(),
        slots,
        description: None,
        include_deferred,
    };
    rig.handle.create_pool(pool, "tester").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_task_that_needs_the_whole_pool_runs_however_many_small_ones_come() {
    let rig = RigBuilder::new(|_| Reply::Start).start().await;
    pool(&rig, 3, false).await;
    let in_pool = |id: &str, slots: u32, weight: i32| {
        DagBuilder::new(id).task_with("t", &[], |task| {
            task.pool = "p".to_owned();
            task.pool_slots = slots;
            task.queueing.weight = weight;
        })
    };
    rig.deploy(in_pool("small", 1, 3)).await;
    rig.deploy(in_pool("big", 3, 1)).await;
    let mut running = Vec::new();
    for _ in 0..3 {
        rig.trigger("small").await;
        running.push(rig.executor.next().await.id);
    }
    let big = rig.trigger("big").await;
    // Every two seconds one more small one comes, and then one of those that run ends: some always run.
    for round in 0..60 {
        if running.is_empty() {
            break;
        }
        rig.trigger("small").await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        rig.executor.done(running.remove(0));
        tokio::time::sleep(Duration::from_millis(100)).await;
        let dispatched = rig.executor.count();
        let all: Vec<TryRequest> = rig.executor.dispatched.lock().unwrap().clone();
        if all.iter().any(|request| request.run.key == big.key) {
            assert!(round > 5, "its weight counts");
            assert!(rig.handle.room().kept.is_empty());
            return;
        }
        running = all[..dispatched]
            .iter()
            .map(|request| request.id)
            .filter(|id| rig.store.inner.task_instances(id.ti.run)[0].state == TaskInstanceState::Running)
            .collect();
    }
    assert!(running.is_empty(), "the big one starves");
    settle().await;
    assert_eq!(rig.state(big.key, "t"), TaskInstanceState::Running);
}

#[tokio::test(start_paused = true)]
async fn who_asks_is_told_for_whom_slots_are_kept() {
    let rig = RigBuilder::new(|_| Reply::Start).start().await;
    pool(&rig, 3, false).await;
    let task = |id: &str, slots: u32| {
        DagBuilder::new(id).task_with("t", &[], |task| {
            task.pool = "p".to_owned();
            task.pool_slots = slots;
            task.queueing.weight = i32::try_from(slots).unwrap();
        })
    };
    rig.deploy(task("small", 1)).await;
    rig.deploy(task("big", 3)).await;
    rig.trigger("small").await;
    let small = rig.executor.next().await;
    let big = rig.trigger("big").await;
    let second = rig.trigger("small").await;
    settle().await;
    let room = rig.handle.room();
    assert_eq!(room.parallelism, Some(64));
    let [kept] = room.kept.as_slice() else {
        panic!("{room:?}")
    };
    assert_eq!(
        (kept.pool.as_str(), &kept.run_id, kept.task_id.as_str(), kept.slots),
        ("p", &big.run_id, "t", 3)
    );
    assert_eq!(rig.state(second.key, "t"), TaskInstanceState::Scheduled);
    // With a slot more than it needs there is one for others.
    let patch = PoolPatch {
        slots: Some(5),
        ..PoolPatch::default()
    };
    rig.handle.change_pool("p", patch, "tester").await.unwrap();
    settle().await;
    assert_eq!(rig.state(big.key, "t"), TaskInstanceState::Running);
    assert_eq!(rig.state(second.key, "t"), TaskInstanceState::Running);
    assert!(rig.handle.room().kept.is_empty());
    rig.executor.done(small.id);
}

fn triggers_child() -> Work {
    Work::TriggerDag(Box::new(TriggerDag {
        dag: Some(DagId::new("child").unwrap()),
        allowed: Vec::new(),
        if_exists: IfExists::Fail,
        wait: true,
        allowed_states: vec![DagRunState::Success],
        result: None,
        timeout: None,
    }))
}

/// Steps between DAGs render at once, other tasks go on until the test ends them.
fn held(request: &TryRequest) -> Reply {
    if request.task.work.trigger_dag().is_none() {
        return Reply::Start;
    }
    let child = TriggerDagRequest {
        dag: None,
        conf: serde_json::json!({}),
        run_id: None,
        logical_date: None,
    };
    Reply::End(TryOutcome::TriggerDag(Box::new(child)), Vec::new())
}

fn mapped_over(count: u32) -> Option<Expansion> {
    Some(Expansion {
        how: Combine::Product,
        sources: vec![MapSource {
            name: "x".to_owned(),
            values: MapValues::Literal {
                value: (0..count).collect::<Vec<_>>().into(),
            },
        }],
        limit: 8,
    })
}

fn states(rig: &Rig, run: &RunRow) -> Vec<TaskInstanceState> {
    let mut rows = rig.store.inner.task_instances(run.key);
    rows.retain(|ti| ti.key.map_index >= MapIndex(0));
    rows.sort_by_key(|ti| ti.key.map_index);
    rows.into_iter().map(|ti| ti.state).collect()
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_its_own_run_counts_as_an_active_instance_of_its_task() {
    for per_dagrun in [true, false] {
        let rig = RigBuilder::new(held).start().await;
        rig.deploy(DagBuilder::new("child").task("work", &[])).await;
        rig.deploy(DagBuilder::new("parent").task_with("solve", &[], |task| {
            task.work = triggers_child();
            task.expand = mapped_over(3);
            task.queueing.max_active_tis_per_dag = (!per_dagrun).then_some(1);
            task.queueing.max_active_tis_per_dagrun = per_dagrun.then_some(1);
        }))
        .await;
        let run = rig.trigger("parent").await;
        settle().await;
        use TaskInstanceState::{Deferred, Scheduled, Success};
        assert_eq!(states(&rig, &run), [Deferred, Scheduled, Scheduled]);
        // Who takes over counts them too.
        let rig = restart(rig, held).await;
        settle().await;
        assert_eq!(states(&rig, &run), [Deferred, Scheduled, Scheduled]);
        let work = |request: &&TryRequest| request.task.work.trigger_dag().is_none();
        for ended in 0..3 {
            let id = {
                let dispatched = rig.executor.dispatched.lock().unwrap();
                dispatched.iter().filter(work).next_back().unwrap().id
            };
            rig.executor.done(id);
            settle().await;
            let now = states(&rig, &run);
            let of = |wanted| now.iter().filter(|state| **state == wanted).count();
            assert_eq!(
                (of(Success), of(Deferred)),
                (ended + 1, usize::from(ended < 2)),
                "{now:?}"
            );
        }
        assert_eq!(rig.finished(&run).await, DagRunState::Success);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_includes_deferred_ones_gives_their_slots_to_nobody() {
    for include_deferred in [true, false] {
        let rig = RigBuilder::new(held).start().await;
        pool(&rig, 2, include_deferred).await;
        rig.deploy(DagBuilder::new("child").task("work", &[])).await;
        rig.deploy(DagBuilder::new("parent").task_with("solve", &[], |task| {
            task.work = triggers_child();
            task.pool = "p".to_owned();
            task.expand = mapped_over(3);
        }))
        .await;
        let run = rig.trigger("parent").await;
        settle().await;
        use TaskInstanceState::{Deferred, Scheduled};
        let third = if include_deferred { Scheduled } else { Deferred };
        assert_eq!(states(&rig, &run), [Deferred, Deferred, third]);
        let rig = restart(rig, held).await;
        settle().await;
        assert_eq!(states(&rig, &run), [Deferred, Deferred, third]);
        let stored = rig.store.inner.all_pools();
        let used = stored.iter().find(|pool| pool.name == "p").unwrap().used;
        assert_eq!(used, 0, "the database counts what is dispatched");
        // Whoever changes the pool changes that at once.
        let patch = PoolPatch {
            include_deferred: Some(false),
            ..PoolPatch::default()
        };
        rig.handle.change_pool("p", patch, "tester").await.unwrap();
        settle().await;
        assert_eq!(states(&rig, &run), [Deferred; 3]);
        // A run that is deleted gives back what it held.
        let patch = PoolPatch {
            include_deferred: Some(true),
            ..PoolPatch::default()
        };
        rig.handle.change_pool("p", patch, "tester").await.unwrap();
        rig.handle.delete_run(&run.dag_id, &run.run_id, "tester").await.unwrap();
        let next = rig.trigger("parent").await;
        settle().await;
        assert_eq!(states(&rig, &next), [Deferred, Deferred, Scheduled]);
    }
}
