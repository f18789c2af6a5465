//! The catalog on a real database and a real blob store. Only the compiler is played: it answers what a test tells it to.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use blobs::FileBlobStore;
use bytes::Bytes;
use db::Db;
use futures::StreamExt as _;
use model::{Clock, Digest, Timestamp};
use ports::component::{
    ComponentCompiler, ComponentError, ComponentState, Components as _, Descriptor, EngineNeeds, Inspected, Refusal,
    Tag, TaskDescriptor, UploadStream,
};
use ports::deploy::{DeployError, Deployer as _, Severity};
use ports::payload::BlobStore as _;
use scheduler::{Config as SchedulerConfig, MemoryStore, Scheduler};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{Catalog, Config, Parts, WasmFiles};

const HEADER: &[u8] = b"\0asm\x0d\0\x01\0";

fn component(content: &str) -> Vec<u8> {
    [HEADER, content.as_bytes()].concat()
}

fn body(bytes: &[u8]) -> UploadStream {
    let chunks: Vec<_> = bytes.chunks(3).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    futures::stream::iter(chunks).boxed()
}

fn tag(text: &str) -> Tag {
    let (name, version) = text.split_once('@').unwrap();
    Tag {
        name: name.parse().unwrap(),
        version: version.parse().unwrap(),
    }
}

const NEEDS: EngineNeeds = EngineNeeds {
    core_instances: 3,
    memories: 1,
    tables: 2,
    initial_bytes: 1 << 20,
    code_bytes: 5,
};

/// Says that a component whose content holds "bad" is refused, that of "broken" once fails by this machine, and that all
/// others hold one task. Waits for a permit before each answer.
struct Compiler {
    permits: Semaphore,
    calls: AtomicUsize,
    broken: AtomicUsize,
    evicted: Mutex<Vec<Digest>>,
}

#[async_trait]
impl ComponentCompiler for Compiler {
    async fn compile(&self, _: Digest, wasm: &Path) -> std::io::Result<Result<Inspected, Refusal>> {
        self.permits.acquire().await.unwrap().forget();
        self.calls.fetch_add(1, Ordering::SeqCst);
        let content = tokio::fs::read(wasm).await?;
        let content = String::from_utf8_lossy(&content).into_owned();
        if content.contains("broken")
            && self
                .broken
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                .is_ok()
        {
            return Err(std::io::Error::other("no memory"));
        }
        if content.contains("bad") {
            return Ok(Err(Refusal {
                code: "import_unknown".to_owned(),
                message: "it imports `x:y/z`".to_owned(),
            }));
        }
        let task = TaskDescriptor {
            name: "work".to_owned(),
            doc: String::new(),
            input: json!({}),
            output: json!({}),
            needs: Vec::new(),
            labels: None,
        };
        Ok(Ok(Inspected {
            descriptor: Descriptor {
                format: 1,
                sdk: None,
                tasks: vec![task],
            },
            capabilities: Vec::new(),
            imports: Vec::new(),
            needs: NEEDS,
        }))
    }

    async fn needs(&self, _: Digest) -> Option<EngineNeeds> {
        Some(NEEDS)
    }

    async fn evict(&self, digest: Digest) {
        self.evicted.lock().unwrap().push(digest);
    }
}

struct Files(FileBlobStore);

#[async_trait]
impl WasmFiles for Files {
    async fn path(&self, digest: Digest) -> std::io::Result<PathBuf> {
        Ok(self.0.path(digest))
    }
}

struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        Timestamp(1_000_000)
    }
}

struct Fixture {
    catalog: Catalog,
    compiler: Arc<Compiler>,
    blobs: FileBlobStore,
    shutdown: CancellationToken,
    service: tokio::task::JoinHandle<()>,
    dir: Arc<tempfile::TempDir>,
}

