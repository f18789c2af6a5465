//! Runs that wait for the run before them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::past::{Past, is_successful, met};
use crate::run::LiveBefore;

fn looking_back(id: &str, upstream: &[u32], past: Past) -> Task {
    Task {
        past,
        ..task(id, upstream)
    }
}

fn chain() -> Vec<Task> {
    vec![
        looking_back("a", &[], Past::DependsOnPast),
        looking_back("b", &[0], Past::WaitForDownstream),
        task("c", &[1]),
    ]
}

fn allow(world: &mut World, tasks: &[u32]) -> Vec<Transition> {
    let met = tasks.iter().copied().map(TaskIndex).collect();
    world.send(Event::Past { met })
}

#[test]
fn nothing_that_looks_back_runs_before_the_past_is_known_and_good() {
    let mut world = World::of(chain());
    assert_eq!(world.states(), ["no_status", "no_status", "no_status"]);
    assert_eq!(
        world.run.state(),
        DagRunState::Running,
        "it waits, it is not deadlocked"
    );
    allow(&mut world, &[]);
    assert_eq!(world.states(), ["no_status", "no_status", "no_status"]);
    allow(&mut world, &[0]);
    assert_eq!(world.states(), ["scheduled", "no_status", "no_status"]);
    world.execute(0, TryEnd::Done);
    assert_eq!(world.states(), ["success", "no_status", "no_status"]);
    assert_eq!(world.run.state(), DagRunState::Running);
    allow(&mut world, &[0, 1]);
    world.execute(1, TryEnd::Done);
    world.execute(2, TryEnd::Done);
    assert_eq!(world.run.state(), DagRunState::Success);
}

#[test]
fn what_runs_goes_on_when_the_past_changes_and_the_next_try_waits() {
    let mut tasks = chain();
    tasks[0].retry.retries = 1;
    let mut world = World::of(tasks);
    allow(&mut world, &[0, 1]);
    world.admit(0);
    // Somebody clears the run before.
    assert_eq!(allow(&mut world, &[]), []);
    world.started(0);
    world.finished(0, failed());
    world.wait(1);
    assert_eq!(world.states(), ["up_for_retry", "no_status", "no_status"]);
    assert_eq!(world.run.state(), DagRunState::Running);
    allow(&mut world, &[0]);
    assert_eq!(world.states(), ["scheduled", "no_status", "no_status"]);
}

#[test]
fn a_failure_and_a_skip_go_on_without_a_look_at_the_past() {
    let mut world = World::of(chain());
    allow(&mut world, &[0]);
    world.execute(0, TryEnd::Skip);
    assert_eq!(world.states(), ["skipped", "skipped", "skipped"]);
    let mut world = World::of(chain());
    allow(&mut world, &[0]);
    world.execute(0, failed());
    assert_eq!(world.states(), ["failed", "upstream_failed", "upstream_failed"]);
    assert_eq!(world.run.state(), DagRunState::Failed);
}

#[test]
fn a_run_that_waits_for_the_past_still_times_out() {
    let dag = dag(chain(), |dag| dag.dagrun_timeout = Some(Duration::from_secs(60)));
    let mut world = World::with(dag);
    world.wait(60);
    assert_eq!(world.run.state(), DagRunState::Failed);
}

#[test]
fn a_run_in_memory_says_what_the_next_one_may_do() {
    let mut before = World::of(chain());
    let next = Arc::clone(before.run.dag());
    let may = |world: &World| -> Vec<u32> {
        let before = LiveBefore {
            run: &world.run,
            older: |_: &Task| false,
        };
        met(&next, &before).into_iter().map(|task| task.0).collect()
    };
    assert_eq!(may(&before), [0_u32; 0]);
    allow(&mut before, &[0, 1]);
    before.execute(0, TryEnd::Done);
    assert_eq!(may(&before), [0]);
    before.execute(1, TryEnd::Done);
    assert_eq!(may(&before), [0], "`b` waits for `c` too");
    before.execute(2, TryEnd::Skip);
    assert_eq!(may(&before), [0, 1]);
    before.clear(&[0]);
    assert_eq!(may(&before), [1]);
}

