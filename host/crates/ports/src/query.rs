//! Reading metadata for the API and the command line. Rows are what is committed; `Control::overlay` adds what memory knows.

use std::sync::Arc;

use async_trait::async_trait;
use model::human::HumanStep;
use model::{
    Cause, DagId, DagRunKey, DagRunState, DagRunType, Digest, DispatchNumber, MapIndex, RunId, RunUuid, TaskId,
    TaskInstanceState, TiKey, Timestamp, TryNumber,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::between::RunParent;
use crate::callback::{CallbackFilter, CallbackRow};
use crate::deploy::DagVersion;
use crate::executor::TryUsage;
use crate::payload::XcomValue;

/// Which part of a list.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// At most this many; the caller has bounded it.
    pub limit: u32,
    /// After skipping this many.
    pub offset: u64,
}

/// A part of a list.
#[derive(Clone, Debug)]
pub struct Listed<T> {
    /// The part.
    pub items: Vec<T>,
    /// How many there are in all.
    pub total: u64,
}

/// One column to order by. Every order ends in the primary key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderBy<F> {
    /// The column.
    pub field: F,
    /// Descending.
    pub descending: bool,
}

/// The database failed.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// Try again.
    #[error("the database does not answer right now")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A bug or a broken database.
    #[error("cannot read from the database")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A range of time, both ends optional; `gte`/`lte` include the end, `gt`/`lt` do not.
#[derive(Clone, Copy, Debug, Default)]
pub struct TimeRange {
    /// From, included.
    pub gte: Option<Timestamp>,
    /// From, excluded.
    pub gt: Option<Timestamp>,
    /// To, included.
    pub lte: Option<Timestamp>,
    /// To, excluded.
    pub lt: Option<Timestamp>,
}

/// A DAG.
#[derive(Clone, Debug)]
pub struct DagRow {
    /// Its id.
    pub dag_id: DagId,
    /// Whether it is paused.
    pub paused: bool,
    /// Why, where the scheduler paused it.
    pub paused_reason: Option<String>,
    /// Its current version.
    pub version: DagVersion,
    /// When it was deployed first.
    pub created_at: Timestamp,
    /// When it was deployed last.
    pub updated_at: Timestamp,
}

/// Which DAGs.
#[derive(Clone, Debug, Default)]
pub struct DagFilter {
    /// SQL `LIKE` pattern on the id, case-insensitive (`%` any, `_` one).
    pub dag_id_pattern: Option<String>,
    /// Paused or not.
    pub paused: Option<bool>,
    /// With any (or all) of these tags.
    pub tags: Vec<String>,
    /// All tags instead of any.
    pub tags_match_all: bool,
    /// With any of these owners.
    pub owners: Vec<String>,
    /// The state of the DAG's latest run.
    pub last_run_state: Option<DagRunState>,
    /// The order.
    pub order_by: Vec<OrderBy<DagField>>,
}

/// A column of the DAG list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DagField {
    /// `dag_id` (also `dag_display_name`).
    DagId,
    /// `is_paused`.
    Paused,
    /// `last_run_start_date`.
    LastRunStartDate,
    /// `last_run_state`.
    LastRunState,
    /// `last_parsed_time`: the last deploy.
    UpdatedAt,
}

/// A dag run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunRow {
    /// The key.
    pub key: DagRunKey,
    /// The globally unique id.
    pub uuid: RunUuid,
    /// The DAG.
    pub dag_id: DagId,
    /// The name within the DAG.
    pub run_id: RunId,
    /// The version that it runs.
    pub version_uuid: Uuid,
    /// That version's number.
    pub version_number: u32,
    /// Its state.
    pub state: DagRunState,
    /// How it came to be.
    pub run_type: DagRunType,
    /// The logical date.
    pub logical_date: Option<Timestamp>,
    /// Start of the data interval.
    pub data_interval_start: Option<Timestamp>,
    /// End of the data interval.
    pub data_interval_end: Option<Timestamp>,
    /// Not before this.
    pub run_after: Timestamp,
    /// When it was queued.
    pub queued_at: Timestamp,
    /// When it started.
    pub start_date: Option<Timestamp>,
    /// When it ended.
    pub end_date: Option<Timestamp>,
    /// JSON object text.
    pub conf: Arc<str>,
    /// For people.
    pub note: Option<String>,
    /// Who triggered it.
    pub triggering_user: Option<String>,
    /// The task instance of another run that triggered it.
    pub parent: Option<Arc<RunParent>>,
    /// Why the run was set aside, if it was.
    pub set_aside: Option<String>,
    /// Failures that its success hides.
    pub hidden_failures: Vec<HiddenFailure>,
}

