//! A scheduler with everything around it.

use std::sync::Arc;
use std::time::Duration;

use model::{Clock, DagId, DagRunKey, DagRunState, RunId, TaskInstanceState, Timestamp};
use ports::control::{Control, ControlError, TriggerRequest};
use ports::executor::TryRequest;
use ports::query::RunRow;
use ports::store::TiWrite;
use scheduler::{Config, Handle, MemoryStore, Running, Scheduler, StartError};
use uuid::Uuid;

use super::{DagBuilder, Fault, FaultyStore, Reply, TestExecutor, TokioClock};

pub(crate) struct RigBuilder {
    pub(crate) config: Config,
    store: Arc<FaultyStore>,
    clock: Arc<TokioClock>,
    executor: Arc<TestExecutor>,
}

impl RigBuilder {
    pub(crate) fn new(script: impl Fn(&TryRequest) -> Reply + Send + Sync + 'static) -> Self {
        Self {
            // Most scripts are silent about what they have.
            config: Config {
                heartbeat_timeout: None,
                ..Config::new(Uuid::new_v4())
            },
            store: FaultyStore::new(Arc::new(MemoryStore::new()), |_, _| Fault::None),
            clock: Arc::new(TokioClock::new()),
            executor: TestExecutor::new(64, script),
        }
    }

    pub(crate) fn store(mut self, store: Arc<FaultyStore>) -> Self {
        self.store = store;
        self
    }

    pub(crate) fn clock(mut self, clock: Arc<TokioClock>) -> Self {
        self.clock = clock;
        self
    }

    pub(crate) fn config(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    pub(crate) async fn try_start(self) -> Result<Rig, StartError> {
        let store: Arc<dyn ports::store::SchedulerStore> = Arc::clone(&self.store) as _;
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as _;
        let scheduler = Scheduler::new(self.config, store, clock);
        let handle = scheduler.handle();
        self.executor
            .attach(Arc::new(handle.clone()), Arc::clone(&self.clock) as _);
        let running = scheduler.start(Arc::clone(&self.executor) as _).await?;
        Ok(Rig {
            handle,
            running,
            store: self.store,
            executor: self.executor,
            clock: self.clock,
        })
    }

    pub(crate) async fn start(self) -> Rig {
        self.try_start().await.unwrap()
    }
}

pub(crate) struct Rig {
    pub(crate) handle: Handle,
    pub(crate) running: Running,
    pub(crate) store: Arc<FaultyStore>,
    pub(crate) executor: Arc<TestExecutor>,
    pub(crate) clock: Arc<TokioClock>,
}

pub(crate) fn request(dag: &str) -> TriggerRequest {
    TriggerRequest {
        dag_id: DagId::new(dag).unwrap(),
        run_id: None,
        logical_date: None,
        data_interval: None,
        run_after: None,
        conf: serde_json::Value::Null,
        note: None,
        user: "tester".to_owned(),
    }
}

impl Rig {
    pub(crate) async fn deploy(&self, dag: DagBuilder) {
        let manifest = dag.manifest("1");
        self.handle.deploy(manifest, true, "tester").await.unwrap();
    }

    pub(crate) async fn trigger(&self, dag: &str) -> RunRow {
        self.handle.trigger(request(dag)).await.unwrap()
    }

    pub(crate) async fn try_trigger(&self, dag: &str) -> Result<RunRow, ControlError> {
        self.handle.trigger(request(dag)).await
    }

    /// Waits for the end of a run, for at most a day of paused time.
    pub(crate) async fn finished(&self, run: &RunRow) -> DagRunState {
        let day = Duration::from_secs(86_400);
        self.handle.wait(&run.dag_id, &run.run_id, day).await.unwrap()
    }

    pub(crate) async fn run_to_end(&self, dag: &str) -> (RunRow, DagRunState) {
        let run = self.trigger(dag).await;
        let state = self.finished(&run).await;
        (run, state)
    }

    pub(crate) fn stored(&self, key: DagRunKey) -> RunRow {
        let runs = self.store.inner.runs();
        runs.into_iter().find(|run| run.key == key).unwrap()
    }

    pub(crate) fn ti(&self, key: DagRunKey, task: &str) -> TiWrite {
        let rows = self.store.inner.task_instances(key);
        rows.into_iter().find(|ti| ti.task_id.as_str() == task).unwrap()
    }

    pub(crate) fn state(&self, key: DagRunKey, task: &str) -> TaskInstanceState {
        self.ti(key, task).state
    }

    /// Commits so far, whatever became of them.
    pub(crate) fn commits(&self) -> u64 {
        self.store.inner.commits()
    }

    /// Ends the scheduler as a crash would, and waits until it is gone.
    pub(crate) async fn crash(self) -> (Arc<FaultyStore>, Arc<TokioClock>) {
        self.running.abort();
        let _ = self.running.await;
        (self.store, self.clock)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

pub(crate) fn run_id(text: &str) -> RunId {
    RunId::new(text).unwrap()
}
