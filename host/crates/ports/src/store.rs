//! What the scheduler needs of a database: leases, ticks, recovery. Implemented on SQLite, PostgreSQL and in memory.

use std::collections::BTreeMap;
use std::num::{NonZeroU8, NonZeroU32};
use std::ops::RangeInclusive;
use std::sync::Arc;

use async_trait::async_trait;
use model::{
    Cause, DagId, DagRunKey, DagRunState, DagRunType, Digest, DispatchNumber, MapIndex, RunId, TaskId, TaskIndex,
    TaskInstanceState, TiKey, Timestamp, TryNumber,
};
use uuid::Uuid;

use crate::between::{ChildRun, RunParent};
use crate::callback::{CallbackChange, CallbackRun, CallbackWrite, DueCallbacks};
use crate::component::{Component, Inspected, Refusal, Tag};
use crate::deploy::DagVersion;
use crate::executor::{RunContext, TryUsage};
use crate::inbox::InboxRow;
use crate::intent::{Intent, IntentWrite};
use crate::payload::{Checkpoint, XcomValue};
use crate::query::{HiddenFailure, Listed, Page, PoolRow, QueryError, RunRow, TiRow};

/// The right to schedule. Every tick's transaction checks it under lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Who holds it.
    pub scheduler_id: Uuid,
    /// Rises with each holder.
    pub epoch: i64,
}

/// Why no lease was given.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Another scheduler holds it and renewed it recently.
    #[error("database is in use by scheduler {scheduler_id} since {since}")]
    InUse {
        /// Who.
        scheduler_id: Uuid,
        /// Since when.
        since: Timestamp,
        /// When it runs out unless it is renewed.
        expires_at: Timestamp,
    },
    /// The database failed.
    #[error(transparent)]
    Query(#[from] QueryError),
}

