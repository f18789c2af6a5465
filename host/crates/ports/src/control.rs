//! What the API asks of the scheduler. Each call answers after its effect is committed.

use std::time::Duration;

use async_trait::async_trait;
use model::callback::{CallbackEvent, CallbackKind, CallbackState, NotificationLevel};
use model::human::Answer;
use model::{DagId, DagRunKey, DagRunState, DagRunType, MapIndex, RunId, TaskId, TaskInstanceState, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use tokio::sync::broadcast;

use crate::callback::CallbackId;
use crate::deploy::{CheckedManifest, Deployed};
use crate::query::{PoolRow, RunRow, TiRow};

/// Why the scheduler refused.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlError {
    /// There is no such DAG.
    #[error("DAG `{0}` does not exist")]
    DagNotFound(DagId),
    /// There is no such run.
    #[error("DAG `{dag_id}` has no run `{run_id}`")]
    RunNotFound {
        /// The DAG.
        dag_id: DagId,
        /// The run.
        run_id: RunId,
    },
    /// There is no such task.
    #[error("DAG `{dag_id}` has no task `{task_id}`")]
    TaskNotFound {
        /// The DAG.
        dag_id: DagId,
        /// The task.
        task_id: String,
    },
    /// There is no such task group.
    #[error("DAG `{dag_id}` has no task group `{group_id}`")]
    TaskGroupNotFound {
        /// The DAG.
        dag_id: DagId,
        /// The group.
        group_id: String,
    },
    /// The run has no such task instance.
    #[error("{0}")]
    TaskInstanceNotFound(String),
    /// There is no such pool.
    #[error("pool `{0}` does not exist")]
    PoolNotFound(String),
    /// A pool of this name exists already.
    #[error("pool `{0}` exists already")]
    PoolExists(String),
    /// DAGs use the pool.
    #[error("pool `{pool}` is in use by {}", dags.iter().map(|dag| format!("`{dag}`")).collect::<Vec<_>>().join(", "))]
    PoolInUse {
        /// The pool.
        pool: String,
        /// The DAGs.
        dags: Vec<DagId>,
    },
    /// The default pool always exists, under its name.
    #[error("`{}` cannot be deleted or renamed", model::dag::DEFAULT_POOL)]
    DefaultPool,
    /// A run with this id or logical date exists already.
    #[error("{0}")]
    RunExists(String),
    /// It would be more task instances than there may be.
    #[error("{0}")]
    TooManyTaskInstances(String),
    /// `conf` or the parameters are not valid; every problem is named.
    #[error("the parameters of the run are not valid: {}", problems.join("; "))]
    InvalidParams {
        /// One text a problem.
        problems: Vec<String>,
    },
    /// A person's answer does not fit the question; every problem is named.
    #[error("the answer is not valid: {}", problems.join("; "))]
    InvalidAnswer {
        /// One text a problem.
        problems: Vec<String>,
    },
    /// There is no such task instance, or it asks nobody.
    #[error("{0}")]
    NotAsked(String),
    /// The caller may not do this.
    #[error("{0}")]
    Forbidden(String),
    /// The state of things does not allow it.
    #[error("{0}")]
    Conflict(String),
    /// The database cannot be written right now; nothing was done.
    #[error("the server cannot write to its database right now; nothing was changed, try again")]
    Unavailable,
    /// The server is shutting down, or lost its lease.
    #[error("the scheduler is stopping")]
    Stopping,
    /// No scheduler is running that could be asked; nothing was done.
    #[error("{0}")]
    NoScheduler(String),
    /// The request is committed, and what comes of it is not known yet.
    #[error("{0}")]
    Pending(String),
    /// A bug or a broken database; nothing was done.
    #[error("the scheduler failed")]
    Internal(
        #[source]
        #[serde(serialize_with = "write_source", deserialize_with = "read_source")]
        Box<dyn std::error::Error + Send + Sync>,
    ),
}

/// An error of another process is its text, with those behind it.
#[expect(clippy::borrowed_box, reason = "serde passes the field as it is")]
fn write_source<S: Serializer>(
    error: &Box<dyn std::error::Error + Send + Sync>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    serializer.serialize_str(&text)
}

