//! How a scenario ended.

use std::time::Duration;

use crate::cause::Cause;
use crate::dag::Dag;
use crate::hidden::badness;
use crate::id::{MapIndex, TaskIndex};
use crate::state::{DagRunState, TaskInstanceState};

/// How a scenario ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The state of the run; `running` where it hangs.
    pub state: DagRunState,
    /// Why it would never end.
    pub hang: Option<Hang>,
    /// From its start to its end, on the virtual clock.
    pub run_time: Duration,
    /// The task instances, in the order of the tasks.
    pub tis: Vec<TiOutcome>,
    /// What the run time is made of, from the start to the end. Only where it was asked for.
    pub critical_path: Vec<Stretch>,
    /// Tasks that waited for slots, the longest first, each with the longest wait of its instances. Only where it was asked for.
    pub waits: Vec<(TaskIndex, Duration)>,
    /// The number of events it took: what playing it cost.
    pub events: usize,
}

/// Why a run would never end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hang {
    /// This task waits for a person, without a timeout.
    Person(TaskIndex),
    /// This task waits for slots that there will never be.
    Capacity(TaskIndex),
    /// This task, and all that is left with it, waits for the run before, which failed.
    Past(TaskIndex),
    /// It went on for longer than is simulated.
    Endless,
}

/// How a task instance ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TiOutcome {
    /// Its task.
    pub task: TaskIndex,
    /// Its map index.
    pub map_index: MapIndex,
    /// Its state.
    pub state: TaskInstanceState,
    /// Why its last try ended.
    pub cause: Option<Cause>,
    /// How many tries it had.
    pub tries: u32,
    /// How often it was sent to an executor.
    pub dispatches: u32,
}

/// A task instance on the critical path: from when its trigger rule let it run to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Its task.
    pub task: TaskIndex,
    /// Its map index.
    pub map_index: MapIndex,
    /// Since the start of the run.
    pub from: Duration,
    /// Since the start of the run.
    pub to: Duration,
}

impl Outcome {
    /// Whether the run ended although task instances had not: nothing could move any more.
    pub fn deadlocked(&self) -> bool {
        self.state.is_finished() && self.tis.iter().any(|ti| !ti.state.is_finished())
    }

    /// The task instances of a task.
    pub fn of(&self, task: TaskIndex) -> impl Iterator<Item = &TiOutcome> {
        // They are in the order of the tasks.
        let from = self.tis.partition_point(|ti| ti.task < task);
        self.tis.iter().skip(from).take_while(move |ti| ti.task == task)
    }

    /// One state for all task instances of a task: the worst.
    pub fn state_of(&self, task: TaskIndex) -> Option<TaskInstanceState> {
        self.of(task).map(|ti| ti.state).max_by_key(|state| badness(*state))
    }

    /// Whether an executor had any task instance of a task.
    pub fn ran(&self, task: TaskIndex) -> bool {
        self.of(task).any(|ti| ti.dispatches > 0)
    }

    /// The most tries that an instance of a task had.
    pub fn tries_of(&self, task: TaskIndex) -> u32 {
        self.of(task).map(|ti| ti.tries).max().unwrap_or(0)
    }

    /// All tasks that ran.
    pub fn all_that_ran(&self, dag: &Dag) -> Vec<bool> {
        let mut ran = vec![false; dag.tasks.len()];
        for ti in self.tis.iter().filter(|ti| ti.dispatches > 0) {
            if let Some(ran) = ran.get_mut(ti.task.at()) {
                *ran = true;
            }
        }
        ran
    }
}
