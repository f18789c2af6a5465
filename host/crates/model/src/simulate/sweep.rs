//! All scenarios of a DAG: each choice, each failure by itself, and random ones.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::hidden::{Hidden, hidden_in};
use super::outcome::{Hang, Outcome};
use super::rng::Rng;
use super::scenario::{Choice, Fault, Injection, Scenario, Which, choices_of};
use super::world::{MAX_EVENTS, Simulator};
use crate::cause::Cause;
use crate::dag::Dag;
use crate::id::TaskIndex;
use crate::state::{DagRunState, TaskInstanceState};

/// What to play.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// The same seed gives the same report.
    pub seed: u64,
    /// How many random scenarios.
    pub random: u32,
    /// The number of task instances all scenarios together may have; each four events of a scenario are one. Scenarios beyond that are left
    /// out, and counted.
    pub work: u64,
}

impl Default for Sweep {
    fn default() -> Self {
        Self {
            seed: 1,
            random: 1_000,
            work: 20_000_000,
        }
    }
}

/// What came of all scenarios.
#[derive(Clone, Debug)]
pub struct Report {
    /// Nothing goes wrong, with its critical path.
    pub happy: Outcome,
    /// Nothing goes wrong, and a branch, a short-circuit or a person chooses otherwise.
    pub choices: Vec<Played>,
    /// One task goes wrong in one way.
    pub singles: Vec<Single>,
    /// The run before failed. Only where tasks look back at it.
    pub past: Option<Played>,
    /// Several tasks go wrong.
    pub random: Random,
    /// Tasks that can fail while their run succeeds, in the order of the tasks.
    pub hidden: Vec<Hidden>,
    /// Tasks that are skipped where others would fail (`soft_fail`, `on_timeout: skip`) while their run succeeds.
    pub soft: Vec<TaskIndex>,
    /// Tasks of which one failed try fails the run.
    pub no_second_try: Vec<TaskIndex>,
    /// Tasks of which one lost host fails the run.
    pub no_second_host: Vec<TaskIndex>,
    /// Scenarios in which the run would never end; one for each reason.
    pub hangs: Vec<(Scenario, Hang)>,
    /// Scenarios in which nothing could move any more: the first few.
    pub deadlocks: Vec<Scenario>,
    /// Tasks that ran in none.
    pub never_ran: Vec<TaskIndex>,
    /// How many scenarios were played.
    pub played: u64,
    /// How many were left out.
    pub left_out: u64,
    /// The number of events all of them took.
    pub events: u64,
}

/// A scenario and how it ended.
#[derive(Clone, Debug)]
pub struct Played {
    /// What happened.
    pub scenario: Scenario,
    /// How it ended.
    pub state: DagRunState,
    /// Whether it would never end.
    pub hang: Option<Hang>,
    /// How long it took.
    pub run_time: std::time::Duration,
    /// Tasks that ran where it was taken from, and did not here.
    pub not_run: Vec<TaskIndex>,
}

/// One task going wrong in one way.
#[derive(Clone, Debug)]
pub struct Single {
    /// The task.
    pub task: TaskIndex,
    /// How it goes wrong.
    pub fault: Fault,
    /// How the task ended.
    pub task_state: Option<TaskInstanceState>,
    /// How many tries it had.
    pub tries: u32,
    /// What came of it.
    pub played: Played,
}

/// The random scenarios, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Random {
    /// How many there were.
    pub count: u64,
    /// Runs that succeeded.
    pub success: u64,
    /// Runs that succeeded although a task had failed and none was there for that.
    pub unnoticed: u64,
    /// Runs that failed.
    pub failed: u64,
    /// Runs that would never end.
    pub hang: u64,
}

/// How many deadlocks are kept as examples.
const EXAMPLES: usize = 10;

/// A task instance has about so many events: let run, admitted, started, ended. One that is tried again and again has more.
const EVENTS: u64 = 4;

/// A scenario may always have so many events, however little work is left: no small one is broken off at the end.
const LEAST_EVENTS: u64 = 10_000;

/// Plays all scenarios of a DAG.
pub fn sweep(simulator: &Simulator, options: &Sweep) -> Report {
    let mut player = Player {
        simulator,
        dag: simulator.dag(),
        base: vec![None; simulator.dag().tasks.len()],
        work: options.work,
        hidden: BTreeMap::new(),
        soft: BTreeSet::new(),
        hangs: Vec::new(),
        deadlocks: Vec::new(),
        played: 0,
        left_out: 0,
        events: 0,
    };
    let happy = simulator.trace(&Scenario::default());
    player.note(&Scenario::default(), &happy);
    let choices = player.choices(&happy);
    let singles = player.singles();
    let past = player.past(&happy);
    let random = player.random(options);
    let fails_run = |fault: Fault| {
        let failing = singles.iter().filter(move |single| {
            single.fault == fault
                && single.played.state == DagRunState::Failed
                && single.played.scenario.injections.len() == 1
        });
        failing.map(|single| single.task).collect::<Vec<_>>()
    };
    let never = player.base.iter().zip(0_u32..).filter(|(base, _)| base.is_none());
    Report {
        no_second_try: fails_run(Fault::Fails(1)),
        no_second_host: fails_run(Fault::Lost),
        never_ran: never.map(|(_, at)| TaskIndex(at)).collect(),
        hidden: player.hidden.into_values().collect(),
        soft: player.soft.into_iter().collect(),
        hangs: player.hangs,
        deadlocks: player.deadlocks,
        played: player.played,
        left_out: player.left_out,
        events: player.events,
        happy,
        choices,
        singles,
        past,
        random,
    }
}