/// Why a tick was not committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A passing reason (busy, serialisation, disk full): nothing was written; try again.
    #[error("the database cannot commit right now")]
    Passing(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The data cannot be committed (a constraint, a value out of range): nothing was written.
    #[error("the database refused the data of a tick")]
    Data(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The connection was lost while committing: ask `tick_committed` before anything else.
    #[error("it is not known whether the tick was committed")]
    Unknown(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Another scheduler took the lease: nothing was written; drop everything.
    #[error("another scheduler has taken over this database")]
    Fenced,
    /// A pool has fewer free slots than the tick takes, since somebody changed it in the database: nothing was written; recount
    /// the slots and decide again.
    #[error("a pool has fewer free slots than were to be taken")]
    SlotsTaken,
}

/// All that one tick writes. One transaction.
#[derive(Clone, Debug, Default)]
pub struct TickWrite {
    /// Unique; read back after an unknown outcome.
    pub tick_id: Uuid,
    /// When the tick happened.
    pub now: Option<Timestamp>,
    /// Deploys, pauses, deletions; in order, before the runs.
    pub dags: Vec<DagWrite>,
    /// DAGs that are paused because of a run that ended; after `dags`.
    pub pauses: Vec<DagPause>,
    /// Pools that are made, changed or deleted; in order, before the slots.
    pub pools: Vec<PoolWrite>,
    /// The slots that dispatches take and ends give back, at most one row a run and pool. What is taken must fit, pool by pool
    /// and net over all runs, or nothing is written (`SlotsTaken`); what is given back always may be.
    pub slots: Vec<SlotChange>,
    /// New runs, without their task instances (those are in `task_instances`).
    pub new_runs: Vec<NewRun>,
    /// Runs that changed.
    pub runs: Vec<RunWrite>,
    /// Runs that are the child of another task instance from now on.
    pub parents: Vec<ParentWrite>,
    /// Task instances that got another map index: their old rows, deleted before `task_instances` are written.
    pub task_instance_deletes: Vec<TiKey>,
    /// Task instances that changed (whole rows, upserted).
    pub task_instances: Vec<TiWrite>,
    /// Tries that ended (inserted; a repeat replaces).
    pub tries: Vec<TiWrite>,
    /// Task instances whose XComs are deleted, before `xcoms` are inserted.
    pub xcom_deletes: Vec<TiKey>,
    /// XComs (a repeat replaces).
    pub xcoms: Vec<XcomWrite>,
    /// Questions to people (a repeat replaces).
    pub hitl_requests: Vec<HitlRequest>,
    /// Answers to them, after the questions.
    pub hitl_answers: Vec<HitlAnswer>,
    /// Callbacks that have become due.
    pub callbacks: Vec<CallbackWrite>,
    /// Task instances that got another map index, and which: what people noted about them moves along, before `notes` are written. Where
    /// there is a note already, that one stays.
    pub note_moves: Vec<(TiKey, MapIndex)>,
    /// Notes of people on task instances (a repeat replaces).
    pub notes: Vec<TiNote>,
    /// When executors were heard of (a repeat replaces).
    pub heartbeats: Vec<HeartbeatWrite>,
    /// Task instances whose checkpoint is deleted, with its references.
    pub checkpoint_deletes: Vec<TiKey>,
    /// Runs that are deleted: they are gone at once, what belongs to them follows by one of `intents`.
    pub run_deletes: Vec<DagRunKey>,
    /// Intents that the changes to runs bring with them. Those of DAG changes are in `dags`.
    pub intents: Vec<Arc<Intent>>,
    /// Runs that an intent has dealt with.
    pub intent_runs_done: Vec<(Uuid, DagRunKey)>,
    /// Lines for the audit log.
    pub audit: Vec<AuditWrite>,
}

/// Who waits for a run that somebody else made, or made it run again.
#[derive(Clone, Debug)]
pub struct ParentWrite {
    /// The run.
    pub run: DagRunKey,
    /// Its parent.
    pub parent: Arc<RunParent>,
}

/// A change to a DAG.
#[derive(Clone, Debug)]
pub enum DagWrite {
    /// Store the version (nothing happens where the digest exists in this DAG) and make it current.
    Deploy {
        /// The version, with its number already chosen.
        version: Arc<DagVersion>,
        /// Set where the DAG is new.
        paused: Option<bool>,
    },
    /// Pause or unpause.
    SetPaused {
        /// The DAG.
        dag_id: DagId,
        /// Paused or not.
        paused: bool,
    },
    /// Mark the DAG: from now on it is listed nowhere, and neither are its runs. The intent removes them.
    Delete {
        /// The DAG.
        dag_id: DagId,
        /// What begins with that.
        intent: Arc<Intent>,
    },
    /// A step of an intent.
    Intent(IntentWrite),
    /// A step of carrying a callback out. Where its run is gone, nothing happens.
    Callback(CallbackChange),
}

/// A DAG that is paused because its runs fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DagPause {
    /// The run that ended.
    pub run: DagRunKey,
    /// The DAG.
    pub dag_id: DagId,
    /// Why, for people.
    pub reason: String,
}

/// A change to a pool.
#[derive(Clone, Debug)]
pub enum PoolWrite {
    /// A new pool.
    Create(PoolRow),
    /// Replace what is known of a pool, its name included. The slots in use stay as they are.
    Change {
        /// Its name so far.
        name: String,
        /// All of it.
        pool: PoolRow,
    },
    /// Remove it.
    Delete {
        /// The pool.
        name: String,
    },
}

/// Slots of a pool that a tick takes or gives back for a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotChange {
    /// For this run.
    pub run: DagRunKey,
    /// In this pool.
    pub pool: String,
    /// How many more are in use; negative where they are given back.
    pub change: i64,
    /// Whether they are taken whatever the pool has: what is dispatched already comes back with a run that was set aside.
    pub unchecked: bool,
}

/// What a tick changes about the slots in use of one pool, over all runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotSum {
    /// How many more are in use.
    pub change: i64,
    /// A change up to this is not refused, whatever the pool has.
    pub unchecked: i64,
}

impl SlotSum {
    /// The sums by pool, in the order of their names: the order in which every tick locks the pools.
    pub fn of(changes: &[SlotChange]) -> BTreeMap<&str, Self> {
        let mut sums: BTreeMap<&str, Self> = BTreeMap::new();
        for change in changes {
            let sum = sums.entry(&change.pool).or_default();
            sum.change = sum.change.saturating_add(change.change);
            if change.unchecked {
                sum.unchecked = sum.unchecked.saturating_add(change.change.max(0));
            }
        }
        sums.retain(|_, sum| sum.change != 0);
        sums
    }
}

