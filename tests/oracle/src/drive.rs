//! Executes a plan: an executor in a few lines, with a choice of who goes next.

use std::collections::{BTreeMap, VecDeque};

use model::run::{Event, RunState, Transition, TryEnd, advance};
use model::{Cause, DagRunKey, DagRunState, DispatchNumber, MapIndex, TaskIndex, TaskInstanceState, Timestamp};

use crate::case::Outcome;
use crate::compile::Plan;

/// Who goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// What has been ready longest.
    Fifo,
    /// What became ready last.
    Lifo,
    /// Any, by a seed.
    Random(u64),
    /// All that is ready is started before the first of it ends.
    Batch,
    /// As `Random`, and the run is stored and restored after every step.
    Restored(u64),
    /// As `Fifo`, and every dispatch is lost once before it succeeds.
    Lossy,
}

/// All policies that a case runs under.
pub const POLICIES: &[Policy] = &[
    Policy::Fifo,
    Policy::Lifo,
    Policy::Random(1),
    Policy::Random(2),
    Policy::Random(3),
    Policy::Batch,
    Policy::Restored(4),
    Policy::Lossy,
];

impl Policy {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fifo => "fifo",
            Self::Lifo => "lifo",
            Self::Random(_) => "random",
            Self::Batch => "batch",
            Self::Restored(_) => "restored",
            Self::Lossy => "lossy",
        }
    }
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The state of every task instance.
    pub end: BTreeMap<String, String>,
    /// How many times each was executed.
    pub tries: BTreeMap<String, u32>,
    /// The state of the run.
    pub run_state: String,
    /// A rule of the state machine itself that was broken on the way.
    pub broken: Option<String>,
}

struct Driver<'a> {
    plan: &'a Plan,
    run: RunState,
    now: Timestamp,
    ready: VecDeque<(TaskIndex, MapIndex)>,
    executions: BTreeMap<(TaskIndex, MapIndex), u32>,
    seed: u64,
    batch: bool,
    broken: Option<String>,
}

/// Runs a plan to its end.
pub fn drive(plan: &Plan, policy: Policy) -> Observed {
    let start = Timestamp(0);
    let seed = match policy {
        Policy::Random(seed) | Policy::Restored(seed) => seed,
        _ => 0,
    };
    let mut driver = Driver {
        plan,
        run: RunState::new(DagRunKey(1), plan.dag.clone(), start, start),
        now: start,
        ready: VecDeque::new(),
        executions: BTreeMap::new(),
        seed: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
        batch: policy == Policy::Batch,
        broken: None,
    };
    driver.step(Event::Start);
    // Each step executes something, and no case has that many tries.
    for _ in 0..10_000 {
        if driver.ready.is_empty() {
            break;
        }
        driver.execute_next(policy);
    }
    driver.observe()
}

