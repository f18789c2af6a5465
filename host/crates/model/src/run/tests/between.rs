//! Tasks that wait for other DAGs.

use super::*;
use crate::between::{Awaited, IfExists, States, TriggerDag, WaitForDag};
use crate::dag::RetryPolicy;
use crate::id::DagId;
use crate::sensor::Sensor;
use crate::work::Work;

fn triggers(timeout: Option<u64>) -> Task {
    Task {
        work: Work::TriggerDag(Box::new(TriggerDag {
            dag: Some(DagId::new("child").unwrap()),
            allowed: Vec::new(),
            if_exists: IfExists::Fail,
            wait: true,
            allowed_states: vec![DagRunState::Success],
            result: None,
            timeout: timeout.map(Duration::from_secs),
        })),
        ..task("solve", &[])
    }
}

fn waits(sensor: Sensor) -> Task {
    let states = States {
        allowed: vec![DagRunState::Success],
        failed: vec![],
        skipped: vec![],
    };
    Task {
        work: Work::WaitForDag(Box::new(WaitForDag {
            dag: DagId::new("other").unwrap(),
            awaited: Awaited::Run { states },
        })),
        sensor: Some(sensor),
        ..task("wait", &[])
    }
}

fn deferred(first: Task) -> World {
    let mut world = World::of(vec![first, task("next", &[0])]);
    world.execute(0, TryEnd::Defer);
    assert_eq!(world.states()[0], "deferred");
    world
}

fn resolve(world: &mut World, dispatch: u32, end: TryEnd) -> Vec<Transition> {
    world.send(Event::Resolved {
        task: TaskIndex(0),
        map_index: MapIndex::UNMAPPED,
        dispatch: DispatchNumber(dispatch),
        end,
        measured: Vec::new(),
    })
}

fn failed() -> TryEnd {
    TryEnd::Failed {
        cause: Cause::Failed,
        fatal: false,
        code: Some("triggered_run_failed".into()),
    }
}

#[test]
fn another_run_is_waited_for_without_a_dispatch_and_across_a_restart() {
    let mut world = deferred(triggers(None));
    assert_eq!(world.run.dispatched().count(), 0);
    assert_eq!(world.run.next_timer(), None, "a run may take as long as it takes");
    world.run = RunState::restore(world.run.key(), world.run.dag().clone(), world.run.snapshot());
    assert!(world.send(Event::Resume).is_empty());
    assert!(world.wait(1_000_000).is_empty());
    assert_eq!(world.run.state(), DagRunState::Running, "it is not a deadlock");
    assert!(resolve(&mut world, 7, TryEnd::Done).is_empty(), "another dispatch's");
    let end = resolve(&mut world, 1, TryEnd::Done);
    assert_eq!(ended(&end), [(0, 1, TaskInstanceState::Success)]);
    assert_eq!(world.states(), ["success", "scheduled"]);
    assert!(resolve(&mut world, 1, failed()).is_empty(), "it ends once");
}

#[test]
fn a_failure_is_tried_again_and_the_first_try_cannot_end_the_second() {
    let mut first = triggers(None);
    first.retry = RetryPolicy {
        retries: 1,
        delay: Duration::ZERO,
        ..RetryPolicy::default()
    };
    let mut world = deferred(first);
    let end = resolve(&mut world, 1, failed());
    assert_eq!(ended(&end), [(0, 1, TaskInstanceState::Failed)]);
    assert_eq!(world.states()[0], "scheduled");
    world.execute(0, TryEnd::Defer);
    assert_eq!(world.states()[0], "deferred");
    assert!(resolve(&mut world, 1, TryEnd::Done).is_empty());
    resolve(&mut world, 2, failed());
    assert_eq!(world.states(), ["failed", "upstream_failed"]);
}

#[test]
fn time_runs_out_for_a_run_and_its_task_is_tried_again() {
    let mut first = triggers(Some(60));
    first.retry = RetryPolicy {
        retries: 1,
        delay: Duration::from_secs(5),
        ..RetryPolicy::default()
    };
    let mut world = deferred(first);
    assert!(world.run.next_timer().is_some());
    world.wait(61);
    assert_eq!(world.states()[0], "up_for_retry");
    let ti = world.run.ti(TaskIndex(0), MapIndex::UNMAPPED).unwrap();
    assert_eq!(ti.cause, Some(Cause::TimedOut));
}

#[test]
fn time_runs_out_for_a_sensor_without_a_retry() {
    for (soft_fail, state) in [(false, "failed"), (true, "skipped")] {
        let mut sensor = waits(Sensor {
            timeout: Duration::from_secs(60),
            soft_fail,
            ..Sensor::default()
        });
        sensor.retry.retries = 3;
        let mut world = deferred(sensor);
        world.wait(59);
        assert_eq!(world.states()[0], "deferred");
        world.wait(2);
        assert_eq!(world.states()[0], state);
    }
}

#[test]
fn what_people_do_to_a_task_that_waits_ends_its_try() {
    let mut world = deferred(triggers(None));
    let place = (TaskIndex(0), MapIndex::UNMAPPED);
    let cleared = world.send(Event::Clear {
        task_instances: vec![place],
    });
    assert_eq!(ended(&cleared), [(0, 1, TaskInstanceState::Failed)]);
    assert_eq!(world.states()[0], "scheduled");
    world.execute(0, TryEnd::Defer);
    world.send(Event::SetTaskInstanceState {
        task: place.0,
        map_index: place.1,
        state: TaskInstanceState::Success,
    });
    assert_eq!(world.states()[0], "success");
    let mut world = deferred(triggers(None));
    world.send(Event::SetRunState {
        state: DagRunState::Failed,
    });
    assert_eq!(world.states(), ["failed", "skipped"]);
    assert_eq!(world.run.state(), DagRunState::Failed);
}

#[test]
fn a_task_that_may_not_be_deferred_breaks_the_contract() {
    let mut world = World::of(vec![task("a", &[])]);
    world.execute(0, TryEnd::Defer);
    assert_eq!(world.states(), ["failed"]);
    let ti = world.run.ti(TaskIndex(0), MapIndex::UNMAPPED).unwrap();
    assert_eq!(ti.cause, Some(Cause::ContractViolation));
}