impl Fixture {
    async fn new() -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        Self::on(dir, 100).await
    }

    /// On a directory that may hold what an earlier one left. The compiler answers `permits` times.
    async fn on(dir: Arc<tempfile::TempDir>, permits: usize) -> Self {
        let db = Arc::new(
            Db::open_sqlite(&dir.path().join("db"), &db::Options::default())
                .await
                .unwrap(),
        );
        let blobs = FileBlobStore::open(&dir.path().join("blobs")).unwrap();
        let compiler = Arc::new(Compiler {
            permits: Semaphore::new(permits),
            calls: AtomicUsize::new(0),
            broken: AtomicUsize::new(1),
            evicted: Mutex::default(),
        });
        // Deploys are judged before the scheduler sees them; one that has not started refuses everything.
        let clock = Arc::new(FixedClock);
        let scheduler = Scheduler::new(
            SchedulerConfig::new(uuid::Uuid::nil()),
            Arc::new(MemoryStore::new()),
            clock.clone(),
        );
        let parts = Parts {
            store: db,
            blobs: Arc::new(blobs.clone()),
            files: Arc::new(Files(blobs.clone())),
            compiler: compiler.clone(),
            control: Arc::new(scheduler.handle()),
            clock,
        };
        let config = Config {
            max_component_bytes: 1_000,
            compile_retry_delay: Duration::from_millis(1),
            ..Config::default()
        };
        let (catalog, service) = Catalog::new(parts, config);
        let shutdown = CancellationToken::new();
        let service = tokio::spawn(service.run(shutdown.clone()));
        Self {
            catalog,
            compiler,
            blobs,
            shutdown,
            service,
            dir,
        }
    }

    /// Stops as a process would; answers the directory.
    async fn stop(self) -> Arc<tempfile::TempDir> {
        self.shutdown.cancel();
        self.service.await.unwrap();
        self.dir
    }

    fn compilations(&self) -> usize {
        self.compiler.calls.load(Ordering::SeqCst)
    }

    async fn ready(&self, content: &str, as_tag: Option<&str>) -> Digest {
        let (component, _) = self
            .catalog
            .upload(as_tag.map(tag), body(&component(content)))
            .await
            .unwrap();
        let component = self.catalog.wait_ready(component.digest).await.unwrap();
        assert_eq!(component.state, ComponentState::Ready, "{:?}", component.refusal);
        component.digest
    }
}

#[tokio::test]
async fn an_upload_answers_before_it_is_compiled_and_becomes_ready() {
    let fixture = Fixture::on(Arc::new(tempfile::tempdir().unwrap()), 0).await;
    let bytes = component("a");
    let (uploaded, new) = fixture.catalog.upload(Some(tag("ml@1")), body(&bytes)).await.unwrap();
    assert!(new);
    assert_eq!(
        (uploaded.digest, uploaded.size),
        (Digest::of(&bytes), bytes.len() as u64)
    );
    assert_eq!(uploaded.state, ComponentState::Compiling);
    let waiting = tokio::spawn({
        let (catalog, digest) = (fixture.catalog.clone(), uploaded.digest);
        async move { catalog.wait_ready(digest).await.unwrap() }
    });
    fixture.compiler.permits.add_permits(1);
    let ready = waiting.await.unwrap();
    assert_eq!(ready.state, ComponentState::Ready);
    assert_eq!(ready.descriptor.unwrap().tasks.len(), 1);
    assert_eq!(fixture.catalog.get("ml@1").await.unwrap().digest, uploaded.digest);
    assert_eq!(
        fixture
            .catalog
            .get(&format!("ml@{}", uploaded.digest))
            .await
            .unwrap()
            .digest,
        uploaded.digest
    );
}

#[tokio::test]
async fn who_waits_for_the_compiler_is_told_its_place() {
    let fixture = Fixture::on(Arc::new(tempfile::tempdir().unwrap()), 0).await;
    let mut digests = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let (uploaded, _) = fixture.catalog.upload(None, body(&component(name))).await.unwrap();
        digests.push(uploaded.digest);
    }
    let places = async || {
        let mut all = Vec::new();
        for digest in &digests {
            all.push(fixture.catalog.get(&digest.to_string()).await.unwrap());
        }
        let standing = fixture.catalog.standing(&all).await;
        standing
            .into_iter()
            .map(|standing| standing.queue_position)
            .collect::<Vec<_>>()
    };
    // Two are compiled at a time; the queue takes them up in its own task.
    let two_begun = [Some(0), Some(0), Some(1), Some(2)];
    while places().await != two_begun {
        tokio::task::yield_now().await;
    }
    // One of the two ends.
    fixture.compiler.permits.add_permits(1);
    while places().await[2..] != [Some(0), Some(1)] {
        tokio::task::yield_now().await;
    }
    fixture.compiler.permits.add_permits(3);
    for digest in &digests {
        let ready = fixture.catalog.wait_ready(*digest).await.unwrap();
        let standing = fixture.catalog.standing(&[ready]).await;
        assert_eq!((standing[0].queue_position, standing[0].needs), (None, Some(NEEDS)));
    }
}