impl Driver<'_> {
    fn step(&mut self, event: Event) -> Vec<Transition> {
        self.now = Timestamp(self.now.0 + 1);
        let transitions = advance(&mut self.run, event, self.now);
        for transition in &transitions {
            if let Transition::TaskInstance {
                task, map_index, to, ..
            } = transition
            {
                self.ready.retain(|ready| *ready != (*task, *map_index));
                if *to == TaskInstanceState::Scheduled {
                    self.ready.push_back((*task, *map_index));
                }
            }
        }
        transitions
    }

    fn execute_next(&mut self, policy: Policy) {
        let chosen: Vec<(TaskIndex, MapIndex)> = match policy {
            Policy::Fifo | Policy::Lossy => self.ready.pop_front().into_iter().collect(),
            Policy::Lifo => self.ready.pop_back().into_iter().collect(),
            Policy::Random(_) | Policy::Restored(_) => {
                let at = self.random(self.ready.len());
                self.ready.remove(at).into_iter().collect()
            }
            Policy::Batch => self.ready.drain(..).collect(),
        };
        let mut out = Vec::new();
        for (task, map_index) in chosen {
            for transition in self.step(Event::Admit { task, map_index }) {
                if let Transition::Dispatch { dispatch, .. } = transition {
                    out.push((task, map_index, dispatch));
                }
            }
        }
        for (task, map_index, dispatch) in out {
            let dispatch = if policy == Policy::Lossy {
                self.lose(task, map_index, dispatch)
            } else {
                dispatch
            };
            self.execute(task, map_index, dispatch);
            if matches!(policy, Policy::Restored(_)) {
                self.run = RunState::restore(self.run.key(), self.plan.dag.clone(), self.run.snapshot());
            }
        }
    }

    /// The executor dies with the dispatch; answers the one that replaces it.
    fn lose(&mut self, task: TaskIndex, map_index: MapIndex, dispatch: DispatchNumber) -> DispatchNumber {
        self.step(Event::TryStarted {
            task,
            map_index,
            dispatch,
            at: self.now,
        });
        let lost = self.step(Event::TryLost {
            task,
            map_index,
            dispatch,
            loss: model::run::Loss::Acknowledged,
        });
        let again = lost.iter().find_map(|transition| match transition {
            Transition::Dispatch { dispatch, .. } => Some(*dispatch),
            _ => None,
        });
        if again.is_none() {
            self.broken = Some(format!("task {} was not dispatched again after a loss", task.0));
        }
        again.unwrap_or(dispatch)
    }

    fn execute(&mut self, task: TaskIndex, map_index: MapIndex, dispatch: DispatchNumber) {
        // A branch may have skipped it between dispatch and start.
        if !self.run.accepts_result(task, map_index, dispatch) {
            return;
        }
        let started_at = self.now;
        self.step(Event::TryStarted {
            task,
            map_index,
            dispatch,
            at: started_at,
        });
        let executions = self.executions.entry((task, map_index)).or_default();
        *executions += 1;
        let executions = *executions;
        let body = usize::try_from(map_index.0).unwrap_or(0);
        let Some(outcome) = self.plan.outcomes.get(task.at()).and_then(|bodies| bodies.get(body)) else {
            self.broken = Some(format!("task {} has no element {}", task.0, map_index.0));
            return;
        };
        let end = self.end_of(outcome, task, executions);
        let measured = match (&end, outcome, map_index.0 < 0) {
            (TryEnd::Done, Outcome::Success { emits } | Outcome::FailThenSucceed { emits, .. }, true) => {
                emits.iter().copied().collect()
            }
            // Every instance of a mapped task that succeeds returns an element.
            (TryEnd::Done, _, false) => vec![1],
            _ => Vec::new(),
        };
        let finished = Event::TryFinished {
            task,
            map_index,
            dispatch,
            end,
            measured,
            started_at,
            ended_at: self.now,
        };
        self.step(finished.clone());
        if !self.step(finished).is_empty() {
            self.broken = Some(format!("a repeated result of task {} changed something", task.0));
        }
    }

    fn end_of(&self, outcome: &Outcome, task: TaskIndex, execution: u32) -> TryEnd {
        let failed = |fatal| TryEnd::Failed {
            cause: Cause::Failed,
            fatal,
            code: None,
        };
        match outcome {
            Outcome::Success { .. } | Outcome::ShortCircuitTrue => TryEnd::Done,
            Outcome::Fail => failed(false),
            Outcome::FailNoRetry => failed(true),
            Outcome::Skip => TryEnd::Skip,
            Outcome::FailThenSucceed { failures, .. } if execution <= *failures => failed(false),
            Outcome::FailThenSucceed { .. } => match self.plan.dag.task(task).map(|task| &task.kind) {
                Some(model::dag::TaskKind::Branch { .. }) => TryEnd::Branch(Vec::new()),
                _ => TryEnd::Done,
            },
            Outcome::Branch { follow } => {
                TryEnd::Branch(follow.iter().filter_map(|id| self.plan.dag.index_of(id)).collect())
            }
            Outcome::ShortCircuitFalse => TryEnd::DoneFalsy,
        }
    }

    /// xorshift64: any order will do, the same each time.
    fn random(&mut self, below: usize) -> usize {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        usize::try_from(self.seed % u64::try_from(below.max(1)).unwrap_or(1)).unwrap_or(0)
    }

    fn observe(self) -> Observed {
        let name = |task: TaskIndex, map_index: MapIndex| {
            let id = self
                .plan
                .dag
                .task(task)
                .map_or_else(String::new, |task| task.id.to_string());
            if map_index.0 < 0 {
                return id;
            }
            format!("{id}[{}]", map_index.0)
        };
        let executions = |task, map_index| self.executions.get(&(task, map_index)).copied().unwrap_or(0);
        let ends = self
            .run
            .tis()
            .map(|(task, map_index, ti)| (name(task, map_index), ti.state.to_string()))
            .collect();
        let tries = self
            .run
            .tis()
            .map(|(task, map_index, _)| (name(task, map_index), executions(task, map_index)))
            .collect();
        let counted = self
            .run
            .tis()
            // A dispatch that was skipped before it started is a try without an execution; only a batch has such.
            .filter(|_| !self.batch)
            .find(|(task, map_index, ti)| ti.try_number.0 != executions(*task, *map_index))
            .map(|(task, map_index, ti)| {
                let name = name(task, map_index);
                format!("{name} was executed other than its {} tries", ti.try_number.0)
            });
        let state = self.run.state();
        let stuck =
            (!matches!(state, DagRunState::Success | DagRunState::Failed)).then(|| "the run is stuck".to_owned());
        Observed {
            end: ends,
            tries,
            run_state: state.to_string(),
            broken: self.broken.or(stuck).or(counted),
        }
    }
}
