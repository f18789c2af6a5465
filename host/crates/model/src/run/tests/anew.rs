//! What is mapped over something that is made anew; choices in one element; a sensor's time over all tries.

use super::repeats::Repeats;
use super::*;
use crate::dag::RetryPolicy;
use crate::run::RunSnapshot;
use crate::sensor::Sensor;

const RETRIED: &str = "
  plan: {component: C}
  work:
    component: C
    retries: 2
    retry_delay: 1m
    expand: {job: \"{{ xcom.plan.jobs }}\"}
";

const GROUP: &str = "
  plan: {component: C}
  each:
    expand: {job: \"{{ xcom.plan.jobs }}\"}
    tasks:
      get: {component: C}
      work: {component: C, after: [get], retries: 2, retry_delay: 1m}
";

fn anew(run: &mut Repeats, length: u32) {
    let plan = (run.index("plan"), MapIndex::UNMAPPED);
    run.world.send(Event::Clear {
        task_instances: vec![plan],
    });
    run.done("plan", -1, &[length]);
}

fn tries(run: &Repeats, task: &str, map_index: i32) -> (u32, u32) {
    let ti = run.world.run.ti(run.index(task), MapIndex(map_index)).unwrap();
    (ti.try_number.0, ti.max_tries)
}

#[test]
fn what_waits_for_its_retry_starts_afresh_when_its_element_is_made_anew() {
    for (tasks, name) in [(RETRIED, "work"), (GROUP, "each.work")] {
        let mut run = Repeats::of(tasks);
        run.done("plan", -1, &[2]);
        if name == "each.work" {
            run.done("each.get", 0, &[]);
            run.done("each.get", 1, &[]);
        }
        run.execute(name, 0, failed(), &[]);
        run.execute(name, 1, TryEnd::Reschedule(Duration::from_secs(60)), &[]);
        assert_eq!(tries(&run, name, 0), (1, 3));
        let plan = (run.index("plan"), MapIndex::UNMAPPED);
        run.world.send(Event::Clear {
            task_instances: vec![plan],
        });
        assert_eq!(
            run.state(name, 0),
            TaskInstanceState::UpForRetry,
            "{name}: the same, as far as is known"
        );
        run.done("plan", -1, &[3]);
        // At once, and with all tries to come.
        for at in 0..2 {
            assert_eq!(run.state(name, at), TaskInstanceState::Scheduled, "{name}[{at}]");
            assert_eq!(tries(&run, name, at), (1, 4), "{name}[{at}]");
        }
        let (task, map_index) = (run.index(name), MapIndex(1));
        let admitted = run.world.send(Event::Admit { task, map_index });
        assert_eq!(
            first_of_try(&admitted),
            Some(true),
            "{name}: a poke of another element does not go on"
        );
    }
}

#[test]
fn a_retry_that_falls_due_while_its_list_is_made_waits_for_it() {
    for (fails, tasks, name) in [
        (false, GROUP, "each.work"),
        (true, GROUP, "each.work"),
        (false, RETRIED, "work"),
    ] {
        let mut run = Repeats::of(tasks);
        run.done("plan", -1, &[1]);
        if name == "each.work" {
            run.done("each.get", 0, &[]);
        }
        run.execute(name, 0, failed(), &[]);
        let plan = (run.index("plan"), MapIndex::UNMAPPED);
        run.world.send(Event::Clear {
            task_instances: vec![plan],
        });
        run.world.wait(60);
        assert_eq!(run.ready(), ["plan[-1]"], "{name}: it has no element now");
        if fails {
            run.execute("plan", -1, failed(), &[]);
            assert_eq!(run.ready(), ["each.work[0]"], "there is no other list");
            assert_eq!(tries(&run, name, 0), (1, 3));
        } else {
            run.done("plan", -1, &[1]);
            assert_eq!(run.ready(), [format!("{name}[0]")]);
            assert_eq!(tries(&run, name, 0), (1, 4));
        }
    }
}

#[test]
fn what_runs_while_its_element_is_made_anew_ends_but_is_not_retried_as_the_new_one() {
    for lost in [false, true] {
        let mut run = Repeats::of(RETRIED);
        run.done("plan", -1, &[2]);
        let task = run.index("work");
        for map_index in [MapIndex(0), MapIndex(1)] {
            run.world.send(Event::Admit { task, map_index });
        }
        anew(&mut run, 2);
        run.world.run = RunState::restore(
            run.world.run.key(),
            run.world.run.dag().clone(),
            run.world.run.snapshot(),
        );
        let dispatch = |run: &Repeats, at| run.world.run.ti(task, MapIndex(at)).unwrap().dispatch;
        let started_at = run.world.now;
        // It was well on its way.
        run.world.send(Event::TryFinished {
            task,
            map_index: MapIndex(1),
            dispatch: dispatch(&run, 1),
            end: TryEnd::Done,
            measured: Vec::new(),
            started_at,
            ended_at: started_at,
        });
        assert_eq!(run.state("work", 1), TaskInstanceState::Success);
        let (map_index, dispatch) = (MapIndex(0), dispatch(&run, 0));
        let event = if lost {
            Event::TryLost {
                task,
                map_index,
                dispatch,
                loss: Loss::Acknowledged,
            }
        } else {
            Event::TryFinished {
                task,
                map_index,
                dispatch,
                end: failed(),
                measured: Vec::new(),
                started_at,
                ended_at: started_at,
            }
        };
        let told = run.world.send(event);
        assert_eq!(ended(&told), [(task.0, 1, TaskInstanceState::Failed)]);
        assert_eq!(run.state("work", 0), TaskInstanceState::Scheduled);
        assert_eq!(tries(&run, "work", 0), (1, 4));
    }
}

/// The rows as they are after a crash: of what only waits nothing is written yet, unless it is due.
fn stored(run: &Repeats, told: &[Transition]) -> RunSnapshot {
    let mut rows = run.world.run.snapshot();
    rows.task_instances.retain(|row| {
        let is_due = |transition: &Transition| match transition {
            Transition::RowDue { task, map_index } => (*task, *map_index) == (row.task, row.map_index),
            _ => false,
        };
        row.ti.state != TaskInstanceState::NoStatus && row.ti.state != TaskInstanceState::Scheduled
            || told.iter().any(is_due)
    });
    rows
}

#[test]
fn what_a_mapping_has_expanded_to_is_known_after_a_restart() {
    for (tasks, name) in [(RETRIED, "work"), (GROUP, "each.get")] {
        let mut run = Repeats::of(tasks);
        let plan = run.index("plan").0;
        run.world.admit(plan);
        let dispatch = run.world.dispatch_of(plan);
        let told = run.world.send(Event::TryFinished {
            task: TaskIndex(plan),
            map_index: MapIndex::UNMAPPED,
            dispatch,
            end: TryEnd::Done,
            measured: vec![5],
            started_at: START,
            ended_at: START,
        });
        run.world.send(Event::Clear {
            task_instances: vec![(TaskIndex(plan), MapIndex::UNMAPPED)],
        });
        // Of the five no more is known now than the rows say.
        let restored = RunState::restore(run.world.run.key(), run.world.run.dag().clone(), stored(&run, &told));
        let task = run.index(name);
        let known = restored.tis().filter(|(of, ..)| *of == task).count();
        assert_eq!(known, 5, "{name}");
    }
}

const CHOICES: &str = "
  g:
    expand: {x: [1, 2]}
    tasks:
      if: {component: C, short_circuit: SKIPS}
      w: {component: C, after: [if]}
      v: {component: C, after: [w], trigger_rule: all_done}
  direct: {component: C, after: [g.if]}
  after: {component: C, after: [g]}
  any: {component: C, after: [g], trigger_rule: one_success}
";

#[test]
fn a_short_circuit_in_one_element_skips_in_that_element_only() {
    for skips in ["true", "{ignore_downstream_trigger_rules: false}"] {
        let mut run = Repeats::of(&CHOICES.replace("SKIPS", skips));
        run.execute("g.if", 0, TryEnd::DoneFalsy, &[]);
        assert_eq!(run.state("g.w", 0), TaskInstanceState::Skipped);
        assert_eq!(run.state("g.w", 1), TaskInstanceState::NoStatus);
        for outside in ["direct", "any"] {
            assert_eq!(
                run.state(outside, -1),
                TaskInstanceState::NoStatus,
                "{skips}: {outside}"
            );
        }
        run.execute("g.if", 1, TryEnd::Done, &[]);
        run.done("g.w", 1, &[]);
        run.done("g.v", 1, &[]);
        if skips != "true" {
            run.done("g.v", 0, &[]);
        }
        // The rules decide: one element of `v` was skipped, or none.
        assert_eq!(run.state("direct", -1), TaskInstanceState::Scheduled, "{skips}");
        let after = if skips == "true" {
            TaskInstanceState::Skipped
        } else {
            TaskInstanceState::Scheduled
        };
        assert_eq!(run.state("after", -1), after, "{skips}");
        assert_eq!(run.state("any", -1), TaskInstanceState::Scheduled, "{skips}");
    }
}

#[test]
fn a_short_circuit_in_one_iteration_does_not_skip_what_follows_the_loop() {
    let mut run = Repeats::of(
        "
  again:
    loop: {until: \"{{ xcom.check }}\", max: 5}
    tasks:
      if: {component: C, short_circuit: true}
      w: {component: C, after: [if]}
      check: {component: C}
  after: {component: C, after: [again], trigger_rule: all_done}
",
    );
    run.done("again.check", 0, &[0]);
    run.execute("again.if", 0, TryEnd::DoneFalsy, &[]);
    assert_eq!(run.state("after", -1), TaskInstanceState::NoStatus);
    assert_eq!(run.ready(), ["again.check[1]", "again.if[1]"]);
}

#[test]
fn the_time_of_a_sensor_counts_from_its_first_poke_over_all_tries() {
    let sensor = Sensor {
        poke_interval: Some(Duration::from_secs(30)),
        timeout: Duration::from_secs(100),
        ..Sensor::default()
    };
    let mut world = World::of(vec![Task {
        sensor: Some(sensor),
        retry: RetryPolicy {
            retries: 20,
            delay: Duration::from_secs(10),
            ..RetryPolicy::default()
        },
        ..task("wait", &[])
    }]);
    let began = world.now;
    while world.states()[0] != "failed" {
        assert!(world.now.since(began) < Duration::from_secs(500), "it waits for ever");
        world.execute(0, TryEnd::Reschedule(Duration::ZERO));
        world.wait(30);
        if world.states()[0] == "failed" {
            break;
        }
        // Every other poke dies.
        world.execute(0, failed());
        world.run = RunState::restore(world.run.key(), world.run.dag().clone(), world.run.snapshot());
        world.wait(10);
    }
    assert_eq!(world.ti(0).cause, Some(Cause::TimedOut));
    assert_eq!(world.ti(0).end_date, Some(began.plus(Duration::from_secs(120))));
    // Cleared, it has all its time again.
    world.clear(&[0]);
    world.send(Event::Start);
    world.execute(0, TryEnd::Reschedule(Duration::ZERO));
    assert_eq!(world.states(), ["up_for_reschedule"]);
}
