use super::*;
use crate::dag::RetryPolicy;

fn with_retries(retries: u32, delay: u64) -> Task {
    Task {
        retry: RetryPolicy {
            retries,
            delay: Duration::from_secs(delay),
            ..RetryPolicy::default()
        },
        ..task("a", &[])
    }
}

#[test]
fn a_run_is_nothing_until_it_starts_and_ends_with_its_last_task() {
    let mut run = RunState::new(DagRunKey(1), dag(vec![task("a", &[])], |_| {}), START, START);
    assert!(advance(&mut run, Event::Timer, START).is_empty());
    assert_eq!(run.ready().count(), 0);
    let mut world = World::of(vec![task("a", &[]), task("b", &[0])]);
    assert_eq!(world.states(), ["scheduled", "no_status"]);
    world.execute(0, TryEnd::Done);
    let last = world.execute(1, TryEnd::Done);
    assert_eq!(world.run.state(), DagRunState::Success);
    assert_eq!(
        last.last(),
        Some(&Transition::Run {
            from: DagRunState::Running,
            to: DagRunState::Success
        })
    );
    assert!(world.send(Event::Start).is_empty(), "an ended run does not start");
}

#[test]
fn a_dag_without_tasks_succeeds_at_once() {
    assert_eq!(World::of(Vec::new()).run.state(), DagRunState::Success);
}

#[test]
fn a_failed_try_is_followed_by_the_next_after_its_delay() {
    let mut world = World::of(vec![with_retries(1, 60)]);
    let end = world.execute(0, failed());
    assert_eq!(
        ended(&end),
        [(0, 1, TaskInstanceState::Failed)],
        "the history shows the try as failed"
    );
    assert_eq!(world.run.next_timer(), Some(world.now.plus(Duration::from_secs(60))));
    assert!(world.wait(59).is_empty());
    world.wait(1);
    assert_eq!(world.states(), ["scheduled"]);
    assert_eq!(first_of_try(&world.admit(0)), Some(true));
    assert_eq!(world.ti(0).try_number.0, 2);
    world.started(0);
    let end = world.finished(0, failed());
    assert_eq!(ended(&end), [(0, 2, TaskInstanceState::Failed)]);
    assert_eq!(world.run.state(), DagRunState::Failed);
    assert_eq!(world.ti(0).cause, Some(Cause::Failed));
}

#[test]
fn a_fatal_failure_skips_the_remaining_retries() {
    let mut world = World::of(vec![with_retries(5, 0)]);
    world.execute(
        0,
        TryEnd::Failed {
            cause: Cause::Denied,
            fatal: true,
            code: None,
        },
    );
    assert_eq!((world.states(), world.ti(0).try_number.0), (vec!["failed"], 1));
}

#[test]
fn a_poke_is_a_dispatch_of_the_same_try() {
    let mut world = World::of(vec![task("a", &[])]);
    assert_eq!(first_of_try(&world.admit(0)), Some(true));
    world.started(0);
    let start = world.ti(0).start_date;
    for dispatch in 1..4 {
        assert_eq!(world.dispatch_of(0).0, dispatch);
        let end = world.finished(0, TryEnd::Reschedule(Duration::from_secs(30)));
        assert!(ended(&end).is_empty());
        assert_eq!(world.states(), ["up_for_reschedule"]);
        assert_eq!(world.run.dispatched().count(), 0, "nothing is held meanwhile");
        world.wait(30);
        assert_eq!(first_of_try(&world.admit(0)), Some(false));
        world.started(0);
    }
    let end = world.finished(0, TryEnd::Done);
    assert_eq!(ended(&end), [(0, 1, TaskInstanceState::Success)]);
    assert_eq!(world.ti(0).start_date, start, "the try began with its first poke");
}

#[test]
fn a_dispatch_that_nobody_acknowledged_is_sent_again_for_free() {
    let mut world = World::of(vec![with_retries(0, 0)]);
    world.admit(0);
    for dispatch in 2..20 {
        let again = world.lost(0, Loss::NotAcknowledged);
        assert_eq!(first_of_try(&again), Some(true));
        assert_eq!((world.dispatch_of(0).0, world.ti(0).try_number.0), (dispatch, 1));
    }
    assert_eq!(world.ti(0).infra_losses, 0);
}