/// A new run.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// What its tries share.
    pub context: Arc<RunContext>,
    /// Its version.
    pub version: Uuid,
    /// How it came to be.
    pub run_type: DagRunType,
    /// `conf` as JSON text.
    pub conf: Arc<str>,
    /// `params` as JSON text.
    pub params: Arc<str>,
    /// For people.
    pub note: Option<String>,
    /// Who triggered it.
    pub triggering_user: Option<String>,
    /// The task instance that triggered it.
    pub parent: Option<Arc<RunParent>>,
    /// When it was queued.
    pub queued_at: Timestamp,
}

/// A run that changed.
#[derive(Clone, Debug)]
pub struct RunWrite {
    /// Which.
    pub key: DagRunKey,
    /// Its state.
    pub state: DagRunState,
    /// When it was queued last.
    pub queued_at: Timestamp,
    /// When it started.
    pub start_date: Option<Timestamp>,
    /// When it ended.
    pub end_date: Option<Timestamp>,
    /// A new note, if it was changed.
    pub note: Option<String>,
    /// Why it was set aside, if it was.
    pub set_aside: Option<String>,
    /// Failures that its success hides.
    pub hidden_failures: Vec<HiddenFailure>,
}

/// The row of a task instance, or of an ended try.
#[derive(Clone, Debug)]
pub struct TiWrite {
    /// Which.
    pub key: TiKey,
    /// The task's id, for people and filters.
    pub task_id: TaskId,
    /// Its state.
    pub state: TaskInstanceState,
    /// The try.
    pub try_number: TryNumber,
    /// How many tries there are at the most, counted from the first.
    pub max_tries: u32,
    /// The last dispatch.
    pub dispatch: DispatchNumber,
    /// Infrastructure losses of this try.
    pub infra_losses: u32,
    /// Whether an executor acknowledged the last dispatch.
    pub acknowledged: bool,
    /// Why the last try ended.
    pub cause: Option<Cause>,
    /// See [`TiRow::message`].
    pub message: Option<String>,
    /// See [`TiRow::code`].
    pub code: Option<String>,
    /// See [`TiRow::details`].
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
    /// The number of the rule in the task's retry policy that decided about the last try.
    pub retry_rule: Option<NonZeroU8>,
    /// The memory limit in KiB where a retry policy raised it.
    pub raised_memory_kib: Option<NonZeroU32>,
    /// What the last try used.
    pub usage: Option<TryUsage>,
    /// What its success said that later decisions depend on; needed to recover.
    pub facts: Option<model::run::Facts>,
    /// See [`TiRow::rendered_map_index`].
    pub rendered_map_index: Option<String>,
}

/// An XCom to store.
#[derive(Clone, Debug)]
pub struct XcomWrite {
    /// Of this task instance.
    pub ti: TiKey,
    /// The key.
    pub key: String,
    /// The value with the blobs it refers to; each becomes a `blob_ref` row.
    pub value: XcomValue,
}

/// What a try asks a person (Airflow: `HITLDetail`). What can be answered is in the DAG version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HitlRequest {
    /// Whose question it is.
    pub ti: TiKey,
    /// Of which try.
    pub try_number: TryNumber,
    /// As it was rendered.
    pub subject: String,
    /// As it was rendered.
    pub body: Option<String>,
}

/// What a person answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HitlAnswer {
    /// Whose question it was.
    pub ti: TiKey,
    /// Of which try.
    pub try_number: TryNumber,
    /// Who answered; nobody where the defaults were taken when time ran out.
    pub user: Option<String>,
    /// When.
    pub at: Timestamp,
    /// The options that were chosen.
    pub chosen_options: Vec<String>,
    /// The values that were entered: a JSON object as text.
    pub params_input: String,
}

/// What a person noted about a task instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TiNote {
    /// Which.
    pub ti: TiKey,
    /// The text; an empty one is none.
    pub content: String,
    /// Who wrote it.
    pub user: String,
}

