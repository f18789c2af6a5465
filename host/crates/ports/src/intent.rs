//! Operations that take more than one tick. An intent is committed before whoever asked for it is answered, carried out over
//! bounded ticks (after a crash by the next process), and gone once it is done.

use std::sync::Arc;

use model::{DagId, DagRunKey, DagRunState, MapIndex, TaskId, TaskInstanceState, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What was promised and is not done yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Its name.
    pub id: Uuid,
    /// The DAG that it is about.
    pub dag_id: DagId,
    /// Who asked for it.
    pub user: String,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// The runs that it has still to deal with, ascending. Each leaves in the transaction that deals with it.
    pub runs: Vec<DagRunKey>,
    /// What is to be done.
    pub work: IntentWork,
}

/// What an intent is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntentWork {
    /// Clear task instances of the runs.
    Clear(ClearWork),
    /// Set the state of task instances of the runs.
    SetState {
        /// Which.
        work: ClearWork,
        /// To this.
        state: TaskInstanceState,
    },
    /// Note something about task instances of the run.
    Note {
        /// Which.
        work: ClearWork,
        /// What.
        note: String,
    },
    /// End the run as a person asked for it, who says what its state is then.
    EndRun {
        /// `success` or `failed`.
        state: DagRunState,
    },
    /// Remove what is left of the runs, which exist no more.
    DeleteRuns,
    /// Remove the DAG, which is marked, with its runs and versions.
    DeleteDag,
}

/// Which task instances of a run to clear, or to set the state of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClearWork {
    /// Only these tasks (all map indexes, or one each).
    pub tasks: Option<Vec<(TaskId, Option<MapIndex>)>>,
    /// And the tasks of these groups, however deep. Where only groups are named, nothing else is meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Also everything upstream of them.
    pub include_upstream: bool,
    /// Also everything downstream of them.
    pub include_downstream: bool,
    /// Only those that failed or are upstream_failed.
    pub only_failed: bool,
    /// Only those that are running.
    pub only_running: bool,
}

/// One step of an intent.
#[derive(Clone, Debug)]
pub enum IntentWrite {
    /// It is promised from now on.
    Begin(Arc<Intent>),
    /// Remove rows that belong to runs: at most `rows` of each table, and far fewer of one with large values. A run that has no
    /// other rows left goes too.
    Purge {
        /// Runs that are deleted, or whose DAG is being deleted.
        runs: Vec<DagRunKey>,
        /// The bound.
        rows: u32,
    },
    /// Remove versions of a DAG that is being deleted: at most so many, not the current one, and none that a run has.
    PurgeVersions {
        /// The DAG.
        dag_id: DagId,
        /// The bound.
        versions: u32,
    },
    /// It is done. Takes the DAG along that was being deleted, of which only the current version is left.
    End {
        /// The intent.
        id: Uuid,
        /// The DAG.
        dag_id: Option<DagId>,
    },
}
