//! `ports::control::Control` by rows of the inbox. What changes nothing is read from the database.

use std::time::Duration;

use async_trait::async_trait;
use model::{DagId, DagRunKey, DagRunState, MapIndex, RunId, TaskId};
use ports::control::{
    ClearRequest, Control, ControlError, NewPool, PoolPatch, RespondRequest, Responded, RunEvent, SchedulerHealth,
    SetNoteRequest, SetStateRequest, TriggerRequest,
};
use ports::deploy::{CheckedManifest, Deployed};
use ports::inbox::{Answer, Done, Request};
use ports::query::{PoolRow, RunRow, TiRow};
use tokio::sync::broadcast::{self, error::RecvError};

use super::Remote;
use crate::shared::query_failed;

/// How often a run that is waited for is looked at where no event tells of it.
const LOOK_EVERY: Duration = Duration::from_millis(500);

fn other(done: &Done) -> ControlError {
    match done {
        Done::Unsaid => ControlError::Pending(
            "it is done, but the scheduler that did it stopped before it could say what came of it; have a look".to_owned(),
        ),
        _ => ControlError::Internal("the scheduler answered something else than what it was asked".into()),
    }
}

fn nothing(answer: Answer) -> Result<(), ControlError> {
    match answer? {
        Done::Nothing | Done::Unsaid => Ok(()),
        done => Err(other(&done)),
    }
}

fn run(answer: Answer) -> Result<RunRow, ControlError> {
    match answer? {
        Done::Run(row) => Ok(*row),
        done => Err(other(&done)),
    }
}

fn task_instances(answer: Answer) -> Result<Vec<TiRow>, ControlError> {
    match answer? {
        Done::TaskInstances(rows) => Ok(rows),
        done => Err(other(&done)),
    }
}

fn pool(answer: Answer) -> Result<PoolRow, ControlError> {
    match answer? {
        Done::Pool(row) => Ok(row),
        done => Err(other(&done)),
    }
}

impl Remote {
    async fn row(&self, dag_id: &DagId, run_id: &RunId) -> Result<RunRow, ControlError> {
        let metadata = &self.inner.metadata;
        if let Some(row) = metadata.run(dag_id, run_id).await.map_err(query_failed)? {
            return Ok(row);
        }
        match metadata.dag(dag_id).await.map_err(query_failed)? {
            None => Err(ControlError::DagNotFound(dag_id.clone())),
            Some(_) => Err(ControlError::RunNotFound {
                dag_id: dag_id.clone(),
                run_id: run_id.clone(),
            }),
        }
    }
}

#[async_trait]
impl Control for Remote {
    async fn trigger(&self, request: TriggerRequest) -> Result<RunRow, ControlError> {
        run(self.ask(Request::Trigger(request)).await)
    }

    async fn wait(&self, dag_id: &DagId, run_id: &RunId, timeout: Duration) -> Result<DagRunState, ControlError> {
        let mut events = self.subscribe();
        let until = tokio::time::Instant::now() + timeout;
        loop {
            let state = self.row(dag_id, run_id).await?.state;
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            if state.is_finished() || left.is_zero() {
                return Ok(state);
            }
            let told = async {
                loop {
                    match events.recv().await {
                        Ok(RunEvent::DagRun {
                            dag_id: of, run_id: name, ..
                        }) if of == *dag_id && name == *run_id => return,
                        Ok(_) => {}
                        Err(RecvError::Lagged(_)) => return,
                        Err(RecvError::Closed) => std::future::pending().await,
                    }
                }
            };
            let _ = tokio::time::timeout(LOOK_EVERY.min(left), told).await;
        }
    }

    async fn clear(&self, dag_id: &DagId, request: ClearRequest) -> Result<Vec<TiRow>, ControlError> {
        let dag_id = dag_id.clone();
        task_instances(self.ask(Request::Clear { dag_id, request }).await)
    }

    async fn set_run_state(
        &self,
        dag_id: &DagId,
        run_id: &RunId,
        state: DagRunState,
        user: &str,
    ) -> Result<RunRow, ControlError> {
        let request = Request::SetRunState {
            dag_id: dag_id.clone(),
            run_id: run_id.clone(),
            state,
            user: user.to_owned(),
        };
        run(self.ask(request).await)
    }

    async fn set_task_instance_state(&self, request: SetStateRequest) -> Result<Vec<TiRow>, ControlError> {
        task_instances(self.ask(Request::SetTaskInstanceState(request)).await)
    }

