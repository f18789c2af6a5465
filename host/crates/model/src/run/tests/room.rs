//! The number of task instances that there may be: counted before any is made.

use super::repeats::compiled;
use super::*;
use crate::params::param_lengths;
use crate::run::{TooMany, count_from_start};

fn at(run: &RunState, task: &str) -> TaskIndex {
    run.dag().index_of(task).unwrap()
}

fn state(run: &RunState, task: &str, map_index: i32) -> Option<TaskInstanceState> {
    run.ti(at(run, task), MapIndex(map_index)).map(|ti| ti.state)
}

/// A list of so many elements.
fn list(length: u32) -> String {
    let elements: Vec<String> = (0..length).map(|at| at.to_string()).collect();
    format!("[{}]", elements.join(", "))
}

fn limited(tasks: &str, limit: u32) -> RunState {
    let dag = compiled(tasks);
    let lengths = param_lengths(&dag, &serde_json::json!({"names": ["x", "y"]}));
    RunState::with_limit(DagRunKey(7), dag, START, START, &lengths, limit)
}

fn finish(run: &mut RunState, task: &str, measured: &[u32]) {
    let (task, map_index) = (at(run, task), MapIndex::UNMAPPED);
    advance(run, Event::Admit { task, map_index }, START);
    let dispatch = run.ti(task, map_index).unwrap().dispatch;
    let end = Event::TryFinished {
        task,
        map_index,
        dispatch,
        end: TryEnd::Done,
        measured: measured.to_vec(),
        started_at: START,
        ended_at: START,
    };
    advance(run, end, START);
}

