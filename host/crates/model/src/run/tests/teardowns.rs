//! Setups and teardowns: arrows from groups that clean up, teardowns that wait for all in their scope, cancelled runs, and marks.

use super::repeats::{Repeats, compiled};
use super::*;

fn names(dag: &Dag, tasks: &[TaskIndex]) -> Vec<String> {
    tasks.iter().map(|at| dag.task(*at).unwrap().id.to_string()).collect()
}

fn upstream(dag: &Dag, task: &str) -> Vec<String> {
    names(dag, &dag.task(dag.index_of(task).unwrap()).unwrap().upstream)
}

const GROUP: &str = "
  g:
    tasks:
      up: {component: C, setup: true}
      w: {component: C, after: [up]}
      down: {component: C, after: [up, w], teardown: true}
  publish: {component: C, after: [g]}
";

fn fails(run: &mut Repeats, task: &str, map_index: i32) {
    let end = TryEnd::Failed {
        cause: Cause::Failed,
        fatal: true,
        code: None,
    };
    run.execute(task, map_index, end, &[]);
}

#[test]
fn what_follows_a_group_neither_waits_for_its_teardown_nor_runs_after_a_failure() {
    assert_eq!(upstream(&compiled(GROUP), "publish"), ["g.w"]);
    let mut run = Repeats::of(GROUP);
    run.done("g.up", -1, &[]);
    fails(&mut run, "g.w", -1);
    assert_eq!(run.state("publish", -1), TaskInstanceState::UpstreamFailed);
    assert_eq!(run.state("g.down", -1), TaskInstanceState::Scheduled);
    run.done("g.down", -1, &[]);
    assert_eq!(run.world.run.state(), DagRunState::Failed);

    let mut run = Repeats::of(GROUP);
    run.done("g.up", -1, &[]);
    run.done("g.w", -1, &[]);
    assert_eq!(run.ready(), ["g.down[-1]", "publish[-1]"]);
}

#[test]
fn arrows_from_any_kind_of_group_ignore_teardowns() {
    let nested = "
  outer:
    tasks:
      up: {component: C, setup: true}
      inner:
        after: [up]
        tasks:
          up: {component: C, setup: true}
          w: {component: C, after: [up]}
          v: {component: C, after: [up]}
          down: {component: C, after: [up, w, v], teardown: true}
      down: {component: C, after: [up, inner, inner.down], teardown: true}
  next: {after: [outer], tasks: {a: {component: C}, b: {component: C, after: [a]}}}
";
    let dag = compiled(nested);
    assert_eq!(upstream(&dag, "next.a"), ["outer.inner.w", "outer.inner.v"]);
    assert_eq!(
        upstream(&dag, "outer.down"),
        ["outer.up", "outer.inner.w", "outer.inner.v", "outer.inner.down"]
    );
    // A mapped group whose elements lie between a setup and a teardown of the group around.
    let mapped = "
  g:
    tasks:
      up: {component: C, setup: true}
      each:
        after: [up]
        expand: {x: [1, 2]}
        tasks: {w: {component: C}}
      down: {component: C, after: [up, each], teardown: true}
  publish: {component: C, after: [g]}
";
    assert_eq!(upstream(&compiled(mapped), "publish"), ["g.each.w"]);
    // Work after a teardown that somebody asked for counts; what only the teardown follows does not, if it has other followers.
    let middle = "
  g:
    tasks:
      up: {component: C, setup: true}
      w: {component: C, after: [up]}
      down: {component: C, after: [up, w], teardown: true}
      report: {component: C, after: [down]}
  publish: {component: C, after: [g]}
";
    assert_eq!(upstream(&compiled(middle), "publish"), ["g.report"]);
    let two = "
  g:
    tasks:
      w: {component: C}
      first: {component: C, after: [w], teardown: true}
      second: {component: C, after: [first], teardown: true}
  publish: {component: C, after: [g]}
";
    assert_eq!(upstream(&compiled(two), "publish"), ["g.w"]);
    // A group of setups: they are what is waited for, with their teardown or without it.
    let setups = "
  g: {tasks: {a: {component: C, setup: true}, b: {component: C, setup: true}}}
  h: {tasks: {up: {component: C, setup: true}, down: {component: C, after: [up], teardown: true}}}
  publish: {component: C, after: [g, h]}
";
    assert_eq!(upstream(&compiled(setups), "publish"), ["g.a", "g.b", "h.up"]);
    // A group of nothing but teardowns: whoever waits for it means them.
    let only = "
  up: {component: C, setup: true}
  g: {tasks: {down: {component: C, after: [up], teardown: true}}}
  publish: {component: C, after: [g]}
";
    assert_eq!(upstream(&compiled(only), "publish"), ["g.down"]);
}

