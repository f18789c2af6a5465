//! What `advance` decided.

use crate::callback::{CallbackEvent, RunEndReason};
use crate::cause::Cause;
use crate::id::{DispatchNumber, MapIndex, TaskIndex, TryNumber};
use crate::state::{DagRunState, TaskInstanceState};

/// One decision. The scheduler writes all decisions of a tick in one transaction and acts on them after the commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transition {
    /// The run changed its state.
    Run {
        /// Before.
        from: DagRunState,
        /// Now.
        to: DagRunState,
    },
    /// A task instance changed its state or anything else that is stored; its row is written from the draft.
    TaskInstance {
        /// Its task.
        task: TaskIndex,
        /// Its map index.
        map_index: MapIndex,
        /// Before.
        from: TaskInstanceState,
        /// Now.
        to: TaskInstanceState,
    },
    /// A task instance got another map index, since what it is mapped over is known now (Airflow: −1 becomes 0). Its row, if it
    /// has one, is replaced.
    Renumbered {
        /// Its task.
        task: TaskIndex,
        /// Before.
        from: MapIndex,
        /// Now.
        to: MapIndex,
    },
    /// The row of a task instance must be written with this tick, whatever its state: it says more than what became of itself (how many a
    /// mapping has made, that the run was cancelled).
    RowDue {
        /// Its task.
        task: TaskIndex,
        /// Its map index.
        map_index: MapIndex,
    },
    /// Send this dispatch to an executor once the tick is committed.
    Dispatch {
        /// Its task.
        task: TaskIndex,
        /// Its map index.
        map_index: MapIndex,
        /// The try.
        try_number: TryNumber,
        /// The fencing token.
        dispatch: DispatchNumber,
        /// The first dispatch of a new try: the task instance's XComs are deleted.
        first_of_try: bool,
    },
    /// A try is over; its line in the history is written.
    TryEnded {
        /// Its task.
        task: TaskIndex,
        /// Its map index.
        map_index: MapIndex,
        /// The try.
        try_number: TryNumber,
        /// The last dispatch of the try.
        dispatch: DispatchNumber,
        /// The state that the history shows for it.
        state: TaskInstanceState,
        /// Why.
        cause: Option<Cause>,
    },
    /// Nobody answered in time, and the default options were taken: they are written as the answer.
    DefaultsTaken {
        /// Its task.
        task: TaskIndex,
        /// Its map index.
        map_index: MapIndex,
    },
    /// A try ended by itself, and its task has callbacks for that. Follows the try's `TryEnded`.
    TaskCallbacks {
        /// What they wait for.
        event: CallbackEvent,
        /// Its task.
        task: TaskIndex,
        /// Its map index.
        map_index: MapIndex,
        /// The try.
        try_number: TryNumber,
    },
    /// The run ended by itself, and its DAG has callbacks for that. Follows the run's `Run`.
    DagCallbacks {
        /// What they wait for.
        event: CallbackEvent,
        /// Why the run ended.
        reason: RunEndReason,
    },
    /// Tell the executor to stop this dispatch. From the commit on its results are refused.
    Cancel {
        /// Its task.
        task: TaskIndex,
        /// Its map index.
        map_index: MapIndex,
        /// The fencing token.
        dispatch: DispatchNumber,
    },
}
