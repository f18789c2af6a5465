//! Random DAGs, random lives, and what always holds.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::take_along;
use super::super::testing::notify;
use super::*;
use crate::between::{IfExists, TriggerDag};
use crate::callback::CallbackEvent;
use crate::dag::{RetryPolicy, TaskKind, TaskRole};
use crate::human::{HumanStep, OK, OnTimeout};
use crate::id::DagId;
use crate::retry_rule::{RetryAction, RetryRule};
use crate::trigger_rule::{Decision, TriggerRule, Upstream};
use crate::work::Work;

/// What one random step does: the kind of event, and numbers to choose its details by.
type Action = (u8, u8, u8, u8);

fn random_dag() -> impl Strategy<Value = Arc<Dag>> {
    let one = (
        any::<u8>(),
        0..13_usize,
        0..10_u8,
        0..3_u32,
        any::<bool>(),
        any::<bool>(),
    );
    (prop::collection::vec(one, 1..9), any::<bool>()).prop_map(|(specs, timeout)| {
        let tasks = specs
            .into_iter()
            .enumerate()
            .map(|(at, (edges, rule, kind, retries, rerun, role))| {
                let upstream: Vec<u32> = (0..at).filter(|up| edges >> up & 1 == 1).map(|up| up as u32).collect();
                let kind = match kind {
                    0 | 1 => TaskKind::Branch {
                        labels: indexmap::IndexMap::new(),
                    },
                    2 => TaskKind::ShortCircuit {
                        ignore_downstream_trigger_rules: true,
                    },
                    3 => TaskKind::ShortCircuit {
                        ignore_downstream_trigger_rules: false,
                    },
                    _ => TaskKind::Plain,
                };
                let rule = TriggerRule::ALL[rule];
                // Some tasks are called back for everything, some only for some of it.
                let called = CallbackEvent::ALL.iter().copied().skip(usize::from(edges >> 4 & 3));
                Task {
                    trigger_rule: rule,
                    role: match (rule, role) {
                        (TriggerRule::AllDoneSetupSuccess, on_failure_fail_dagrun) => {
                            TaskRole::Teardown { on_failure_fail_dagrun }
                        }
                        (_, true) if at < 2 => TaskRole::Setup,
                        _ => TaskRole::Work,
                    },
                    kind,
                    retry: RetryPolicy {
                        retries,
                        delay: Duration::from_secs(u64::from(retries) * 3),
                        exponential_backoff: retries == 2,
                        max_delay: Some(Duration::from_secs(20)),
                        rules: vec![RetryRule {
                            causes: vec![Cause::Trapped],
                            codes: Vec::new(),
                            action: RetryAction::ALL[usize::from(edges & 0x20 != 0)],
                            delay: Some(Duration::from_secs(1)),
                            memory: None,
                        }],
                    },
                    rerun_on_loss: rerun,
                    max_infra_retries: 1,
                    work: match (edges & 0x40 == 0, edges & 0x10 == 0) {
                        (true, true) => task("t", &[]).work,
                        (true, false) => Work::TriggerDag(Box::new(triggers(rerun))),
                        (false, _) => Work::Human(Box::new(asked(edges & 0x80 == 0, rerun))),
                    },
                    callbacks: called.map(|event| notify(event, "x")).collect(),
                    ..task(&format!("t{at}"), &upstream)
                }
            });
        dag(tasks.collect(), |dag| {
            dag.callbacks = CallbackEvent::OF_DAG.map(|event| notify(event, "x")).to_vec();
            dag.dagrun_timeout = timeout.then_some(Duration::from_secs(120));
        })
    })
}

fn triggers(bounded: bool) -> TriggerDag {
    TriggerDag {
        dag: Some(DagId::new("child").unwrap()),
        allowed: Vec::new(),
        if_exists: IfExists::Fail,
        wait: true,
        allowed_states: vec![DagRunState::Success],
        result: None,
        timeout: bounded.then_some(Duration::from_secs(5)),
    }
}

fn asked(defaults: bool, skip: bool) -> HumanStep {
    HumanStep {
        options: vec![OK.to_owned()],
        defaults: defaults.then(|| vec![OK.to_owned()]),
        multiple: false,
        params: indexmap::IndexMap::new(),
        assigned_users: Vec::new(),
        timeout: Some(Duration::from_secs(5)),
        on_timeout: match (defaults, skip) {
            (true, _) => OnTimeout::Default,
            (false, true) => OnTimeout::Skip,
            (false, false) => OnTimeout::Fail,
        },
        approval: None,
        branches: false,
    }
}