/// A task that failed although its run is a success, without any task taking notice of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HiddenFailure {
    /// The task.
    pub task_id: TaskId,
    /// What hides it, for people.
    pub reason: String,
    /// What to change about the DAG, for people.
    pub advice: String,
}

/// Which dag runs.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    /// Of this DAG (none is all).
    pub dag_id: Option<DagId>,
    /// `LIKE` pattern on the run id.
    pub run_id_pattern: Option<String>,
    /// In any of these states.
    pub states: Vec<DagRunState>,
    /// Of any of these types.
    pub run_types: Vec<DagRunType>,
    /// By version number.
    pub version_numbers: Vec<u32>,
    /// By `run_after`.
    pub run_after: TimeRange,
    /// By logical date.
    pub logical_date: TimeRange,
    /// By start.
    pub start_date: TimeRange,
    /// By end.
    pub end_date: TimeRange,
    /// By last change.
    pub updated_at: TimeRange,
    /// Triggered by this run.
    pub parent: Option<DagRunKey>,
    /// The order; by key when empty.
    pub order_by: Vec<OrderBy<RunField>>,
}

/// A column of the run list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunField {
    /// The key (`id`).
    Key,
    /// `dag_id`.
    DagId,
    /// `dag_run_id`, `run_id`.
    RunId,
    /// `state`.
    State,
    /// `logical_date`.
    LogicalDate,
    /// `run_after`.
    RunAfter,
    /// `start_date`.
    StartDate,
    /// `end_date`.
    EndDate,
    /// `updated_at`.
    UpdatedAt,
    /// `data_interval_start`.
    DataIntervalStart,
    /// `data_interval_end`.
    DataIntervalEnd,
}

/// A task instance, or one ended try of one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TiRow {
    /// The key.
    pub key: TiKey,
    /// The run's globally unique id.
    pub run_uuid: RunUuid,
    /// The DAG.
    pub dag_id: DagId,
    /// The run.
    pub run_id: RunId,
    /// The run's logical date.
    pub logical_date: Option<Timestamp>,
    /// The run's `run_after`.
    pub run_after: Timestamp,
    /// The version that the run runs.
    pub version_uuid: Uuid,
    /// That version's number.
    pub version_number: u32,
    /// The task.
    pub task_id: TaskId,
    /// Its state.
    pub state: TaskInstanceState,
    /// The try; 0 before the first.
    pub try_number: TryNumber,
    /// How many tries there are at the most, counted from the first.
    pub max_tries: u32,
    /// The last dispatch.
    pub dispatch: DispatchNumber,
    /// Why the last try ended.
    pub cause: Option<Cause>,
    /// What the last try said when it failed or skipped.
    pub message: Option<String>,
    /// The failure's code, if the task gave one.
    pub code: Option<String>,
    /// The failure's details (JSON text), if the task gave any.
    pub details: Option<String>,
    /// When its rule let it run.
    pub scheduled_at: Option<Timestamp>,
    /// When it was admitted.
    pub queued_at: Option<Timestamp>,
    /// When the last try started.
    pub start_date: Option<Timestamp>,
    /// When it ended.
    pub end_date: Option<Timestamp>,
    /// When the next try or poke is due.
    pub next_at: Option<Timestamp>,
    /// What the task's retry policy decided about the last try, for people (Airflow: `retry_reason`).
    pub retry_reason: Option<String>,
    /// The memory limit of the last try, in bytes.
    pub memory_limit_bytes: u64,
    /// What the last try used.
    pub usage: Option<TryUsage>,
    /// What its `map_index_template` calls it.
    pub rendered_map_index: Option<String>,
    /// Its pool.
    pub pool: String,
    /// Slots in the pool.
    pub pool_slots: u32,
    /// Its priority.
    pub priority_weight: i32,
    /// The queue of executors that it is meant for.
    pub queue: String,
    /// What does it: the component as the manifest names it, or a built-in operator.
    pub operator: String,
    /// The component's task, or the built-in step.
    pub operator_name: String,
    /// The component's content.
    pub component_digest: Option<Digest>,
    /// What a person noted about the task instance.
    pub note: Option<String>,
    /// When an executor was last heard of that has the last dispatch; none before its first heartbeat.
    pub last_heartbeat_at: Option<Timestamp>,
}

