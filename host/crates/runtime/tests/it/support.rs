//! An executor with everything around it in memory, and requests to run on it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use model::{
    BlobRef, Cause, Clock, DagId, DagRunKey, Digest, DispatchNumber, Limits, MapIndex, RunId, RunUuid, TaskId,
    TaskIndex, TiKey, Timestamp, TryNumber, Work,
};
use ports::component::{ComponentCompiler, Inspected, Refusal};
use ports::executor::{
    Executor as _, ExecutorEvent, ExecutorEvents, RunContext, TaskSpec, TryFailure, TryId, TryOutcome, TryReport,
    TryRequest,
};
use ports::log::{LogLine, LogSink};
use ports::payload::{
    BlobError, BlobReader, BlobStore, BlobWriter, Checkpoint, CheckpointBackend, CheckpointError, PART_BYTES, Pulled,
    XcomBackend, XcomError, XcomValue,
};
use runtime::{
    ChildCompiler, CodeCache, CompilerConfig, EngineConfig, ExecutorConfig, LocalExecutor, Services, TaskEngine,
};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

/// One engine for all tests of the process.
pub(crate) fn engine() -> Arc<TaskEngine> {
    static ENGINE: OnceLock<Arc<TaskEngine>> = OnceLock::new();
    Arc::clone(ENGINE.get_or_init(|| TaskEngine::new(&EngineConfig::default()).expect("an engine")))
}

pub(crate) fn compiler_config() -> CompilerConfig {
    CompilerConfig {
        parallel: 2,
        ..CompilerConfig::new(env!("CARGO_BIN_EXE_airtight-compile-child").into(), Vec::new())
    }
}

/// Compiled code that outlives the test run.
pub(crate) fn shared_code() -> Arc<CodeCache> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("code");
    Arc::new(CodeCache::open(&dir, &engine()).expect("a code cache"))
}

/// The system's time.
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

/// What the try itself has published before lies under this name.
pub(crate) const OWN: &str = "own";

/// XComs by task and key; every task that is here is upstream.
#[derive(Default)]
pub(crate) struct MemXcoms(pub(crate) Mutex<HashMap<(String, String), Pulled>>);

impl MemXcoms {
    pub(crate) fn put(&self, task: &str, value: &Value) {
        self.put_as(task, "return_value", value);
    }

    pub(crate) fn put_as(&self, task: &str, key: &str, value: &Value) {
        let text = value.to_string();
        let blobs = model::json::check(&text, u64::MAX).expect("valid JSON");
        let value = XcomValue {
            value: text.into(),
            blobs,
        };
        let key = (task.to_owned(), key.to_owned());
        self.0.lock().unwrap().insert(key, Pulled::One(value));
    }
}

#[async_trait]
impl XcomBackend for MemXcoms {
    async fn pull(
        &self,
        _: TryId,
        task: &TaskId,
        key: &str,
        _: Option<MapIndex>,
        most: u64,
    ) -> Result<Pulled, XcomError> {
        let xcoms = self.0.lock().unwrap();
        if !xcoms.keys().any(|(known, _)| known == task.as_str()) {
            return Err(XcomError::NotUpstream(task.clone()));
        }
        let found = xcoms.get(&(task.to_string(), key.to_owned()));
        if let Some(Pulled::Mapped(values)) = found
            && values.iter().map(|(_, value)| value.value.len() as u64).sum::<u64>() > most
        {
            let task = task.clone();
            return Err(XcomError::TooLarge { task, limit: most });
        }
        Ok(found.cloned().unwrap_or(Pulled::Missing))
    }

    async fn count(&self, id: TryId, task: &TaskId, key: &str) -> Result<u32, XcomError> {
        let found = self.pull(id, task, key, None, u64::MAX).await?;
        Ok(match found {
            Pulled::Missing => 0,
            Pulled::One(_) => 1,
            Pulled::Mapped(values) => u32::try_from(values.len()).expect("few"),
        })
    }

