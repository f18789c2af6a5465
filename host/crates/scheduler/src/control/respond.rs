//! A person's answer.

use std::sync::Arc;

use model::{Dag, DagId, RunId, Work};
use ports::control::{ControlError, RespondRequest, Responded};
use uuid::Uuid;

use super::resolve::{run_key, run_row};
use crate::asker::Asker;
use crate::checked::checked;
use crate::inbox::{Message, RunOp};
use crate::shared::{Shared, query_failed};

pub(crate) async fn respond(
    shared: &Arc<Shared>,
    request: RespondRequest,
    row: Option<Uuid>,
) -> Result<Responded, ControlError> {
    let RespondRequest {
        dag_id,
        run_id,
        task_id,
        map_index,
        chosen_options,
        params_input,
        user,
    } = request;
    let key = run_key(shared, &dag_id, &run_id).await?;
    let dag = dag_of(shared, &dag_id, &run_id).await?;
    let (index, task) = dag
        .index_of(task_id.as_str())
        .and_then(|index| Some((index, dag.task(index)?)))
        .ok_or_else(|| ControlError::TaskNotFound {
            dag_id: dag_id.clone(),
            task_id: task_id.to_string(),
        })?;
    let Work::Human(step) = &task.work else {
        return Err(ControlError::NotAsked(format!("task `{task_id}` asks nobody")));
    };
    // Whether it waits is for the loop to say, and comes before all else.
    let verdict = if step.assigned_users.is_empty() || step.assigned_users.contains(&user) {
        let asked = Arc::clone(&dag);
        let check = move || match asked.task(index).map(|task| &task.work) {
            Some(Work::Human(step)) => step.check(&chosen_options, &params_input),
            _ => Err(Vec::new()),
        };
        checked(check)
            .await?
            .map_err(|problems| ControlError::InvalidAnswer { problems })
    } else {
        Err(ControlError::Forbidden(format!(
            "`{user}` is not among the people that task `{task_id}` asks: {}",
            step.assigned_users.join(", ")
        )))
    };
    let at = shared.clock.now();
    let answer = verdict.as_ref().ok().cloned();
    shared
        .ask(|reply| {
            let op = RunOp::Respond {
                task: index,
                map_index,
                at,
                verdict,
                by: Asker { user, row },
                reply,
            };
            Message::Run(key, op)
        })
        .await?;
    let answer = answer.ok_or_else(|| ControlError::Internal("an answer that was refused was taken".into()))?;
    Ok(Responded { at, answer })
}

pub(super) async fn dag_of(shared: &Arc<Shared>, dag_id: &DagId, run_id: &RunId) -> Result<Arc<Dag>, ControlError> {
    if let Some(run) = shared.active().find(dag_id, run_id) {
        return Ok(Arc::clone(run.version.dag()));
    }
    let key = run_key(shared, dag_id, run_id).await?;
    let row = run_row(shared, key, dag_id, run_id).await?;
    let version = shared.version(row.version_uuid).await.map_err(query_failed)?;
    let version = version.ok_or_else(|| ControlError::Internal("the version of a run is gone".into()))?;
    Ok(Arc::clone(version.dag()))
}
