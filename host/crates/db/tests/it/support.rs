//! A database for a test, and the things that are written to it.

use std::path::PathBuf;
use std::sync::Arc;

use db::{Db, Options};
use model::dag::{DagParts, Queueing, RetryPolicy, Task, TaskKind, TaskRole};
use model::{
    Dag, DagId, DagRunKey, DagRunState, DagRunType, Digest, DispatchNumber, Limits, MapIndex, RunId, RunUuid, TaskId,
    TaskIndex, TaskInstanceState, TiKey, Timestamp, TriggerRule, TryNumber, Work,
};
use ports::deploy::DagVersion;
use ports::executor::BlobRef;
use ports::executor::RunContext;
use ports::intent::IntentWrite;
use ports::payload::{Checkpoint, XcomValue};
use ports::store::{
    CheckpointSave, CommitError, DagWrite, Lease, NewRun, RunWrite, SchedulerStore, TiWrite, TickWrite, XcomWrite,
};
use test_postgres::TestDatabase;
use uuid::Uuid;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

/// Keeps what the database lives in.
pub(crate) enum Home {
    Directory(#[expect(dead_code, reason = "kept so that the directory stays")] tempfile::TempDir),
    Server(Box<TestDatabase>),
}

/// An open database.
pub(crate) struct TestDb {
    pub(crate) db: Db,
    pub(crate) url: String,
    pub(crate) home: Home,
}

pub(crate) const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

pub(crate) fn seconds(count: i64) -> Timestamp {
    Timestamp(NOW.0 + count * 1_000_000)
}

impl TestDb {
    /// None where there is no PostgreSQL.
    pub(crate) async fn open(backend: Backend) -> Option<Self> {
        let (url, home) = match backend {
            Backend::Sqlite => {
                let directory = tempfile::tempdir().unwrap();
                let url = format!("sqlite:{}", directory.path().join("airtight.db").display());
                (url, Home::Directory(directory))
            }
            Backend::Postgres => {
                let database = test_postgres::database().await?;
                (database.url().to_owned(), Home::Server(Box::new(database)))
            }
        };
        let db = Db::open(&url, &options()).await.unwrap();
        Some(Self { db, url, home })
    }

    /// Another handle, as another process would have.
    pub(crate) async fn again(&self) -> Db {
        Db::open(&self.url, &options()).await.unwrap()
    }

    /// The file of a SQLite database.
    pub(crate) fn file(&self) -> PathBuf {
        self.url.strip_prefix("sqlite:").unwrap().into()
    }

    pub(crate) async fn lease(&self) -> Lease {
        self.db
            .acquire_lease(Uuid::from_u128(1), NOW, seconds(60))
            .await
            .unwrap()
    }

    pub(crate) async fn commit(&self, lease: &Lease, tick: TickWrite) {
        self.db.commit_tick(lease, &tick).await.unwrap();
    }

    /// Saves one checkpoint in a transaction of its own.
    pub(crate) async fn save(
        &self,
        lease: &Lease,
        ti: TiKey,
        dispatch: u32,
        checkpoint: Option<Checkpoint>,
    ) -> Result<bool, CommitError> {
        let save = save(ti, dispatch, checkpoint);
        let saved = self.db.save_checkpoints(lease, &[save], NOW).await?;
        assert_eq!(saved.len(), 1);
        Ok(saved[0])
    }

    /// The XComs of a task under a key.
    pub(crate) async fn values(&self, run: i64, task: u32, key: &str) -> Vec<(MapIndex, XcomValue)> {
        SchedulerStore::xcoms(
            &self.db,
            DagRunKey(run),
            TaskIndex(task),
            MapIndex(i32::MIN)..=MapIndex(i32::MAX),
            key,
        )
        .await
        .unwrap()
    }