    async fn set_task_instance_note(&self, request: SetNoteRequest) -> Result<Vec<TiRow>, ControlError> {
        task_instances(self.ask(Request::SetTaskInstanceNote(request)).await)
    }

    async fn respond(&self, request: RespondRequest) -> Result<Responded, ControlError> {
        match self.ask(Request::Respond(request)).await? {
            Done::Responded(responded) => Ok(responded),
            done => Err(other(&done)),
        }
    }

    async fn set_run_note(
        &self,
        dag_id: &DagId,
        run_id: &RunId,
        note: &str,
        user: &str,
    ) -> Result<RunRow, ControlError> {
        let request = Request::SetRunNote {
            dag_id: dag_id.clone(),
            run_id: run_id.clone(),
            note: note.to_owned(),
            user: user.to_owned(),
        };
        run(self.ask(request).await)
    }

    async fn delete_run(&self, dag_id: &DagId, run_id: &RunId, user: &str) -> Result<(), ControlError> {
        let request = Request::DeleteRun {
            dag_id: dag_id.clone(),
            run_id: run_id.clone(),
            user: user.to_owned(),
        };
        nothing(self.ask(request).await)
    }

    async fn deploy(&self, manifest: CheckedManifest, replace: bool, user: &str) -> Result<Deployed, ControlError> {
        let request = Request::Deploy {
            manifest,
            replace,
            user: user.to_owned(),
        };
        match self.ask(request).await? {
            Done::Deployed(deployed) => Ok(deployed),
            done => Err(other(&done)),
        }
    }

    async fn set_paused(&self, dag_id: &DagId, paused: bool, user: &str) -> Result<(), ControlError> {
        let request = Request::SetPaused {
            dag_id: dag_id.clone(),
            paused,
            user: user.to_owned(),
        };
        nothing(self.ask(request).await)
    }

    async fn delete_dag(&self, dag_id: &DagId, user: &str) -> Result<(), ControlError> {
        let request = Request::DeleteDag {
            dag_id: dag_id.clone(),
            user: user.to_owned(),
        };
        nothing(self.ask(request).await)
    }

    async fn unknown_dags(&self, dags: Vec<DagId>) -> Result<Vec<DagId>, ControlError> {
        let mut unknown = Vec::new();
        for dag_id in dags {
            let found = self.inner.metadata.dag(&dag_id).await.map_err(query_failed)?;
            if found.is_none() {
                unknown.push(dag_id);
            }
        }
        Ok(unknown)
    }

    async fn pools(&self) -> Result<Vec<PoolRow>, ControlError> {
        self.inner.metadata.pools().await.map_err(query_failed)
    }

    async fn create_pool(&self, new: NewPool, user: &str) -> Result<PoolRow, ControlError> {
        let request = Request::CreatePool {
            pool: new,
            user: user.to_owned(),
        };
        pool(self.ask(request).await)
    }

    async fn change_pool(&self, name: &str, patch: PoolPatch, user: &str) -> Result<PoolRow, ControlError> {
        let request = Request::ChangePool {
            name: name.to_owned(),
            patch,
            user: user.to_owned(),
        };
        pool(self.ask(request).await)
    }

    async fn delete_pool(&self, name: &str, user: &str) -> Result<(), ControlError> {
        let request = Request::DeletePool {
            name: name.to_owned(),
            user: user.to_owned(),
        };
        nothing(self.ask(request).await)
    }

    fn subscribe(&self) -> broadcast::Receiver<RunEvent> {
        self.inner.events.subscribe()
    }

    /// What a database does not know yet, it knows in half a second.
    fn overlay(&self, _run: DagRunKey, _rows: &mut [TiRow]) {}

    fn health(&self) -> SchedulerHealth {
        let problem = self.inner.absence();
        let seen = self.inner.seen.borrow();
        SchedulerHealth {
            healthy: problem.is_none(),
            problem,
            latest_heartbeat: seen
                .as_ref()
                .map_or_else(|| self.inner.clock.now(), |seen| seen.renewed_at),
            active_runs: seen.as_ref().map_or(0, |seen| seen.active_runs),
            set_aside_runs: seen
                .as_ref()
                .map_or_else(Vec::new, |seen| seen.set_aside_runs.clone()),
        }
    }

    fn progress(&self, dag_id: &DagId, run_id: &RunId) -> Vec<(TaskId, MapIndex, Option<f64>, String)> {
        self.inner.progress.of(dag_id, run_id)
    }
}
