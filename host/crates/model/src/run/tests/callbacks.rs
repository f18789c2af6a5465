//! Which callbacks are due, and when.

use super::super::testing::notify;
use super::*;
use crate::callback::{CallbackEvent, RunEndReason};

fn called(id: &str, upstream: &[u32], retries: u32) -> Task {
    let mut task = task(id, upstream);
    task.retry.retries = retries;
    task.retry.delay = Duration::from_secs(10);
    task.callbacks = CallbackEvent::ALL.iter().map(|event| notify(*event, "x")).collect();
    task
}

fn world(tasks: Vec<Task>, timeout: Option<u64>) -> World {
    World::with(dag(tasks, |dag| {
        dag.dagrun_timeout = timeout.map(Duration::from_secs);
        dag.callbacks = CallbackEvent::OF_DAG.map(|event| notify(event, "x")).to_vec();
    }))
}

/// `task/try event` and `reason event`.
fn due(transitions: &[Transition]) -> Vec<String> {
    let due = transitions.iter().filter_map(|transition| match transition {
        Transition::TaskCallbacks {
            event,
            task,
            try_number,
            ..
        } => Some(format!("{}/{} {event}", task.0, try_number.0)),
        Transition::DagCallbacks { event, reason } => Some(format!("{reason} {event}")),
        _ => None,
    });
    due.collect()
}

fn failed(fatal: bool) -> TryEnd {
    TryEnd::Failed {
        cause: Cause::Failed,
        fatal,
        code: None,
    }
}

#[test]
fn a_failed_try_calls_on_retry_and_the_last_one_on_failure() {
    let mut world = world(vec![called("a", &[], 1), called("b", &[0], 0)], None);
    assert_eq!(due(&world.execute(0, failed(false))), ["0/1 on_retry"]);
    world.wait(10);
    // Airflow: what is upstream_failed never ran, and calls nothing.
    assert_eq!(
        due(&world.execute(0, failed(false))),
        ["0/2 on_failure", "task_failure on_failure"]
    );
    assert_eq!(world.ti(1).state, TaskInstanceState::UpstreamFailed);
}

#[test]
fn a_fatal_failure_and_a_lost_executor_call_what_follows_from_them() {
    let mut tasks = vec![called("a", &[], 3), called("b", &[], 1)];
    tasks[1].rerun_on_loss = false;
    let mut world = world(tasks, None);
    assert_eq!(due(&world.execute(0, failed(true))), ["0/1 on_failure"]);
    world.admit(1);
    world.started(1);
    assert_eq!(due(&world.lost(1, Loss::Acknowledged)), ["1/1 on_retry"]);
}

#[test]
fn a_poke_is_not_the_end_of_a_try() {
    let mut world = world(vec![called("a", &[], 0)], None);
    assert!(due(&world.execute(0, TryEnd::Reschedule(Duration::from_secs(5)))).is_empty());
    world.wait(5);
    assert_eq!(
        due(&world.execute(0, TryEnd::Done)),
        ["0/1 on_success", "success on_success"]
    );
}

#[test]
fn only_what_skips_itself_calls_on_skipped() {
    let mut tasks = vec![
        called("branch", &[], 0),
        called("not_chosen", &[0], 0),
        called("own", &[0], 0),
    ];
    tasks[0].kind = crate::dag::TaskKind::Branch {
        labels: indexmap::IndexMap::new(),
    };
    let mut world = world(tasks, None);
    let ended = world.execute(0, TryEnd::Branch(vec![TaskIndex(2)]));
    assert_eq!(due(&ended), ["0/1 on_success"]);
    assert_eq!(world.ti(1).state, TaskInstanceState::Skipped);
    assert_eq!(
        due(&world.execute(2, TryEnd::Skip)),
        ["2/1 on_skipped", "success on_success"]
    );
}

#[test]
fn what_people_set_calls_nothing() {
    let mut first = world(vec![called("a", &[], 0), called("b", &[], 0)], None);
    first.admit(0);
    first.started(0);
    let marked = first.send(Event::SetTaskInstanceState {
        task: TaskIndex(0),
        map_index: MapIndex::UNMAPPED,
        state: TaskInstanceState::Failed,
    });
    assert!(due(&marked).is_empty(), "{marked:?}");
    let cancelled = first.send(Event::SetRunState {
        state: DagRunState::Failed,
    });
    assert!(due(&cancelled).is_empty() && first.run.state() == DagRunState::Failed);
    // What is cleared runs again, and calls again when it ends by itself.
    first.send(Event::Clear {
        task_instances: vec![(TaskIndex(0), MapIndex::UNMAPPED), (TaskIndex(1), MapIndex::UNMAPPED)],
    });
    first.send(Event::Start);
    assert_eq!(due(&first.execute(0, TryEnd::Done)), ["0/2 on_success"]);
    assert_eq!(
        due(&first.execute(1, TryEnd::Done)),
        ["1/1 on_success", "success on_success"]
    );
}

#[test]
fn a_run_that_takes_too_long_says_so() {
    let mut world = world(vec![called("a", &[], 0)], Some(60));
    world.admit(0);
    world.started(0);
    let ended = world.wait(60);
    assert_eq!(due(&ended), ["timed_out on_failure"]);
    assert!(ended.contains(&Transition::DagCallbacks {
        event: CallbackEvent::Failure,
        reason: RunEndReason::TimedOut,
    }));
}

#[test]
fn who_has_no_callbacks_is_told_of_none() {
    let mut world = World::of(vec![task("a", &[])]);
    assert!(due(&world.execute(0, TryEnd::Done)).is_empty());
}
