//! Retry policies and sensors.

use std::num::NonZeroU8;

use super::*;
use crate::dag::RetryPolicy;
use crate::retry_rule::{MoreMemory, RetryAction, RetryRule};
use crate::sensor::Sensor;

const MIB: u64 = 1 << 20;

fn rule(causes: &[Cause], action: RetryAction) -> RetryRule {
    RetryRule {
        causes: causes.to_vec(),
        codes: Vec::new(),
        action,
        delay: None,
        memory: None,
    }
}

fn with_rules(retries: u32, rules: Vec<RetryRule>) -> World {
    World::of(vec![Task {
        retry: RetryPolicy {
            retries,
            delay: Duration::from_secs(60),
            rules,
            ..RetryPolicy::default()
        },
        ..task("a", &[])
    }])
}

fn died(cause: Cause, code: Option<&str>) -> TryEnd {
    TryEnd::Failed {
        cause,
        fatal: false,
        code: code.map(Into::into),
    }
}

fn memory(world: &World) -> u64 {
    world.ti(0).memory_bytes(&world.run.dag().tasks[0])
}

#[test]
fn out_of_memory_is_tried_again_with_more_of_it_up_to_the_bound() {
    let more = RetryRule {
        delay: Some(Duration::from_secs(1)),
        memory: Some(MoreMemory {
            percent: 200,
            max_bytes: 1536 * MIB,
        }),
        ..rule(&[Cause::OutOfMemory], RetryAction::Retry)
    };
    let mut world = with_rules(4, vec![more]);
    assert_eq!(memory(&world), 512 * MIB);
    let mut limits = Vec::new();
    for _ in 0..3 {
        world.execute(0, died(Cause::OutOfMemory, None));
        assert_eq!(world.run.next_timer(), Some(world.now.plus(Duration::from_secs(1))));
        limits.push(memory(&world) / MIB);
        // A restart between two tries changes nothing.
        world.run = RunState::restore(world.run.key(), world.run.dag().clone(), world.run.snapshot());
        world.wait(1);
    }
    assert_eq!(limits, [512, 1024, 1536], "the ended try shows the limit that it had");
    // Another death keeps what was raised, and waits as the task says.
    world.execute(0, died(Cause::Trapped, None));
    assert_eq!((memory(&world) / MIB, world.ti(0).retry_rule), (1536, None));
    world.wait(60);
    world.execute(0, TryEnd::Done);
    assert_eq!(memory(&world) / MIB, 1536);
    world.clear(&[0]);
    assert_eq!(memory(&world) / MIB, 512, "a cleared task instance starts over");
}

#[test]
fn the_first_rule_that_matches_decides() {
    let rules = || {
        vec![
            RetryRule {
                codes: vec!["quota".to_owned()],
                ..rule(&[Cause::Denied], RetryAction::Fail)
            },
            rule(&[Cause::TimedOut], RetryAction::Default),
            RetryRule {
                delay: Some(Duration::from_secs(5)),
                ..rule(&[Cause::Failed, Cause::TimedOut], RetryAction::Retry)
            },
        ]
    };
    for (end, state, wait, by) in [
        (died(Cause::Denied, None), "failed", None, Some(1)),
        (died(Cause::Failed, Some("quota")), "failed", None, Some(1)),
        (died(Cause::TimedOut, None), "up_for_retry", Some(60), Some(2)),
        (died(Cause::Failed, Some("other")), "up_for_retry", Some(5), Some(3)),
        (died(Cause::Trapped, None), "up_for_retry", Some(60), None),
    ] {
        let mut world = with_rules(1, rules());
        world.execute(0, end.clone());
        let due = wait.map(|wait| world.now.plus(Duration::from_secs(wait)));
        let ti = world.ti(0);
        assert_eq!(
            (ti.state.as_str(), ti.next_at, ti.retry_rule),
            (state, due, by.and_then(NonZeroU8::new)),
            "{end:?}"
        );
    }
}

#[test]
fn a_policy_makes_no_more_tries_than_there_are_and_never_judges_what_is_fatal() {
    let retry = || vec![rule(Cause::ALL, RetryAction::Retry)];
    let mut world = with_rules(0, retry());
    world.execute(0, died(Cause::Failed, None));
    assert_eq!(world.states(), ["failed"]);
    let mut world = with_rules(5, retry());
    world.execute(
        0,
        TryEnd::Failed {
            cause: Cause::Failed,
            fatal: true,
            code: None,
        },
    );
    assert_eq!((world.states(), world.ti(0).retry_rule), (vec!["failed"], None));
}

#[test]
fn a_lost_executor_is_a_cause_like_any_other() {
    let mut world = with_rules(5, vec![rule(&[Cause::InfrastructureLost], RetryAction::Fail)]);
    world.admit(0);
    for _ in 0..4 {
        world.started(0);
        world.lost(0, Loss::Acknowledged);
    }
    assert_eq!(world.states(), ["failed"]);
}

