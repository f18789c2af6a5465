//! Runs that wait for the run before them.

use std::sync::Arc;
use std::time::Duration;

use model::past::Past;
use model::{DagId, DagRunState, TaskId, TaskInstanceState, Timestamp, TriggerRule, Work};
use ports::control::{ClearRequest, Control as _};
use ports::executor::{TryOutcome, TryRequest};
use ports::query::RunRow;

use crate::support::{DagBuilder, Fault, FaultyStore, Reply, Rig, RigBuilder, request};

fn looking_back() -> DagBuilder {
    DagBuilder::new("d")
        .task_with("a", &[], |task| task.past = Past::DependsOnPast)
        .task_with("b", &["a"], |task| task.past = Past::WaitForDownstream)
        .task("c", &["b"])
}

/// Every try goes on until the test ends it.
async fn rig() -> Rig {
    let rig = RigBuilder::new(|_| Reply::Start).start().await;
    rig.deploy(looking_back()).await;
    rig
}

async fn dated(rig: &Rig, day: i64) -> RunRow {
    let mut request = request("d");
    request.logical_date = Some(Timestamp(day * 86_400_000_000));
    rig.handle.trigger(request).await.unwrap()
}

fn clear_all(run: &RunRow) -> ClearRequest {
    ClearRequest {
        run_id: Some(run.run_id.clone()),
        ..ClearRequest::default()
    }
}

/// Lets everything happen that can happen by itself.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(5)).await;
}

/// The next dispatch, which must be of this task of this run; nothing else is dispatched.
async fn expect(rig: &Rig, run: &RunRow, task: &str) -> TryRequest {
    let next = rig.executor.next().await;
    assert_eq!((next.run.key, next.task.task_id.as_str()), (run.key, task));
    next
}

async fn done(rig: &Rig, run: &RunRow, task: &str) {
    let next = expect(rig, run, task).await;
    rig.executor.done(next.id);
}

