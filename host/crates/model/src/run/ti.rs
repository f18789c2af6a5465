//! One task instance in memory.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::cause::Cause;
use crate::id::{DispatchNumber, MapIndex, TaskIndex, TryNumber};
use crate::state::TaskInstanceState;
use crate::time::Timestamp;

/// A task instance: what decisions depend on and what its row shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ti {
    /// Its state.
    pub state: TaskInstanceState,
    /// Why its last try ended.
    pub cause: Option<Cause>,
    /// Whether an executor acknowledged the last dispatch.
    pub acknowledged: bool,
    /// The try; 0 before the first. It rises when a dispatch begins a new try.
    pub try_number: TryNumber,
    /// The number of the last try that there can be: tries beyond the first (Airflow's `max_tries`) plus one.
    pub max_tries: u32,
    /// The last dispatch.
    pub dispatch: DispatchNumber,
    /// Infrastructure losses of this try.
    pub infra_losses: u32,
    /// When its rule let it run.
    pub scheduled_at: Option<Timestamp>,
    /// When it was admitted.
    pub queued_at: Option<Timestamp>,
    /// When the guest first started in this try.
    pub start_date: Option<Timestamp>,
    /// When the try ended. Unset while a try is open.
    pub end_date: Option<Timestamp>,
    /// When the next try or poke is due.
    pub next_at: Option<Timestamp>,
    /// What its success said that later decisions depend on; `None` where that is nothing.
    pub facts: Option<Arc<Facts>>,
}

/// What a success said that later decisions depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Of a branch or short-circuit that chose: the direct downstream tasks that it follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen: Option<Vec<u32>>,
    /// What was measured of what it published, in the order of the task's measures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measured: Vec<u32>,
}

impl Ti {
    /// A task instance that nothing has happened to.
    pub fn new(retries: u32) -> Self {
        Self {
            state: TaskInstanceState::NoStatus,
            cause: None,
            acknowledged: false,
            try_number: TryNumber(0),
            max_tries: retries.saturating_add(1),
            dispatch: DispatchNumber(0),
            infra_losses: 0,
            scheduled_at: None,
            queued_at: None,
            start_date: None,
            end_date: None,
            next_at: None,
            facts: None,
        }
    }

    /// Whether a try has begun and not ended: it is with an executor, or between two pokes.
    pub fn try_is_open(&self) -> bool {
        match self.state {
            TaskInstanceState::Queued | TaskInstanceState::Running => true,
            TaskInstanceState::Scheduled | TaskInstanceState::UpForReschedule => {
                self.start_date.is_some() && self.end_date.is_none()
            }
            _ => false,
        }
    }

    /// Whether it waits for its trigger rule.
    pub(super) fn waits_for_rule(&self) -> bool {
        match self.state {
            TaskInstanceState::NoStatus => true,
            TaskInstanceState::UpForRetry | TaskInstanceState::UpForReschedule => self.next_at.is_none(),
            _ => false,
        }
    }
}

/// A place in the table of task instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) task: TaskIndex,
    pub(super) map_index: MapIndex,
    /// Where it is counted.
    pub(super) node: u32,
    pub(super) ti: Ti,
}
