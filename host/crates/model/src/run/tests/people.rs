use super::*;
use crate::dag::{RetryPolicy, TaskRole};
use crate::trigger_rule::TriggerRule;

/// One running, one between pokes, one up for retry, one queued, one scheduled, one waiting, one done.
fn busy() -> World {
    let retrying = Task {
        retry: RetryPolicy {
            retries: 2,
            ..RetryPolicy::default()
        },
        ..task("retrying", &[])
    };
    let mut world = World::of(vec![
        task("running", &[]),
        task("poking", &[]),
        retrying,
        task("queued", &[]),
        task("scheduled", &[]),
        task("waiting", &[0]),
        task("done", &[]),
    ]);
    world.execute(1, TryEnd::Reschedule(Duration::from_secs(60)));
    world.execute(2, failed());
    world.execute(6, TryEnd::Done);
    world.admit(0);
    world.started(0);
    world.admit(3);
    assert_eq!(
        world.states(),
        [
            "running",
            "up_for_reschedule",
            "up_for_retry",
            "queued",
            "scheduled",
            "no_status",
            "success"
        ]
    );
    world
}

#[test]
fn failing_a_run_fails_what_runs_and_skips_what_waits() {
    let mut world = busy();
    let end = world.mark_run(DagRunState::Failed);
    assert_eq!(
        world.states(),
        [
            "failed", "failed", "skipped", "skipped", "skipped", "skipped", "success"
        ]
    );
    assert_eq!(cancelled(&end), [0, 3]);
    assert_eq!(world.run.state(), DagRunState::Failed);
    assert_eq!(world.ti(0).cause, Some(Cause::Cancelled));
    assert_eq!(
        ended(&end).iter().map(|(task, ..)| *task).collect::<Vec<_>>(),
        [0, 1, 3]
    );
    assert!(world.finished(0, TryEnd::Done).is_empty(), "late results are refused");
    assert_eq!(world.run.next_timer(), None);
    assert!(world.mark_run(DagRunState::Failed).is_empty());
}

#[test]
fn succeeding_a_run_makes_everything_a_success() {
    let mut world = busy();
    let end = world.mark_run(DagRunState::Success);
    assert_eq!(world.states(), ["success"; 7]);
    assert_eq!(cancelled(&end), [0, 3]);
    assert_eq!(world.run.state(), DagRunState::Success);
}

#[test]
fn a_queued_run_can_be_failed() {
    let mut run = RunState::new(DagRunKey(1), dag(vec![task("a", &[])], |_| {}), START, START);
    advance(
        &mut run,
        Event::SetRunState {
            state: DagRunState::Failed,
        },
        START,
    );
    assert_eq!(run.state(), DagRunState::Failed);
    assert_eq!(run.unfinished().count(), 0);
}

#[test]
fn teardowns_still_clean_up_after_a_cancelled_run() {
    let mut world = World::of(vec![
        Task {
            role: TaskRole::Setup,
            ..task("setup", &[])
        },
        task("work", &[0]),
        Task {
            role: TaskRole::Teardown {
                on_failure_fail_dagrun: false,
            },
            trigger_rule: TriggerRule::AllDoneSetupSuccess,
            ..task("teardown", &[0, 1])
        },
    ]);
    world.execute(0, TryEnd::Done);
    world.admit(1);
    world.started(1);
    world.mark_run(DagRunState::Failed);
    assert_eq!(world.states(), ["success", "failed", "scheduled"]);
    assert_eq!(world.run.state(), DagRunState::Running);
    world.execute(2, TryEnd::Done);
    assert_eq!(world.run.state(), DagRunState::Failed);
}

#[test]
fn a_run_over_its_time_is_failed_and_what_is_unfinished_is_skipped() {
    let mut world = World::with(dag(vec![task("a", &[]), task("b", &[0])], |dag| {
        dag.dagrun_timeout = Some(Duration::from_secs(100));
    }));
    world.admit(0);
    world.started(0);
    assert_eq!(world.run.next_timer(), Some(START.plus(Duration::from_secs(100))));
    assert!(world.wait(99).is_empty());
    let end = world.wait(1);
    assert_eq!(cancelled(&end), [0]);
    assert_eq!(world.states(), ["skipped", "skipped"]);
    assert_eq!(
        (world.run.state(), world.ti(0).cause),
        (DagRunState::Failed, Some(Cause::TimedOut))
    );
}