fn end(task: &Task, choice: u8, detail: u8) -> TryEnd {
    let failed = |fatal| TryEnd::Failed {
        cause: Cause::Trapped,
        fatal,
        code: None,
    };
    match (choice % 10, &task.kind) {
        (0, _) => failed(false),
        (1, _) => failed(true),
        (2, _) => TryEnd::Skip,
        (3, _) => TryEnd::Reschedule(Duration::from_secs(u64::from(detail % 4))),
        (4, _) => TryEnd::Branch(vec![TaskIndex(u32::from(detail % 10))]),
        (5, _) => TryEnd::DoneFalsy,
        (6 | 7, _) if task.work.human().is_some() || detail.is_multiple_of(8) => TryEnd::AwaitInput,
        (8 | 9, _) if task.work.trigger_dag().is_some() => TryEnd::Defer,
        (9, _) if detail.is_multiple_of(16) => TryEnd::Defer,
        (_, TaskKind::Branch { .. }) => {
            let chosen = task
                .downstream
                .iter()
                .enumerate()
                .filter(|(at, _)| detail >> (at % 8) & 1 == 1);
            TryEnd::Branch(chosen.map(|(_, task)| *task).collect())
        }
        _ => TryEnd::Done,
    }
}

/// The event of an action. Kinds up to 11 fit the state mostly; the rest is garbage.
fn event(run: &RunState, (kind, a, b, c): Action, now: Timestamp) -> Option<Event> {
    let nth = |items: Vec<(TaskIndex, MapIndex, DispatchNumber)>, n: u8| {
        let count = items.len().max(1);
        items.into_iter().nth(usize::from(n) % count)
    };
    let ready = || {
        run.ready()
            .map(|(task, map_index, ti)| (task, map_index, ti.dispatch))
            .collect()
    };
    let out = || {
        run.dispatched()
            .map(|(task, map_index, ti)| (task, map_index, ti.dispatch))
            .collect()
    };
    let any = || (TaskIndex(u32::from(a % 11)), MapIndex(if c % 7 == 0 { 3 } else { -1 }));
    let loss = [Loss::NotAcknowledged, Loss::Acknowledged, Loss::HandedBack][usize::from(b % 3)];
    Some(match kind % 24 {
        0 | 1 => Event::Start,
        2..=4 => nth(ready(), a).map(|(task, map_index, _)| Event::Admit { task, map_index })?,
        5 | 6 => nth(out(), a).map(|(task, map_index, dispatch)| Event::TryStarted {
            task,
            map_index,
            dispatch,
            at: now,
        })?,
        7..=11 => nth(out(), a).map(|(task, map_index, dispatch)| Event::TryFinished {
            task,
            map_index,
            dispatch,
            end: end(run.dag().task(task).expect("it was dispatched"), b, c),
            measured: Vec::new(),
            started_at: now,
            ended_at: now,
        })?,
        12 => nth(out(), a).map(|(task, map_index, dispatch)| Event::TryLost {
            task,
            map_index,
            dispatch,
            loss,
        })?,
        13 | 14 => Event::Timer,
        15 => {
            let mut task_instances: Vec<_> = (0..9)
                .filter(|at| a >> (at % 8) & 1 == 1)
                .map(|at| (TaskIndex(at), any().1))
                .collect();
            if b % 2 == 0 {
                // As people do: with the setups in whose scope they lie.
                let known = run.tis().map(|(task, map_index, ti)| (task, map_index, ti.state));
                task_instances.extend(take_along(run.dag(), &task_instances, known));
            }
            Event::Clear { task_instances }
        }
        16 => Event::SetRunState {
            state: DagRunState::ALL[usize::from(a % 4)],
        },
        17 => Event::SetTaskInstanceState {
            task: any().0,
            map_index: any().1,
            state: TaskInstanceState::ALL[usize::from(b) % TaskInstanceState::ALL.len()],
        },
        18 => Event::TryFinished {
            task: any().0,
            map_index: any().1,
            dispatch: DispatchNumber(u32::from(b % 5)),
            end: TryEnd::Done,
            measured: Vec::new(),
            started_at: Timestamp(i64::from(c)),
            ended_at: Timestamp(i64::MAX),
        },
        21 | 22 => Event::Resolved {
            task: any().0,
            map_index: any().1,
            dispatch: run.ti(any().0, any().1).map_or(DispatchNumber(1), |ti| ti.dispatch),
            end: end(&run.dag().tasks[usize::from(a) % run.dag().tasks.len()], b, c),
            measured: Vec::new(),
        },
        19 | 20 => Event::Answered {
            task: any().0,
            map_index: any().1,
            end: end(&run.dag().tasks[usize::from(a) % run.dag().tasks.len()], b, c),
        },
        _ => Event::TryLost {
            task: any().0,
            map_index: any().1,
            dispatch: DispatchNumber(u32::from(c % 5)),
            loss,
        },
    })
}

