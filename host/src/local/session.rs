//! One run in this process: a scheduler on a store in memory, an executor, and a directory that goes away with them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use blobs::FileBlobStore;
use model::{Dag, DagId, DagRunState, MapIndex, RunId, TaskId, TaskInstanceState, Timestamp};
use ports::callback::CallbackRow;
use ports::control::{Control, ControlError, NewPool, RunEvent, TriggerRequest};
use ports::deploy::CheckedManifest;
use ports::log::LogSink;
use ports::payload::XcomValue;
use ports::query::{RunRow, TiRow};
use ports::store::SchedulerStore as _;
use runtime::{ExecutorConfig, LocalExecutor, Services};
use scheduler::{Config, Handle, MemoryStore, Running, Scheduler};
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;
use uuid::Uuid;

use super::ask::Asked;
use super::workshop::Workshop;
use crate::clock::SystemClock;
use crate::failure::{Exit, Failure, OrFail, Result};
use crate::ui::events::Lines;
use crate::ui::run_view::LiveView;

/// How long tasks get to stop after Ctrl-C.
const STOP_GRACE: Duration = Duration::from_millis(500);
/// Somebody waits for the end of the run: a callback that fails is soon tried again.
const CALLBACK_RETRY_DELAY: Duration = Duration::from_millis(500);

/// A scheduler that runs in this process.
pub(crate) struct Session {
    handle: Handle,
    store: Arc<MemoryStore>,
    running: Running,
}

/// A run to start.
pub(crate) struct RunRequest {
    /// The DAG.
    pub checked: CheckedManifest,
    /// Other DAGs, which it triggers or waits for.
    pub others: Vec<CheckedManifest>,
    /// `conf`.
    pub conf: Value,
    /// The logical date.
    pub logical_date: Option<Timestamp>,
}

/// A run that has ended.
pub(crate) struct Finished {
    /// The run.
    pub run: RunRow,
    /// Its task instances, in the order of the manifest.
    pub task_instances: Vec<TiRow>,
    /// What they published, in the same order: task, map index, key, value.
    pub xcoms: Vec<(TaskId, MapIndex, String, XcomValue)>,
    /// Its callbacks, oldest first.
    pub callbacks: Vec<CallbackRow>,
}

impl Session {
    /// Starts a scheduler and an executor.
    pub(crate) async fn start(workshop: &Workshop, blobs: FileBlobStore, logs: Arc<dyn LogSink>) -> Result<Self> {
        let clock = Arc::new(SystemClock);
        let store = Arc::new(MemoryStore::new());
        let config = Config {
            callback_retry_delay: CALLBACK_RETRY_DELAY,
            ..Config::new(Uuid::new_v4())
        };
        let scheduler = Scheduler::new(config, store.clone(), clock.clone());
        let handle = scheduler.handle();
        let services = Services {
            xcoms: Arc::new(handle.clone()),
            checkpoints: Arc::new(handle.clone()),
            blobs: Arc::new(blobs),
            logs,
            events: Arc::new(handle.clone()),
            clock,
        };
        let executor = LocalExecutor::new(
            workshop.engine.clone(),
            workshop.code.clone(),
            workshop.compiler.clone(),
            services,
            &ExecutorConfig::default(),
        )
        .or_fail(Exit::Broken, || "cannot start the threads that run tasks".to_owned())?;
        let running = scheduler
            .start(Arc::new(executor))
            .await
            .or_fail(Exit::Broken, || "cannot start the scheduler".to_owned())?;
        Ok(Self { handle, store, running })
    }

    /// A server's pools are not known here: those that the DAG names are there, and bound nothing.
    async fn make_pools(&self, dag: &Dag) -> Result<()> {
        let known: BTreeSet<String> = self.store.all_pools().into_iter().map(|pool| pool.name).collect();
        let named: BTreeSet<&String> = dag.tasks.iter().map(|task| &task.pool).collect();
        for name in named.into_iter().filter(|name| !known.contains(*name)) {
            let pool = NewPool {
                name: name.clone(),
                slots: -1,
                description: None,
                include_deferred: false,
            };
            self.handle.create_pool(pool, USER).await.map_err(control)?;
        }
        Ok(())
    }