proptest! {
    /// Several runs of a random DAG side by side, each told of the one before whenever that changes: nothing that looks back begins
    /// while its past is not good, and runs in which everything succeeds all end, one after the other.
    #[test]
    fn across_runs_nothing_runs_before_its_past_allows_it(
        specs in prop::collection::vec((any::<u8>(), 0..3_u8), 1..7),
        actions in prop::collection::vec((0..4_usize, any::<u8>(), 0..8_u8), 0..120),
    ) {
        let tasks = specs.into_iter().enumerate().map(|(at, (edges, past))| {
            let upstream: Vec<u32> = (0..at).filter(|up| edges >> up & 1 == 1).map(|up| up as u32).collect();
            let past = [Past::Ignored, Past::DependsOnPast, Past::WaitForDownstream][usize::from(past)];
            looking_back(&format!("t{at}"), &upstream, past)
        });
        let dag = dag(tasks.collect(), |_| {});
        let mut runs: Vec<RunState> = (0..4)
            .map(|key| RunState::new(DagRunKey(key), dag.clone(), START, START))
            .collect();
        let all = dag.looking_back().to_vec();
        // What a plain look at the states of the run before says.
        let allows = |before: &RunState, task: &Task| {
            let states: BTreeMap<TaskIndex, TaskInstanceState> =
                before.tis().map(|(task, _, ti)| (task, ti.state)).collect();
            let good = |at: &TaskIndex| is_successful(states[at]);
            let own = dag.index_of(task.id.as_str()).expect("it is in the DAG");
            match task.past {
                Past::Ignored => true,
                Past::DependsOnPast => good(&own),
                Past::WaitForDownstream => good(&own) && task.downstream.iter().all(good),
            }
        };
        let send = |runs: &mut Vec<RunState>, at: usize, event: Event| -> Result<(), TestCaseError> {
            let transitions = advance(&mut runs[at], event, START);
            for transition in transitions {
                if let Transition::TaskInstance { task, from, to: TaskInstanceState::Scheduled, .. } = transition
                    && from != TaskInstanceState::Scheduled
                    && at > 0
                {
                    prop_assert!(allows(&runs[at - 1], &dag.tasks[task.at()]), "run {at} scheduled {task:?} too early");
                }
            }
            for next in at..runs.len() {
                let met = if next == 0 { all.clone() } else { met(&dag, &LiveBefore { run: &runs[next - 1], older: |_: &Task| false }) };
                if runs[next].past_met() != Some(&met) {
                    advance(&mut runs[next], Event::Past { met }, START);
                }
            }
            Ok(())
        };
        for at in 0..runs.len() {
            send(&mut runs, at, Event::Start)?;
        }
        let finish = |run: &RunState, n: u8, end: TryEnd| {
            let out: Vec<_> = run.dispatched().map(|(task, map_index, ti)| (task, map_index, ti.dispatch)).collect();
            let (task, map_index, dispatch) = *out.get(usize::from(n) % out.len().max(1))?;
            Some(Event::TryFinished { task, map_index, dispatch, end, measured: Vec::new(), started_at: START, ended_at: START })
        };
        let admit = |run: &RunState, n: u8| {
            let ready: Vec<_> = run.ready().map(|(task, map_index, _)| (task, map_index)).collect();
            let (task, map_index) = *ready.get(usize::from(n) % ready.len().max(1))?;
            Some(Event::Admit { task, map_index })
        };
        for (at, n, kind) in actions {
            let event = match kind {
                0..3 => admit(&runs[at], n),
                3..5 => finish(&runs[at], n, TryEnd::Done),
                5 => finish(&runs[at], n, if n & 1 == 0 { TryEnd::Skip } else { failed() }),
                6 => Some(Event::Start),
                _ => Some(Event::Clear { task_instances: vec![(TaskIndex(u32::from(n) % 7), MapIndex::UNMAPPED)] }),
            };
            if let Some(event) = event {
                send(&mut runs, at, event)?;
            }
        }
        // From here on everything goes well; what failed is cleared.
        for _ in 0..4 {
            for at in 0..runs.len() {
                let failed: Vec<_> = runs[at]
                    .tis()
                    .filter(|(.., ti)| matches!(ti.state, TaskInstanceState::Failed | TaskInstanceState::UpstreamFailed))
                    .map(|(task, map_index, _)| (task, map_index))
                    .collect();
                send(&mut runs, at, Event::Clear { task_instances: failed })?;
                send(&mut runs, at, Event::Start)?;
                while let Some(event) = admit(&runs[at], 0).or_else(|| finish(&runs[at], 0, TryEnd::Done)) {
                    send(&mut runs, at, event)?;
                }
            }
        }
        for run in &runs {
            prop_assert_eq!(run.state(), DagRunState::Success);
        }
    }
}