#[tokio::test]
async fn the_same_content_is_compiled_once() {
    let fixture = Fixture::on(Arc::new(tempfile::tempdir().unwrap()), 0).await;
    let bytes = component("a");
    let uploads = (0..8).map(|n| {
        let (catalog, bytes) = (fixture.catalog.clone(), bytes.clone());
        async move {
            catalog
                .upload(Some(tag(&format!("t@{n}"))), body(&bytes))
                .await
                .unwrap()
                .1
        }
    });
    let new = futures::future::join_all(uploads).await;
    assert_eq!(new.iter().filter(|new| **new).count(), 1);
    fixture.compiler.permits.add_permits(8);
    let ready = fixture.catalog.wait_ready(Digest::of(&bytes)).await.unwrap();
    assert_eq!(ready.tags.len(), 8);
    fixture.ready("a", None).await;
    assert_eq!(fixture.compilations(), 1);
}

#[tokio::test]
async fn hostile_uploads_leave_nothing_behind() {
    let fixture = Fixture::new().await;
    let core_module = [b"\0asm\x01\0\0\0".as_slice(), &[0; 50]].concat();
    for (bytes, code) in [
        (&b""[..], "component_not_wasm"),
        (b"\0asm", "component_not_wasm"),
        (b"#!/bin/sh\nrm -rf /", "component_not_wasm"),
        (&core_module, "component_is_core_module"),
    ] {
        match fixture.catalog.upload(None, body(bytes)).await {
            Err(ComponentError::Refused(refusal)) => assert_eq!(refusal.code, code),
            other => panic!("{other:?}"),
        }
        assert_eq!(fixture.blobs.size(Digest::of(bytes)).await.unwrap(), None);
    }
    let large = component(&"x".repeat(1_000));
    assert!(matches!(
        fixture.catalog.upload(None, body(&large)).await,
        Err(ComponentError::TooLarge { limit: 1_000 })
    ));
    let broken_off = futures::stream::iter([Ok(Bytes::from(component("x"))), Err("gone".into())]).boxed();
    assert!(matches!(
        fixture.catalog.upload(None, broken_off).await,
        Err(ComponentError::Body(_))
    ));
    assert_eq!(
        std::fs::read_dir(fixture.dir.path().join("blobs/tmp")).unwrap().count(),
        0
    );
    assert_eq!(fixture.compilations(), 0);
}

#[tokio::test]
async fn tags_are_immutable_even_when_deleted() {
    let fixture = Fixture::new().await;
    let first = fixture.ready("a", Some("ml@1")).await;
    for deleted in [false, true] {
        if deleted {
            fixture.catalog.delete("ml@1").await.unwrap();
            assert!(matches!(
                fixture.catalog.get("ml@1").await,
                Err(ComponentError::NotFound(_))
            ));
        }
        match fixture.catalog.upload(Some(tag("ml@1")), body(&component("b"))).await {
            Err(ComponentError::TagTaken { existing, .. }) => assert_eq!(existing, first),
            other => panic!("{other:?}"),
        }
    }
    let (again, _) = fixture
        .catalog
        .upload(Some(tag("ml@1")), body(&component("a")))
        .await
        .unwrap();
    assert_eq!(again.digest, first);
}

#[tokio::test]
async fn a_restart_compiles_what_was_left() {
    let fixture = Fixture::on(Arc::new(tempfile::tempdir().unwrap()), 0).await;
    let (uploaded, _) = fixture.catalog.upload(None, body(&component("a"))).await.unwrap();
    let dir = fixture.stop().await;
    let fixture = Fixture::on(dir, 1).await;
    assert_eq!(fixture.catalog.resume().await.unwrap(), 1);
    let ready = fixture.catalog.wait_ready(uploaded.digest).await.unwrap();
    assert_eq!(ready.state, ComponentState::Ready);
}

#[tokio::test]
async fn what_one_server_does_not_finish_another_does_and_both_see_it() {
    let stuck = Fixture::on(Arc::new(tempfile::tempdir().unwrap()), 0).await;
    let other = Fixture::on(Arc::clone(&stuck.dir), 1).await;
    let (uploaded, _) = stuck.catalog.upload(None, body(&component("a"))).await.unwrap();
    let taking_over = other
        .catalog
        .clone()
        .take_over_abandoned(Duration::ZERO, other.shutdown.clone());
    let taking_over = tokio::spawn(taking_over);
    let ready = stuck.catalog.wait_ready(uploaded.digest).await.unwrap();
    assert_eq!(ready.state, ComponentState::Ready);
    assert_eq!((stuck.compilations(), other.compilations()), (0, 1));
    other.stop().await;
    taking_over.await.unwrap();
}

#[tokio::test]
async fn a_failure_of_the_machine_is_tried_again() {
    let fixture = Fixture::new().await;
    fixture.ready("broken", None).await;
    assert_eq!(fixture.compilations(), 2);
}

