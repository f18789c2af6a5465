//! From names to keys.

use model::{DagId, DagRunKey, RunId};
use ports::control::ControlError;
use ports::query::RunRow;

use crate::shared::{Shared, query_failed};

/// The key of a run: from memory if it is active, else from the database.
pub(super) async fn run_key(shared: &Shared, dag_id: &DagId, run_id: &RunId) -> Result<DagRunKey, ControlError> {
    if let Some(run) = shared.active().find(dag_id, run_id) {
        return Ok(run.context.key);
    }
    shared
        .store
        .find_run(dag_id, run_id)
        .await
        .map_err(query_failed)?
        .ok_or_else(|| not_found(shared, dag_id, run_id))
}

/// The row of a run as the database has it.
pub(super) async fn run_row(
    shared: &Shared,
    key: DagRunKey,
    dag_id: &DagId,
    run_id: &RunId,
) -> Result<RunRow, ControlError> {
    shared
        .store
        .run_row(key)
        .await
        .map_err(query_failed)?
        .ok_or_else(|| not_found(shared, dag_id, run_id))
}

/// The run or its DAG does not exist.
pub(super) fn not_found(shared: &Shared, dag_id: &DagId, run_id: &RunId) -> ControlError {
    if shared.dag(dag_id).is_none() {
        return ControlError::DagNotFound(dag_id.clone());
    }
    ControlError::RunNotFound {
        dag_id: dag_id.clone(),
        run_id: run_id.clone(),
    }
}
