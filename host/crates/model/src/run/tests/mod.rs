//! Tests of the run state machine. Whole workflows with results known from Airflow are in `tests/oracle`.

mod anew;
mod between;
mod callbacks;
mod choose;
mod element_setups;
mod hidden;
mod human;
mod past;
mod people;
mod properties;
mod repeats;
mod repeats_properties;
mod room;
mod scale;
mod slices;
mod teardowns;
mod tries;
mod waits;

use std::sync::Arc;
use std::time::Duration;

use super::testing::{dag, task};
use super::{Event, Loss, RunState, Transition, TryEnd, advance};
use crate::cause::Cause;
use crate::dag::{Dag, Task, TaskRole};
use crate::id::{DagRunKey, DispatchNumber, MapIndex, TaskIndex};
use crate::state::{DagRunState, TaskInstanceState};
use crate::time::Timestamp;
use crate::trigger_rule::TriggerRule;

const START: Timestamp = Timestamp(1_000_000_000);

/// A run with a clock and a scheduler that always has capacity.
struct World {
    run: RunState,
    now: Timestamp,
}

impl World {
    fn of(tasks: Vec<Task>) -> Self {
        Self::with(dag(tasks, |_| {}))
    }

    fn with(dag: Arc<Dag>) -> Self {
        let mut world = Self {
            run: RunState::new(DagRunKey(7), dag, START, START),
            now: START,
        };
        world.send(Event::Start);
        world
    }

    fn send(&mut self, event: Event) -> Vec<Transition> {
        advance(&mut self.run, event, self.now)
    }

    fn wait(&mut self, seconds: u64) -> Vec<Transition> {
        self.now = self.now.plus(Duration::from_secs(seconds));
        self.send(Event::Timer)
    }

    fn admit(&mut self, task: u32) -> Vec<Transition> {
        self.send(Event::Admit {
            task: TaskIndex(task),
            map_index: MapIndex::UNMAPPED,
        })
    }

    fn dispatch_of(&self, task: u32) -> DispatchNumber {
        self.ti(task).dispatch
    }

    fn started(&mut self, task: u32) -> Vec<Transition> {
        let dispatch = self.dispatch_of(task);
        self.send(Event::TryStarted {
            task: TaskIndex(task),
            map_index: MapIndex::UNMAPPED,
            dispatch,
            at: self.now,
        })
    }

    fn finished(&mut self, task: u32, end: TryEnd) -> Vec<Transition> {
        let dispatch = self.dispatch_of(task);
        self.finished_as(task, dispatch, end)
    }

    fn finished_as(&mut self, task: u32, dispatch: DispatchNumber, end: TryEnd) -> Vec<Transition> {
        self.send(Event::TryFinished {
            task: TaskIndex(task),
            map_index: MapIndex::UNMAPPED,
            dispatch,
            end,
            measured: Vec::new(),
            started_at: self.now,
            ended_at: self.now,
        })
    }

    fn lost(&mut self, task: u32, loss: Loss) -> Vec<Transition> {
        let dispatch = self.dispatch_of(task);
        self.send(Event::TryLost {
            task: TaskIndex(task),
            map_index: MapIndex::UNMAPPED,
            dispatch,
            loss,
        })
    }

    /// From scheduled to the end of the try.
    fn execute(&mut self, task: u32, end: TryEnd) -> Vec<Transition> {
        self.admit(task);
        self.started(task);
        self.finished(task, end)
    }

    fn clear(&mut self, tasks: &[u32]) -> Vec<Transition> {
        self.send(Event::Clear {
            task_instances: tasks
                .iter()
                .map(|task| (TaskIndex(*task), MapIndex::UNMAPPED))
                .collect(),
        })
    }

    fn mark(&mut self, task: u32, state: TaskInstanceState) -> Vec<Transition> {
        self.send(Event::SetTaskInstanceState {
            task: TaskIndex(task),
            map_index: MapIndex::UNMAPPED,
            state,
        })
    }

    fn mark_run(&mut self, state: DagRunState) -> Vec<Transition> {
        self.send(Event::SetRunState { state })
    }

    fn ti(&self, task: u32) -> &super::Ti {
        self.run
            .ti(TaskIndex(task), MapIndex::UNMAPPED)
            .expect("the task exists")
    }

    /// The states of all task instances, in the order of the tasks.
    fn states(&self) -> Vec<&'static str> {
        self.run.tis().map(|(_, _, ti)| ti.state.as_str()).collect()
    }
}

fn failed() -> TryEnd {
    TryEnd::Failed {
        cause: Cause::Failed,
        fatal: false,
        code: None,
    }
}

fn cancelled(transitions: &[Transition]) -> Vec<u32> {
    transitions
        .iter()
        .filter_map(|transition| match transition {
            Transition::Cancel { task, .. } => Some(task.0),
            _ => None,
        })
        .collect()
}

fn ended(transitions: &[Transition]) -> Vec<(u32, u32, TaskInstanceState)> {
    transitions
        .iter()
        .filter_map(|transition| match transition {
            Transition::TryEnded {
                task,
                try_number,
                state,
                ..
            } => Some((task.0, try_number.0, *state)),
            _ => None,
        })
        .collect()
}

/// Whether the only dispatch among these is the first of its try.
fn first_of_try(transitions: &[Transition]) -> Option<bool> {
    let mut dispatches = transitions.iter().filter_map(|transition| match transition {
        Transition::Dispatch { first_of_try, .. } => Some(*first_of_try),
        _ => None,
    });
    dispatches.next().filter(|_| dispatches.next().is_none())
}
