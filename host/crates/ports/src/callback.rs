//! Callbacks as they are stored: committed with what they are due for, carried out afterwards.

use std::sync::Arc;

use model::callback::{CallbackEvent, CallbackKind, CallbackState, NotificationLevel};
use model::{Cause, DagId, DagRunKey, MapIndex, RunId, RunUuid, TaskId, TaskIndex, Timestamp, TryNumber};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::executor::{Position, RunContext};
use crate::query::TimeRange;

/// Names a callback that is stored. The database gives it out, ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CallbackId(pub i64);

impl std::fmt::Display for CallbackId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The task instance that a callback is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallbackOf {
    /// Its task.
    pub task: TaskIndex,
    /// The task's id.
    pub task_id: TaskId,
    /// Its map index.
    pub map_index: MapIndex,
    /// The try that ended.
    pub try_number: TryNumber,
}

/// A callback that has become due.
#[derive(Clone, Debug)]
pub struct CallbackWrite {
    /// Of this run.
    pub run: DagRunKey,
    /// Of this task instance; none for a callback of the DAG.
    pub of: Option<CallbackOf>,
    /// Its position among the callbacks of the task, or of the DAG, in the run's version.
    pub ordinal: u32,
    /// What it waited for.
    pub event: CallbackEvent,
    /// What it is.
    pub kind: CallbackKind,
    /// What does it, for people: `ml@1.2 report`; empty for a notification.
    pub name: String,
    /// How urgent a notification is.
    pub level: Option<NotificationLevel>,
    /// `queued`; `success` for a notification that needs no rendering.
    pub state: CallbackState,
    /// The text of one.
    pub text: Option<String>,
    /// What templates see as `callback`: a JSON object as text.
    pub facts: Arc<str>,
    /// Where the task instance stands, where tasks are repeated: a [`Standing`] as JSON text.
    pub standing: Option<Arc<str>>,
}

/// Where a task instance stands among what is repeated, and what it sees of other tasks.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Standing {
    /// What it is mapped over.
    pub position: Option<Box<Position>>,
    /// Which instances of repeated tasks it sees.
    pub now: Vec<(TaskIndex, Vec<MapIndex>)>,
    /// Which it sees of the iteration before.
    pub before: Vec<(TaskIndex, Vec<MapIndex>)>,
}

/// A step of carrying a callback out.
#[derive(Clone, Debug)]
pub struct CallbackChange {
    /// Which.
    pub id: CallbackId,
    /// Its state from now on.
    pub state: CallbackState,
    /// How often it was given to an executor.
    pub attempt: u32,
    /// When it is tried again.
    pub next_at: Option<Timestamp>,
    /// When its last attempt started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Why it failed.
    pub cause: Option<Cause>,
    /// The failure's stable name, if the task gave one.
    pub code: Option<String>,
    /// Why, for people.
    pub message: Option<String>,
    /// What a notification says.
    pub text: Option<String>,
}

/// A callback that is to be carried out.
#[derive(Clone, Debug)]
pub struct DueCallback {
    /// Which.
    pub id: CallbackId,
    /// Of this run.
    pub run: DagRunKey,
    /// Of this task instance; none for a callback of the DAG.
    pub of: Option<CallbackOf>,
    /// See [`CallbackWrite::ordinal`].
    pub ordinal: u32,
    /// `queued`, or `running` where an executor was given it.
    pub state: CallbackState,
    /// How often that was.
    pub attempt: u32,
    /// See [`CallbackWrite::facts`].
    pub facts: Arc<str>,
    /// See [`CallbackWrite::standing`].
    pub standing: Option<Arc<str>>,
}

/// What is to be carried out now.
#[derive(Clone, Debug, Default)]
pub struct DueCallbacks {
    /// Those that are due, oldest first.
    pub due: Vec<DueCallback>,
    /// When the next one is due that is not yet.
    pub next_at: Option<Timestamp>,
}

/// What a callback needs to know of its run.
#[derive(Clone, Debug)]
pub struct CallbackRun {
    /// What its tries share.
    pub context: Arc<RunContext>,
    /// Its version.
    pub version: Uuid,
}

/// A callback as the API shows it.
#[derive(Clone, Debug)]
pub struct CallbackRow {
    /// Its id.
    pub id: CallbackId,
    /// The DAG.
    pub dag_id: DagId,
    /// The run.
    pub run_id: RunId,
    /// The run's globally unique id.
    pub run_uuid: RunUuid,
    /// The task; none for a callback of the DAG.
    pub task_id: Option<TaskId>,
    /// The map index.
    pub map_index: MapIndex,
    /// The try that ended.
    pub try_number: Option<TryNumber>,
    /// What it waited for.
    pub event: CallbackEvent,
    /// What it is.
    pub kind: CallbackKind,
    /// What does it, for people.
    pub name: String,
    /// How urgent a notification is.
    pub level: Option<NotificationLevel>,
    /// How far it is.
    pub state: CallbackState,
    /// How often it was given to an executor.
    pub attempt: u32,
    /// When it became due.
    pub created_at: Timestamp,
    /// When it is tried again.
    pub next_at: Option<Timestamp>,
    /// When its last attempt started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Why it failed.
    pub cause: Option<Cause>,
    /// The failure's stable name.
    pub code: Option<String>,
    /// Why, for people.
    pub message: Option<String>,
    /// What a notification says.
    pub text: Option<String>,
    /// What templates saw as `callback`: a JSON object as text.
    pub facts: String,
}

/// Which callbacks. `~` in a path is none here.
#[derive(Clone, Debug, Default)]
pub struct CallbackFilter {
    /// Of this DAG.
    pub dag_id: Option<DagId>,
    /// Of this run.
    pub run_id: Option<RunId>,
    /// Of this task.
    pub task_id: Option<TaskId>,
    /// Of these kinds.
    pub kinds: Vec<CallbackKind>,
    /// For these events.
    pub events: Vec<CallbackEvent>,
    /// In these states.
    pub states: Vec<CallbackState>,
    /// Of these levels.
    pub levels: Vec<NotificationLevel>,
    /// Became due in this time.
    pub created_at: TimeRange,
    /// With ids over this one.
    pub after: Option<CallbackId>,
    /// Only this one.
    pub id: Option<CallbackId>,
    /// Newest first.
    pub newest_first: bool,
}