const EARLY: &str = "
  up: {component: C, setup: true}
  bad: {component: C, after: [up]}
  slow: {component: C, after: [up]}
  d: {component: C, after: [bad, slow]}
  down: {component: C, after: [up, d], teardown: true}
";

#[test]
fn a_teardown_waits_for_every_task_in_its_scope() {
    let mut run = Repeats::of(EARLY);
    run.done("up", -1, &[]);
    fails(&mut run, "bad", -1);
    assert_eq!(run.state("d", -1), TaskInstanceState::UpstreamFailed);
    assert_eq!(run.ready(), ["slow[-1]"], "what it cleans up is still in use");
    run.done("slow", -1, &[]);
    assert_eq!(run.ready(), ["down[-1]"]);
    run.done("down", -1, &[]);
    assert_eq!(run.world.run.state(), DagRunState::Failed);
}

#[test]
fn a_teardown_waits_through_nested_scopes() {
    let mut run = Repeats::of(
        "
  up: {component: C, setup: true}
  inner_up: {component: C, setup: true, after: [up]}
  bad: {component: C, after: [inner_up]}
  slow: {component: C, after: [inner_up]}
  d: {component: C, after: [bad, slow]}
  inner_down: {component: C, after: [inner_up, d], teardown: true}
  report: {component: C, after: [inner_down, bad]}
  down: {component: C, after: [up, report], teardown: true}
",
    );
    run.done("up", -1, &[]);
    run.done("inner_up", -1, &[]);
    fails(&mut run, "bad", -1);
    assert_eq!(run.state("report", -1), TaskInstanceState::UpstreamFailed);
    assert_eq!(run.ready(), ["slow[-1]"]);
    run.done("slow", -1, &[]);
    assert_eq!(run.ready(), ["inner_down[-1]"]);
    run.done("inner_down", -1, &[]);
    assert_eq!(run.ready(), ["down[-1]"]);
}