fn same(a: &RunState, b: &RunState) -> bool {
    let times = |run: &RunState| (run.state, run.run_after, run.queued_at, run.start_date, run.end_date);
    times(a) == times(b) && a.tis == b.tis && a.nodes == b.nodes && a.totals == b.totals
}

/// The tasks that a task waits for, found by a search: a teardown waits for all that lie between its setups and itself.
fn awaited(dag: &Dag, task: &Task) -> Vec<TaskIndex> {
    let mut found: BTreeSet<TaskIndex> = task.upstream.iter().copied().collect();
    if task.is_teardown() {
        let above = dag.ancestors(&[dag.index_of(task.id.as_str()).expect("it is in the DAG")]);
        let is_setup = |at: &&TaskIndex| dag.task(**at).is_some_and(|task| task.role == TaskRole::Setup);
        for setup in task.upstream.iter().filter(is_setup) {
            found.extend(dag.descendants(&[*setup]).intersection(&above));
        }
    }
    found.into_iter().collect()
}

/// Follows the transitions of a run and checks each.
#[derive(Default)]
struct Witness {
    states: BTreeMap<TaskIndex, TaskInstanceState>,
    ended: BTreeSet<(TaskIndex, u32)>,
    dispatches: BTreeMap<TaskIndex, DispatchNumber>,
    called: BTreeSet<(TaskIndex, u32)>,
    /// Whether the run was cancelled while teardowns were still to come, and nobody let it go on since.
    cancelled: bool,
    ended_run: bool,
}

impl Witness {
    fn state(&self, task: TaskIndex) -> TaskInstanceState {
        self.states.get(&task).copied().unwrap_or(TaskInstanceState::NoStatus)
    }

    /// What the task's rule says by a plain scan of the states as they are at this moment.
    fn decision(&self, dag: &Dag, task: &Task) -> Decision {
        let count = |tasks: &[TaskIndex]| {
            let mut upstream = Upstream::default();
            for task in tasks {
                upstream.total += 1;
                if let Some(count) = upstream.counter(self.state(*task)) {
                    *count += 1;
                }
            }
            upstream
        };
        if task.upstream.is_empty() {
            return Decision::Run;
        }
        let is_setup = |at: &&TaskIndex| dag.task(**at).is_some_and(|task| task.role == TaskRole::Setup);
        let setups: Vec<TaskIndex> = task.upstream.iter().filter(is_setup).copied().collect();
        task.trigger_rule.decide(&count(&awaited(dag, task)), &count(&setups))
    }

    /// Who cancels a run, and who lets it go on.
    fn watch_cancel(&mut self, dag: &Dag, event: &Event, transitions: &[Transition]) {
        let revived = |transition: &Transition| matches!(transition, Transition::TaskInstance { from, to: TaskInstanceState::NoStatus, .. } if from.is_finished());
        let is_there =
            |(task, map_index): &(TaskIndex, MapIndex)| dag.task(*task).is_some() && *map_index == MapIndex::UNMAPPED;
        match event {
            Event::SetRunState {
                state: DagRunState::Failed,
            } if !self.ended_run => {
                let unfinished = |at: usize| !self.state(TaskIndex(at as u32)).is_finished();
                self.cancelled |= (0..dag.tasks.len()).any(|at| dag.tasks[at].is_teardown() && unfinished(at));
            }
            Event::SetRunState {
                state: DagRunState::Queued | DagRunState::Success,
            } => self.cancelled = false,
            Event::Clear { task_instances } if task_instances.iter().any(is_there) => self.cancelled = false,
            Event::SetTaskInstanceState { .. } if transitions.iter().any(revived) => self.cancelled = false,
            _ => {}
        }
        for transition in transitions {
            if let Transition::Run { to, .. } = transition {
                self.ended_run = to.is_finished();
            }
        }
    }