    async fn pull_items(
        &self,
        id: TryId,
        task: &TaskId,
        key: &str,
        after: Option<MapIndex>,
        max: u32,
    ) -> Result<Vec<(MapIndex, XcomValue)>, XcomError> {
        let found = match self.pull(id, task, key, None, u64::MAX).await? {
            Pulled::Missing => Vec::new(),
            Pulled::One(value) => vec![(MapIndex::UNMAPPED, value)],
            Pulled::Mapped(values) => values,
        };
        let later = found
            .into_iter()
            .filter(|(index, _)| after.is_none_or(|after| *index > after));
        let mut bytes = 0;
        let part = later.take(max as usize).take_while(|(_, value)| {
            let is_first = bytes == 0;
            bytes += value.value.len() as u64;
            is_first || bytes <= PART_BYTES
        });
        Ok(part.collect())
    }

    async fn pull_previous(&self, id: TryId, task: &TaskId, key: &str, most: u64) -> Result<Pulled, XcomError> {
        let before = TaskId::new(&format!("{task}.before")).expect("an id");
        match self.pull(id, &before, key, None, most).await {
            Err(XcomError::NotUpstream(_)) => Ok(Pulled::Missing),
            found => found,
        }
    }

    async fn pull_own(&self, id: TryId, key: &str) -> Result<Option<XcomValue>, XcomError> {
        let own = TaskId::new(OWN).expect("an id");
        match self.pull(id, &own, key, None, u64::MAX).await {
            Ok(Pulled::One(value)) => Ok(Some(value)),
            _ => Ok(None),
        }
    }

    async fn own_sizes(&self, _: TryId) -> Result<Vec<(String, u64)>, XcomError> {
        let xcoms = self.0.lock().unwrap();
        let own = xcoms.iter().filter(|((task, _), _)| task == OWN);
        let sizes = own.map(|((_, key), pulled)| match pulled {
            Pulled::One(value) => (key.clone(), value.value.len() as u64),
            other => panic!("{other:?}"),
        });
        Ok(sizes.collect())
    }

    async fn pull_element(
        &self,
        id: TryId,
        task: &TaskId,
        key: &str,
        path: &[model::template::Segment],
        index: u32,
    ) -> Result<Option<XcomValue>, XcomError> {
        let Pulled::One(value) = self.pull(id, task, key, None, u64::MAX).await? else {
            return Ok(None);
        };
        let elements = model::template::split(&value.value, path).expect("a list");
        Ok(elements.into_iter().nth(index as usize).map(|element| XcomValue {
            value: element.into(),
            blobs: value.blobs,
        }))
    }
}

/// Checkpoints by task instance, fenced by the highest dispatch seen.
#[derive(Default)]
pub(crate) struct MemCheckpoints {
    pub(crate) saved: Mutex<HashMap<TiKey, Checkpoint>>,
    pub(crate) current: Mutex<HashMap<TiKey, DispatchNumber>>,
    pub(crate) saves: watch::Sender<u64>,
}