fn read_source<'de, D: Deserializer<'de>>(text: D) -> Result<Box<dyn std::error::Error + Send + Sync>, D::Error> {
    String::deserialize(text).map(Into::into)
}

/// Asks for a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TriggerRequest {
    /// Of this DAG.
    pub dag_id: DagId,
    /// The caller's own name for it, else `manual__<run_after>`.
    pub run_id: Option<RunId>,
    /// The logical date; two runs of a DAG cannot share one.
    pub logical_date: Option<Timestamp>,
    /// The data interval.
    pub data_interval: Option<(Timestamp, Timestamp)>,
    /// Not before this time; now, if none.
    pub run_after: Option<Timestamp>,
    /// A JSON object; members that name a parameter replace its default.
    pub conf: Value,
    /// For people.
    pub note: Option<String>,
    /// Who asks, for the audit log.
    pub user: String,
}

/// Which task instances of a DAG to clear.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ClearRequest {
    /// Only of this run; otherwise all runs in the time range.
    pub run_id: Option<RunId>,
    /// Only runs from this logical date (or `run_after` where there is none) on.
    pub start_date: Option<Timestamp>,
    /// Only runs up to this.
    pub end_date: Option<Timestamp>,
    /// Only these tasks (all map indexes, or one each).
    pub tasks: Option<Vec<(TaskId, Option<MapIndex>)>>,
    /// And those of these task groups.
    pub groups: Vec<String>,
    /// Also everything upstream of them.
    pub include_upstream: bool,
    /// Also everything downstream of them.
    pub include_downstream: bool,
    /// Only those that failed or are upstream_failed.
    pub only_failed: bool,
    /// Only those that are running.
    pub only_running: bool,
    /// Change nothing; answer what would be cleared.
    pub dry_run: bool,
    /// Who asks.
    pub user: String,
}

/// Which task instances of a run, and perhaps of others around it, get another state from a person.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SetStateRequest {
    /// The DAG.
    pub dag_id: DagId,
    /// The run.
    pub run_id: RunId,
    /// Also in all runs before it, by logical date (or `run_after` where there is none).
    pub include_past: bool,
    /// Also in all runs after it.
    pub include_future: bool,
    /// The tasks (all map indexes, or one each).
    pub tasks: Vec<(TaskId, Option<MapIndex>)>,
    /// And those of these task groups.
    pub groups: Vec<String>,
    /// Also everything upstream of them.
    pub include_upstream: bool,
    /// Also everything downstream of them.
    pub include_downstream: bool,
    /// `success`, `failed` or `skipped`.
    pub state: TaskInstanceState,
    /// Change nothing; answer what would be changed.
    pub dry_run: bool,
    /// Who asks.
    pub user: String,
}

/// A note on task instances of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SetNoteRequest {
    /// The DAG.
    pub dag_id: DagId,
    /// The run.
    pub run_id: RunId,
    /// The tasks (all map indexes, or one each).
    pub tasks: Vec<(TaskId, Option<MapIndex>)>,
    /// And those of these task groups.
    pub groups: Vec<String>,
    /// The text; an empty one removes the note.
    pub note: String,
    /// Who writes it.
    pub user: String,
}

/// A person's answer to a task instance that waits for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RespondRequest {
    /// The DAG.
    pub dag_id: DagId,
    /// The run.
    pub run_id: RunId,
    /// The task.
    pub task_id: TaskId,
    /// Its map index.
    pub map_index: MapIndex,
    /// The options that are chosen.
    pub chosen_options: Vec<String>,
    /// The values that are entered.
    pub params_input: serde_json::Map<String, Value>,
    /// Who answers.
    pub user: String,
}

/// An answer that was taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Responded {
    /// When.
    pub at: Timestamp,
    /// What was chosen and entered, with defaults filled in.
    pub answer: Answer,
}

/// A pool to make.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewPool {
    /// Its name.
    pub name: String,
    /// Its slots; negative is without bound.
    pub slots: i32,
    /// For people.
    pub description: Option<String>,
    /// Whether deferred task instances count.
    pub include_deferred: bool,
}

/// What to change about a pool; what is not named stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PoolPatch {
    /// Another name.
    pub name: Option<String>,
    /// Other slots; negative is without bound.
    pub slots: Option<i32>,
    /// Another description, or none.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "named")]
    pub description: Option<Option<String>>,
    /// Whether deferred task instances count.
    pub include_deferred: Option<bool>,
}