#[test]
fn cleared_task_instances_run_again_with_new_tries() {
    let retried = Task {
        retry: RetryPolicy {
            retries: 1,
            delay: Duration::ZERO,
            ..RetryPolicy::default()
        },
        ..task("a", &[])
    };
    let mut world = World::of(vec![retried, task("b", &[0])]);
    world.execute(0, failed());
    world.execute(0, failed());
    assert_eq!(world.states(), ["failed", "upstream_failed"]);
    let dispatch = world.dispatch_of(0);
    let cleared = world.clear(&[0, 1]);
    assert_eq!(world.run.state(), DagRunState::Queued);
    assert!(ended(&cleared).is_empty(), "its tries had ended");
    assert_eq!((world.states(), world.ti(0).max_tries), (vec!["no_status"; 2], 4));
    world.send(Event::Start);
    world.execute(0, failed());
    assert_eq!(
        (world.states(), world.ti(0).try_number.0),
        (vec!["scheduled", "no_status"], 3)
    );
    world.execute(0, TryEnd::Done);
    assert!(world.dispatch_of(0) > dispatch, "the fencing token never falls");
    world.execute(1, TryEnd::Done);
    assert_eq!(world.run.state(), DagRunState::Success);
}

#[test]
fn what_runs_restarts_once_it_has_stopped() {
    for stop in [true, false] {
        let mut world = World::of(vec![task("a", &[]), task("b", &[0])]);
        world.admit(0);
        world.started(0);
        let cleared = world.clear(&[0]);
        assert_eq!(cancelled(&cleared), [0]);
        assert_eq!(ended(&cleared), [(0, 1, TaskInstanceState::Failed)]);
        assert_eq!(world.states(), ["restarting", "no_status"]);
        assert!(
            !world
                .run
                .accepts_result(TaskIndex(0), MapIndex::UNMAPPED, world.dispatch_of(0))
        );
        assert!(world.clear(&[0]).is_empty(), "once is enough");
        if stop {
            world.finished(0, TryEnd::Done);
        } else {
            world.lost(0, Loss::Acknowledged);
        }
        assert_eq!(
            world.states(),
            ["scheduled", "no_status"],
            "the late success does not count"
        );
        world.execute(0, TryEnd::Done);
        assert_eq!(
            (world.states(), world.ti(0).try_number.0),
            (vec!["success", "scheduled"], 2)
        );
    }
}

#[test]
fn clearing_a_middle_task_counts_what_follows_anew() {
    let mut world = World::of(vec![task("a", &[]), task("b", &[0]), task("c", &[0, 1])]);
    for task in 0..3 {
        world.execute(task, TryEnd::Done);
    }
    world.clear(&[1, 2]);
    world.send(Event::Start);
    assert_eq!(world.states(), ["success", "scheduled", "no_status"]);
    world.execute(1, failed());
    assert_eq!(world.states(), ["success", "failed", "upstream_failed"]);
    assert_eq!(world.run.state(), DagRunState::Failed);
}

#[test]
fn marking_a_task_lets_what_failed_after_it_follow() {
    let mut world = World::of(vec![task("a", &[]), task("b", &[0]), task("c", &[])]);
    world.execute(0, failed());
    world.execute(2, TryEnd::Done);
    assert_eq!(world.states(), ["failed", "upstream_failed", "success"]);
    world.mark(0, TaskInstanceState::Success);
    assert_eq!(
        (world.run.state(), world.states()),
        (DagRunState::Queued, vec!["success", "no_status", "success"])
    );
    world.send(Event::Start);
    assert_eq!(world.states(), ["success", "scheduled", "success"]);
    world.admit(1);
    world.started(1);
    let end = world.mark(1, TaskInstanceState::Failed);
    assert_eq!(
        (cancelled(&end), ended(&end)),
        (vec![1], vec![(1, 1, TaskInstanceState::Failed)])
    );
    assert_eq!(world.run.state(), DagRunState::Failed);
    assert!(
        world.mark(1, TaskInstanceState::Running).is_empty(),
        "only ends can be set"
    );
}

#[test]
fn putting_a_run_back_in_the_queue_lets_nothing_new_start() {
    let mut world = World::of(vec![task("a", &[]), task("b", &[0])]);
    world.mark_run(DagRunState::Queued);
    assert!(world.admit(0).is_empty(), "its run waits");
    assert_eq!(world.run.ready().count(), 1);
    world.send(Event::Start);
    world.execute(0, TryEnd::Done);
    assert_eq!(world.states(), ["success", "scheduled"]);
}