/// A question to a person, with its answer if there is one (Airflow: `HITLDetail`).
#[derive(Clone, Debug)]
pub struct HitlRow {
    /// The task instance that asks, or its try.
    pub ti: TiRow,
    /// What can be answered.
    pub step: Arc<HumanStep>,
    /// What is asked.
    pub subject: String,
    /// The details.
    pub body: Option<String>,
    /// When it was asked.
    pub created_at: Timestamp,
    /// When it was answered.
    pub responded_at: Option<Timestamp>,
    /// Who answered; nobody where the defaults were taken.
    pub responded_by: Option<String>,
    /// The options that were chosen.
    pub chosen_options: Option<Vec<String>>,
    /// The values that were entered.
    pub params_input: Option<Value>,
}

/// Which questions.
#[derive(Clone, Debug, Default)]
pub struct HitlFilter {
    /// Of these task instances.
    pub ti: TiFilter,
    /// `LIKE` pattern on the DAG's id.
    pub dag_id_pattern: Option<String>,
    /// Answered or not.
    pub response_received: Option<bool>,
    /// Answered by one of these people.
    pub responded_by: Vec<String>,
    /// `LIKE` pattern on the subject.
    pub subject_pattern: Option<String>,
    /// `LIKE` pattern on the body.
    pub body_pattern: Option<String>,
    /// By when it was asked.
    pub created_at: TimeRange,
    /// The order; the oldest question first when empty.
    pub order_by: Vec<OrderBy<HitlField>>,
}

/// A column of the list of questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HitlField {
    /// `ti_id`.
    Key,
    /// `subject`.
    Subject,
    /// `responded_at`.
    RespondedAt,
    /// `created_at`.
    CreatedAt,
    /// `responded_by_user_id`, `responded_by_user_name`.
    RespondedBy,
    /// `dag_id`.
    DagId,
    /// `run_id`.
    RunId,
    /// `task_display_name`.
    TaskId,
    /// `run_after`.
    RunAfter,
    /// `task_instance_state`.
    State,
}

/// Which task instances.
#[derive(Clone, Debug, Default)]
pub struct TiFilter {
    /// Of this DAG (none is all).
    pub dag_id: Option<DagId>,
    /// Of this run (none is all).
    pub run_id: Option<RunId>,
    /// Of these tasks.
    pub task_ids: Vec<TaskId>,
    /// `LIKE` pattern on the task id.
    pub task_id_pattern: Option<String>,
    /// With this map index.
    pub map_index: Option<MapIndex>,
    /// Only instances of what is repeated: not those that wait to be expanded.
    pub only_mapped: bool,
    /// In any of these states.
    pub states: Vec<TaskInstanceState>,
    /// Whose last try ended for any of these causes.
    pub causes: Vec<Cause>,
    /// In any of these pools.
    pub pools: Vec<String>,
    /// By start.
    pub start_date: TimeRange,
    /// By end.
    pub end_date: TimeRange,
    /// By the run's logical date.
    pub logical_date: TimeRange,
    /// By the run's `run_after`.
    pub run_after: TimeRange,
    /// By last change.
    pub updated_at: TimeRange,
    /// By try.
    pub try_numbers: Vec<u32>,
    /// The order; by (run, task, map index) when empty.
    pub order_by: Vec<OrderBy<TiField>>,
}

/// A column of the task instance list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TiField {
    /// The key (`id`).
    Key,
    /// `task_id`.
    TaskId,
    /// `map_index`.
    MapIndex,
    /// `state`.
    State,
    /// `duration`.
    Duration,
    /// `start_date`.
    StartDate,
    /// `end_date`.
    EndDate,
    /// `logical_date`, `run_after` of the run.
    RunAfter,
    /// `logical_date`.
    LogicalDate,
    /// `try_number`.
    TryNumber,
    /// `rendered_map_index`.
    RenderedMapIndex,
}

/// An XCom.
#[derive(Clone, Debug)]
pub struct XcomRow {
    /// The task instance.
    pub ti: TiKey,
    /// The DAG.
    pub dag_id: DagId,
    /// The run.
    pub run_id: RunId,
    /// The run's logical date.
    pub logical_date: Option<Timestamp>,
    /// The run's `run_after`.
    pub run_after: Timestamp,
    /// The task.
    pub task_id: TaskId,
    /// The key.
    pub key: String,
    /// When it was committed.
    pub timestamp: Timestamp,
    /// The value; none in lists.
    pub value: Option<XcomValue>,
}

/// Which XComs. `~` in a path is none here.
#[derive(Clone, Debug, Default)]
pub struct XcomFilter {
    /// Of this DAG.
    pub dag_id: Option<DagId>,
    /// Of this run.
    pub run_id: Option<RunId>,
    /// Of this task.
    pub task_id: Option<TaskId>,
    /// With this key.
    pub key: Option<String>,
    /// With this map index.
    pub map_index: Option<MapIndex>,
}