    fn watch(&mut self, dag: &Dag, event: &Event, transitions: &[Transition]) -> Result<(), TestCaseError> {
        use TaskInstanceState::{Scheduled, Skipped, UpstreamFailed};
        let by_people = matches!(
            event,
            Event::Clear { .. } | Event::SetRunState { .. } | Event::SetTaskInstanceState { .. }
        );
        self.watch_cancel(dag, event, transitions);
        let mut calls = 0;
        for (at, transition) in transitions.iter().enumerate() {
            let before = at.checked_sub(1).and_then(|at| transitions.get(at));
            match transition {
                Transition::Renumbered { .. } | Transition::RowDue { .. } => {}
                Transition::TaskInstance { task, from, to, .. } => {
                    prop_assert_eq!(self.state(*task), *from, "transitions are a chain");
                    let definition = dag.task(*task).expect("it is in the DAG");
                    if from.is_finished() && from != to {
                        prop_assert!(
                            by_people || (*from, *to) == (UpstreamFailed, Skipped),
                            "{from} is final, not {to}"
                        );
                    }
                    // What was handed back before it began was let run already, whatever became of its upstream tasks since.
                    if *to == Scheduled && *from != Scheduled && !from.is_dispatched() {
                        prop_assert_eq!(self.decision(dag, definition), Decision::Run, "scheduled by its rule");
                    }
                    if *to == UpstreamFailed {
                        let setup = dag.tasks.iter().any(|task| task.role == TaskRole::Setup);
                        prop_assert!(setup || self.decision(dag, definition) == Decision::UpstreamFailed);
                    }
                    self.states.insert(*task, *to);
                }
                Transition::TryEnded {
                    task,
                    try_number,
                    state,
                    ..
                } => {
                    prop_assert!(self.ended.insert((*task, try_number.0)), "a try ends once");
                    prop_assert!(state.is_finished() || *state == TaskInstanceState::UpForRetry);
                }
                Transition::Dispatch { task, dispatch, .. } => {
                    let last = self.dispatches.insert(*task, *dispatch).unwrap_or_default();
                    prop_assert!(last < *dispatch, "dispatch numbers rise");
                }
                Transition::Cancel { task, dispatch, .. } => {
                    prop_assert_eq!(
                        self.dispatches.get(task),
                        Some(dispatch),
                        "what is cancelled is the last dispatch"
                    );
                }
                Transition::TaskCallbacks {
                    event: called,
                    task,
                    try_number,
                    ..
                } => {
                    prop_assert!(self.called.insert((*task, try_number.0)), "a try calls once");
                    prop_assert!(!by_people && dag.calls_back(Some(*task), *called));
                    let Some(Transition::TryEnded { task: ended, state, .. }) = before else {
                        return Err(TestCaseError::fail("it follows the end of its try"));
                    };
                    prop_assert_eq!(ended, task);
                    let shown = match called {
                        CallbackEvent::Retry => TaskInstanceState::Failed,
                        called => called.ti_state(),
                    };
                    prop_assert_eq!(*state, shown);
                    calls += 1;
                }
                Transition::DagCallbacks { event: called, reason } => {
                    let Some(Transition::Run { to, .. }) = before else {
                        return Err(TestCaseError::fail("it follows the end of the run"));
                    };
                    prop_assert_eq!(CallbackEvent::of_run(*to), Some(*called));
                    let success = *called == CallbackEvent::Success;
                    prop_assert_eq!(success, *reason == crate::callback::RunEndReason::Success);
                }
                Transition::DefaultsTaken { task, .. } => {
                    prop_assert_eq!(self.state(*task), TaskInstanceState::AwaitingInput);
                }
                Transition::Run { to, .. } => {
                    if to.is_finished() && !by_people && !matches!(event, Event::Timer) {
                        let failed = |state| matches!(state, TaskInstanceState::Failed | UpstreamFailed);
                        let leaf_failed = self
                            .states
                            .iter()
                            .any(|(task, state)| dag.is_leaf(*task) && failed(*state));
                        let failed = leaf_failed || self.cancelled;
                        prop_assert_eq!(
                            *to == DagRunState::Failed,
                            failed,
                            "the leaves decide, unless it was cancelled"
                        );
                    }
                }
            }
        }
        // What ended by a report, an answer, a loss or a question that ran out called, if its task has callbacks for that.
        let ends_by_itself = matches!(
            event,
            Event::TryFinished { .. } | Event::Answered { .. } | Event::TryLost { .. }
        );
        if ends_by_itself {
            let due = transitions.iter().filter(|transition| {
                let Transition::TryEnded { task, map_index, state, dispatch, .. } = transition else {
                    return false;
                };
                let (Event::TryFinished { task: of, map_index: at, .. }
                | Event::Answered { task: of, map_index: at, .. }
                | Event::TryLost { task: of, map_index: at, .. }) = event
                else {
                    return false;
                };
                let known = self.dispatches.get(task) == Some(dispatch);
                let retried = transitions.iter().any(|other| matches!(other, Transition::TaskInstance { task: other, to: TaskInstanceState::UpForRetry, .. } if other == task));
                let called = match state {
                    TaskInstanceState::Failed if retried => CallbackEvent::Retry,
                    state => match CallbackEvent::of_try(*state) {
                        Some(called) => called,
                        None => return false,
                    },
                };
                known && (task, map_index) == (of, at) && dag.calls_back(Some(*task), called)
            });
            prop_assert_eq!(due.count(), calls, "each due callback once: {:?}", transitions);
        }
        for transition in transitions {
            if let Transition::Run { to, .. } = transition
                && to.is_finished()
                && !by_people
            {
                let told = transitions
                    .iter()
                    .any(|other| matches!(other, Transition::DagCallbacks { .. }));
                prop_assert!(told, "a run that ends by itself calls");
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(10_000), ..ProptestConfig::default() })]