impl MemCheckpoints {
    fn fence(&self, id: TryId) -> Result<(), CheckpointError> {
        match self.current.lock().unwrap().get(&id.ti) {
            Some(current) if *current != id.dispatch => Err(CheckpointError::Stale),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl CheckpointBackend for MemCheckpoints {
    async fn load(&self, id: TryId) -> Result<Option<Vec<u8>>, CheckpointError> {
        self.fence(id)?;
        Ok(self.saved.lock().unwrap().get(&id.ti).map(|saved| saved.bytes.clone()))
    }

    async fn save(&self, id: TryId, checkpoint: Option<Checkpoint>) -> Result<(), CheckpointError> {
        self.fence(id)?;
        match checkpoint {
            Some(checkpoint) => self.saved.lock().unwrap().insert(id.ti, checkpoint),
            None => self.saved.lock().unwrap().remove(&id.ti),
        };
        self.saves.send_modify(|saves| *saves += 1);
        Ok(())
    }
}

/// Blobs by digest.
#[derive(Default)]
pub(crate) struct MemBlobs {
    pub(crate) stored: Mutex<HashMap<Digest, Bytes>>,
    /// Starting a blob panics.
    pub(crate) panics: AtomicBool,
}

impl MemBlobs {
    pub(crate) fn put(&self, bytes: &'static [u8]) -> BlobRef {
        let digest = Digest::of(bytes);
        self.stored.lock().unwrap().insert(digest, Bytes::from_static(bytes));
        BlobRef {
            digest,
            size: bytes.len() as u64,
            media_type: None,
        }
    }
}

struct Store(Arc<MemBlobs>);

struct Reading(Bytes, u64);

struct Writing(Arc<MemBlobs>, Vec<u8>);

#[async_trait]
impl BlobReader for Reading {
    fn size(&self) -> u64 {
        self.1
    }

    async fn read(&mut self, max: usize) -> Result<Bytes, BlobError> {
        Ok(self.0.split_to(max.min(self.0.len())))
    }
}

#[async_trait]
impl BlobWriter for Writing {
    async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        self.1.extend_from_slice(&bytes);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<(Digest, u64), BlobError> {
        let (digest, size) = (Digest::of(&self.1), self.1.len() as u64);
        self.0.stored.lock().unwrap().insert(digest, self.1.into());
        Ok((digest, size))
    }
}

#[async_trait]
impl BlobStore for Store {
    async fn create(&self) -> Result<Box<dyn BlobWriter>, BlobError> {
        assert!(!self.0.panics.load(Ordering::Relaxed), "a bug in the blob store");
        Ok(Box::new(Writing(Arc::clone(&self.0), Vec::new())))
    }

    async fn open(&self, digest: Digest) -> Result<Box<dyn BlobReader>, BlobError> {
        let bytes = self.0.stored.lock().unwrap().get(&digest).cloned();
        let bytes = bytes.ok_or(BlobError::NotFound(digest))?;
        let size = bytes.len() as u64;
        Ok(Box::new(Reading(bytes, size)))
    }

    async fn size(&self, digest: Digest) -> Result<Option<u64>, BlobError> {
        Ok(self
            .0
            .stored
            .lock()
            .unwrap()
            .get(&digest)
            .map(|bytes| bytes.len() as u64))
    }

    async fn delete(&self, digest: Digest) -> Result<(), BlobError> {
        self.0.stored.lock().unwrap().remove(&digest);
        Ok(())
    }
}

/// What is done in the middle of a guest's call, on its thread.
type Reaction = Box<dyn Fn(TryId) + Send>;

/// Logs; a test can wait for a line, or react to it before the guest goes on.
#[derive(Default)]
pub(crate) struct MemLogs {
    lines: watch::Sender<HashMap<TryId, Vec<LogLine>>>,
    reaction: Mutex<Option<(&'static str, Reaction)>>,
    closed: Mutex<Vec<TryId>>,
}

impl LogSink for MemLogs {
    fn open(&self, id: TryId) {
        self.lines.send_modify(|lines| {
            lines.entry(id).or_default();
        });
    }

    fn append(&self, id: TryId, new: Vec<LogLine>) {
        assert!(!self.closed.lock().unwrap().contains(&id), "a line after the end");
        let reaction = self.reaction.lock().unwrap();
        let reaction = reaction
            .as_ref()
            .filter(|(text, _)| new.iter().any(|line| line.event.contains(text)));
        self.lines.send_modify(|lines| lines.entry(id).or_default().extend(new));
        if let Some((_, react)) = reaction {
            react(id);
        }
    }

    fn close(&self, id: TryId) {
        self.closed.lock().unwrap().push(id);
    }
}

impl MemLogs {
    pub(crate) fn of(&self, id: TryId) -> Vec<LogLine> {
        self.lines.borrow().get(&id).cloned().unwrap_or_default()
    }

    /// Does this as soon as a guest says a line with this text: while the guest waits for the call to return.
    pub(crate) fn react(&self, text: &'static str, reaction: impl Fn(TryId) + Send + 'static) {
        *self.reaction.lock().unwrap() = Some((text, Box::new(reaction)));
    }

    /// Waits until the log of a try has a line with this text.
    pub(crate) async fn wait_for(&self, id: TryId, text: &str) {
        let has = |lines: &HashMap<TryId, Vec<LogLine>>| {
            lines
                .get(&id)
                .is_some_and(|lines| lines.iter().any(|line| line.event.contains(text)))
        };
        self.lines.subscribe().wait_for(has).await.expect("the sender lives");
    }
}

struct Events(mpsc::UnboundedSender<ExecutorEvent>);

impl ExecutorEvents for Events {
    fn send(&self, event: ExecutorEvent) {
        // A test that has seen enough does not listen any more.
        let _ = self.0.send(event);
    }
}

/// See the module.
pub(crate) struct World {
    pub(crate) executor: Arc<LocalExecutor>,
    pub(crate) xcoms: Arc<MemXcoms>,
    pub(crate) checkpoints: Arc<MemCheckpoints>,
    pub(crate) blobs: Arc<MemBlobs>,
    pub(crate) logs: Arc<MemLogs>,
    pub(crate) compiler: Arc<ChildCompiler>,
    events: tokio::sync::Mutex<mpsc::UnboundedReceiver<ExecutorEvent>>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(engine(), shared_code())
    }

    pub(crate) fn with(engine: Arc<TaskEngine>, code: Arc<CodeCache>) -> Self {
        Self::configured(engine, code, &ExecutorConfig::default())
    }

    pub(crate) fn configured(engine: Arc<TaskEngine>, code: Arc<CodeCache>, config: &ExecutorConfig) -> Self {
        let compiler = Arc::new(ChildCompiler::new(compiler_config(), Arc::clone(&code)));
        let (xcoms, checkpoints, blobs, logs): (Arc<MemXcoms>, Arc<MemCheckpoints>, Arc<MemBlobs>, Arc<MemLogs>) =
            Default::default();
        let (sender, events) = mpsc::unbounded_channel();
        let services = Services {
            xcoms: Arc::clone(&xcoms) as _,
            checkpoints: Arc::clone(&checkpoints) as _,
            blobs: Arc::new(Store(Arc::clone(&blobs))),
            logs: Arc::clone(&logs) as _,
            events: Arc::new(Events(sender)),
            clock: Arc::new(SystemClock),
        };
        let executor =
            LocalExecutor::new(engine, code, Arc::clone(&compiler) as _, services, config).expect("an executor");
        Self {
            executor: Arc::new(executor),
            xcoms,
            checkpoints,
            blobs,
            logs,
            compiler,
            events: tokio::sync::Mutex::new(events),
        }
    }

    /// Compiles a component file.
    pub(crate) async fn compile(&self, path: impl AsRef<Path>) -> Result<(Digest, Inspected), Refusal> {
        let path: PathBuf = path.as_ref().to_owned();
        let digest = Digest::of(&std::fs::read(&path).expect("a component file"));
        let inspected = self.compiler.compile(digest, &path).await.expect("the compiler runs");
        inspected.map(|inspected| (digest, inspected))
    }

    /// Compiles the bytes of a component.
    pub(crate) async fn compile_bytes(&self, wasm: &[u8]) -> Result<(Digest, Inspected), Refusal> {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), wasm).expect("a temporary file");
        self.compile(file.path()).await
    }

    /// From now on a guest that says this is cancelled in the middle of saying it.
    pub(crate) fn cancel_when_it_says(&self, text: &'static str) {
        let executor = Arc::downgrade(&self.executor);
        self.logs.react(text, move |id| {
            if let Some(executor) = executor.upgrade() {
                executor.cancel(id);
            }
        });
    }

    /// A request for a task of a compiled component.
    pub(crate) async fn request(&self, path: &str, entry: &str, input: Value) -> TryRequest {
        let (digest, _) = self.compile(path).await.expect("a good component");
        request(digest, entry, input)
    }

    /// Runs a task of a component to its end.
    pub(crate) async fn run(&self, path: &str, entry: &str, input: Value) -> TryReport {
        let request = self.request(path, entry, input).await;
        self.report(request).await
    }

    /// Runs a request to its end.
    pub(crate) async fn report(&self, request: TryRequest) -> TryReport {
        let id = request.id;
        self.executor.dispatch(request);
        self.finished(id).await
    }

    /// Waits for the end of a dispatch.
    pub(crate) async fn finished(&self, id: TryId) -> TryReport {
        loop {
            match self.event().await {
                ExecutorEvent::Finished(report) if report.id == id => return *report,
                _ => {}
            }
        }
    }

    /// The next event.
    pub(crate) async fn event(&self) -> ExecutorEvent {
        let next = async { self.events.lock().await.recv().await.expect("the executor lives") };
        tokio::time::timeout(Duration::from_secs(60), next)
            .await
            .expect("an event within a minute")
    }

    /// The text of a try's log.
    pub(crate) fn log(&self, id: TryId) -> String {
        self.logs.of(id).into_iter().map(|line| line.event + "\n").collect()
    }
}

/// A request with a try id of its own.
pub(crate) fn request(component: Digest, entry: &str, input: Value) -> TryRequest {
    static RUNS: AtomicI64 = AtomicI64::new(1);
    let key = DagRunKey(RUNS.fetch_add(1, Ordering::Relaxed));
    let uuid = RunUuid(uuid::Uuid::from_u64_pair(7, key.0.unsigned_abs()));
    let time = |text: &str| text.parse::<Timestamp>().expect("a time");
    TryRequest {
        first_of_try: true,
        id: TryId {
            ti: TiKey {
                run: key,
                task: TaskIndex(0),
                map_index: MapIndex::UNMAPPED,
            },
            run_uuid: uuid,
            try_number: TryNumber(1),
            dispatch: DispatchNumber(1),
            callback: None,
        },
        run: Arc::new(RunContext {
            key,
            uuid,
            dag_id: DagId::new("a_dag").expect("an id"),
            run_id: RunId::new("manual__1").expect("an id"),
            run_type: model::DagRunType::Manual,
            logical_date: Some(time("2026-01-31T04:00:00Z")),
            data_interval_start: None,
            data_interval_end: None,
            run_after: time("2026-01-31T04:00:00Z"),
            params: json!({"threshold": 0.85}),
            conf: json!({}),
        }),
        task: Arc::new(TaskSpec {
            task_id: TaskId::new("a_task").expect("an id"),
            work: Work::of_component("test@1", component, entry),
            input,
            limits: Limits::default(),
            max_tries: 3,
            measures: Vec::new(),
            map_index_template: None,
            when: None,
        }),
        position: None,
        callback: None,
    }
}

/// The component that a request runs.
#[track_caller]
pub(crate) fn component_of(request: &TryRequest) -> Digest {
    request.task.work.component().expect("a component").digest
}

/// Changes the limits of a request.
pub(crate) fn limited(mut request: TryRequest, change: impl FnOnce(&mut Limits)) -> TryRequest {
    change(&mut Arc::make_mut(&mut request.task).limits);
    request
}

/// The failure of a report.
#[track_caller]
pub(crate) fn failure(report: &TryReport) -> &TryFailure {
    match &report.outcome {
        TryOutcome::Failed(failure) => failure,
        other => panic!("expected a failure, found {other:?}"),
    }
}

/// The failure of a report that must have this cause.
#[track_caller]
pub(crate) fn died(report: &TryReport, cause: Cause) -> &TryFailure {
    let failure = failure(report);
    assert_eq!(failure.cause, cause, "{failure:?}");
    failure
}

/// The value that a try returned.
#[track_caller]
pub(crate) fn returned(report: &TryReport) -> Value {
    assert!(
        matches!(report.outcome, TryOutcome::Done { .. }),
        "{:?}",
        report.outcome
    );
    let push = report.xcoms.iter().find(|push| push.key == "return_value");
    push.map_or(Value::Null, |push| serde_json::from_str(&push.value).expect("JSON"))
}