/// A line of the audit log (Airflow: event log).
#[derive(Clone, Debug)]
pub struct AuditRow {
    /// Its id.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// What, for example `trigger_dag_run`.
    pub event: String,
    /// Who.
    pub user: String,
    /// The DAG.
    pub dag_id: Option<String>,
    /// The run.
    pub run_id: Option<String>,
    /// The task.
    pub task_id: Option<String>,
    /// JSON text.
    pub extra: Option<String>,
}

/// A pool with its use.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PoolRow {
    /// Its name.
    pub name: String,
    /// Its slots; negative is without bound.
    pub slots: i32,
    /// For people.
    pub description: Option<String>,
    /// Whether deferred task instances count as occupying slots (Airflow).
    pub include_deferred: bool,
    /// The slots in use, as the ticks have counted them.
    pub used: i64,
}

/// Slots of a pool by the state of the task instances that they belong to.
#[derive(Clone, Debug)]
pub struct PoolUse {
    /// The pool's name.
    pub pool: String,
    /// The state.
    pub state: TaskInstanceState,
    /// How many slots.
    pub slots: u64,
}

/// Reads metadata.
#[async_trait]
pub trait Metadata: Send + Sync + 'static {
    /// DAGs.
    async fn dags(&self, filter: &DagFilter, page: Page) -> Result<Listed<DagRow>, QueryError>;
    /// One DAG.
    async fn dag(&self, dag_id: &DagId) -> Result<Option<DagRow>, QueryError>;
    /// The versions of a DAG, newest first.
    async fn dag_versions(&self, dag_id: &DagId, page: Page) -> Result<Listed<DagVersion>, QueryError>;
    /// One version by its number.
    async fn dag_version(&self, dag_id: &DagId, number: u32) -> Result<Option<DagVersion>, QueryError>;
    /// All tags in use.
    async fn dag_tags(&self) -> Result<Vec<String>, QueryError>;
    /// Runs.
    async fn runs(&self, filter: &RunFilter, page: Page) -> Result<Listed<RunRow>, QueryError>;
    /// One run.
    async fn run(&self, dag_id: &DagId, run_id: &RunId) -> Result<Option<RunRow>, QueryError>;
    /// Task instances.
    async fn task_instances(&self, filter: &TiFilter, page: Page) -> Result<Listed<TiRow>, QueryError>;
    /// One task instance.
    async fn task_instance(
        &self,
        dag_id: &DagId,
        run_id: &RunId,
        task_id: &TaskId,
        map_index: MapIndex,
    ) -> Result<Option<TiRow>, QueryError>;
    /// The tries of a task instance, oldest first: the ended ones and, last, the current one.
    async fn tries(&self, ti: TiKey) -> Result<Vec<TiRow>, QueryError>;
    /// Questions to people: of each task instance that of its current try.
    async fn hitl_details(&self, filter: &HitlFilter, page: Page) -> Result<Listed<HitlRow>, QueryError>;
    /// The question of a try. `ti` is the row of the try.
    async fn hitl_detail(&self, ti: TiRow) -> Result<Option<HitlRow>, QueryError>;
    /// Callbacks.
    async fn callbacks(&self, filter: &CallbackFilter, page: Page) -> Result<Listed<CallbackRow>, QueryError>;
    /// XComs without their values.
    async fn xcoms(&self, filter: &XcomFilter, page: Page) -> Result<Listed<XcomRow>, QueryError>;
    /// One XCom with its value.
    async fn xcom(
        &self,
        dag_id: &DagId,
        run_id: &RunId,
        task_id: &TaskId,
        map_index: MapIndex,
        key: &str,
    ) -> Result<Option<XcomRow>, QueryError>;
    /// Whether people may read the blob: it was uploaded, or an XCom or a run refers to it.
    async fn blob_is_readable(&self, digest: Digest) -> Result<bool, QueryError>;
    /// The audit log, newest first.
    async fn audit_log(&self, dag_id: Option<&DagId>, page: Page) -> Result<Listed<AuditRow>, QueryError>;
    /// The pools, in the order of their names.
    async fn pools(&self) -> Result<Vec<PoolRow>, QueryError>;
    /// What the task instances of active runs that wait or are out need of the pools (states `scheduled`, `queued`, `running`,
    /// `restarting` and `deferred`).
    async fn pool_use(&self) -> Result<Vec<PoolUse>, QueryError>;
    /// A cheap read that shows whether the database answers.
    async fn ping(&self) -> Result<(), QueryError>;
}