#[tokio::test(start_paused = true)]
async fn a_task_waits_for_itself_in_the_run_before_which_is_in_memory() {
    let rig = rig().await;
    let first = dated(&rig, 1).await;
    let first_a = expect(&rig, &first, "a").await;
    let second = dated(&rig, 2).await;
    settle().await;
    assert_eq!(rig.executor.count(), 1, "`a` of the second run waits");
    assert_eq!(rig.stored(second.key).state, DagRunState::Running);
    rig.executor.done(first_a.id);
    // `b` of the first run and `a` of the second, in any order.
    let (x, y) = (rig.executor.next().await, rig.executor.next().await);
    let (first_b, second_a) = if x.run.key == first.key { (x, y) } else { (y, x) };
    assert_eq!(second_a.task.task_id.as_str(), "a");
    rig.executor.done(second_a.id);
    rig.executor.done(first_b.id);
    let first_c = expect(&rig, &first, "c").await;
    settle().await;
    assert_eq!(
        rig.executor.count(),
        4,
        "`b` of the second run waits for `c` of the first"
    );
    rig.executor.done(first_c.id);
    done(&rig, &second, "b").await;
    done(&rig, &second, "c").await;
    assert_eq!(rig.finished(&first).await, DagRunState::Success);
    assert_eq!(rig.finished(&second).await, DagRunState::Success);
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_the_next_run_waits_until_the_run_before_was_cleared() {
    let rig = RigBuilder::new(
        |request| match (request.task.task_id.as_str(), request.id.try_number.0) {
            ("a", 1) if request.run.logical_date == Some(Timestamp(86_400_000_000)) => Reply::failed(false),
            _ => Reply::done(),
        },
    )
    .start()
    .await;
    rig.deploy(looking_back()).await;
    let first = dated(&rig, 1).await;
    assert_eq!(rig.finished(&first).await, DagRunState::Failed);
    // The first run is in memory no more.
    let second = dated(&rig, 2).await;
    settle().await;
    assert_eq!(
        rig.stored(second.key).state,
        DagRunState::Running,
        "it is not deadlocked"
    );
    assert_eq!(rig.executor.count(), 1);
    rig.handle
        .clear(&DagId::new("d").unwrap(), clear_all(&first))
        .await
        .unwrap();
    assert_eq!(rig.finished(&first).await, DagRunState::Success);
    assert_eq!(rig.finished(&second).await, DagRunState::Success);
}

#[tokio::test(start_paused = true)]
async fn the_run_before_is_the_one_with_the_next_earlier_logical_date() {
    let rig = rig().await;
    let third = dated(&rig, 3).await;
    let third_a = expect(&rig, &third, "a").await;
    // Runs without a logical date have none before them, and are before none.
    let undated = rig.trigger("d").await;
    let undated_a = expect(&rig, &undated, "a").await;
    rig.executor.done(undated_a.id);
    expect(&rig, &undated, "b").await;
    // An earlier run comes later: what runs goes on, what does not yet waits for it.
    let second = dated(&rig, 2).await;
    let second_a = expect(&rig, &second, "a").await;
    rig.executor.done(third_a.id);
    settle().await;
    assert_eq!(rig.executor.count(), 4, "`b` of the third run waits for the second");
    // It is deleted: the third run is the first again.
    rig.handle
        .delete_run(&second.dag_id, &second.run_id, "tester")
        .await
        .unwrap();
    expect(&rig, &third, "b").await;
    assert_eq!(rig.executor.cancelled.lock().unwrap().as_slice(), [second_a.id]);
}

#[tokio::test(start_paused = true)]
async fn a_cleared_run_before_is_waited_for_again() {
    let rig = rig().await;
    let first = dated(&rig, 1).await;
    for task in ["a", "b", "c"] {
        done(&rig, &first, task).await;
    }
    rig.finished(&first).await;
    let second = dated(&rig, 2).await;
    let second_a = expect(&rig, &second, "a").await;
    let clear = ClearRequest {
        tasks: Some(vec![(TaskId::new("c").unwrap(), None)]),
        ..clear_all(&first)
    };
    rig.handle.clear(&DagId::new("d").unwrap(), clear).await.unwrap();
    let first_c = expect(&rig, &first, "c").await;
    rig.executor.done(second_a.id);
    settle().await;
    assert_eq!(rig.executor.count(), 5, "`b` waits for `c` of the first run");
    rig.executor.done(first_c.id);
    expect(&rig, &second, "b").await;
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_the_past_is_read_from_rows_alone() {
    let rig = rig().await;
    let first = dated(&rig, 1).await;
    let first_a = expect(&rig, &first, "a").await;
    let second = dated(&rig, 2).await;
    settle().await;
    rig.executor.done(first_a.id);
    let mut next = Vec::new();
    for _ in 0..2 {
        next.push(rig.executor.next().await.id);
    }
    settle().await;
    let id = rig.store.inner.lease().unwrap().scheduler_id;
    let (store, clock) = rig.crash().await;
    let rig = RigBuilder::new(|_| Reply::done())
        .store(FaultyStore::new(Arc::clone(&store.inner), |_, _| Fault::None))
        .clock(clock)
        .config(|config| config.scheduler_id = id)
        .start()
        .await;
    assert_eq!(rig.finished(&second).await, DagRunState::Success);
    assert_eq!(rig.finished(&first).await, DagRunState::Success);
    for task in ["a", "b", "c"] {
        assert_eq!(rig.state(second.key, task), TaskInstanceState::Success);
        let (before, after) = (rig.ti(first.key, task), rig.ti(second.key, task));
        assert!(before.end_date <= after.scheduled_at || task == "c", "{task} waited");
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_no_earlier_run_has_is_let_go_and_one_that_an_older_one_has_waits() {
    let rig = RigBuilder::new(|_| Reply::done()).start().await;
    let version = |tasks: &[&str], content: &str| {
        let dag = tasks.iter().fold(DagBuilder::new("d"), |dag, id| {
            dag.task_with(id, &[], |task| task.past = Past::DependsOnPast)
        });
        dag.manifest(content)
    };
    rig.handle
        .deploy(version(&["a", "gone"], "1"), true, "t")
        .await
        .unwrap();
    let run = dated(&rig, 1).await;
    rig.finished(&run).await;
    rig.handle.deploy(version(&["a"], "2"), true, "t").await.unwrap();
    let run = dated(&rig, 2).await;
    rig.finished(&run).await;
    rig.handle
        .deploy(version(&["a", "gone", "new"], "3"), true, "t")
        .await
        .unwrap();
    let run = dated(&rig, 3).await;
    settle().await;
    let state = |task| rig.state(run.key, task);
    assert_eq!(state("a"), TaskInstanceState::Success);
    assert_eq!(state("new"), TaskInstanceState::Success);
    assert_eq!(state("gone"), TaskInstanceState::NoStatus);
}

#[tokio::test(start_paused = true)]
async fn whenever_the_first_run_ends_the_second_one_sees_its_end() {
    // The first run ends while the second one looks up what is before it, at every possible moment.
    for yields in 0..40 {
        let rig = rig().await;
        let first = dated(&rig, 1).await;
        done(&rig, &first, "a").await;
        done(&rig, &first, "b").await;
        let c = expect(&rig, &first, "c").await;
        let second = dated(&rig, 2).await;
        for _ in 0..yields {
            tokio::task::yield_now().await;
        }
        rig.executor.done(c.id);
        for task in ["a", "b", "c"] {
            done(&rig, &second, task).await;
        }
        assert_eq!(rig.finished(&second).await, DagRunState::Success);
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_not_the_latest_skips_what_directly_follows() {
    for (label, publish, report) in [("latest", "success", "success"), ("outdated", "skipped", "success")] {
        let rig = RigBuilder::new(move |request| match request.task.work {
            Work::LatestOnly => Reply::End(
                TryOutcome::Branch {
                    labels: vec![label.to_owned()],
                },
                Vec::new(),
            ),
            _ => Reply::done(),
        })
        .start()
        .await;
        rig.deploy(
            DagBuilder::new("d")
                .task_with("only", &[], |task| task.work = Work::LatestOnly)
                .task("publish", &["only"])
                .task_with("report", &["publish"], |task| task.trigger_rule = TriggerRule::AllDone)
                .with(|dag| dag.tasks[0].kind = model::latest_only::kind(&dag.tasks[0].downstream)),
        )
        .await;
        let (run, state) = rig.run_to_end("d").await;
        assert_eq!(state, DagRunState::Success);
        let states = ["only", "publish", "report"].map(|task| rig.state(run.key, task).as_str());
        assert_eq!(states, ["success", publish, report], "{label}");
    }
}
