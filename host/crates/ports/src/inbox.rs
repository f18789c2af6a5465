//! What a process asks that does not schedule of the one that does. A request is committed as a row of the inbox, which whoever holds the
//! lease drains; the answer is written into the row, and whoever asked takes it out.

use async_trait::async_trait;
use model::{DagId, DagRunState, RunId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::control::{
    ClearRequest, ControlError, NewPool, PoolPatch, RespondRequest, Responded, SetNoteRequest, SetStateRequest,
    TriggerRequest,
};
use crate::deploy::{CheckedManifest, Deployed};
use crate::query::{PoolRow, QueryError, RunRow, TiRow};
use crate::store::CommitError;

/// A request: the calls of [`Control`](crate::control::Control) that change something.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// `Control::trigger`.
    Trigger(TriggerRequest),
    /// `Control::clear`.
    Clear {
        /// The DAG.
        dag_id: DagId,
        /// Which task instances of it.
        request: ClearRequest,
    },
    /// `Control::set_run_state`.
    SetRunState {
        /// The DAG.
        dag_id: DagId,
        /// The run.
        run_id: RunId,
        /// Its new state.
        state: DagRunState,
        /// Who asks.
        user: String,
    },
    /// `Control::set_task_instance_state`.
    SetTaskInstanceState(SetStateRequest),
    /// `Control::set_task_instance_note`.
    SetTaskInstanceNote(SetNoteRequest),
    /// `Control::respond`.
    Respond(RespondRequest),
    /// `Control::set_run_note`.
    SetRunNote {
        /// The DAG.
        dag_id: DagId,
        /// The run.
        run_id: RunId,
        /// Its new note.
        note: String,
        /// Who asks.
        user: String,
    },
    /// `Control::delete_run`.
    DeleteRun {
        /// The DAG.
        dag_id: DagId,
        /// The run.
        run_id: RunId,
        /// Who asks.
        user: String,
    },
    /// `Control::deploy`.
    Deploy {
        /// What to deploy.
        manifest: CheckedManifest,
        /// Whether an existing DAG may be replaced.
        replace: bool,
        /// Who asks.
        user: String,
    },
    /// `Control::set_paused`.
    SetPaused {
        /// The DAG.
        dag_id: DagId,
        /// Paused or not.
        paused: bool,
        /// Who asks.
        user: String,
    },
    /// `Control::delete_dag`.
    DeleteDag {
        /// The DAG.
        dag_id: DagId,
        /// Who asks.
        user: String,
    },
    /// `Control::create_pool`.
    CreatePool {
        /// The pool.
        pool: NewPool,
        /// Who asks.
        user: String,
    },
    /// `Control::change_pool`.
    ChangePool {
        /// The pool.
        name: String,
        /// What to change.
        patch: PoolPatch,
        /// Who asks.
        user: String,
    },
    /// `Control::delete_pool`.
    DeletePool {
        /// The pool.
        name: String,
        /// Who asks.
        user: String,
    },
}

/// What a request came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Done {
    /// It is done, and there is nothing to say about it.
    Nothing,
    /// The run that it was about, as it is now.
    Run(Box<RunRow>),
    /// The task instances that it was about.
    TaskInstances(Vec<TiRow>),
    /// When a person's answer was taken.
    Responded(Responded),
    /// The version that was deployed.
    Deployed(Deployed),
    /// The pool, as it is now.
    Pool(PoolRow),
    /// It was done by a scheduler that stopped before it could say what came of it.
    Unsaid,
}

/// What is written into the row.
pub type Answer = Result<Done, ControlError>;

/// A row of the inbox.
#[derive(Clone, Debug)]
pub struct InboxRow {
    /// Its id, of whoever asks; a later one is larger.
    pub id: Uuid,
    /// When it was asked.
    pub asked_at: Timestamp,
    /// The request as JSON text: of the same version of Airtight, or of another.
    pub request: String,
    /// Whether what it asks for was committed. The answer may still be missing.
    pub settled: bool,
}

/// Who schedules on a database, as everybody sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenScheduler {
    /// Who holds the lease, or held it last where it ran out; nobody where it was given back.
    pub scheduler_id: Option<Uuid>,
    /// When the lease was renewed last.
    pub renewed_at: Timestamp,
    /// Until when it holds.
    pub expires_at: Timestamp,
    /// How many active runs it owns.
    pub active_runs: usize,
    /// The runs that were set aside, as `dag_id/run_id`.
    pub set_aside_runs: Vec<String>,
}

/// The inbox, for those who ask.
#[async_trait]
pub trait InboxStore: Send + Sync + 'static {
    /// Commits a request.
    async fn ask(&self, id: Uuid, request: &str, now: Timestamp) -> Result<(), CommitError>;
    /// The answers to these requests, as JSON text, as far as there are any.
    async fn answers(&self, ids: &[Uuid]) -> Result<Vec<(Uuid, String)>, QueryError>;
    /// Removes requests whose answers were taken.
    async fn forget(&self, ids: &[Uuid]) -> Result<(), QueryError>;
    /// Who schedules.
    async fn scheduler(&self) -> Result<SeenScheduler, QueryError>;
}
