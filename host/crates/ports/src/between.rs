//! Messages about runs that have to do with other runs: who triggered whom, and who waits for whom.

use model::{DagId, DagRunKey, DagRunState, DispatchNumber, MapIndex, RunId, TaskId, TaskIndex, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// What a rendered `trigger_dag` asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggerDagRequest {
    /// The DAG, where a template chose it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dag: Option<DagId>,
    /// A JSON object.
    pub conf: Value,
    /// The name of the run, if it has one of its own.
    pub run_id: Option<RunId>,
    /// Its logical date.
    pub logical_date: Option<Timestamp>,
}

/// Names a run of another DAG, which need not exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunSelector {
    /// By its name.
    RunId(RunId),
    /// By its logical date.
    LogicalDate(Timestamp),
}

/// The task instance that triggered a run. Its names are kept with the run: they stay true when the parent is deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunParent {
    /// The run that it belongs to.
    pub run: DagRunKey,
    /// That run's DAG.
    pub dag_id: DagId,
    /// That run's name.
    pub run_id: RunId,
    /// The task.
    pub task: TaskIndex,
    /// The task's id.
    pub task_id: TaskId,
    /// Its map index.
    pub map_index: MapIndex,
    /// The dispatch that asked for the run.
    pub dispatch: DispatchNumber,
    /// How many runs led to the run that was triggered: 1 where the parent was triggered by nobody.
    pub depth: u32,
}

/// A run that another one triggered, as far as one who waits for it needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildRun {
    /// Its key.
    pub key: DagRunKey,
    /// Its DAG.
    pub dag_id: DagId,
    /// Its name.
    pub run_id: RunId,
    /// Its version.
    pub version: Uuid,
    /// Its state.
    pub state: DagRunState,
    /// The parent's task.
    pub task: TaskIndex,
    /// The parent's map index.
    pub map_index: MapIndex,
    /// The parent's dispatch.
    pub dispatch: DispatchNumber,
}
