//! What is too large for one step is done in several. In the end all is as if it had been done in one.

use proptest::prelude::*;

use super::repeats_properties::{build, check, plans};
use super::*;
use crate::run::advance_within;

/// Every task instance, by name.
fn shown(run: &RunState) -> Vec<(u32, i32, TaskInstanceState, u32)> {
    let mut all: Vec<_> = run
        .tis()
        .map(|(task, at, ti)| (task.0, at.0, ti.state, ti.try_number.0))
        .collect();
    all.sort_unstable_by_key(|(task, at, ..)| (*task, *at));
    all
}

/// Applies an event in small steps. Each makes few transitions more than it may.
fn in_slices(
    run: &mut RunState,
    event: &Event,
    now: Timestamp,
    most: usize,
    restart: bool,
) -> Result<(), TestCaseError> {
    let mut steps = 0;
    let to_the_end = |event: &Event| matches!(event, Event::SetRunState { .. });
    let mut next = event.clone();
    // As the scheduler does it: nothing is let run between two steps of what a person asked for.
    if to_the_end(event) {
        run.hold();
    }
    loop {
        steps += 1;
        prop_assert!(steps < 10_000, "it comes to an end");
        advance_within(run, next, now, most);
        if run.is_cut_short() && to_the_end(event) {
            next = event.clone();
            continue;
        }
        if run.is_held() && to_the_end(event) {
            run.let_go();
            next = Event::Resume;
            continue;
        }
        if !run.has_more() {
            return Ok(());
        }
        next = Event::GoOn;
        if restart && steps % 3 == 0 {
            *run = RunState::restore(run.key(), run.dag().clone(), run.snapshot());
            next = Event::Resume;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(2_000), ..ProptestConfig::default() })]

    #[test]
    fn steps_of_any_size_come_to_the_same(
        plan in plans(),
        most in 1..5_usize,
        restarts in any::<bool>(),
        choices in proptest::collection::vec(any::<u16>(), 32),
    ) {
        let dag = build(&plan);
        let mut whole = RunState::new(DagRunKey(1), dag.clone(), START, START);
        let mut sliced = whole.clone();
        let mut now = START;
        let mut choices = choices.into_iter().cycle();
        let mut both = |whole: &mut RunState, sliced: &mut RunState, event: Event| -> Result<(), TestCaseError> {
            now = now.plus(Duration::from_micros(1));
            advance(whole, event.clone(), now);
            in_slices(sliced, &event, now, most, restarts)?;
            prop_assert_eq!(shown(whole), shown(sliced), "after {:?}", event);
            prop_assert_eq!(whole.state(), sliced.state());
            Ok(())
        };
        both(&mut whole, &mut sliced, Event::Start)?;
        for _ in 0..60 {
            if whole.state().is_finished() {
                break;
            }
            let choice = usize::from(choices.next().unwrap());
            let ready: Vec<(TaskIndex, MapIndex)> = whole.ready().map(|(task, at, _)| (task, at)).collect();
            if choice % 40 == 0 {
                let state = [DagRunState::Failed, DagRunState::Success][choice / 40 % 2];
                both(&mut whole, &mut sliced, Event::SetRunState { state })?;
                continue;
            }
            if ready.is_empty() {
                both(&mut whole, &mut sliced, Event::Timer)?;
                continue;
            }
            let (task, map_index) = ready[choice % ready.len()];
            both(&mut whole, &mut sliced, Event::Admit { task, map_index })?;
            let dispatch = whole.ti(task, map_index).unwrap().dispatch;
            let (end, measured) = match choice % 7 {
                0 => (failed(), Vec::new()),
                1 => (TryEnd::Skip, Vec::new()),
                rest => (TryEnd::Done, vec![u32::try_from(rest % 3).unwrap()]),
            };
            let end = Event::TryFinished { task, map_index, dispatch, end, measured, started_at: START, ended_at: START };
            both(&mut whole, &mut sliced, end)?;
            check(&sliced)?;
        }
    }
}