#[test]
fn a_teardown_waits_for_all_elements_and_iterations_in_its_scope() {
    let mut run = Repeats::of(
        "
  up: {component: C, setup: true}
  bad: {component: C, after: [up]}
  list: {component: C, after: [up]}
  each:
    expand: {x: \"{{ xcom.list }}\"}
    tasks: {w: {component: C}, v: {component: C, after: [w]}}
  again:
    after: [list]
    loop: {until: \"{{ xcom.step }}\", max: 5}
    tasks: {step: {component: C}}
  d: {component: C, after: [bad, each, again]}
  down: {component: C, after: [up, d], teardown: true}
",
    );
    run.done("up", -1, &[]);
    fails(&mut run, "bad", -1);
    assert_eq!(run.state("d", -1), TaskInstanceState::UpstreamFailed);
    run.done("list", -1, &[2]);
    for at in 0..2 {
        run.done("each.w", at, &[]);
    }
    run.done("each.v", 0, &[]);
    run.done("again.step", 0, &[0]);
    run.done("each.v", 1, &[]);
    assert_eq!(run.ready(), ["again.step[1]"], "the loop goes on");
    run.done("again.step", 1, &[1]);
    assert_eq!(run.ready(), ["down[-1]"]);
    run.done("down", -1, &[]);
    assert_eq!(run.world.run.state(), DagRunState::Failed);
}

fn cancelled_at(tasks: &str, done: &[&str], running: Option<&str>) -> Repeats {
    let mut run = Repeats::of(tasks);
    for task in done {
        run.done(task, -1, &[]);
    }
    if let Some(task) = running {
        let task = run.index(task).0;
        run.world.admit(task);
        run.world.started(task);
    }
    run.world.mark_run(DagRunState::Failed);
    run
}

/// Lets what is ready end well, and the run with it; each time the run is also taken over from its rows.
fn finish(run: &mut Repeats) {
    for _ in 0..10 {
        let Some(name) = run.ready().first().cloned() else {
            return;
        };
        run.done(name.trim_end_matches("[-1]"), -1, &[]);
    }
}

#[test]
fn a_cancelled_run_fails_whatever_its_teardowns_do() {
    const SIMPLE: &str = "
  up: {component: C, setup: true}
  w: {component: C, after: [up]}
  down: {component: C, after: [up, w], teardown: true}
";
    for (done, running) in [
        (&[][..], None),
        (&[], Some("up")),
        (&["up"], None),
        (&["up"], Some("w")),
        (&["up", "w"], None),
        (&["up", "w"], Some("down")),
    ] {
        let mut run = cancelled_at(SIMPLE, done, running);
        if running == Some("down") {
            run.world.finished(2, TryEnd::Done);
        }
        finish(&mut run);
        assert_eq!(run.world.run.state(), DagRunState::Failed, "{done:?} {running:?}");
    }
    // A run that waits for its slot.
    let mut run = RunState::new(DagRunKey(7), compiled(SIMPLE), START, START);
    let failed = DagRunState::Failed;
    advance(&mut run, Event::SetRunState { state: failed }, START);
    let mut run = RunState::restore(run.key(), run.dag().clone(), run.snapshot());
    advance(&mut run, Event::Start, START);
    assert_eq!(run.state(), failed);
}

#[test]
fn a_cancelled_run_that_people_let_go_on_ends_as_it_goes() {
    const TWO: &str = "
  up: {component: C, setup: true}
  w: {component: C, after: [up]}
  down: {component: C, after: [up, w], teardown: true}
";
    let mut run = cancelled_at(TWO, &["up"], Some("w"));
    run.world.clear(&[0, 1, 2]);
    finish(&mut run);
    assert_eq!(run.world.run.state(), DagRunState::Success, "cleared");
    let mut run = cancelled_at(TWO, &["up"], Some("w"));
    run.world.mark_run(DagRunState::Success);
    finish(&mut run);
    assert_eq!(run.world.run.state(), DagRunState::Success, "marked");
}

#[test]
fn what_a_cancel_tells_is_enough_to_take_the_run_over() {
    let mut run = Repeats::of(
        "
  up: {component: C, setup: true}
  w: {component: C, after: [up]}
  down: {component: C, after: [up, w], teardown: true}
",
    );
    run.done("up", -1, &[]);
    let mut stored = run.world.run.snapshot();
    let told = run.world.mark_run(DagRunState::Failed);
    // Rows of what only waits follow some ticks later, unless they are due.
    let after = run.world.run.snapshot();
    for row in after.task_instances {
        let is_due = told.iter().any(|transition| match transition {
            Transition::RowDue { task, map_index } => (*task, *map_index) == (row.task, row.map_index),
            Transition::TaskInstance {
                task,
                map_index,
                from,
                to,
            } => from != to && (*task, *map_index) == (row.task, row.map_index),
            _ => false,
        });
        if is_due {
            stored
                .task_instances
                .retain(|old| (old.task, old.map_index) != (row.task, row.map_index));
            stored.task_instances.push(row);
        }
    }
    run.world.run = RunState::restore(run.world.run.key(), run.world.run.dag().clone(), stored);
    run.world.send(Event::Resume);
    finish(&mut run);
    assert_eq!(run.world.run.state(), DagRunState::Failed);
}