fn sensor(edit: impl FnOnce(&mut Sensor)) -> World {
    let mut sensor = Sensor {
        poke_interval: Some(Duration::from_secs(30)),
        timeout: Duration::from_secs(100),
        ..Sensor::default()
    };
    edit(&mut sensor);
    World::of(vec![
        Task {
            sensor: Some(sensor),
            retry: RetryPolicy {
                retries: 3,
                ..RetryPolicy::default()
            },
            ..task("wait", &[])
        },
        task("next", &[0]),
    ])
}

fn not_yet() -> TryEnd {
    TryEnd::Reschedule(Duration::ZERO)
}

#[test]
fn a_sensor_fails_without_a_retry_when_its_time_has_run_out() {
    let mut world = sensor(|_| {});
    let began = world.now;
    let mut pokes = 0;
    while world.states()[0] != "failed" {
        pokes += 1;
        world.execute(0, not_yet());
        assert_eq!(world.run.dispatched().count(), 0, "nothing is held meanwhile");
        world.wait(30);
    }
    // At 0, 30, 60, 90; the one at 120 s finds that the 100 s are over.
    assert_eq!(pokes, 5);
    assert_eq!(world.ti(0).end_date, Some(began.plus(Duration::from_secs(120))));
    assert_eq!(
        (world.ti(0).cause, world.ti(0).try_number.0),
        (Some(Cause::TimedOut), 1)
    );
    assert_eq!(world.states(), ["failed", "upstream_failed"]);
}

#[test]
fn the_time_of_a_sensor_goes_on_across_a_restart() {
    let mut world = sensor(|_| {});
    for _ in 0..4 {
        world.execute(0, not_yet());
        world.run = RunState::restore(world.run.key(), world.run.dag().clone(), world.run.snapshot());
        world.wait(30);
    }
    world.execute(0, not_yet());
    assert_eq!(world.ti(0).cause, Some(Cause::TimedOut));
}

#[test]
fn a_soft_sensor_skips_where_time_runs_out_or_a_failure_is_fatal_and_only_there() {
    let soft = || sensor(|sensor| sensor.soft_fail = true);
    let mut world = soft();
    world.execute(0, not_yet());
    world.wait(200);
    let end = world.execute(0, not_yet());
    assert_eq!(ended(&end)[0], (0, 1, TaskInstanceState::Skipped));
    assert_eq!(world.states(), ["skipped", "skipped"]);
    let mut world = soft();
    world.execute(
        0,
        TryEnd::Failed {
            cause: Cause::Failed,
            fatal: true,
            code: None,
        },
    );
    assert_eq!(world.states(), ["skipped", "skipped"]);
    let mut world = soft();
    world.execute(0, died(Cause::TimedOut, None));
    assert_eq!(world.states(), ["skipped", "skipped"], "one poke took too long");
    let mut world = soft();
    world.execute(0, failed());
    assert_eq!(world.states(), ["up_for_retry", "no_status"]);
}

#[test]
fn a_task_that_asks_to_be_poked_at_once_waits_a_moment_all_the_same() {
    let mut world = World::of(vec![task("a", &[])]);
    world.execute(0, not_yet());
    assert_eq!(world.states(), ["up_for_reschedule"]);
    assert_eq!(
        world.run.next_timer(),
        Some(world.now.plus(crate::sensor::MIN_POKE_INTERVAL))
    );
}

#[test]
fn a_run_that_is_stopped_between_two_pokes_ends_the_try_and_runs_its_teardowns() {
    let teardown = || Task {
        role: TaskRole::Teardown {
            on_failure_fail_dagrun: false,
        },
        trigger_rule: TriggerRule::AllDoneSetupSuccess,
        ..task("clean", &[0, 1])
    };
    let setup = || Task {
        role: TaskRole::Setup,
        ..task("prepare", &[])
    };
    let mut world = World::of(vec![setup(), task("wait", &[0]), teardown()]);
    world.execute(0, TryEnd::Done);
    world.execute(1, not_yet());
    let end = world.mark_run(DagRunState::Failed);
    assert_eq!(ended(&end), [(1, 1, TaskInstanceState::Failed)]);
    assert_eq!(world.states(), ["success", "failed", "scheduled"]);
    world.execute(2, TryEnd::Done);
    assert_eq!(world.run.state(), DagRunState::Failed);

    // Airflow: `SchedulerJobRunner._schedule_dag_run` skips everything that is not finished, teardowns too.
    let mut world = World::with(dag(vec![setup(), task("wait", &[0]), teardown()], |dag| {
        dag.dagrun_timeout = Some(Duration::from_secs(50));
    }));
    world.execute(0, TryEnd::Done);
    world.execute(1, not_yet());
    world.wait(50);
    assert_eq!(world.states(), ["success", "skipped", "skipped"]);
    assert_eq!(world.run.state(), DagRunState::Failed);
}