/// A member that is there, be it null.
fn named<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(value).map(Some)
}

/// Something that the UI or a client may want to know. Sent after the commit.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum RunEvent {
    /// A run changed.
    DagRun {
        /// The DAG.
        dag_id: DagId,
        /// The run.
        run_id: RunId,
        /// Its state now.
        state: DagRunState,
        /// When.
        at: Timestamp,
    },
    /// A task instance changed.
    TaskInstance {
        /// The DAG.
        dag_id: DagId,
        /// The run.
        run_id: RunId,
        /// The task.
        task_id: TaskId,
        /// Its map index, −1 where it is not mapped.
        map_index: MapIndex,
        /// The try.
        try_number: u32,
        /// Its state now.
        state: TaskInstanceState,
        /// Why its last try ended.
        cause: Option<model::Cause>,
        /// When.
        at: Timestamp,
    },
    /// A task got many instances at once, which are too many to be told one by one.
    Expanded {
        /// The DAG.
        dag_id: DagId,
        /// The run.
        run_id: RunId,
        /// The task.
        task_id: TaskId,
        /// How many there are now.
        instances: usize,
    },
    /// A guest reported its progress. Not durable.
    Progress {
        /// The DAG.
        dag_id: DagId,
        /// The run.
        run_id: RunId,
        /// The task.
        task_id: TaskId,
        /// Its map index.
        map_index: MapIndex,
        /// From 0 to 1.
        fraction: Option<f64>,
        /// For people.
        note: String,
    },
    /// A callback became due, is carried out, or ended.
    Callback {
        /// The DAG.
        dag_id: DagId,
        /// The run.
        run_id: RunId,
        /// Its id; none where it has only just become due.
        callback_id: Option<CallbackId>,
        /// The task; none for a callback of the DAG.
        task_id: Option<TaskId>,
        /// The map index.
        map_index: MapIndex,
        /// What it waited for.
        on: CallbackEvent,
        /// What it is.
        kind: CallbackKind,
        /// What does it, for people.
        name: String,
        /// How urgent a notification is.
        level: Option<NotificationLevel>,
        /// Its state now.
        state: CallbackState,
        /// Why it failed.
        cause: Option<model::Cause>,
        /// Why, for people.
        message: Option<String>,
        /// What a notification says.
        text: Option<String>,
        /// When.
        at: Timestamp,
    },
    /// A DAG was deployed, paused, unpaused or deleted.
    Dag {
        /// The DAG.
        dag_id: DagId,
        /// What happened.
        change: DagChange,
    },
}

/// What happened to a DAG.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DagChange {
    /// It has a version that it did not have, or another one again.
    Deployed,
    /// Its runs wait.
    Paused,
    /// Its runs go on.
    Unpaused,
    /// It is gone.
    Deleted,
}

/// How the scheduler is.
#[derive(Clone, Debug, Serialize)]
pub struct SchedulerHealth {
    /// Whether ticks are being committed.
    pub healthy: bool,
    /// What is wrong, for people.
    pub problem: Option<String>,
    /// When it last was known to work.
    pub latest_heartbeat: Timestamp,
    /// Runs in memory.
    pub active_runs: usize,
    /// Runs that were set aside because their data cannot be committed.
    pub set_aside_runs: Vec<String>,
}

/// What only the scheduler knows about room for task instances. Nothing of it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// The number of task instances that may be dispatched at a time; none where it is not known here.
    pub parallelism: Option<u32>,
    /// For whom free slots of pools are kept, at most one for each.
    pub kept: Vec<KeptSlots>,
}

/// The most urgent task instance of a pool, which needs more slots than are free there: they are kept for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSlots {
    /// The pool.
    pub pool: String,
    /// Of this DAG.
    pub dag_id: DagId,
    /// Of this run.
    pub run_id: RunId,
    /// The task.
    pub task_id: TaskId,
    /// Its map index.
    pub map_index: MapIndex,
    /// The slots that it needs.
    pub slots: u32,
}

