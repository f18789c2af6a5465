//! One task instance in memory.

use std::num::{NonZeroU8, NonZeroU32};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::cause::Cause;
use crate::dag::Task;
use crate::id::{DispatchNumber, MapIndex, TaskIndex, TryNumber};
use crate::retry_rule::MoreMemory;
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
    /// The number of the rule in the task's retry policy that decided about the last try, until the next one begins.
    pub retry_rule: Option<NonZeroU8>,
    /// The memory limit in KiB where a retry policy raised it.
    pub raised_memory_kib: Option<NonZeroU32>,
    /// What later decisions depend on; `None` where that is nothing.
    pub facts: Option<Arc<Facts>>,
}

/// What is remembered of a task instance since later decisions depend on it: mostly what its success said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Of a branch or short-circuit that chose: the direct downstream tasks that it follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen: Option<Vec<u32>>,
    /// What was measured of what it published, in the order of the task's measures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measured: Vec<u32>,
    /// Of a sensor that failed and is tried again: when it was poked first, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poked_since: Option<i64>,
    /// Its try is about an element that has been made anew since.
    #[serde(default, skip_serializing_if = "is_false")]
    pub outlived: bool,
    /// Of a teardown: its run was cancelled while it was still to come, so the run fails.
    #[serde(default, skip_serializing_if = "is_false")]
    pub cancelled: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over references")]
const fn is_false(flag: &bool) -> bool {
    !*flag
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
            retry_rule: None,
            raised_memory_kib: None,
            facts: None,
        }
    }

    /// The memory limit of the try: the task's own, unless a retry policy raised it.
    pub fn memory_bytes(&self, task: &Task) -> u64 {
        raised_memory_bytes(self.raised_memory_kib).unwrap_or(task.limits.memory_bytes)
    }

    /// The next try gets more memory. Whole KiB are kept, so that it takes little room.
    pub(super) fn raise_memory(&mut self, task: &Task, more: MoreMemory) {
        let now = self.memory_bytes(task);
        let kib = u32::try_from(more.after(now) >> 10).unwrap_or(u32::MAX);
        if u64::from(kib) << 10 > now {
            self.raised_memory_kib = NonZeroU32::new(kib);
        }
    }

    /// Whether a try has begun and not ended: it is with an executor, between two pokes, or waits
    /// for a person or for another DAG.
    pub fn try_is_open(&self) -> bool {
        match self.state {
            TaskInstanceState::Queued
            | TaskInstanceState::Running
            | TaskInstanceState::AwaitingInput
            | TaskInstanceState::Deferred => true,
            TaskInstanceState::Scheduled | TaskInstanceState::UpForReschedule => {
                self.start_date.is_some() && self.end_date.is_none()
            }
            _ => false,
        }
    }

    /// When it was poked first since it was new or cleared; what a sensor's `timeout` counts from.
    pub fn poked_since(&self) -> Option<Timestamp> {
        let before = self.facts.as_ref().and_then(|facts| facts.poked_since);
        before.map(Timestamp).or(self.start_date)
    }

    /// Whether its try is about an element that has been made anew since.
    pub(super) fn is_outlived(&self) -> bool {
        self.facts.as_ref().is_some_and(|facts| facts.outlived)
    }

    /// Changes what is remembered of it.
    pub(super) fn remember(&mut self, edit: impl FnOnce(&mut Facts)) {
        let mut facts = self.facts.take().map_or_else(Facts::default, Arc::unwrap_or_clone);
        edit(&mut facts);
        self.facts = (facts != Facts::default()).then(|| Arc::new(facts));
    }

    /// Forgets all that its tries said. That its run was cancelled stays true.
    pub(super) fn forget(&mut self) {
        if self.facts.is_some() {
            self.remember(|facts| {
                *facts = Facts {
                    cancelled: facts.cancelled,
                    ..Facts::default()
                };
            });
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

/// A raised memory limit in bytes.
pub fn raised_memory_bytes(kib: Option<NonZeroU32>) -> Option<u64> {
    kib.map(|kib| u64::from(kib.get()) << 10)
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
