//! Waiting for the end of a run. An active run is watched in memory; an ended one is read.

use std::time::Duration;

use model::{DagId, DagRunState, RunId};
use ports::control::ControlError;

use super::resolve::{run_key, run_row};
use crate::shared::Shared;

pub(super) async fn wait(
    shared: &Shared,
    dag_id: &DagId,
    run_id: &RunId,
    timeout: Duration,
) -> Result<DagRunState, ControlError> {
    let watched = shared.active().find(dag_id, run_id).map(|run| run.state.subscribe());
    let Some(mut watched) = watched else {
        let key = run_key(shared, dag_id, run_id).await?;
        return Ok(run_row(shared, key, dag_id, run_id).await?.state);
    };
    let mut ended = shared.ended.subscribe();
    tokio::select! {
        // The sender goes when the run has ended or the scheduler has.
        state = watched.wait_for(|state| state.is_finished()) => {
            return state.map(|state| *state).map_err(|_| ControlError::Stopping);
        }
        () = tokio::time::sleep(timeout) => {}
        _ = ended.wait_for(|ended| *ended) => return Err(ControlError::Stopping),
    }
    let state = *watched.borrow();
    Ok(state)
}
