//! Tasks that ask a person.

use super::*;
use crate::dag::{RetryPolicy, TaskKind};
use crate::human::{APPROVE, Approval, HumanStep, OnTimeout, REJECT};
use crate::work::Work;

fn asks(edit: impl FnOnce(&mut HumanStep)) -> Task {
    let mut step = HumanStep {
        options: [APPROVE, REJECT].map(str::to_owned).to_vec(),
        defaults: None,
        multiple: false,
        params: indexmap::IndexMap::new(),
        assigned_users: Vec::new(),
        timeout: Some(Duration::from_secs(60)),
        on_timeout: OnTimeout::Fail,
        approval: None,
        branches: false,
    };
    edit(&mut step);
    Task {
        work: Work::Human(Box::new(step)),
        ..task("ask", &[])
    }
}

fn waiting(first: Task) -> World {
    let mut world = World::of(vec![first, task("next", &[0]), task("last", &[1])]);
    world.execute(0, TryEnd::AwaitInput);
    assert_eq!(world.states()[0], "awaiting_input");
    world
}

fn answer(world: &mut World, option: &str) -> Vec<Transition> {
    let dag = Arc::clone(world.run.dag());
    let end = dag.tasks[0]
        .work
        .human()
        .unwrap()
        .end(&dag.tasks[0], &[option.to_owned()]);
    world.send(Event::Answered {
        task: TaskIndex(0),
        map_index: MapIndex::UNMAPPED,
        end,
    })
}

#[test]
fn a_person_is_waited_for_without_a_dispatch_and_across_a_restart() {
    let mut world = waiting(asks(|step| step.timeout = None));
    assert_eq!(world.run.dispatched().count(), 0);
    assert_eq!(world.run.next_timer(), None);
    world.run = RunState::restore(world.run.key(), world.run.dag().clone(), world.run.snapshot());
    assert!(world.send(Event::Resume).is_empty());
    assert!(world.wait(1_000_000).is_empty());
    assert_eq!(world.run.state(), DagRunState::Running, "it is not a deadlock");
    let end = answer(&mut world, APPROVE);
    assert_eq!(ended(&end), [(0, 1, TaskInstanceState::Success)]);
    assert_eq!(world.states(), ["success", "scheduled", "no_status"]);
    assert!(answer(&mut world, REJECT).is_empty(), "there is one answer");
}

#[test]
fn an_answer_to_what_does_not_wait_changes_nothing() {
    let mut world = World::of(vec![asks(|_| {})]);
    assert!(answer(&mut world, APPROVE).is_empty());
    world.admit(0);
    assert!(answer(&mut world, APPROVE).is_empty());
    world.started(0);
    assert!(answer(&mut world, APPROVE).is_empty());
}

#[test]
fn a_rejected_approval_skips_what_follows_or_fails() {
    let approval = |fail_on_reject, ignore_downstream_trigger_rules| Task {
        kind: TaskKind::ShortCircuit {
            ignore_downstream_trigger_rules,
        },
        ..asks(|step| step.approval = Some(Approval { fail_on_reject }))
    };
    let mut world = waiting(approval(false, false));
    answer(&mut world, REJECT);
    assert_eq!(world.states(), ["success", "skipped", "skipped"]);
    assert_eq!(world.run.state(), DagRunState::Success);
    let mut world = waiting(approval(false, false));
    answer(&mut world, APPROVE);
    assert_eq!(world.states(), ["success", "scheduled", "no_status"]);
    let mut world = waiting(approval(true, false));
    answer(&mut world, REJECT);
    assert_eq!(world.states(), ["failed", "upstream_failed", "upstream_failed"]);
    assert_eq!(world.ti(0).cause, Some(Cause::Failed));
}

#[test]
fn the_options_of_a_branch_choose_what_runs() {
    let branch = Task {
        kind: TaskKind::Branch {
            labels: [(APPROVE, vec![TaskIndex(1)]), (REJECT, vec![])]
                .into_iter()
                .map(|(label, tasks)| (label.to_owned(), tasks))
                .collect(),
        },
        ..asks(|step| step.branches = true)
    };
    let mut world = waiting(branch.clone());
    answer(&mut world, APPROVE);
    assert_eq!(world.states(), ["success", "scheduled", "no_status"]);
    let mut world = waiting(branch);
    answer(&mut world, REJECT);
    assert_eq!(world.states(), ["success", "skipped", "skipped"]);
}

#[test]
fn when_time_runs_out_the_defaults_are_taken_or_it_fails_or_it_is_skipped() {
    let mut world = waiting(asks(|step| {
        step.defaults = Some(vec![APPROVE.to_owned()]);
        step.on_timeout = OnTimeout::Default;
    }));
    assert!(world.wait(59).is_empty());
    let taken = world.wait(1);
    assert!(taken.contains(&Transition::DefaultsTaken {
        task: TaskIndex(0),
        map_index: MapIndex::UNMAPPED,
    }));
    assert_eq!(world.states(), ["success", "scheduled", "no_status"]);

    let mut world = waiting(asks(|step| step.on_timeout = OnTimeout::Skip));
    world.wait(60);
    assert_eq!(world.states(), ["skipped", "skipped", "skipped"]);

    // A failure has the retries of the task: the person is asked again.
    let mut world = waiting(Task {
        retry: RetryPolicy {
            retries: 1,
            delay: Duration::ZERO,
            ..RetryPolicy::default()
        },
        ..asks(|_| {})
    });
    let end = world.wait(60);
    assert_eq!(ended(&end), [(0, 1, TaskInstanceState::Failed)]);
    assert_eq!(world.states(), ["scheduled", "no_status", "no_status"]);
    world.execute(0, TryEnd::AwaitInput);
    world.wait(60);
    assert_eq!(world.states(), ["failed", "upstream_failed", "upstream_failed"]);
    assert_eq!(
        (world.ti(0).cause, world.ti(0).try_number.0),
        (Some(Cause::TimedOut), 2)
    );
}

#[test]
fn what_waits_for_a_person_can_be_cleared_marked_and_stopped() {
    let mut world = waiting(asks(|_| {}));
    let end = world.clear(&[0]);
    assert_eq!(ended(&end), [(0, 1, TaskInstanceState::Failed)], "the try is over");
    assert_eq!(world.states()[0], "scheduled");
    let mut world = waiting(asks(|_| {}));
    world.mark(0, TaskInstanceState::Success);
    assert_eq!(world.states(), ["success", "scheduled", "no_status"]);
    let mut world = waiting(asks(|_| {}));
    let end = world.mark_run(DagRunState::Failed);
    assert!(cancelled(&end).is_empty(), "no executor has it");
    assert_eq!(world.states(), ["failed", "skipped", "skipped"]);
    assert_eq!(world.run.state(), DagRunState::Failed);
}

#[test]
fn only_a_human_step_can_ask() {
    let mut world = World::of(vec![task("a", &[])]);
    world.execute(0, TryEnd::AwaitInput);
    assert_eq!(world.ti(0).cause, Some(Cause::ContractViolation));
}
