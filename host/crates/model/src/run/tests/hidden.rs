//! Failures that the state of a run does not show.

use super::*;
use crate::hidden::Hides;

fn with_rule(id: &str, upstream: &[u32], trigger_rule: TriggerRule) -> Task {
    Task {
        trigger_rule,
        ..task(id, upstream)
    }
}

#[test]
fn a_leaf_that_runs_whatever_happened_hides_a_failure() {
    let mut world = World::of(vec![task("load", &[]), with_rule("clean", &[0], TriggerRule::AllDone)]);
    world.execute(0, failed());
    assert_eq!(world.run.hidden_failures(), [], "the run goes on");
    world.execute(1, TryEnd::Done);
    assert_eq!(world.run.state(), DagRunState::Success);
    let hidden = world.run.hidden_failures();
    assert_eq!(hidden, [(TaskIndex(0), Hides::Passed(vec![TaskIndex(1)]))]);
    let dag = world.run.dag();
    assert_eq!(hidden[0].1.why(dag), "`clean` (all_done) ends well all the same");
    let restored = RunState::restore(world.run.key(), dag.clone(), world.run.snapshot());
    assert_eq!(restored.hidden_failures(), hidden);
    // It runs again, and this time it goes well.
    world.clear(&[0, 1]);
    assert_eq!(world.run.hidden_failures(), []);
    world.send(Event::Start);
    world.execute(0, TryEnd::Done);
    world.execute(1, TryEnd::Done);
    assert_eq!(world.run.hidden_failures(), []);
}

#[test]
fn a_failure_that_a_task_took_notice_of_is_not_hidden_and_one_that_fails_the_run_neither() {
    let mut world = World::of(vec![task("load", &[]), with_rule("tell", &[0], TriggerRule::OneFailed)]);
    world.execute(0, failed());
    world.execute(1, TryEnd::Done);
    assert_eq!(world.run.state(), DagRunState::Success);
    assert_eq!(world.run.hidden_failures(), []);
    let mut world = World::of(vec![task("load", &[]), task("next", &[0])]);
    world.execute(0, failed());
    assert_eq!(world.run.state(), DagRunState::Failed);
    assert_eq!(world.run.hidden_failures(), []);
}
