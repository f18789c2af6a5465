use super::super::testing::cpu_time;
use super::*;
use crate::run::scope::Node;
use crate::run::ti::Slot;
use crate::trigger_rule::TriggerRule;

#[test]
fn a_task_instance_takes_at_most_200_bytes() {
    // A chunk of 64 has a reference count, a vector, its place in the table and its summary.
    let chunk = 2 * (16 + 24 + 8) + 32;
    let each = size_of::<Slot>() + size_of::<Node>() + chunk / 64 + 1;
    assert!(each <= 200, "{each}");
}

#[test]
fn a_fan_out_and_fan_in_of_a_hundred_thousand_is_linear() {
    const WIDTH: u32 = 100_000;
    let mut tasks = vec![task("source", &[])];
    tasks.extend((0..WIDTH).map(|at| task(&format!("t{at}"), &[0])));
    let all: Vec<u32> = (1..=WIDTH).collect();
    tasks.push(Task {
        trigger_rule: TriggerRule::NoneFailed,
        ..task("sink", &all)
    });
    let dag = dag(tasks, |_| {});
    let started = cpu_time();
    let mut world = World::with(dag);
    world.execute(0, TryEnd::Done);
    assert_eq!(world.run.ready().count(), WIDTH as usize);
    let mut drafts = 0;
    for task in 1..=WIDTH {
        world.execute(task, TryEnd::Done);
        if task % 5_000 == 0 {
            // A tick works on a draft.
            let draft = world.run.clone();
            drafts += draft.dispatched().count() + draft.unfinished().count().min(1);
            world.run = draft;
        }
    }
    assert_eq!(drafts, 20);
    assert_eq!(world.run.ready().count(), 1);
    world.execute(WIDTH + 1, TryEnd::Done);
    assert_eq!(world.run.state(), DagRunState::Success);
    let took = cpu_time().checked_sub(started).unwrap();
    let restored = RunState::restore(world.run.key(), world.run.dag().clone(), world.run.snapshot());
    assert_eq!(restored.state(), DagRunState::Success);
    // Quadratic work would take minutes.
    assert!(took.as_secs() < 30, "{took:?}");
}