const NESTED: &str = "
  plan: {component: C, task: t}
  outer:
    expand: {a: \"{{ xcom.plan.rows }}\"}
    tasks:
      first: {component: C, task: t}
      inner:
        expand: {b: [1, 2, 3]}
        map_limit: 10
        tasks:
          one: {component: C, task: t}
          two: {component: C, task: t, map_limit: 10, expand: {c: \"{{ params.names }}\"}}
  after: {component: C, task: t, after: [outer]}
";

#[test]
fn what_is_known_from_the_start_is_counted_as_it_is_made() {
    for (tasks, count) in [
        ("\n  a: {component: C, task: t}\n".to_owned(), 1),
        (
            format!("\n  a: {{component: C, task: t, expand: {{x: {}}}}}\n", list(40)),
            40,
        ),
        (NESTED.to_owned(), 1 + 1 + 1 + 1 + 1),
        (
            NESTED.replace("\"{{ xcom.plan.rows }}\"", &list(5)),
            1 + 5 * (1 + 3 * (1 + 2)) + 1,
        ),
        (
            "
  turns:
    loop: {until: done, max: 3}
    tasks:
      many: {component: C, task: t, expand: {x: [1, 2, 3]}}
      done: {component: C, task: t}
"
            .replace("until: done", "until: \"{{ xcom.done }}\""),
            4,
        ),
    ] {
        let dag = compiled(&tasks);
        let lengths = param_lengths(&dag, &serde_json::json!({"names": ["x", "y"]}));
        assert_eq!(count_from_start(&dag, &lengths), count, "{tasks}");
        let run = RunState::with_params(DagRunKey(7), dag, START, START, &lengths);
        assert_eq!(u64::try_from(run.size()).unwrap(), count, "{tasks}");
    }
}

#[test]
fn nested_mappings_multiply_and_nothing_is_made_of_what_would_be_too_many() {
    let many = list(300);
    let tasks = format!(
        "
  a:
    expand: {{x: {many}}}
    tasks:
      b:
        expand: {{y: {many}}}
        tasks:
          work: {{component: C, task: t, expand: {{z: {many}}}}}
"
    );
    let dag = compiled(
        &tasks
            .replace(
                "work: {component: C, task: t, expand",
                "work: {component: C, task: t, map_limit: 300, expand",
            )
            .replace("expand: {x", "map_limit: 300\n    expand: {x")
            .replace("expand: {y", "map_limit: 300\n        expand: {y"),
    );
    assert_eq!(count_from_start(&dag, &[]), 27_000_000);
    let mut run = RunState::with_limit(DagRunKey(7), dag, START, START, &[], 100_000);
    assert_eq!(run.size(), 1);
    advance(&mut run, Event::Start, START);
    assert!(run.size() <= 1, "{}", run.size());
    assert_eq!(run.state(), DagRunState::Failed);
}

#[test]
fn a_mapping_that_goes_beyond_the_limit_fails_and_says_why() {
    // `plan` and `after`, and ten task instances for each row.
    for (limit, rows, fits) in [(102, 10, true), (101, 10, false), (100_000, 10_000, false)] {
        let mut run = limited(NESTED, limit);
        advance(&mut run, Event::Start, START);
        finish(&mut run, "plan", &[rows]);
        let size = 2 + 10 * rows as usize;
        if fits {
            assert_eq!(run.size(), size);
            assert_eq!(state(&run, "outer.first", 9), Some(TaskInstanceState::Scheduled));
            assert_eq!(run.too_many(at(&run, "outer.first"), MapIndex(0)), None);
            continue;
        }
        assert_eq!(run.size(), 5, "nothing was made");
        assert_eq!(state(&run, "outer.first", -1), Some(TaskInstanceState::Failed));
        let ti = run.ti(at(&run, "outer.first"), MapIndex(-1)).unwrap();
        assert_eq!(ti.cause, Some(Cause::InputInvalid));
        let why = run.too_many(at(&run, "outer.first"), MapIndex(-1));
        let would_be = size as u64;
        assert_eq!(why, Some(TooMany::TaskInstances { would_be, limit }));
        assert_eq!(state(&run, "after", -1), Some(TaskInstanceState::UpstreamFailed));
        assert_eq!(run.state(), DagRunState::Failed);
    }
}

#[test]
fn a_loop_without_room_for_another_iteration_fails() {
    let tasks = "
  turns:
    loop: {until: \"{{ xcom.done }}\", max: 10}
    tasks:
      done: {component: C, task: t}
  after: {component: C, task: t, after: [turns]}
";
    let mut run = limited(tasks, 3);
    advance(&mut run, Event::Start, START);
    for iteration in 0..2 {
        let (task, map_index) = (at(&run, "turns.done"), MapIndex(iteration));
        advance(&mut run, Event::Admit { task, map_index }, START);
        let dispatch = run.ti(task, map_index).unwrap().dispatch;
        let end = Event::TryFinished {
            task,
            map_index,
            dispatch,
            end: TryEnd::Done,
            measured: vec![0],
            started_at: START,
            ended_at: START,
        };
        advance(&mut run, end, START);
    }
    assert_eq!(state(&run, "turns.done", 0), Some(TaskInstanceState::Success));
    assert_eq!(state(&run, "turns.done", 1), Some(TaskInstanceState::Failed));
    assert_eq!(state(&run, "after", -1), Some(TaskInstanceState::UpstreamFailed));
    assert_eq!(run.state(), DagRunState::Failed);
}

#[test]
fn a_lower_limit_takes_nothing_from_a_run_that_goes_on() {
    let mut run = limited(NESTED, 102);
    advance(&mut run, Event::Start, START);
    finish(&mut run, "plan", &[10]);
    let mut restored = RunState::restore(run.key(), run.dag().clone(), run.snapshot());
    restored.set_limit(3);
    advance(&mut restored, Event::Resume, START);
    assert_eq!(restored.size(), 102);
    // Nor is it too many when what it is mapped over is made anew, as long as it was.
    let again = vec![(at(&restored, "plan"), MapIndex::UNMAPPED)];
    advance(&mut restored, Event::Clear { task_instances: again }, START);
    finish(&mut restored, "plan", &[10]);
    assert_eq!(restored.size(), 102);
    assert_eq!(state(&restored, "outer.first", 9), Some(TaskInstanceState::Scheduled));
    let failed = restored
        .tis()
        .filter(|(_, _, ti)| ti.state == TaskInstanceState::Failed);
    assert_eq!(failed.count(), 0);
}
