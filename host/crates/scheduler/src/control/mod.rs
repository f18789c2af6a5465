//! `ports::control::Control` on the handle: one file a command. What has to be read is read here, in the caller's task; what
//! is to be decided is sent to the loop, which answers after the commit.

mod blobs;
pub(crate) mod clear;
pub(crate) mod delete_dag;
pub(crate) mod delete_run;
pub(crate) mod deploy;
pub(crate) mod pools;
mod resolve;
pub(crate) mod respond;
pub(crate) mod set_paused;
pub(crate) mod set_run_note;
pub(crate) mod set_run_state;
pub(crate) mod set_task_instance_note;
pub(crate) mod set_task_instance_state;
mod show;
pub(crate) mod trigger;
mod wait;

use std::time::Duration;

use async_trait::async_trait;
use model::{DagId, DagRunKey, DagRunState, MapIndex, RunId, TaskId};
use ports::control::{
    ClearRequest, Control, ControlError, NewPool, PoolPatch, RespondRequest, Responded, Room, RunEvent,
    SchedulerHealth, SetNoteRequest, SetStateRequest, TriggerRequest,
};
use ports::deploy::{CheckedManifest, Deployed};
use ports::query::{PoolRow, RunRow, TiRow};
use tokio::sync::broadcast;

use crate::asker::Asker;
use crate::handle::Handle;

#[async_trait]
impl Control for Handle {
    async fn trigger(&self, request: TriggerRequest) -> Result<RunRow, ControlError> {
        trigger::trigger(&self.shared, request, None).await
    }

    async fn wait(&self, dag_id: &DagId, run_id: &RunId, timeout: Duration) -> Result<DagRunState, ControlError> {
        wait::wait(&self.shared, dag_id, run_id, timeout).await
    }

    async fn clear(&self, dag_id: &DagId, request: ClearRequest) -> Result<Vec<TiRow>, ControlError> {
        clear::clear(&self.shared, dag_id, request, None).await
    }

    async fn set_run_state(
        &self,
        dag_id: &DagId,
        run_id: &RunId,
        state: DagRunState,
        user: &str,
    ) -> Result<RunRow, ControlError> {
        set_run_state::set_run_state(&self.shared, dag_id, run_id, state, Asker::here(user)).await
    }

    async fn set_task_instance_state(&self, request: SetStateRequest) -> Result<Vec<TiRow>, ControlError> {
        set_task_instance_state::set_task_instance_state(&self.shared, request, None).await
    }

    async fn set_task_instance_note(&self, request: SetNoteRequest) -> Result<Vec<TiRow>, ControlError> {
        set_task_instance_note::set_task_instance_note(&self.shared, request, None).await
    }

    async fn respond(&self, request: RespondRequest) -> Result<Responded, ControlError> {
        respond::respond(&self.shared, request, None).await
    }

    async fn set_run_note(
        &self,
        dag_id: &DagId,
        run_id: &RunId,
        note: &str,
        user: &str,
    ) -> Result<RunRow, ControlError> {
        set_run_note::set_run_note(&self.shared, dag_id, run_id, note, Asker::here(user)).await
    }

    async fn delete_run(&self, dag_id: &DagId, run_id: &RunId, user: &str) -> Result<(), ControlError> {
        delete_run::delete_run(&self.shared, dag_id, run_id, Asker::here(user)).await
    }

    async fn deploy(&self, manifest: CheckedManifest, replace: bool, user: &str) -> Result<Deployed, ControlError> {
        deploy::deploy(&self.shared, manifest, replace, Asker::here(user)).await
    }

    async fn set_paused(&self, dag_id: &DagId, paused: bool, user: &str) -> Result<(), ControlError> {
        set_paused::set_paused(&self.shared, dag_id, paused, Asker::here(user)).await
    }

    async fn delete_dag(&self, dag_id: &DagId, user: &str) -> Result<(), ControlError> {
        delete_dag::delete_dag(&self.shared, dag_id, Asker::here(user)).await
    }

    async fn unknown_dags(&self, mut dags: Vec<DagId>) -> Result<Vec<DagId>, ControlError> {
        dags.retain(|dag_id| self.shared.dag(dag_id).is_none());
        Ok(dags)
    }

    async fn pools(&self) -> Result<Vec<PoolRow>, ControlError> {
        pools::list(&self.shared).await
    }

    async fn create_pool(&self, pool: NewPool, user: &str) -> Result<PoolRow, ControlError> {
        pools::create(&self.shared, pool, Asker::here(user)).await
    }

    async fn change_pool(&self, name: &str, patch: PoolPatch, user: &str) -> Result<PoolRow, ControlError> {
        pools::change(&self.shared, name, patch, Asker::here(user)).await
    }

    async fn delete_pool(&self, name: &str, user: &str) -> Result<(), ControlError> {
        pools::delete(&self.shared, name, Asker::here(user)).await
    }

    fn subscribe(&self) -> broadcast::Receiver<RunEvent> {
        self.shared.events.subscribe()
    }

    fn overlay(&self, run: DagRunKey, rows: &mut [TiRow]) {
        show::overlay(&self.shared, run, rows);
    }

    fn health(&self) -> SchedulerHealth {
        show::health(&self.shared)
    }

    fn progress(&self, dag_id: &DagId, run_id: &RunId) -> Vec<(TaskId, MapIndex, Option<f64>, String)> {
        show::progress(&self.shared, dag_id, run_id)
    }

    fn room(&self) -> Room {
        self.shared.room().clone()
    }
}