/// That an executor has a dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatWrite {
    /// Of this task instance.
    pub ti: TiKey,
    /// The dispatch.
    pub dispatch: DispatchNumber,
    /// When it said so.
    pub at: Timestamp,
}

/// What a try saves of its progress, outside of the ticks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointSave {
    /// Of this task instance.
    pub ti: TiKey,
    /// By this dispatch of it.
    pub dispatch: DispatchNumber,
    /// None removes it.
    pub checkpoint: Option<Checkpoint>,
}

/// A line for the audit log.
#[derive(Clone, Debug)]
pub struct AuditWrite {
    /// What.
    pub event: &'static str,
    /// Who.
    pub user: String,
    /// The DAG.
    pub dag_id: Option<DagId>,
    /// The run.
    pub run_id: Option<RunId>,
    /// JSON text.
    pub extra: Option<String>,
    /// The row of the inbox that asked for it: settled with this.
    pub settles: Option<Uuid>,
}

/// A run as it was stored, for recovery.
#[derive(Clone, Debug)]
pub struct StoredRun {
    /// The row.
    pub row: RunRow,
    /// What its tries share.
    pub context: Arc<RunContext>,
    /// Its version.
    pub version: Uuid,
    /// Its task instances, ordered by key. A task instance that was never written has no row: it is `no_status`.
    pub task_instances: Vec<TiWrite>,
    /// How many callbacks of it are stored.
    pub callbacks: u32,
}

/// What a run came to, for the run after it.
#[derive(Clone, Debug)]
pub struct StoredBefore {
    /// The run.
    pub key: DagRunKey,
    /// Its version.
    pub version: Uuid,
    /// Its state.
    pub state: DagRunState,
    /// How many task instances of each task are in each state.
    pub states: Vec<(TaskIndex, TaskInstanceState, u64)>,
}

/// A DAG as the scheduler knows it.
#[derive(Clone, Debug)]
pub struct StoredDag {
    /// Its id.
    pub dag_id: DagId,
    /// Whether it is paused.
    pub paused: bool,
    /// Its current version.
    pub version: Arc<DagVersion>,
}

