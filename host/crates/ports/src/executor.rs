//! The executor boundary: messages without shared state, so that an executor can be a thread, a process or another machine.
//! An executor may answer late, twice or never.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
pub use model::BlobRef;
use model::{
    Cause, DagId, DagRunKey, DagRunType, DispatchNumber, Limits, MapIndex, RunId, RunUuid, TaskId, TaskIndex, TiKey,
    Timestamp, TryNumber, Work,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::between::{RunSelector, TriggerDagRequest};
use crate::callback::CallbackId;

/// Names one dispatch of one try. What carries any but the current dispatch number is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TryId {
    /// The task instance.
    pub ti: TiKey,
    /// The run's globally unique id.
    pub run_uuid: RunUuid,
    /// The try.
    pub try_number: TryNumber,
    /// The fencing token. Of a callback: the number of the attempt.
    pub dispatch: DispatchNumber,
    /// Set where this is not the try itself but a callback of it, or of the run.
    #[serde(default)]
    pub callback: Option<CallbackId>,
}

/// The task of what belongs to a run and to none of its tasks: a callback of the DAG.
pub const NO_TASK: TaskIndex = TaskIndex(u32::MAX);

/// How many callbacks an executor runs at a time, beside its slots: callbacks never take the place of a task.
pub const CALLBACK_SLOTS: u32 = 4;

/// What every try of a run shares.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunContext {
    /// The key.
    pub key: DagRunKey,
    /// The globally unique id.
    pub uuid: RunUuid,
    /// The DAG.
    pub dag_id: DagId,
    /// The name within the DAG.
    pub run_id: RunId,
    /// How it came to be.
    pub run_type: DagRunType,
    /// See Airflow's logical date.
    pub logical_date: Option<Timestamp>,
    /// Start of the data interval.
    pub data_interval_start: Option<Timestamp>,
    /// End of the data interval.
    pub data_interval_end: Option<Timestamp>,
    /// When the run was due.
    pub run_after: Timestamp,
    /// Parameters after defaults were filled in: a JSON object.
    pub params: Value,
    /// What the caller passed: a JSON object.
    pub conf: Value,
}

/// What every try of a task shares.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Its id in the manifest.
    pub task_id: TaskId,
    /// What a try does.
    pub work: Work,
    /// The input, with templates not yet rendered.
    pub input: Value,
    /// What one try may use.
    pub limits: Limits,
    /// How many tries there are at the most.
    pub max_tries: u32,
    /// A template of true or false: false skips the task instance.
    #[serde(default)]
    pub when: Option<String>,
    /// What to measure of what a successful try publishes.
    #[serde(default)]
    pub measures: Vec<model::dag::Measure>,
    /// A template that names a mapped task instance for people.
    #[serde(default)]
    pub map_index_template: Option<String>,
}

/// Where a task instance stands among what is repeated.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Position {
    /// What it is mapped over, from the outside in.
    pub elements: Vec<Element>,
    /// The iteration of the loop around it, from 0.
    pub iteration: Option<u32>,
}

/// One element of something that is mapped over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Element {
    /// Its name in templates (`item.<name>`); empty for `expand_kwargs`, whose elements are objects with names of their own.
    pub name: String,
    /// Whether it also goes into the task's input: of the task's own mapping, not of a group's.
    pub into_input: bool,
    /// Where it is.
    pub at: ElementAt,
}

/// Where an element is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ElementAt {
    /// In the manifest or in the run's parameters.
    Value {
        /// JSON text.
        value: String,
    },
    /// Within what a task published: the element with this index at this path.
    Within {
        /// The task.
        task: TaskId,
        /// The key.
        key: String,
        /// The path.
        path: Vec<model::template::Segment>,
        /// The index.
        index: u32,
    },
    /// The whole of what one instance of a task published, at this path.
    Whole {
        /// The task.
        task: TaskId,
        /// The key.
        key: String,
        /// The path.
        path: Vec<model::template::Segment>,
        /// The instance.
        map_index: MapIndex,
    },
}

/// Asks an executor to run one dispatch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TryRequest {
    /// Which.
    pub id: TryId,
    /// What all tries of the run share.
    pub run: Arc<RunContext>,
    /// What all tries of the task share.
    pub task: Arc<TaskSpec>,
    /// Where it stands among what is repeated; none where nothing is.
    #[serde(default)]
    pub position: Option<Box<Position>>,
    /// Whether it is the first dispatch of its try. A later one, a poke or a dispatch after a loss, may find XComs of its own.
    pub first_of_try: bool,
    /// Of a callback: what templates see as `callback`, a JSON object.
    #[serde(default)]
    pub callback: Option<Arc<Value>>,
}