    /// A lease, and a committed DAG.
    pub(crate) async fn with_dag(&self, version: &Arc<DagVersion>) -> Lease {
        let lease = self.lease().await;
        self.commit(&lease, deploy(version)).await;
        lease
    }
}

pub(crate) fn save(ti: TiKey, dispatch: u32, checkpoint: Option<Checkpoint>) -> CheckpointSave {
    CheckpointSave {
        ti,
        dispatch: DispatchNumber(dispatch),
        checkpoint,
    }
}

pub(crate) fn options() -> Options {
    Options {
        connections: 3,
        busy_timeout: std::time::Duration::from_millis(50),
        ..Options::default()
    }
}

pub(crate) fn tick() -> TickWrite {
    TickWrite {
        tick_id: Uuid::now_v7(),
        now: Some(NOW),
        ..TickWrite::default()
    }
}

pub(crate) fn deploy(version: &Arc<DagVersion>) -> TickWrite {
    TickWrite {
        dags: vec![DagWrite::Deploy {
            version: version.clone(),
            paused: None,
        }],
        ..tick()
    }
}

pub(crate) fn dag_id(text: &str) -> DagId {
    DagId::new(text).unwrap()
}

pub(crate) fn run_id(text: &str) -> RunId {
    RunId::new(text).unwrap()
}

pub(crate) fn task_id(text: &str) -> TaskId {
    TaskId::new(text).unwrap()
}

/// The digest of the component that the tasks of [`version`] use.
pub(crate) fn component_digest() -> Digest {
    Digest::of(b"component")
}

/// A version of a DAG with these tasks; its digest follows from `number`.
pub(crate) fn version(dag: &str, number: u32, tasks: &[&str]) -> Arc<DagVersion> {
    version_with(dag, number, tasks, |_| ())
}

pub(crate) fn version_with(
    dag: &str,
    number: u32,
    tasks: &[&str],
    change: impl FnOnce(&mut DagParts),
) -> Arc<DagVersion> {
    let tasks = tasks.iter().map(|name| Task {
        id: task_id(name),
        work: Work::of_component("ml@1.0", component_digest(), format!("do_{name}")),
        doc_md: None,
        input: serde_json::json!({}),
        trigger_rule: TriggerRule::AllSuccess,
        upstream: Vec::new(),
        downstream: Vec::new(),
        group: None,
        expand: None,
        map_index_template: None,
        when: None,
        measures: Vec::new(),
        kind: TaskKind::Plain,
        role: TaskRole::Work,
        past: model::past::Past::Ignored,
        retry: RetryPolicy::default(),
        sensor: None,
        limits: Limits::default(),
        rerun_on_loss: true,
        max_infra_retries: 3,
        pool: "default_pool".into(),
        pool_slots: 1,
        priority_weight: 1,
        queueing: Queueing::default(),
        callbacks: Vec::new(),
    });
    let mut parts = DagParts {
        id: dag_id(dag),
        description: None,
        doc_md: None,
        owner: "airtight".into(),
        tags: Vec::new(),
        params: Default::default(),
        strict_params: false,
        max_active_runs: 16,
        max_active_tasks: 16,
        dagrun_timeout: None,
        callbacks: Vec::new(),
        max_consecutive_failed_dag_runs: 0,
        groups: Vec::new(),
        tasks: tasks.collect(),
    };
    change(&mut parts);
    Arc::new(DagVersion {
        digest: Digest::of(format!("{dag} {number}").as_bytes()),
        uuid: Uuid::now_v7(),
        number,
        source: format!("dag: {dag}\n").into(),
        dag: Arc::new(Dag::from(parts)),
        created_at: NOW,
    })
}

/// A run; its name and times follow from the key.
pub(crate) fn new_run(version: &DagVersion, key: i64) -> NewRun {
    NewRun {
        context: Arc::new(RunContext {
            key: DagRunKey(key),
            uuid: RunUuid(Uuid::now_v7()),
            dag_id: version.dag.id.clone(),
            run_id: run_id(&format!("manual__{key}")),
            run_type: model::DagRunType::Manual,
            logical_date: Some(seconds(key)),
            data_interval_start: Some(seconds(key - 1)),
            data_interval_end: Some(seconds(key)),
            run_after: seconds(key),
            params: serde_json::json!({"threshold": 0.85}),
            conf: serde_json::json!({"big": 9_007_199_254_740_993_u64}),
        }),
        version: version.uuid,
        run_type: DagRunType::Manual,
        conf: r#"{"big":9007199254740993}"#.into(),
        params: r#"{"threshold":0.85}"#.into(),
        note: None,
        triggering_user: Some("admin".into()),
        parent: None,
        queued_at: NOW,
    }
}

pub(crate) fn run_write(key: i64, state: DagRunState) -> RunWrite {
    RunWrite {
        key: DagRunKey(key),
        state,
        queued_at: NOW,
        start_date: (state != DagRunState::Queued).then_some(seconds(1)),
        end_date: state.is_finished().then_some(seconds(2)),
        note: None,
        set_aside: None,
        hidden_failures: Vec::new(),
    }
}

pub(crate) fn key(run: i64, task: u32) -> TiKey {
    TiKey {
        run: DagRunKey(run),
        task: TaskIndex(task),
        map_index: MapIndex::UNMAPPED,
    }
}

pub(crate) fn ti(key: TiKey, name: &str, state: TaskInstanceState) -> TiWrite {
    TiWrite {
        key,
        task_id: task_id(name),
        state,
        try_number: TryNumber(0),
        max_tries: 1,
        dispatch: DispatchNumber(0),
        infra_losses: 0,
        acknowledged: false,
        cause: None,
        message: None,
        code: None,
        details: None,
        scheduled_at: None,
        queued_at: None,
        start_date: None,
        end_date: None,
        next_at: None,
        retry_rule: None,
        raised_memory_kib: None,
        usage: None,
        rendered_map_index: None,
        facts: None,
    }
}

/// Removes rows of runs, at most so many of each table.
pub(crate) fn purge(runs: &[i64], rows: u32) -> DagWrite {
    DagWrite::Intent(IntentWrite::Purge {
        runs: runs.iter().copied().map(DagRunKey).collect(),
        rows,
    })
}

/// A checkpoint that refers to these blobs.
pub(crate) fn checkpoint(bytes: &[u8], blobs: &[Digest]) -> Checkpoint {
    let blob = |digest: &Digest| BlobRef {
        digest: *digest,
        size: 1,
        media_type: None,
    };
    Checkpoint {
        bytes: bytes.to_vec(),
        blobs: blobs.iter().map(blob).collect(),
    }
}

pub(crate) fn xcom(ti: TiKey, key: &str, value: &str) -> XcomWrite {
    XcomWrite {
        ti,
        key: key.into(),
        value: XcomValue {
            value: value.into(),
            blobs: Vec::new(),
        },
    }
}