/// The scheduler's database.
#[async_trait]
pub trait SchedulerStore: Send + Sync + 'static {
    /// Takes the lease if it is free, ran out, or is `scheduler_id`'s own. The same transaction gives it the active
    /// runs and recounts the slots in use of all pools.
    async fn acquire_lease(
        &self,
        scheduler_id: Uuid,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Lease, LeaseError>;
    /// Renews it. `Fenced` when another scheduler took over.
    async fn renew_lease(&self, lease: &Lease, now: Timestamp, expires_at: Timestamp) -> Result<(), CommitError>;
    /// Gives it back, so that the next process need not wait.
    async fn release_lease(&self, lease: &Lease) -> Result<(), QueryError>;
    /// Reserves `count` run keys for this scheduler, durably; answers the first.
    async fn reserve_run_keys(&self, lease: &Lease, count: u32) -> Result<DagRunKey, CommitError>;
    /// Writes a tick in one transaction, after checking the lease's epoch under lock.
    async fn commit_tick(&self, lease: &Lease, tick: &TickWrite) -> Result<(), CommitError>;
    /// Whether a tick was committed.
    async fn tick_committed(&self, tick_id: Uuid) -> Result<bool, QueryError>;
    /// All DAGs but those that are being deleted.
    async fn load_dags(&self) -> Result<Vec<StoredDag>, QueryError>;
    /// One version.
    async fn load_version(&self, version: Uuid) -> Result<Option<Arc<DagVersion>>, QueryError>;
    /// The version of a DAG with this digest, if there is one, and the highest number in use.
    async fn find_version(&self, dag_id: &DagId, digest: Digest) -> Result<(Option<Arc<DagVersion>>, u32), QueryError>;
    /// The keys of the runs that are queued or running, in the order of their keys.
    async fn active_runs(&self) -> Result<Vec<DagRunKey>, QueryError>;
    /// Runs with their task instances.
    async fn load_run(&self, key: DagRunKey) -> Result<Option<StoredRun>, QueryError>;
    /// The key of a run by name.
    async fn find_run(&self, dag_id: &DagId, run_id: &RunId) -> Result<Option<DagRunKey>, QueryError>;
    /// The run of a DAG with this logical date.
    async fn find_run_by_logical_date(
        &self,
        dag_id: &DagId,
        logical_date: Timestamp,
    ) -> Result<Option<RunId>, QueryError>;
    /// The run of a DAG with the latest logical date before this one.
    async fn run_before(&self, dag_id: &DagId, logical_date: Timestamp) -> Result<Option<StoredBefore>, QueryError>;
    /// Whether the version of any run of the DAG with a logical date before this one has a task of this name.
    async fn has_task_before(
        &self,
        dag_id: &DagId,
        logical_date: Timestamp,
        task_id: &TaskId,
    ) -> Result<bool, QueryError>;
    /// The latest runs of a DAG by `run_after`, then by key, at most `limit`: with `run_after` and state.
    async fn latest_runs(
        &self,
        dag_id: &DagId,
        limit: u32,
    ) -> Result<Vec<(DagRunKey, Timestamp, DagRunState)>, QueryError>;
    /// The keys of a DAG's runs whose logical date (or `run_after`) lies in a range, for clearing; at most `limit`.
    async fn runs_between(
        &self,
        dag_id: &DagId,
        start: Option<Timestamp>,
        end: Option<Timestamp>,
        limit: u32,
    ) -> Result<Vec<DagRunKey>, QueryError>;
    /// The runs that the task instances of a run triggered, in the order of their keys.
    async fn children(&self, run: DagRunKey) -> Result<Vec<ChildRun>, QueryError>;
    /// Committed XComs of a task in a run, from one map index to another, in their order.
    async fn xcoms(
        &self,
        run: DagRunKey,
        task: model::TaskIndex,
        indexes: RangeInclusive<model::MapIndex>,
        key: &str,
    ) -> Result<Vec<(model::MapIndex, XcomValue)>, QueryError>;
    /// How large committed XComs are, in bytes: of at most `limit`, in the order of the map index.
    async fn xcom_sizes(
        &self,
        run: DagRunKey,
        task: model::TaskIndex,
        indexes: RangeInclusive<model::MapIndex>,
        key: &str,
        limit: u32,
    ) -> Result<Vec<(model::MapIndex, u64)>, QueryError>;
    /// The keys of a task instance's committed XComs, with the sizes of the values in bytes.
    async fn xcom_keys(&self, ti: TiKey) -> Result<Vec<(String, u64)>, QueryError>;
    /// The checkpoint of a task instance.
    async fn load_checkpoint(&self, ti: TiKey) -> Result<Option<Vec<u8>>, QueryError>;
    /// Replaces (or removes) checkpoints with their references in one transaction, in order: each if its dispatch is still the task
    /// instance's stored one. Answers for each whether it was.
    async fn save_checkpoints(
        &self,
        lease: &Lease,
        saves: &[CheckpointSave],
        now: Timestamp,
    ) -> Result<Vec<bool>, CommitError>;
    /// The intents that are not done, oldest first.
    async fn intents(&self) -> Result<Vec<Intent>, QueryError>;
    /// Of these blobs, those that people may read, with the sizes that are known of them: what was uploaded, and what an XCom or a run refers to.
    async fn readable_blobs(&self, digests: &[Digest]) -> Result<Vec<(Digest, u64)>, QueryError>;
    /// The rows of the inbox that have no answer, but for these, oldest first, at most `limit`.
    async fn inbox(&self, except: &[Uuid], limit: u32) -> Result<Vec<InboxRow>, QueryError>;
    /// Writes answers, as JSON text, into rows of the inbox that have none.
    async fn answer_inbox(&self, lease: &Lease, answers: &[(Uuid, String)], now: Timestamp) -> Result<(), CommitError>;
    /// Removes the rows of the inbox that were answered before this time: whoever asked is gone.
    async fn sweep_inbox(&self, lease: &Lease, answered_before: Timestamp) -> Result<(), CommitError>;
    /// Callbacks that are to be carried out by `now`, oldest first, at most `limit`; those of `running` ones included. Not those of runs
    /// that are deleted or whose DAG is being deleted.
    async fn due_callbacks(&self, now: Timestamp, limit: u32) -> Result<DueCallbacks, QueryError>;
    /// What callbacks need to know of a run.
    async fn callback_run(&self, run: DagRunKey) -> Result<Option<CallbackRun>, QueryError>;
    /// Whether any rows belong to these runs, beside the rows of the runs themselves.
    async fn has_rows(&self, runs: &[DagRunKey]) -> Result<bool, QueryError>;
    /// How many versions a DAG has beside its current one.
    async fn old_versions(&self, dag_id: &DagId) -> Result<u64, QueryError>;
    /// The rows of task instances as the API shows them, for answers of `Control`.
    async fn ti_rows(&self, run: DagRunKey) -> Result<Vec<TiRow>, QueryError>;
    /// The row of a run as the API shows it.
    async fn run_row(&self, key: DagRunKey) -> Result<Option<RunRow>, QueryError>;
    /// The pools and their slots, in the order of their names.
    async fn pools(&self) -> Result<Vec<PoolRow>, QueryError>;
    /// Counts the slots in use anew, from the dispatched task instances of all runs that are not set aside; answers the pools.
    async fn recount_slots(&self, lease: &Lease) -> Result<Vec<PoolRow>, CommitError>;
}