struct Player<'a> {
    simulator: &'a Simulator,
    dag: &'a Dag,
    /// Of each task: the first scenario in which it ran, and all that ran there.
    base: Vec<Option<Base>>,
    work: u64,
    hidden: BTreeMap<TaskIndex, Hidden>,
    soft: BTreeSet<TaskIndex>,
    hangs: Vec<(Scenario, Hang)>,
    deadlocks: Vec<Scenario>,
    played: u64,
    left_out: u64,
    events: u64,
}

#[derive(Clone)]
struct Base {
    scenario: Scenario,
    ran: Rc<Vec<bool>>,
}

impl Player<'_> {
    fn play(&mut self, scenario: &Scenario) -> Option<Outcome> {
        if self.work == 0 {
            self.left_out += 1;
            return None;
        }
        let events = self.work.saturating_mul(EVENTS).max(LEAST_EVENTS);
        let events = usize::try_from(events).unwrap_or(usize::MAX);
        let Some(outcome) = self.simulator.run_within(scenario, events) else {
            // It was broken off, which has cost as much.
            let most = u64::try_from(events.min(MAX_EVENTS)).unwrap_or(u64::MAX);
            self.charge(0, most);
            self.left_out += 1;
            return None;
        };
        self.note(scenario, &outcome);
        Some(outcome)
    }

    fn charge(&mut self, tis: usize, events: u64) {
        // A run costs something even where it is small.
        let cost = u64::try_from(tis).unwrap_or(u64::MAX).max(events / EVENTS).max(8);
        self.work = self.work.saturating_sub(cost);
        self.events = self.events.saturating_add(events);
    }

    /// Remembers what a scenario shows.
    fn note(&mut self, scenario: &Scenario, outcome: &Outcome) {
        self.played += 1;
        self.charge(outcome.tis.len(), u64::try_from(outcome.events).unwrap_or(u64::MAX));
        let mut ran = None;
        for ti in outcome.tis.iter().filter(|ti| ti.dispatches > 0) {
            if let Some(base @ None) = self.base.get_mut(ti.task.at()) {
                let ran = ran.get_or_insert_with(|| Rc::new(outcome.all_that_ran(self.dag)));
                *base = Some(Base {
                    scenario: scenario.clone(),
                    ran: Rc::clone(ran),
                });
            }
        }
        for (task, by) in hidden_in(self.dag, outcome) {
            // Random ones only add what single faults do not show.
            let alone = match scenario.injections.as_slice() {
                [only] if only.task == task => Some(only.fault),
                _ => None,
            };
            let hidden = self.hidden.entry(task).or_insert_with(|| Hidden {
                task,
                by,
                faults: BTreeSet::new(),
                scenario: scenario.clone(),
                count: 0,
            });
            hidden.count += 1;
            hidden.faults.extend(alone);
        }
        if outcome.state == DagRunState::Success {
            let soft = outcome.tis.iter().filter(|ti| {
                ti.state == TaskInstanceState::Skipped
                    && matches!(ti.cause, Some(cause) if cause != Cause::Returned && cause != Cause::Cancelled)
            });
            self.soft.extend(soft.map(|ti| ti.task));
        }
        if let Some(hang) = outcome.hang {
            let known = |(_, other): &(Scenario, Hang)| *other == hang;
            if !self.hangs.iter().any(known) && self.hangs.len() < EXAMPLES {
                self.hangs.push((scenario.clone(), hang));
            }
        }
        if outcome.deadlocked() && self.deadlocks.len() < EXAMPLES {
            self.deadlocks.push(scenario.clone());
        }
    }

    /// Every choice of every task that runs and chooses, the others choosing what leads to it.
    fn choices(&mut self, happy: &Outcome) -> Vec<Played> {
        let mut found = Vec::new();
        let mut tried: BTreeSet<TaskIndex> = BTreeSet::new();
        let mut open = vec![(Scenario::default(), happy.clone())];
        while let Some((from, outcome)) = open.pop() {
            let ran = outcome.all_that_ran(self.dag);
            for (at, task) in self.dag.tasks.iter().enumerate() {
                let index = TaskIndex(u32::try_from(at).unwrap_or(u32::MAX));
                let reached = ran.get(at) == Some(&true) && !from.choices.contains_key(&index);
                if !reached || !tried.insert(index) {
                    continue;
                }
                // What a branch or a person chooses by itself was played already.
                let first = usize::from(
                    !matches!(task.kind, crate::dag::TaskKind::ShortCircuit { .. }) || task.work.human().is_some(),
                );
                for choice in choices_of(task).into_iter().skip(first) {
                    let mut scenario = from.clone();
                    scenario.choices.insert(index, choice);
                    if let Some(played) = self.play(&scenario) {
                        found.push(summary(&scenario, &played, &ran));
                        open.push((scenario, played));
                    }
                }
            }
        }
        found
    }

    /// Every fault of every task, in the first scenario in which the task runs. What runs only because of one is next.
    fn singles(&mut self) -> Vec<Single> {
        let mut singles = Vec::new();
        let mut done = vec![false; self.dag.tasks.len()];
        loop {
            let mut any = false;
            for (at, task) in self.dag.tasks.iter().enumerate() {
                let (Some(base), Some(done @ false)) = (self.base.get(at).cloned().flatten(), done.get_mut(at)) else {
                    continue;
                };
                *done = true;
                any = true;
                let index = TaskIndex(u32::try_from(at).unwrap_or(u32::MAX));
                // What a fault of the base itself prevents is not this one's doing.
                let Base { scenario: base, ran } = base;
                for fault in Fault::SINGLE.iter().copied().filter(|fault| fault.suits(task)) {
                    let mut scenario = base.clone();
                    scenario.injections.push(Injection {
                        task: index,
                        which: Which::First,
                        fault,
                    });
                    if let Some(outcome) = self.play(&scenario) {
                        singles.push(Single {
                            task: index,
                            fault,
                            task_state: outcome.state_of(index),
                            tries: outcome.tries_of(index),
                            played: summary(&scenario, &outcome, &ran),
                        });
                    }
                }
            }
            if !any {
                singles.sort_by_key(|single| single.task);
                return singles;
            }
        }
    }

    /// What becomes of a run whose run before failed.
    fn past(&mut self, happy: &Outcome) -> Option<Played> {
        if self.dag.looking_back().is_empty() {
            return None;
        }
        let scenario = Scenario {
            run_before_failed: true,
            ..Scenario::default()
        };
        let outcome = self.play(&scenario)?;
        Some(summary(&scenario, &outcome, &happy.all_that_ran(self.dag)))
    }

    fn random(&mut self, options: &Sweep) -> Random {
        let mut counted = Random::default();
        for number in 1..=u64::from(options.random) {
            let scenario = random_scenario(self.dag, options.seed, number);
            let Some(outcome) = self.play(&scenario) else { continue };
            counted.count += 1;
            match (outcome.hang, outcome.state) {
                (Some(_), _) => counted.hang += 1,
                (None, DagRunState::Success) => {
                    counted.success += 1;
                    let hidden = hidden_in(self.dag, &outcome);
                    counted.unnoticed += u64::from(hidden.iter().any(|(_, by)| by.unnoticed()));
                }
                (None, _) => counted.failed += 1,
            }
        }
        counted
    }
}

