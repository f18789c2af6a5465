//! What can happen to a run.

use std::time::Duration;

use crate::cause::Cause;
use crate::id::{DispatchNumber, MapIndex, TaskIndex};
use crate::state::{DagRunState, TaskInstanceState};
use crate::time::Timestamp;

/// Something that happened to one run. Each is judged on the state that it finds; what does not fit (a result with a stale
/// dispatch number, a timer that was overtaken) changes nothing.
#[derive(Clone, Debug)]
pub enum Event {
    /// A run slot is free: a queued run may start.
    Start,
    /// `admit` chose this scheduled task instance: it becomes queued, its dispatch number rises.
    Admit {
        /// Its task.
        task: TaskIndex,
        /// Its map index.
        map_index: MapIndex,
    },
    /// An executor acknowledged a dispatch and starts the guest.
    TryStarted {
        /// Its task.
        task: TaskIndex,
        /// Its map index.
        map_index: MapIndex,
        /// The fencing token.
        dispatch: DispatchNumber,
        /// When the guest started, by the executor's clock.
        at: Timestamp,
    },
    /// A try, or one poke of it, ended. Ask [`RunState::accepts_result`](super::RunState::accepts_result) first: what the try
    /// published counts only where the answer is yes.
    TryFinished {
        /// Its task.
        task: TaskIndex,
        /// Its map index.
        map_index: MapIndex,
        /// The fencing token.
        dispatch: DispatchNumber,
        /// How.
        end: TryEnd,
        /// What the executor measured of what it published, see `Task::measures`; empty where it did not succeed.
        measured: Vec<u32>,
        /// When the guest started, by the executor's clock.
        started_at: Timestamp,
        /// When it ended.
        ended_at: Timestamp,
    },
    /// A person answered a task instance that waits for it. One that does not wait changes nothing.
    Answered {
        /// Its task.
        task: TaskIndex,
        /// Its map index.
        map_index: MapIndex,
        /// What the answer means.
        end: TryEnd,
    },
    /// What a deferred try waits for has happened. One that has gone on since, or that waits for something else, changes nothing.
    Resolved {
        /// Its task.
        task: TaskIndex,
        /// Its map index.
        map_index: MapIndex,
        /// The dispatch that deferred it.
        dispatch: DispatchNumber,
        /// What it means.
        end: TryEnd,
        /// What was measured of what it publishes, see `Task::measures`.
        measured: Vec<u32>,
    },
    /// The executor that had the dispatch is gone, or handed it back.
    TryLost {
        /// Its task.
        task: TaskIndex,
        /// Its map index.
        map_index: MapIndex,
        /// The fencing token.
        dispatch: DispatchNumber,
        /// How it was lost.
        loss: Loss,
    },
    /// What the run before came to is known, or has changed: these tasks may run as far as the past is concerned, ascending. Until
    /// this is told, none that looks back may.
    Past {
        /// Of those in `Dag::looking_back`.
        met: Vec<TaskIndex>,
    },
    /// The run gives its slot to an earlier one: it goes back to queued, if all that it has left waits for the run before.
    GiveWay,
    /// The run was restored from rows that may lag behind its trigger rules (a task instance that waits for capacity may be
    /// stored as `no_status`, or not at all): look at every task again.
    Resume,
    /// The last steps left something to do, see [`RunState::has_more`](super::RunState::has_more).
    GoOn,
    /// Time has passed: retries, pokes and the run's timeout that are due by `now` happen.
    Timer,
    /// Run these task instances again (Airflow: clear). Dispatched ones are cancelled and restart once they have stopped. A run
    /// that has ended goes back to queued. Their tries go on counting.
    Clear {
        /// Which; an empty list is none.
        task_instances: Vec<(TaskIndex, MapIndex)>,
    },
    /// A person sets the state of the run: `success` or `failed` stop what runs; `queued` puts the run back in the queue and
    /// leaves its task instances as they are (to run them again, clear them). `running` is not for people.
    SetRunState {
        /// The new state.
        state: DagRunState,
    },
    /// A person sets the state of a task instance: `success`, `failed` or `skipped`.
    SetTaskInstanceState {
        /// Its task.
        task: TaskIndex,
        /// Its map index.
        map_index: MapIndex,
        /// The new state.
        state: TaskInstanceState,
    },
}

/// How a dispatch was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// No executor had acknowledged it: it is sent again, and nothing is counted.
    NotAcknowledged,
    /// An executor had acknowledged it and is gone: an infrastructure loss.
    Acknowledged,
    /// A graceful shutdown handed it back: not a loss.
    HandedBack,
}

/// How a try ended, as far as the run's decisions depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TryEnd {
    /// It succeeded.
    Done,
    /// It succeeded, and its answer counts as false (short-circuit).
    DoneFalsy,
    /// It skipped itself.
    Skip,
    /// A branch chose these direct downstream tasks.
    Branch(Vec<TaskIndex>),
    /// Not yet: poke again after this.
    Reschedule(Duration),
    /// A person has been asked: the try goes on when there is an answer.
    AwaitInput,
    /// It waits outside of any executor for something that happens elsewhere.
    Defer,
    /// It failed.
    Failed {
        /// Why.
        cause: Cause,
        /// Whether the remaining retries are skipped.
        fatal: bool,
        /// The failure's stable name, if the task gave one.
        code: Option<Box<str>>,
    },
}
