//! The scheduler of the fake.

use std::time::Duration;

use async_trait::async_trait;
use model::dag::DEFAULT_POOL;
use model::{
    DagId, DagRunKey, DagRunState, DagRunType, DispatchNumber, MapIndex, RunId, RunUuid, TaskId, TaskIndex,
    TaskInstanceState, TiKey, TryNumber,
};
use ports::control::{
    ClearRequest, Control, ControlError, NewPool, PoolPatch, RespondRequest, Responded, RunEvent, SchedulerHealth,
    SetNoteRequest, SetStateRequest, TriggerRequest,
};
use ports::deploy::{CheckedManifest, Deployed};
use ports::query::{PoolRow, RunRow, TiRow};
use tokio::sync::broadcast;
use uuid::Uuid;

use super::metadata::question;
use super::*;

#[async_trait]
impl Control for Fake {
    async fn trigger(&self, request: TriggerRequest) -> Result<RunRow, ControlError> {
        if request.dag_id != self.version.dag.id {
            return Err(ControlError::DagNotFound(request.dag_id));
        }
        let run_after = request.run_after.unwrap_or(NOW);
        let run_id = request
            .run_id
            .unwrap_or_else(|| RunId::new(&format!("manual__{run_after}")).unwrap());
        let mut data = self.data();
        let taken = |run: &RunRow| {
            run.run_id == run_id || (run.logical_date.is_some() && run.logical_date == request.logical_date)
        };
        if data.runs.iter().any(taken) {
            return Err(ControlError::RunExists(format!("run `{run_id}` exists")));
        }
        let number = i64::try_from(data.runs.len()).unwrap() + 1;
        let run = RunRow {
            key: DagRunKey(number),
            uuid: RunUuid(Uuid::from_u128(100 + number.unsigned_abs() as u128)),
            dag_id: request.dag_id,
            run_id,
            version_uuid: self.version.uuid,
            version_number: 1,
            state: DagRunState::Running,
            run_type: DagRunType::Manual,
            logical_date: request.logical_date,
            data_interval_start: request.data_interval.map(|interval| interval.0),
            data_interval_end: request.data_interval.map(|interval| interval.1),
            run_after,
            queued_at: NOW,
            start_date: Some(NOW),
            end_date: None,
            conf: request.conf.to_string().into(),
            note: request.note,
            triggering_user: Some(request.user),
            parent: None,
            set_aside: None,
            hidden_failures: Vec::new(),
        };
        for (index, task) in self.version.dag.tasks.iter().enumerate() {
            data.tis.push(TiRow {
                last_heartbeat_at: Some(NOW),
                key: TiKey {
                    run: run.key,
                    task: TaskIndex(u32::try_from(index).unwrap()),
                    map_index: MapIndex::UNMAPPED,
                },
                run_uuid: run.uuid,
                dag_id: run.dag_id.clone(),
                run_id: run.run_id.clone(),
                logical_date: run.logical_date,
                run_after,
                version_uuid: self.version.uuid,
                version_number: 1,
                task_id: task.id.clone(),
                state: TaskInstanceState::NoStatus,
                try_number: TryNumber(0),
                max_tries: 3,
                dispatch: DispatchNumber(0),
                cause: None,
                message: None,
                code: None,
                details: None,
                scheduled_at: None,
                queued_at: None,
                start_date: None,
                end_date: None,
                next_at: None,
                retry_reason: None,
                memory_limit_bytes: task.limits.memory_bytes,
                usage: None,
                rendered_map_index: None,
                pool: task.pool.clone(),
                pool_slots: 1,
                priority_weight: 1,
                queue: task.queueing.queue.clone(),
                operator: task.work.operator().to_owned(),
                operator_name: task.work.operator_name().to_owned(),
                component_digest: task.work.component().map(|component| component.digest),
                note: None,
            });
        }
        data.runs.push(run.clone());
        Ok(run)
    }