    /// Runs a DAG to its end and shows it meanwhile.
    pub(crate) async fn run(&self, request: RunRequest, mut view: Option<&mut LiveView>) -> Result<Finished> {
        let dag = request.checked.dag.clone();
        let mut events = self.handle.subscribe();
        let mut dags: HashMap<DagId, Arc<Dag>> = HashMap::new();
        for checked in request.others.into_iter().chain([request.checked]) {
            let dag = checked.dag.clone();
            self.make_pools(&dag).await?;
            self.handle.deploy(checked, true, USER).await.map_err(control)?;
            self.handle.set_paused(&dag.id, false, USER).await.map_err(control)?;
            dags.insert(dag.id.clone(), dag);
        }
        let trigger = TriggerRequest {
            dag_id: dag.id.clone(),
            run_id: None,
            logical_date: request.logical_date,
            data_interval: None,
            run_after: None,
            conf: request.conf,
            note: None,
            user: USER.to_owned(),
        };
        let run = self.handle.trigger(trigger).await.map_err(control)?;
        let mut lines = Lines::default();
        let mut asked = Asked::default();
        loop {
            let event = events.recv().await;
            let may_wait = match &event {
                Ok(RunEvent::TaskInstance { state, .. }) => *state == TaskInstanceState::AwaitingInput,
                Err(RecvError::Lagged(_)) => true,
                _ => false,
            };
            if may_wait {
                let hide = || view.iter().for_each(|view| view.hide());
                for run in self.store.runs() {
                    if let Some(dag) = dags.get(&run.dag_id).filter(|_| !run.state.is_finished()) {
                        asked.answer_all(&self.handle, &self.store, dag, &run, hide).await?;
                    }
                }
                view.iter().for_each(|view| view.show());
            }
            match event {
                Ok(RunEvent::DagRun { run_id, state, .. }) if run_id == run.run_id && state.is_finished() => break,
                Ok(event) => {
                    if let Some(view) = view.as_deref_mut() {
                        let event = serde_json::to_value(&event).unwrap_or_default();
                        // Runs of other DAGs go on too; their tasks may have the same names.
                        if event.get("run_id").is_some_and(|of| of != run.run_id.as_str()) {
                            continue;
                        }
                        view.take_expanded(&event);
                        if let Some(line) = lines.take(&event) {
                            view.update(line);
                        }
                    }
                }
                Err(RecvError::Lagged(_)) => {
                    let state = self.state(&dag.id, &run.run_id).await?;
                    if state.is_finished() {
                        break;
                    }
                }
                Err(RecvError::Closed) => return Err(Failure::new(Exit::Broken, "the scheduler stopped")),
            }
        }
        // Callbacks are carried out after the run.
        while self
            .store
            .callbacks_of(run.key)
            .iter()
            .any(|callback| !callback.state.is_finished())
        {
            if let Err(RecvError::Closed) = events.recv().await {
                break;
            }
        }
        self.finished(&run, view).await
    }

    async fn state(&self, dag_id: &DagId, run_id: &RunId) -> Result<DagRunState> {
        self.handle.wait(dag_id, run_id, Duration::ZERO).await.map_err(control)
    }

    async fn finished(&self, run: &RunRow, view: Option<&mut LiveView>) -> Result<Finished> {
        let doing = || "cannot read the run back".to_owned();
        let row = self.store.run_row(run.key).await.or_fail(Exit::Broken, doing)?;
        let mut task_instances = self.store.ti_rows(run.key).await.or_fail(Exit::Broken, doing)?;
        self.handle.overlay(run.key, &mut task_instances);
        task_instances.sort_by_key(|ti| ti.key);
        if let Some(view) = view {
            for ti in &task_instances {
                view.update(super::report::line(ti));
            }
        }
        let names: HashMap<_, _> = task_instances
            .iter()
            .map(|ti| (ti.key.task, ti.task_id.clone()))
            .collect();
        let mut xcoms = self.store.xcoms_of(run.key);
        xcoms.sort_by(|a, b| (a.0, a.1, &a.2).cmp(&(b.0, b.1, &b.2)));
        let xcoms = xcoms
            .into_iter()
            .filter_map(|(task, map_index, key, value)| Some((names.get(&task)?.clone(), map_index, key, value)))
            .collect();
        Ok(Finished {
            run: row.unwrap_or_else(|| run.clone()),
            task_instances,
            xcoms,
            callbacks: self.store.callbacks_of(run.key),
        })
    }

    /// Stops what still runs.
    pub(crate) async fn stop(self) {
        self.handle.shutdown(STOP_GRACE).await;
        self.running.await.ok();
    }
}

/// Who triggers, where nobody logs in.
pub(super) const USER: &str = "local";

pub(super) fn control(error: ControlError) -> Failure {
    let exit = match error {
        ControlError::InvalidParams { .. } => Exit::Invalid,
        _ => Exit::Broken,
    };
    let failure = Failure::new(exit, error.to_string());
    match std::error::Error::source(&error) {
        Some(source) => failure.because(source),
        None => failure,
    }
}