/// Why a tag or a component could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ComponentWriteError {
    /// The tag names other content already, even if it was deleted.
    #[error("the tag is taken by {0}")]
    TagTaken(Digest),
    /// DAG versions use the component.
    #[error("the component is in use by {}", .0.join(", "))]
    InUse(Vec<String>),
    /// There is none.
    #[error("there is no such component or tag")]
    NotFound,
    /// The database failed.
    #[error(transparent)]
    Query(#[from] QueryError),
}

/// The component tables.
#[async_trait]
pub trait ComponentStore: Send + Sync + 'static {
    /// Adds a component (state `compiling`) unless the digest is known, and the tag if one is given, in one transaction.
    /// `true` where the content is new.
    async fn add_component(
        &self,
        digest: Digest,
        size: u64,
        tag: Option<&Tag>,
        now: Timestamp,
    ) -> Result<bool, ComponentWriteError>;
    /// Stores what the compiler said.
    async fn finish_component(&self, digest: Digest, result: &Result<Inspected, Refusal>) -> Result<(), QueryError>;
    /// Sets a refused component back to `compiling`, for another attempt.
    async fn restart_component(&self, digest: Digest) -> Result<(), QueryError>;
    /// One component.
    async fn component(&self, digest: Digest) -> Result<Option<Component>, QueryError>;
    /// What a tag names; deleted tags name nothing.
    async fn resolve_tag(&self, tag: &Tag) -> Result<Option<Digest>, QueryError>;
    /// All, newest first.
    async fn components(&self, page: Page) -> Result<Listed<Component>, QueryError>;
    /// Those in the state `compiling`, for recovery.
    async fn compiling_components(&self) -> Result<Vec<Digest>, QueryError>;
    /// Deletes a tag; its name stays taken. Refuses where a DAG's current version names it and no other tag or digest does.
    async fn delete_tag(&self, tag: &Tag) -> Result<(), ComponentWriteError>;
    /// Deletes a component and its tags (their names stay taken). Refuses while any DAG version uses it.
    async fn delete_component(&self, digest: Digest) -> Result<(), ComponentWriteError>;
}

/// Blobs that people upload.
#[async_trait]
pub trait BlobUploads: Send + Sync + 'static {
    /// Somebody uploaded a blob: from now on people may read it.
    async fn add_upload(&self, digest: Digest, size: u64, now: Timestamp) -> Result<(), QueryError>;
    /// Forgets uploads of before this time. What something refers to may be read all the same.
    async fn forget_uploads(&self, before: Timestamp) -> Result<(), QueryError>;
}

/// Blobs that nothing refers to.
#[async_trait]
pub trait BlobRefs: Send + Sync + 'static {
    /// Of these digests, those that no row refers to.
    async fn unreferenced(&self, digests: &[Digest]) -> Result<Vec<Digest>, QueryError>;
}