/// The scheduler, as the API sees it.
#[async_trait]
pub trait Control: Send + Sync + 'static {
    /// Starts a run.
    async fn trigger(&self, request: TriggerRequest) -> Result<RunRow, ControlError>;
    /// Waits until the run has ended or `timeout` has passed; answers the state that it has then.
    async fn wait(&self, dag_id: &DagId, run_id: &RunId, timeout: Duration) -> Result<DagRunState, ControlError>;
    /// Clears task instances; answers them as they were (dry run) or are.
    async fn clear(&self, dag_id: &DagId, request: ClearRequest) -> Result<Vec<TiRow>, ControlError>;
    /// Sets the state of a run: `queued` (starts it over), `success` or `failed` (stops what runs).
    async fn set_run_state(
        &self,
        dag_id: &DagId,
        run_id: &RunId,
        state: DagRunState,
        user: &str,
    ) -> Result<RunRow, ControlError>;
    /// Sets the state of task instances of one run, or of several; answers those that got it, as they are (dry run: as they were). What failed
    /// or could not run further down is cleared. Refuses where all have that state already.
    async fn set_task_instance_state(&self, request: SetStateRequest) -> Result<Vec<TiRow>, ControlError>;
    /// Notes something about task instances of one run; answers them.
    async fn set_task_instance_note(&self, request: SetNoteRequest) -> Result<Vec<TiRow>, ControlError>;
    /// Answers a task instance that waits for a person; tells when that was. Refuses one that does not wait (any more).
    async fn respond(&self, request: RespondRequest) -> Result<Responded, ControlError>;
    /// Changes the note of a run.
    async fn set_run_note(
        &self,
        dag_id: &DagId,
        run_id: &RunId,
        note: &str,
        user: &str,
    ) -> Result<RunRow, ControlError>;
    /// Removes an ended run and all that belongs to it; stops it first where it is not.
    async fn delete_run(&self, dag_id: &DagId, run_id: &RunId, user: &str) -> Result<(), ControlError>;
    /// Stores a checked manifest as a version and makes it the current one.
    async fn deploy(&self, manifest: CheckedManifest, replace: bool, user: &str) -> Result<Deployed, ControlError>;
    /// Pauses or unpauses. A paused DAG accepts runs and leaves them queued.
    async fn set_paused(&self, dag_id: &DagId, paused: bool, user: &str) -> Result<(), ControlError>;
    /// Removes a DAG with all its runs and versions. Refuses while runs are active.
    async fn delete_dag(&self, dag_id: &DagId, user: &str) -> Result<(), ControlError>;
    /// Those of these DAGs that there are not: a step that triggers or waits for one that is not there yet is warned of.
    async fn unknown_dags(&self, dags: Vec<DagId>) -> Result<Vec<DagId>, ControlError>;
    /// The pools that manifests are checked against.
    async fn pools(&self) -> Result<Vec<PoolRow>, ControlError>;
    /// Makes a pool.
    async fn create_pool(&self, pool: NewPool, user: &str) -> Result<PoolRow, ControlError>;
    /// Changes a pool. What is dispatched keeps its slots. A pool that DAGs use cannot get another name.
    async fn change_pool(&self, name: &str, patch: PoolPatch, user: &str) -> Result<PoolRow, ControlError>;
    /// Removes a pool. Refuses where the current version of a DAG, or an active run, uses it.
    async fn delete_pool(&self, name: &str, user: &str) -> Result<(), ControlError>;
    /// What happens from now on. A slow reader misses events and is told how many.
    fn subscribe(&self) -> broadcast::Receiver<RunEvent>;
    /// Lays what memory knows but the database does not yet (running marks, start times) over rows just read.
    fn overlay(&self, run: DagRunKey, rows: &mut [TiRow]);
    /// How the scheduler is.
    fn health(&self) -> SchedulerHealth;
    /// The last progress that a running task instance reported.
    fn progress(&self, dag_id: &DagId, run_id: &RunId) -> Vec<(TaskId, MapIndex, Option<f64>, String)>;
    /// What only the scheduler knows about room for task instances; nothing where it is another process.
    fn room(&self) -> Room {
        Room::default()
    }
    /// How a run of this type is named when the caller gives no name (Airflow: `DagRunType.generate_run_id`).
    fn default_run_id(&self, run_type: DagRunType, run_after: Timestamp) -> String {
        format!("{run_type}__{run_after}")
    }
}
