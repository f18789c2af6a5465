//! One task instance in memory.

use std::sync::Arc;

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
    /// Of a branch or short-circuit that succeeded and chose: the direct downstream tasks that it follows.
    pub chosen: Option<Arc<[u32]>>,
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
            chosen: None,
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
    pub(super) ti: Ti,
}
