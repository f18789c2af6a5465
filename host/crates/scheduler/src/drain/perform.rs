//! One request, done as if it had been made to this process.

use std::sync::Arc;

use ports::inbox::{Answer, Done, Request};
use uuid::Uuid;

use crate::asker::Asker;
use crate::control::{
    clear, delete_dag, delete_run, deploy, pools, respond, set_paused, set_run_note, set_run_state,
    set_task_instance_note, set_task_instance_state, trigger,
};
use crate::shared::Shared;

/// Does what a row of the inbox asks for.
pub(super) async fn perform(shared: &Arc<Shared>, row: Uuid, request: Request) -> Answer {
    let by = |user: String| Asker { user, row: Some(row) };
    let row = Some(row);
    let done = match request {
        Request::Trigger(request) => Done::Run(Box::new(trigger::trigger(shared, request, row).await?)),
        Request::Clear { dag_id, request } => Done::TaskInstances(clear::clear(shared, &dag_id, request, row).await?),
        Request::SetRunState {
            dag_id,
            run_id,
            state,
            user,
        } => Done::Run(Box::new(
            set_run_state::set_run_state(shared, &dag_id, &run_id, state, by(user)).await?,
        )),
        Request::SetTaskInstanceState(request) => {
            Done::TaskInstances(set_task_instance_state::set_task_instance_state(shared, request, row).await?)
        }
        Request::SetTaskInstanceNote(request) => {
            Done::TaskInstances(set_task_instance_note::set_task_instance_note(shared, request, row).await?)
        }
        Request::Respond(request) => Done::Responded(respond::respond(shared, request, row).await?),
        Request::SetRunNote {
            dag_id,
            run_id,
            note,
            user,
        } => Done::Run(Box::new(
            set_run_note::set_run_note(shared, &dag_id, &run_id, &note, by(user)).await?,
        )),
        Request::DeleteRun { dag_id, run_id, user } => {
            delete_run::delete_run(shared, &dag_id, &run_id, by(user)).await?;
            Done::Nothing
        }
        Request::Deploy {
            manifest,
            replace,
            user,
        } => Done::Deployed(deploy::deploy(shared, manifest, replace, by(user)).await?),
        Request::SetPaused { dag_id, paused, user } => {
            set_paused::set_paused(shared, &dag_id, paused, by(user)).await?;
            Done::Nothing
        }
        Request::DeleteDag { dag_id, user } => {
            delete_dag::delete_dag(shared, &dag_id, by(user)).await?;
            Done::Nothing
        }
        Request::CreatePool { pool, user } => Done::Pool(pools::create(shared, pool, by(user)).await?),
        Request::ChangePool { name, patch, user } => Done::Pool(pools::change(shared, &name, patch, by(user)).await?),
        Request::DeletePool { name, user } => {
            pools::delete(shared, &name, by(user)).await?;
            Done::Nothing
        }
    };
    Ok(done)
}
