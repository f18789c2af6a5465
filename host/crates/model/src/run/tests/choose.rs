use super::*;
use crate::dag::TaskKind;
use crate::trigger_rule::TriggerRule;

fn branch() -> Task {
    Task {
        kind: TaskKind::Branch {
            labels: indexmap::IndexMap::new(),
        },
        ..task("branch", &[])
    }
}

fn short_circuit(everything: bool) -> Task {
    Task {
        kind: TaskKind::ShortCircuit {
            ignore_downstream_trigger_rules: everything,
        },
        ..task("circuit", &[])
    }
}

fn ruled(id: &str, upstream: &[u32], rule: TriggerRule) -> Task {
    Task {
        trigger_rule: rule,
        ..task(id, upstream)
    }
}

fn choose(tasks: &[u32]) -> TryEnd {
    TryEnd::Branch(tasks.iter().copied().map(TaskIndex).collect())
}

#[test]
fn what_is_not_chosen_is_skipped_unless_it_also_follows_a_chosen_one() {
    // branch -> accept -> report, branch -> report, branch -> reject
    let mut world = World::of(vec![
        branch(),
        task("accept", &[0]),
        task("reject", &[0]),
        ruled("report", &[0, 1], TriggerRule::NoneFailedMinOneSuccess),
    ]);
    world.execute(0, choose(&[1]));
    assert_eq!(world.states(), ["success", "scheduled", "skipped", "no_status"]);
    world.execute(1, TryEnd::Done);
    assert_eq!(world.states(), ["success", "success", "skipped", "scheduled"]);
}

#[test]
fn a_branch_skips_at_once_whatever_the_rule_and_even_what_runs() {
    let mut world = World::of(vec![
        branch(),
        ruled("always", &[0], TriggerRule::Always),
        ruled("done", &[0], TriggerRule::AllDone),
        task("other", &[]),
        ruled("early", &[0, 3], TriggerRule::OneSuccess),
    ]);
    world.admit(1);
    world.started(1);
    world.execute(3, TryEnd::Done);
    assert_eq!(
        world.states(),
        ["scheduled", "running", "no_status", "success", "scheduled"]
    );
    let end = world.execute(0, choose(&[]));
    assert_eq!(cancelled(&end), [1]);
    assert_eq!(world.states(), ["success", "skipped", "skipped", "success", "skipped"]);
    assert_eq!(world.run.state(), DagRunState::Success);
}

#[test]
fn clearing_only_what_a_branch_skipped_skips_it_again() {
    let mut world = World::of(vec![branch(), task("a", &[0]), task("b", &[0])]);
    world.execute(0, choose(&[1]));
    world.execute(1, TryEnd::Done);
    assert_eq!(world.run.state(), DagRunState::Success);
    world.clear(&[2]);
    world.send(Event::Start);
    assert_eq!(world.states(), ["success", "success", "skipped"]);
    // With the branch it is open again.
    world.clear(&[0, 1, 2]);
    world.send(Event::Start);
    world.execute(0, choose(&[2]));
    assert_eq!(world.states(), ["success", "skipped", "scheduled"]);
}

#[test]
fn a_task_that_is_no_branch_cannot_choose_and_a_branch_must() {
    let mut world = World::of(vec![task("a", &[]), task("b", &[0])]);
    world.execute(0, choose(&[1]));
    assert_eq!(world.ti(0).cause, Some(Cause::ContractViolation));
    let mut world = World::of(vec![branch(), task("b", &[0])]);
    world.execute(0, TryEnd::Done);
    assert_eq!(world.states(), ["failed", "upstream_failed"]);
}

#[test]
fn a_false_answer_skips_everything_or_only_what_follows_directly() {
    let tail = || vec![task("b", &[0]), ruled("c", &[1], TriggerRule::AllDone)];
    let mut world = World::of([vec![short_circuit(true)], tail()].concat());
    world.execute(0, TryEnd::DoneFalsy);
    assert_eq!(world.states(), ["success", "skipped", "skipped"]);
    let mut world = World::of([vec![short_circuit(false)], tail()].concat());
    world.execute(0, TryEnd::DoneFalsy);
    assert_eq!(world.states(), ["success", "skipped", "scheduled"]);
    let mut world = World::of([vec![short_circuit(true)], tail()].concat());
    world.execute(0, TryEnd::Done);
    assert_eq!(world.states(), ["success", "scheduled", "no_status"]);
    let mut world = World::of([vec![task("a", &[])], tail()].concat());
    world.execute(0, TryEnd::DoneFalsy);
    assert_eq!(
        world.states(),
        ["success", "scheduled", "no_status"],
        "only a short-circuit looks"
    );
}