#[tokio::test]
async fn a_refused_component_gets_another_attempt_when_it_is_uploaded_again() {
    let fixture = Fixture::new().await;
    let bytes = component("bad");
    for attempt in 1..=2 {
        fixture.catalog.upload(None, body(&bytes)).await.unwrap();
        let refused = fixture.catalog.wait_ready(Digest::of(&bytes)).await.unwrap();
        assert_eq!(refused.state, ComponentState::Refused);
        assert_eq!(refused.refusal.unwrap().code, "import_unknown");
        assert_eq!(fixture.compilations(), attempt);
    }
}

#[tokio::test]
async fn a_deleted_component_is_gone_with_its_compiled_code() {
    let fixture = Fixture::new().await;
    let digest = fixture.ready("a", Some("ml@1")).await;
    fixture.catalog.delete(&digest.to_string()).await.unwrap();
    assert!(matches!(
        fixture.catalog.get(&digest.to_string()).await,
        Err(ComponentError::NotFound(_))
    ));
    assert!(matches!(
        fixture.catalog.delete(&digest.to_string()).await,
        Err(ComponentError::NotFound(_))
    ));
    assert!(matches!(
        fixture.catalog.delete("nonsense").await,
        Err(ComponentError::NotFound(_))
    ));
    assert_eq!(*fixture.compiler.evicted.lock().unwrap(), [digest]);
}

#[tokio::test]
async fn manifests_are_judged_by_what_the_catalog_knows() {
    let fixture = Fixture::new().await;
    let digest = fixture.ready("a", Some("ml@1.2")).await;
    let bad = component("bad");
    fixture.catalog.upload(Some(tag("bad@1")), body(&bad)).await.unwrap();
    fixture.catalog.wait_ready(Digest::of(&bad)).await.unwrap();

    let good = format!(
        "dag: d\ntasks:\n  a: {{component: ml@1.2}}\n  b: {{component: \"sha256:{}\", after: [a]}}\n",
        digest.hex()
    );
    let checked = fixture.catalog.check(&good).await.unwrap();
    assert_eq!(
        checked
            .dag
            .tasks
            .iter()
            .filter_map(|task| Some(task.work.component()?.digest))
            .collect::<Vec<_>>(),
        [digest, digest]
    );

    let pools =
        "dag: d\ntasks:\n  a: {component: ml@1.2, pool: defualt_pool}\n  b: {component: ml@1.2, pool_slots: 129}\n";
    let Err(DeployError::Invalid(found)) = fixture.catalog.check(pools).await else {
        panic!("the server has one pool, of 128 slots")
    };
    let found: Vec<_> = found
        .iter()
        .filter(|found| found.severity == Severity::Error)
        .map(|found| {
            (
                found.line,
                found.column,
                found.code.as_str(),
                found.hint.as_deref().unwrap_or_default(),
            )
        })
        .collect();
    assert_eq!(
        found[0],
        (3, 32, "manifest_unknown_pool", "did you mean `default_pool`?")
    );
    assert_eq!((found[1].0, found[1].1, found[1].2), (4, 38, "manifest_pool_slots"));
    assert_eq!(found.len(), 2);

    let wrong = "dag: d\ntasks:\n  a: {component: ml@1.3}\n  b: {component: bad@1}\n  c: {component: ./x.wasm}\n";
    let Err(DeployError::Invalid(found)) = fixture.catalog.check(wrong).await else {
        panic!("it is wrong")
    };
    let errors: HashMap<_, _> = found
        .iter()
        .filter(|found| found.severity == Severity::Error)
        .map(|found| (found.line, (found.code.as_str(), found.hint.as_deref())))
        .collect();
    assert_eq!(errors.len(), 3, "{found:?}");
    assert!(
        matches!(errors[&3], ("component_not_found", Some(hint)) if hint.contains("ml@1.2")),
        "{errors:?}"
    );
    assert_eq!(errors[&4].0, "component_refused");
    assert_eq!(errors[&5].0, "component_unusable");
}

#[tokio::test]
async fn a_manifest_waits_for_components_that_are_being_compiled() {
    let fixture = Fixture::on(Arc::new(tempfile::tempdir().unwrap()), 0).await;
    fixture
        .catalog
        .upload(Some(tag("ml@1")), body(&component("a")))
        .await
        .unwrap();
    let manifest = "dag: d\ntasks:\n  a: {component: ml@1}\n";
    assert!(matches!(fixture.catalog.check(manifest).await, Err(DeployError::Compiling(name)) if name == "ml@1"));
    // What is wrong anyway need not wait.
    let wrong = "dag: d\nnonsense: 1\ntasks:\n  a: {component: ml@1}\n";
    assert!(matches!(
        fixture.catalog.check(wrong).await,
        Err(DeployError::Invalid(_))
    ));
}