/// `source`, then so many instances of `work`, then `all`.
fn wide(width: u32) -> RunState {
    let tasks = format!(
        "
  source: {{component: C, task: t}}
  work: {{component: C, task: t, expand: {{x: \"{{{{ xcom.source }}}}\"}}, map_limit: {width}}}
  all: {{component: C, task: t, after: [work]}}
"
    );
    let dag = super::repeats::compiled(&tasks);
    let mut run = RunState::new(DagRunKey(1), dag, START, START);
    advance(&mut run, Event::Start, START);
    let (task, map_index) = (TaskIndex(0), MapIndex::UNMAPPED);
    advance(&mut run, Event::Admit { task, map_index }, START);
    let end = Event::TryFinished {
        task,
        map_index,
        dispatch: DispatchNumber(1),
        end: TryEnd::Done,
        measured: vec![width],
        started_at: START,
        ended_at: START,
    };
    advance_within(&mut run, end, START, 1_000);
    run
}

#[test]
fn no_step_is_larger_than_it_may_be() {
    const WIDTH: u32 = 100_000;
    let mut run = wide(WIDTH);
    let (mut steps, mut largest) = (0, 0);
    let mut go_on = |run: &mut RunState| {
        while run.has_more() {
            steps += 1;
            largest = largest.max(advance_within(run, Event::GoOn, START, 1_000).len());
            assert_eq!(
                run.ready().count() > 0,
                run.size() == WIDTH as usize + 2 && run.ready().count() > 0,
                "all are there before the first may run"
            );
        }
    };
    go_on(&mut run);
    assert_eq!(run.ready().count(), WIDTH as usize);
    assert_eq!(run.state(), DagRunState::Running);
    // Ending it, too, goes on in steps.
    run.hold();
    loop {
        steps += 1;
        let state = DagRunState::Failed;
        largest = largest.max(advance_within(&mut run, Event::SetRunState { state }, START, 1_000).len());
        if !run.is_cut_short() {
            break;
        }
        assert_eq!(run.state(), DagRunState::Running);
        // What is held is not admitted.
        let last = MapIndex(i32::try_from(WIDTH).unwrap() - 1);
        let admitted = advance(
            &mut run,
            Event::Admit {
                task: TaskIndex(1),
                map_index: last,
            },
            START,
        );
        assert_eq!(admitted, []);
    }
    assert_eq!(run.state(), DagRunState::Failed);
    assert_eq!(run.unfinished().count(), 0);
    assert!(largest <= 1_100, "{largest}");
    assert!((300..=400).contains(&steps), "{steps}");
}

#[test]
fn a_run_that_takes_too_long_is_skipped_in_steps_and_then_ends() {
    let mut run = wide(10_000);
    while run.has_more() {
        advance_within(&mut run, Event::GoOn, START, 1_000);
    }
    let mut parts = (**run.dag()).clone();
    parts.dagrun_timeout = Some(Duration::from_secs(60));
    let snapshot = run.snapshot();
    let mut run = RunState::restore(run.key(), Arc::new(parts), snapshot);
    let late = START.plus(Duration::from_secs(61));
    let mut steps = 1;
    let first = advance_within(&mut run, Event::Timer, late, 1_000);
    assert!(first.len() <= 1_001, "{}", first.len());
    assert_eq!(run.state(), DagRunState::Running);
    assert_eq!(run.next_timer(), None, "nothing else is due meanwhile");
    while run.has_more() {
        steps += 1;
        if steps == 4 {
            // Another process goes on: the time is over still.
            run = RunState::restore(run.key(), run.dag().clone(), run.snapshot());
            advance_within(&mut run, Event::Timer, late, 1_000);
            continue;
        }
        advance_within(&mut run, Event::GoOn, late, 1_000);
    }
    assert_eq!(run.state(), DagRunState::Failed);
    assert_eq!(run.unfinished().count(), 0);
    assert!(steps >= 10, "{steps}");
}