#[test]
fn a_try_survives_as_many_losses_as_it_may_and_its_retries_are_its_own() {
    let mut world = World::of(vec![with_retries(1, 0)]);
    world.admit(0);
    for losses in 1..=3 {
        world.started(0);
        assert_eq!(first_of_try(&world.lost(0, Loss::Acknowledged)), Some(false));
        assert_eq!((world.ti(0).infra_losses, world.ti(0).try_number.0), (losses, 1));
    }
    world.started(0);
    let end = world.lost(0, Loss::Acknowledged);
    assert_eq!(
        ended(&end),
        [(0, 1, TaskInstanceState::Failed)],
        "the history shows the try as failed"
    );
    assert_eq!(world.ti(0).cause, Some(Cause::InfrastructureLost));
    assert_eq!(world.states(), ["scheduled"], "the retry has no delay");
    world.admit(0);
    assert_eq!((world.ti(0).infra_losses, world.ti(0).try_number.0), (0, 2));
}

#[test]
fn what_must_not_run_twice_fails_its_try_instead() {
    for loss in [Loss::Acknowledged, Loss::HandedBack] {
        let mut world = World::of(vec![Task {
            rerun_on_loss: false,
            ..task("a", &[])
        }]);
        world.admit(0);
        world.started(0);
        world.lost(0, loss);
        assert_eq!(world.states(), ["failed"]);
        assert_eq!(world.ti(0).cause, Some(Cause::InfrastructureLost));
    }
}

#[test]
fn what_must_not_run_twice_may_have_run_where_nobody_was_heard_of() {
    let mut world = World::of(vec![Task {
        rerun_on_loss: false,
        ..with_retries(1, 0)
    }]);
    world.admit(0);
    let end = world.lost(0, Loss::NotAcknowledged);
    assert_eq!(ended(&end), [(0, 1, TaskInstanceState::Failed)]);
    assert_eq!(world.ti(0).cause, Some(Cause::InfrastructureLost));
    assert!(world.ti(0).start_date.is_some());
    // The task's own retries are another matter: each is a new try.
    world.admit(0);
    assert_eq!(world.ti(0).try_number.0, 2);
    world.lost(0, Loss::NotAcknowledged);
    assert_eq!(world.states(), ["failed"]);
}

#[test]
fn what_must_not_run_twice_waits_again_where_it_was_handed_back_before_it_began() {
    let mut world = World::of(vec![Task {
        rerun_on_loss: false,
        ..with_retries(0, 0)
    }]);
    for dispatch in 1..4 {
        assert_eq!(first_of_try(&world.admit(0)), Some(true));
        assert_eq!((world.dispatch_of(0).0, world.ti(0).try_number.0), (dispatch, 1));
        world.lost(0, Loss::HandedBack);
        assert_eq!(world.states(), ["scheduled"]);
        assert_eq!(world.run.dispatched().count(), 0);
    }
    // Between two pokes its try is open.
    world.admit(0);
    world.started(0);
    world.finished(0, TryEnd::Reschedule(Duration::from_secs(30)));
    world.wait(30);
    world.admit(0);
    world.lost(0, Loss::HandedBack);
    assert_eq!(first_of_try(&world.admit(0)), Some(false));
    world.finished(0, TryEnd::Done);
    assert_eq!(world.states(), ["success"]);
    assert_eq!(world.ti(0).try_number.0, 1);
}

#[test]
fn handing_back_is_not_a_loss() {
    let mut world = World::of(vec![task("a", &[])]);
    world.admit(0);
    for _ in 0..10 {
        world.started(0);
        assert_eq!(first_of_try(&world.lost(0, Loss::HandedBack)), Some(false));
    }
    assert_eq!((world.ti(0).infra_losses, world.ti(0).try_number.0), (0, 1));
}

#[test]
fn a_result_of_an_old_dispatch_changes_nothing() {
    let mut world = World::of(vec![task("a", &[])]);
    world.admit(0);
    world.started(0);
    let old = world.dispatch_of(0);
    assert!(world.run.accepts_result(TaskIndex(0), MapIndex::UNMAPPED, old));
    world.lost(0, Loss::Acknowledged);
    assert!(!world.run.accepts_result(TaskIndex(0), MapIndex::UNMAPPED, old));
    assert!(world.finished_as(0, old, TryEnd::Done).is_empty());
    assert_eq!(world.states(), ["queued"]);
    // The end may be heard of before the start.
    world.finished(0, TryEnd::Done);
    assert_eq!(world.states(), ["success"]);
    assert!(world.ti(0).start_date.is_some());
    assert!(world.finished(0, failed()).is_empty(), "a try ends once");
}

#[test]
fn a_skip_uses_no_retries_and_skips_what_follows() {
    let mut world = World::of(vec![with_retries(3, 0), task("b", &[0]), task("c", &[1])]);
    let end = world.execute(0, TryEnd::Skip);
    assert_eq!(ended(&end), [(0, 1, TaskInstanceState::Skipped)]);
    assert_eq!(world.states(), ["skipped"; 3]);
    assert_eq!(world.run.state(), DagRunState::Success);
}
