//! The traits in memory: a DAG of two tasks, runs that end when they are told to, one component.

mod components;
mod control;
mod files;
mod metadata;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use indexmap::IndexMap;
use model::dag::{DEFAULT_POOL, DagParts, Queueing, RetryPolicy, Task, TaskKind, TaskRole};
use model::{
    Cause, Clock, Dag, DagId, DagRunState, Digest, Limits, MapIndex, RunId, TaskId, TaskIndex, TaskInstanceState,
    Timestamp, TriggerRule, TryNumber, Work,
};
use ports::component::Component;
use ports::control::{ControlError, RunEvent};
use ports::deploy::DagVersion;
use ports::query::{DagRow, Listed, Page, PoolRow, RunRow, TiRow};
use serde_json::json;
use tokio::sync::{broadcast, watch};
use uuid::Uuid;

pub(crate) const NOW: Timestamp = Timestamp(1_767_225_600_000_000);

pub(crate) struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        NOW
    }
}

struct Data {
    paused: bool,
    runs: Vec<RunRow>,
    tis: Vec<TiRow>,
    blobs: HashMap<Digest, Bytes>,
    uploads: Vec<Digest>,
    /// Reading a log fails.
    pub(super) logs_are_broken: bool,
    component: Option<Component>,
    pools: Vec<PoolRow>,
}

pub(crate) struct Fake {
    data: Arc<Mutex<Data>>,
    /// The number of changes to runs.
    changed: watch::Sender<u64>,
    pub(crate) events: broadcast::Sender<RunEvent>,
    version: DagVersion,
}

fn task(id: &str, upstream: &[u32], downstream: &[u32]) -> Task {
    let indices = |indices: &[u32]| indices.iter().map(|index| TaskIndex(*index)).collect();
    Task {
        id: TaskId::new(id).unwrap(),
        doc_md: None,
        role: TaskRole::Work,
        work: Work::of_component("ml@1.2", Digest::of(b"ml"), id),
        input: json!({ "rows": "{{ xcom.load.rows }}" }),
        trigger_rule: TriggerRule::AllSuccess,
        upstream: indices(upstream),
        downstream: indices(downstream),
        group: None,
        expand: None,
        map_index_template: None,
        when: None,
        measures: Vec::new(),
        kind: TaskKind::Plain,
        past: model::past::Past::Ignored,
        retry: RetryPolicy::default(),
        sensor: None,
        limits: Limits::default(),
        rerun_on_loss: true,
        max_infra_retries: 3,
        pool: DEFAULT_POOL.to_owned(),
        pool_slots: 1,
        priority_weight: 1,
        queueing: Queueing::default(),
        callbacks: Vec::new(),
    }
}

fn page<T>(rows: Vec<T>, page: Page) -> Listed<T> {
    let total = rows.len() as u64;
    let offset = usize::try_from(page.offset).unwrap_or(usize::MAX);
    Listed {
        items: rows.into_iter().skip(offset).take(page.limit as usize).collect(),
        total,
    }
}

impl Fake {
    /// From now on no log can be read.
    pub(crate) fn break_logs(&self) {
        self.data().logs_are_broken = true;
    }

    pub(crate) fn new() -> Arc<Self> {
        let dag = Dag::from(DagParts {
            id: DagId::new("etl").unwrap(),
            description: Some("Loads and trains".to_owned()),
            doc_md: None,
            owner: "ada".to_owned(),
            tags: vec!["ml".to_owned()],
            params: IndexMap::new(),
            strict_params: false,
            max_active_runs: 16,
            max_active_tasks: 64,
            dagrun_timeout: Some(Duration::from_secs(90)),
            callbacks: Vec::new(),
            max_consecutive_failed_dag_runs: 3,
            groups: Vec::new(),
            tasks: vec![task("load", &[], &[1]), task("train", &[0], &[])],
        });
        Arc::new(Self {
            data: Arc::new(Mutex::new(Data {
                paused: false,
                runs: Vec::new(),
                tis: Vec::new(),
                blobs: HashMap::new(),
                uploads: Vec::new(),
                logs_are_broken: false,
                component: None,
                pools: vec![PoolRow {
                    name: DEFAULT_POOL.to_owned(),
                    slots: 128,
                    description: None,
                    include_deferred: false,
                    used: 0,
                }],
            })),
            changed: watch::Sender::new(0),
            events: broadcast::Sender::new(16),
            version: DagVersion {
                digest: Digest::of(b"etl"),
                uuid: Uuid::from_u128(7),
                number: 1,
                source: "dag: etl\n".into(),
                dag: Arc::new(dag),
                created_at: NOW,
            },
        })
    }

    fn data(&self) -> std::sync::MutexGuard<'_, Data> {
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dag_row(&self) -> DagRow {
        DagRow {
            dag_id: self.version.dag.id.clone(),
            paused: self.data().paused,
            paused_reason: None,
            version: self.version.clone(),
            created_at: NOW,
            updated_at: NOW,
        }
    }

    /// Ends a run: its tasks have succeeded, `load` after a failed try.
    /// Makes a run the child of another one's task `load`.
    pub(crate) fn adopt(&self, run_id: &str, parent: &str) {
        let mut data = self.data();
        let of = data
            .runs
            .iter()
            .find(|run| run.run_id.as_str() == parent)
            .unwrap()
            .clone();
        let child = data.runs.iter_mut().find(|run| run.run_id.as_str() == run_id).unwrap();
        child.parent = Some(Arc::new(ports::between::RunParent {
            run: of.key,
            dag_id: of.dag_id,
            run_id: of.run_id,
            task: TaskIndex(0),
            task_id: "load".parse().unwrap(),
            map_index: MapIndex(3),
            dispatch: model::DispatchNumber(1),
            depth: 1,
        }));
    }

    pub(crate) fn finish(&self, run_id: &str) {
        let mut data = self.data();
        let Data { runs, tis, .. } = &mut *data;
        for run in runs.iter_mut().filter(|run| run.run_id.as_str() == run_id) {
            run.state = DagRunState::Success;
            run.end_date = Some(NOW.plus(Duration::from_millis(1_500)));
            for ti in tis.iter_mut().filter(|ti| ti.key.run == run.key) {
                ti.state = TaskInstanceState::Success;
                ti.try_number = TryNumber(2);
                ti.cause = Some(Cause::Returned);
                ti.start_date = Some(NOW);
                ti.end_date = Some(NOW.plus(Duration::from_millis(250)));
            }
        }
        drop(data);
        self.changed.send_modify(|count| *count += 1);
    }

    fn find(&self, dag_id: &DagId, run_id: &RunId) -> Result<RunRow, ControlError> {
        if *dag_id != self.version.dag.id {
            return Err(ControlError::DagNotFound(dag_id.clone()));
        }
        let found = self.data().runs.iter().find(|run| run.run_id == *run_id).cloned();
        found.ok_or_else(|| ControlError::RunNotFound {
            dag_id: dag_id.clone(),
            run_id: run_id.clone(),
        })
    }
}
