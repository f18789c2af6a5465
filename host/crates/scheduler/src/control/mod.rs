//! `ports::control::Control` on the handle: one file a command. What has to be read is read here, in the caller's task; what
//! is to be decided is sent to the loop, which answers after the commit.

mod clear;
mod delete_dag;
mod delete_run;
mod deploy;
mod pools;
mod resolve;
mod respond;
mod set_paused;
mod set_run_note;
mod set_run_state;
mod set_task_instance_note;
mod set_task_instance_state;
mod show;
pub(crate) mod trigger;
mod wait;

use std::time::Duration;

use async_trait::async_trait;
use model::{DagId, DagRunKey, DagRunState, MapIndex, RunId, RunUuid, TaskId};
use ports::control::{
    ClearRequest, Control, ControlError, NewPool, PoolPatch, RespondRequest, Responded, RunEvent, SchedulerHealth,
    SetNoteRequest, SetStateRequest, TriggerRequest,
};
use ports::deploy::{CheckedManifest, Deployed};
use ports::query::{PoolRow, RunRow, TiRow};
use tokio::sync::broadcast;

use crate::handle::Handle;

#[async_trait]
impl Control for Handle {
    async fn trigger(&self, request: TriggerRequest) -> Result<RunRow, ControlError> {
        trigger::trigger(&self.shared, request).await
    }

    async fn wait(&self, dag_id: &DagId, run_id: &RunId, timeout: Duration) -> Result<DagRunState, ControlError> {
        wait::wait(&self.shared, dag_id, run_id, timeout).await
    }

    async fn clear(&self, dag_id: &DagId, request: ClearRequest) -> Result<Vec<TiRow>, ControlError> {
        clear::clear(&self.shared, dag_id, request).await
    }

    async fn set_run_state(
        &self,
        dag_id: &DagId,
        run_id: &RunId,
        state: DagRunState,
        user: &str,
    ) -> Result<RunRow, ControlError> {
        set_run_state::set_run_state(&self.shared, dag_id, run_id, state, user).await
    }

    async fn set_task_instance_state(&self, request: SetStateRequest) -> Result<Vec<TiRow>, ControlError> {
        set_task_instance_state::set_task_instance_state(&self.shared, request).await
    }

    async fn set_task_instance_note(&self, request: SetNoteRequest) -> Result<Vec<TiRow>, ControlError> {
        set_task_instance_note::set_task_instance_note(&self.shared, request).await
    }

    async fn respond(&self, request: RespondRequest) -> Result<Responded, ControlError> {
        respond::respond(&self.shared, request).await
    }

    async fn set_run_note(
        &self,
        dag_id: &DagId,
        run_id: &RunId,
        note: &str,
        user: &str,
    ) -> Result<RunRow, ControlError> {
        set_run_note::set_run_note(&self.shared, dag_id, run_id, note, user).await
    }

    async fn delete_run(&self, dag_id: &DagId, run_id: &RunId, user: &str) -> Result<(), ControlError> {
        delete_run::delete_run(&self.shared, dag_id, run_id, user).await
    }

    async fn deploy(&self, manifest: CheckedManifest, replace: bool, user: &str) -> Result<Deployed, ControlError> {
        deploy::deploy(&self.shared, manifest, replace, user).await
    }

    async fn set_paused(&self, dag_id: &DagId, paused: bool, user: &str) -> Result<(), ControlError> {
        set_paused::set_paused(&self.shared, dag_id, paused, user).await
    }

    async fn delete_dag(&self, dag_id: &DagId, user: &str) -> Result<(), ControlError> {
        delete_dag::delete_dag(&self.shared, dag_id, user).await
    }

    fn knows_dag(&self, dag_id: &DagId) -> bool {
        self.shared.dag(dag_id).is_some()
    }

    async fn pools(&self) -> Result<Vec<PoolRow>, ControlError> {
        pools::list(&self.shared).await
    }

    async fn create_pool(&self, pool: NewPool, user: &str) -> Result<PoolRow, ControlError> {
        pools::create(&self.shared, pool, user).await
    }

    async fn change_pool(&self, name: &str, patch: PoolPatch, user: &str) -> Result<PoolRow, ControlError> {
        pools::change(&self.shared, name, patch, user).await
    }

    async fn delete_pool(&self, name: &str, user: &str) -> Result<(), ControlError> {
        pools::delete(&self.shared, name, user).await
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

    fn progress(&self, run: DagRunKey) -> Vec<(TaskId, MapIndex, Option<f64>, String)> {
        show::progress(&self.shared, run)
    }

    fn is_active(&self, run: RunUuid) -> bool {
        self.shared.active().has_uuid(run)
    }
}