/// One XCom that a try pushed. The return value has the key `return_value`; a `null` return value is not pushed (Airflow).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct XcomPush {
    /// The key.
    pub key: String,
    /// JSON text, as the guest wrote it.
    pub value: Arc<str>,
    /// The blobs that the value refers to.
    pub blobs: Vec<BlobRef>,
}

/// How a try ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TryOutcome {
    /// It succeeded. `falsy` says whether its answer counts as false (short-circuit).
    Done {
        /// See the variant.
        falsy: bool,
    },
    /// It skipped itself.
    Skip {
        /// Why.
        reason: String,
    },
    /// A branch chose these labels.
    Branch {
        /// As the guest wrote them; not yet checked.
        labels: Vec<String>,
    },
    /// Not yet: poke again after this.
    Reschedule {
        /// The wait.
        after: Duration,
    },
    /// A person is asked: the texts are rendered, and the try goes on when there is an answer.
    AwaitInput {
        /// What is asked.
        subject: String,
        /// The details.
        body: Option<String>,
    },
    /// A run of another DAG is asked for: what it is given is rendered.
    TriggerDag(Box<TriggerDagRequest>),
    /// Another DAG is waited for: which run of it is rendered.
    WaitForDag(RunSelector),
    /// It failed.
    Failed(TryFailure),
}

/// Why a try failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TryFailure {
    /// Classified once.
    pub cause: Cause,
    /// For people.
    pub message: String,
    /// Whether the remaining retries are skipped.
    pub fatal: bool,
    /// A stable name, if the task gave one.
    pub code: Option<String>,
    /// JSON text, if the task gave any.
    pub details: Option<String>,
}

/// What a try used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TryUsage {
    /// CPU time.
    pub cpu: Duration,
    /// The largest sum of memories and tables, in bytes.
    pub peak_memory_bytes: u64,
    /// What it wrote to its log, in bytes.
    pub log_bytes: u64,
}

/// The end of a dispatch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TryReport {
    /// Which.
    pub id: TryId,
    /// How.
    pub outcome: TryOutcome,
    /// What it published. Empty after a trap, a limit, a timeout or a cancel.
    pub xcoms: Vec<XcomPush>,
    /// What was measured of that, in the order of [`TaskSpec::measures`]; empty unless it succeeded.
    #[serde(default)]
    pub measured: Vec<u32>,
    /// When the guest started.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// What it used.
    pub usage: TryUsage,
    /// What a mapped task instance is called, see [`TaskSpec::map_index_template`].
    #[serde(default)]
    pub rendered_map_index: Option<String>,
}

/// What an executor says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ExecutorEvent {
    /// It has the dispatch and starts the guest.
    Started {
        /// Which.
        id: TryId,
        /// When.
        at: Timestamp,
    },
    /// How far the guest says it is. Not durable.
    Progress {
        /// Which.
        id: TryId,
        /// From 0 to 1.
        fraction: Option<f64>,
        /// For people.
        note: String,
    },
    /// It has these dispatches, waiting or running, and they go on. Sent every few seconds while there are any.
    Heartbeat {
        /// Which.
        ids: Vec<TryId>,
        /// When.
        at: Timestamp,
    },
    /// A dispatch ended.
    Finished(Box<TryReport>),
    /// The executor shuts down and did not finish this dispatch; it is not a loss.
    HandedBack {
        /// Which.
        id: TryId,
    },
}

/// Takes what an executor says. It never blocks: implementations hand the event to a queue.
pub trait ExecutorEvents: Send + Sync + 'static {
    /// Takes one event.
    fn send(&self, event: ExecutorEvent);
}

/// Runs tries.
#[async_trait]
pub trait Executor: Send + Sync + 'static {
    /// Takes a dispatch. It never waits for the guest: the answer comes as events.
    fn dispatch(&self, request: TryRequest);

    /// Stops a dispatch; unknown ones are ignored. The end comes as `Finished` with the cause `cancelled`.
    fn cancel(&self, id: TryId);

    /// How many dispatches it can run at a time.
    fn slots(&self) -> u32;

    /// Takes no further dispatches, waits up to `grace` for the running ones, then stops them and hands them back.
    async fn shutdown(&self, grace: Duration);
}

/// The task instance of an id without its index type noise.
impl TryId {
    /// The task's position.
    pub fn task(&self) -> TaskIndex {
        self.ti.task
    }

    /// The map index.
    pub fn map_index(&self) -> MapIndex {
        self.ti.map_index
    }
}