fn summary(scenario: &Scenario, outcome: &Outcome, ran_before: &[bool]) -> Played {
    let not_run = ran_before.iter().zip(0_u32..).filter(|(ran, _)| **ran);
    let not_run = not_run.map(|(_, at)| TaskIndex(at)).filter(|task| !outcome.ran(*task));
    Played {
        scenario: scenario.clone(),
        state: outcome.state,
        hang: outcome.hang,
        run_time: outcome.run_time,
        not_run: not_run.collect(),
    }
}

/// Random scenario `number` of a seed: one to four tasks go wrong, in one of their instances or in all, and whoever chooses does so
/// at random.
fn random_scenario(dag: &Dag, seed: u64, number: u64) -> Scenario {
    let mut rng = Rng::new(seed, number);
    let mut scenario = Scenario {
        spread_by: rng.next() | 1,
        ..Scenario::default()
    };
    let faults = 1 + rng.below(dag.tasks.len().min(4));
    let mut hit = BTreeSet::new();
    for _ in 0..faults {
        let at = rng.below(dag.tasks.len());
        let fault = rng.one_of(Fault::SINGLE).copied();
        let which = if rng.below(3) == 0 { Which::Every } else { Which::First };
        let (Some(task), Some(fault)) = (dag.tasks.get(at), fault) else {
            continue;
        };
        if fault.suits(task) && hit.insert(at) {
            scenario.injections.push(Injection {
                task: TaskIndex(u32::try_from(at).unwrap_or(u32::MAX)),
                which,
                fault,
            });
        }
    }
    for (at, task) in (0_u32..).zip(&dag.tasks) {
        let choices = choices_of(task);
        // A short-circuit that is not told otherwise answers true.
        let keep = choices == [Choice::Falsy] && rng.below(2) == 0;
        if let Some(choice) = rng.one_of(&choices).filter(|_| !keep) {
            scenario.choices.insert(TaskIndex(at), choice.clone());
        }
    }
    scenario
}