    async fn wait(&self, dag_id: &DagId, run_id: &RunId, timeout: Duration) -> Result<DagRunState, ControlError> {
        let mut changed = self.changed.subscribe();
        let ended = async {
            while self.find(dag_id, run_id).is_ok_and(|run| !run.state.is_finished()) {
                if changed.changed().await.is_err() {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(timeout, ended).await;
        Ok(self.find(dag_id, run_id)?.state)
    }

    async fn clear(&self, _: &DagId, request: ClearRequest) -> Result<Vec<TiRow>, ControlError> {
        let mut data = self.data();
        let mut cleared = Vec::new();
        for ti in &mut data.tis {
            let of_run = request.run_id.as_ref().is_none_or(|run_id| *run_id == ti.run_id);
            let of_task = request
                .tasks
                .as_ref()
                .is_none_or(|tasks| tasks.iter().any(|(task, _)| *task == ti.task_id));
            if of_run && of_task && (!request.only_failed || ti.state == TaskInstanceState::Failed) {
                if !request.dry_run {
                    ti.state = TaskInstanceState::NoStatus;
                }
                cleared.push(ti.clone());
            }
        }
        Ok(cleared)
    }

    async fn set_run_state(
        &self,
        dag_id: &DagId,
        run_id: &RunId,
        state: DagRunState,
        _: &str,
    ) -> Result<RunRow, ControlError> {
        self.find(dag_id, run_id)?;
        for run in self.data().runs.iter_mut().filter(|run| run.run_id == *run_id) {
            run.state = state;
        }
        self.find(dag_id, run_id)
    }

    async fn set_task_instance_state(&self, request: SetStateRequest) -> Result<Vec<TiRow>, ControlError> {
        let mut changed = Vec::new();
        for ti in &mut self.data().tis {
            let named = request.tasks.iter().any(|(task, _)| *task == ti.task_id);
            if named && ti.run_id == request.run_id && ti.state != request.state {
                if !request.dry_run {
                    ti.state = request.state;
                }
                changed.push(ti.clone());
            }
        }
        if changed.is_empty() && !request.dry_run {
            return Err(ControlError::Conflict("there is nothing to change".to_owned()));
        }
        Ok(changed)
    }

    async fn set_task_instance_note(&self, request: SetNoteRequest) -> Result<Vec<TiRow>, ControlError> {
        let mut changed = Vec::new();
        for ti in &mut self.data().tis {
            let named = request.tasks.iter().any(|(task, _)| *task == ti.task_id);
            if named && ti.run_id == request.run_id {
                ti.note = Some(request.note.clone()).filter(|note| !note.is_empty());
                changed.push(ti.clone());
            }
        }
        Ok(changed)
    }

    async fn respond(&self, request: RespondRequest) -> Result<Responded, ControlError> {
        if request.task_id.as_str() != "load" {
            return Err(ControlError::Conflict("the task instance is `success`".to_owned()));
        }
        let answer = question(self.data().tis[0].clone())
            .step
            .check(&request.chosen_options, &request.params_input)
            .map_err(|problems| ControlError::InvalidAnswer { problems })?;
        Ok(Responded { at: NOW, answer })
    }

    async fn set_run_note(&self, dag_id: &DagId, run_id: &RunId, note: &str, _: &str) -> Result<RunRow, ControlError> {
        self.find(dag_id, run_id)?;
        for run in self.data().runs.iter_mut().filter(|run| run.run_id == *run_id) {
            run.note = Some(note.to_owned());
        }
        self.find(dag_id, run_id)
    }

    async fn delete_run(&self, dag_id: &DagId, run_id: &RunId, _: &str) -> Result<(), ControlError> {
        let run = self.find(dag_id, run_id)?;
        self.data().runs.retain(|other| other.key != run.key);
        Ok(())
    }

    async fn deploy(&self, _: CheckedManifest, _: bool, _: &str) -> Result<Deployed, ControlError> {
        Err(ControlError::Unavailable)
    }

    async fn set_paused(&self, dag_id: &DagId, paused: bool, _: &str) -> Result<(), ControlError> {
        if *dag_id != self.version.dag.id {
            return Err(ControlError::DagNotFound(dag_id.clone()));
        }
        self.data().paused = paused;
        Ok(())
    }

    async fn delete_dag(&self, dag_id: &DagId, _: &str) -> Result<(), ControlError> {
        Err(ControlError::Conflict(format!("DAG `{dag_id}` has active runs")))
    }

    async fn unknown_dags(&self, mut dags: Vec<DagId>) -> Result<Vec<DagId>, ControlError> {
        dags.retain(|dag_id| *dag_id != self.version.dag.id);
        Ok(dags)
    }

    async fn pools(&self) -> Result<Vec<PoolRow>, ControlError> {
        Ok(self.data().pools.clone())
    }

    async fn create_pool(&self, pool: NewPool, _: &str) -> Result<PoolRow, ControlError> {
        let mut data = self.data();
        if data.pools.iter().any(|known| known.name == pool.name) {
            return Err(ControlError::PoolExists(pool.name));
        }
        let row = PoolRow {
            name: pool.name,
            slots: pool.slots,
            description: pool.description,
            include_deferred: pool.include_deferred,
            used: 0,
        };
        data.pools.push(row.clone());
        Ok(row)
    }

    async fn change_pool(&self, name: &str, patch: PoolPatch, _: &str) -> Result<PoolRow, ControlError> {
        let mut data = self.data();
        let Some(row) = data.pools.iter_mut().find(|pool| pool.name == name) else {
            return Err(ControlError::PoolNotFound(name.to_owned()));
        };
        if name == DEFAULT_POOL && patch.name.is_some() {
            return Err(ControlError::DefaultPool);
        }
        row.name = patch.name.unwrap_or(row.name.clone());
        row.slots = patch.slots.unwrap_or(row.slots);
        row.description = patch.description.unwrap_or(row.description.clone());
        row.include_deferred = patch.include_deferred.unwrap_or(row.include_deferred);
        Ok(row.clone())
    }

    async fn delete_pool(&self, name: &str, _: &str) -> Result<(), ControlError> {
        match name {
            DEFAULT_POOL => Err(ControlError::DefaultPool),
            "used" => Err(ControlError::PoolInUse {
                pool: name.to_owned(),
                dags: vec![self.version.dag.id.clone(), "other".parse().unwrap()],
            }),
            name => {
                let mut data = self.data();
                let before = data.pools.len();
                data.pools.retain(|pool| pool.name != name);
                if data.pools.len() == before {
                    return Err(ControlError::PoolNotFound(name.to_owned()));
                }
                Ok(())
            }
        }
    }

    fn subscribe(&self) -> broadcast::Receiver<RunEvent> {
        self.events.subscribe()
    }

    fn overlay(&self, _: DagRunKey, _: &mut [TiRow]) {}

    fn health(&self) -> SchedulerHealth {
        SchedulerHealth {
            healthy: true,
            problem: None,
            latest_heartbeat: NOW,
            active_runs: self.data().runs.len(),
            set_aside_runs: Vec::new(),
        }
    }

    fn progress(&self, _: &DagId, _: &RunId) -> Vec<(TaskId, MapIndex, Option<f64>, String)> {
        vec![(
            TaskId::new("load").unwrap(),
            MapIndex::UNMAPPED,
            Some(0.5),
            "half".to_owned(),
        )]
    }
}