    /// Any sequence of events: no panic; terminal states are final; tries end once; tokens rise; rules are respected; a stored run
    /// behaves as the one in memory; a draft leaves the original alone; and in the end the run ends.
    #[test]
    fn whatever_happens_the_rules_hold(
        dag in random_dag(),
        actions in prop::collection::vec(any::<Action>(), 0..80),
    ) {
        let mut run = RunState::new(DagRunKey(3), dag.clone(), START, START);
        let mut witness = Witness::default();
        let mut now = START;
        let mut step = |run: &mut RunState, event: Event, now: Timestamp| -> Result<(), TestCaseError> {
            let original = run.clone();
            let mut restored = RunState::restore(run.key(), dag.clone(), run.snapshot());
            prop_assert!(same(run, &restored), "counters are the same when made anew");
            let mut draft = run.clone();
            let transitions = advance(&mut draft, event.clone(), now);
            prop_assert!(same(run, &original), "a draft leaves the original alone");
            let of_restored = advance(&mut restored, event.clone(), now);
            prop_assert_eq!(&transitions, &of_restored);
            prop_assert!(same(&draft, &restored), "a stored run goes on alike");
            if !same(&draft, run) {
                prop_assert!(!transitions.is_empty() || matches!(event, Event::Timer), "every change is told: {event:?}");
            }
            witness.watch(&dag, &event, &transitions)?;
            for (task, _, ti) in draft.tis() {
                prop_assert_eq!(witness.state(task), ti.state, "the transitions tell the whole story");
                prop_assert!(!ti.state.is_finished() || ti.end_date.is_some());
                prop_assert!(ti.try_number.0 <= ti.max_tries);
            }
            if draft.state().is_finished() {
                prop_assert_eq!(draft.dispatched().count(), 0, "an ended run has nothing out");
            }
            *run = draft;
            Ok(())
        };
        for action in actions {
            now = now.plus(Duration::from_secs(u64::from(action.3 % 3)));
            if let Some(event) = event(&run, action, now) {
                step(&mut run, event, now)?;
            }
        }
        // From here on everything goes well.
        for _ in 0..200 {
            if run.state().is_finished() {
                break;
            }
            step(&mut run, Event::Start, now)?;
            let ready: Vec<_> = run.ready().map(|(task, map_index, _)| (task, map_index)).collect();
            for (task, map_index) in ready {
                step(&mut run, Event::Admit { task, map_index }, now)?;
            }
            let deferred: Vec<_> = run
                .unfinished()
                .filter(|(_, _, ti)| ti.state == TaskInstanceState::Deferred)
                .map(|(task, map_index, ti)| (task, map_index, ti.dispatch))
                .collect();
            for (task, map_index, dispatch) in deferred {
                let end = match dag.task(task).map(|task| &task.kind) {
                    Some(TaskKind::Branch { .. }) => TryEnd::Branch(Vec::new()),
                    _ => TryEnd::Done,
                };
                step(&mut run, Event::Resolved { task, map_index, dispatch, end, measured: Vec::new() }, now)?;
            }
            let out: Vec<_> = run.dispatched().map(|(task, map_index, ti)| (task, map_index, ti.dispatch)).collect();
            for (task, map_index, dispatch) in out {
                let end = match dag.task(task).map(|task| &task.kind) {
                    Some(TaskKind::Branch { .. }) => TryEnd::Branch(Vec::new()),
                    _ => TryEnd::Done,
                };
                let event = Event::TryFinished { task, map_index, dispatch, end, measured: Vec::new(), started_at: now, ended_at: now };
                step(&mut run, event, now)?;
            }
            now = run.next_timer().map_or(now, |due| due.max(now));
            step(&mut run, Event::Timer, now)?;
        }
        prop_assert!(run.state().is_finished(), "every run ends: {:?}", run);
    }
}
