//! Setups and teardowns within what is repeated: each element, and each iteration, has its own.

use super::repeats::Repeats;
use super::*;
use TaskInstanceState::{Failed, NoStatus, Scheduled, Skipped, Success, UpstreamFailed};

const MAPPED: &str = "
  each:
    expand: {field: [north, south, east]}
    tasks:
      up: {component: C, task: t, setup: true}
      work: {component: C, task: t, after: [up]}
      more: {component: C, task: t, after: [work]}
      down: {component: C, task: t, after: [up, more], teardown: true}
  sum: {component: C, task: t, after: [each.more], trigger_rule: all_done}
";

fn failed() -> TryEnd {
    TryEnd::Failed {
        cause: Cause::Failed,
        fatal: true,
        code: None,
    }
}

fn of(run: &Repeats, element: i32) -> [TaskInstanceState; 4] {
    ["up", "work", "more", "down"].map(|task| run.state(&format!("each.{task}"), element))
}

#[test]
fn each_element_has_its_own_setup_and_teardown() {
    let mut run = Repeats::of(MAPPED);
    run.done("each.up", 0, &[]);
    assert_eq!(of(&run, 0), [Success, Scheduled, NoStatus, NoStatus]);
    assert_eq!(
        of(&run, 1),
        [Scheduled, NoStatus, NoStatus, NoStatus],
        "it waits for its own setup"
    );
    // What was never set up is not torn down.
    run.execute("each.up", 1, failed(), &[]);
    assert_eq!(of(&run, 1), [Failed, UpstreamFailed, UpstreamFailed, UpstreamFailed]);
    // What was is, whatever becomes of the work.
    run.execute("each.work", 0, failed(), &[]);
    assert_eq!(of(&run, 0), [Success, Failed, UpstreamFailed, Scheduled]);
    run.done("each.down", 0, &[]);
    run.execute("each.up", 2, TryEnd::Skip, &[]);
    assert_eq!(of(&run, 2), [Skipped; 4]);
    run.done("sum", -1, &[]);
    assert_eq!(run.world.run.state(), DagRunState::Success, "`sum` is the leaf");
}

#[test]
fn a_run_that_is_cancelled_tears_down_what_was_set_up_in_each_element() {
    let mut run = Repeats::of(MAPPED);
    run.done("each.up", 0, &[]);
    run.done("each.up", 2, &[]);
    run.world.send(Event::SetRunState {
        state: DagRunState::Failed,
    });
    assert_eq!(run.ready(), ["each.down[0]", "each.down[2]"]);
    assert_eq!(run.state("each.down", 1), Skipped);
    run.done("each.down", 0, &[]);
    run.done("each.down", 2, &[]);
    assert!(run.world.run.state().is_finished());
}

#[test]
fn a_run_that_is_cancelled_before_the_group_is_expanded_ends() {
    let tasks = MAPPED.replace("[north, south, east]", "\"{{ xcom.list }}\"");
    let mut run = Repeats::of(&format!("\n  list: {{component: C, task: t}}{tasks}"));
    run.world.send(Event::SetRunState {
        state: DagRunState::Failed,
    });
    assert_eq!(run.state("each.down", -1), Skipped);
    assert!(run.world.run.state().is_finished());
}

#[test]
fn elements_that_come_later_have_their_own_as_well() {
    let tasks = MAPPED.replace("[north, south, east]", "\"{{ xcom.list }}\"");
    let mut run = Repeats::of(&format!("\n  list: {{component: C, task: t}}{tasks}"));
    run.done("list", -1, &[1]);
    run.done("each.up", 0, &[]);
    run.world.send(Event::Clear {
        task_instances: vec![(run.index("list"), MapIndex::UNMAPPED)],
    });
    run.done("list", -1, &[2]);
    run.done("each.up", 1, &[]);
    for element in [0, 1] {
        run.execute("each.work", element, failed(), &[]);
        assert_eq!(of(&run, element), [Success, Failed, UpstreamFailed, Scheduled]);
        run.done("each.down", element, &[]);
    }
    run.done("sum", -1, &[]);
    assert_eq!(run.world.run.state(), DagRunState::Success);
}

#[test]
fn each_iteration_has_its_own_setup_and_teardown() {
    let mut run = Repeats::of(
        "
  solve:
    loop: {until: '{{ xcom.step.done }}', max: 3}
    tasks:
      up: {component: C, task: t, setup: true}
      step: {component: C, task: t, after: [up]}
      down: {component: C, task: t, after: [up, step], teardown: true}
",
    );
    for iteration in [0, 1] {
        run.done("solve.up", iteration, &[]);
        run.done("solve.step", iteration, &[u32::from(iteration == 1)]);
        assert_eq!(
            run.ready(),
            [format!("solve.down[{iteration}]")],
            "before the next one begins"
        );
        run.done("solve.down", iteration, &[]);
    }
    assert_eq!(run.world.run.state(), DagRunState::Success);
}
