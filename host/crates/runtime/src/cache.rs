//! Components that are ready to be instantiated, by digest. Bounded: the one that was not used for the longest time goes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use model::Digest;
use model::schema::Validator;
use ports::component::{ComponentCompiler, EngineNeeds, TaskDescriptor};
use ports::payload::{BlobError, BlobStore};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::OnceCell;

use crate::bindings::TaskPre;
use crate::capacity;
use crate::code::CodeCache;
use crate::ctx::TryState;
use crate::engine::TaskEngine;
use crate::linker;

/// How many components stay ready.
const CAPACITY: usize = 256;
/// The size of their schemas together, in bytes. The component that is asked for stays, however large its schemas are.
const MAX_SCHEMA_BYTES: usize = 128 << 20;
/// How much of a component is read from the blob store at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// A component that is ready to be instantiated.
pub(crate) struct Ready {
    pub(crate) pre: TaskPre<TryState>,
    needs: EngineNeeds,
    tasks: HashMap<String, Entry>,
    /// About what the compiled schemas of the tasks hold.
    schema_bytes: usize,
}

/// One task of a component, with its compiled schemas.
pub(crate) struct Entry {
    pub(crate) input: Arc<Validator>,
    pub(crate) output: Arc<Validator>,
}

impl Ready {
    /// A task of the component.
    pub(crate) fn entry(&self, name: &str) -> Option<&Entry> {
        self.tasks.get(name)
    }

    /// Its tasks, for a message.
    pub(crate) fn names(&self) -> String {
        let mut names: Vec<_> = self.tasks.keys().map(String::as_str).collect();
        names.sort_unstable();
        names.join(", ")
    }
}

/// Why a component is not to be had.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct LoadError(String);

/// Loads and keeps components.
pub(crate) struct ComponentCache {
    engine: Arc<TaskEngine>,
    code: Arc<CodeCache>,
    compiler: Arc<dyn ComponentCompiler>,
    blobs: Arc<dyn BlobStore>,
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    by_digest: HashMap<Digest, Slot>,
    /// Counts uses; a slot remembers the count of its last one.
    uses: u64,
}

struct Slot {
    ready: Arc<OnceCell<Arc<Ready>>>,
    used: u64,
}

impl Slots {
    /// Forgets the component that was not used for the longest time; not this one.
    fn forget_oldest(&mut self, but: Digest) -> bool {
        let others = self.by_digest.iter().filter(|(digest, _)| **digest != but);
        let oldest = others.min_by_key(|(_, slot)| slot.used).map(|(digest, _)| *digest);
        oldest.and_then(|digest| self.by_digest.remove(&digest)).is_some()
    }

    /// Forgets components until the schemas of what is left fit.
    fn trim(&mut self, but: Digest, most: usize) {
        let held = |slots: &Self| -> usize {
            let ready = slots.by_digest.values().filter_map(|slot| slot.ready.get());
            ready.map(|ready| ready.schema_bytes).sum()
        };
        while held(self) > most && self.forget_oldest(but) {}
    }
}

impl ComponentCache {
    pub(crate) fn new(
        engine: Arc<TaskEngine>,
        code: Arc<CodeCache>,
        compiler: Arc<dyn ComponentCompiler>,
        blobs: Arc<dyn BlobStore>,
    ) -> Self {
        Self {
            engine,
            code,
            compiler,
            blobs,
            slots: Mutex::default(),
        }
    }

    /// The component; loads it, or compiles it again where the compiled code is gone. Tries that ask together wait for one load.
    pub(crate) async fn get(&self, digest: Digest) -> Result<Arc<Ready>, LoadError> {
        let cell = self.slot(digest);
        if let Some(ready) = cell.get() {
            return Ok(Arc::clone(ready));
        }
        let ready = cell.get_or_try_init(|| self.load(digest)).await.cloned()?;
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.trim(digest, MAX_SCHEMA_BYTES);
        Ok(ready)
    }

    /// What an instance of the component takes. Where its compiled code is gone: the most that one may take.
    pub(crate) async fn needs(&self, digest: Digest) -> EngineNeeds {
        let ready = {
            let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.by_digest.get(&digest).and_then(|slot| slot.ready.get().cloned())
        };
        if let Some(ready) = ready {
            return ready.needs;
        }
        let code = Arc::clone(&self.code);
        let inspected = tokio::task::spawn_blocking(move || code.inspected(digest)).await;
        inspected
            .ok()
            .flatten()
            .map_or(capacity::most(), |inspected| inspected.needs)
    }

    fn slot(&self, digest: Digest) -> Arc<OnceCell<Arc<Ready>>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.uses += 1;
        let used = slots.uses;
        if let Some(slot) = slots.by_digest.get_mut(&digest) {
            slot.used = used;
            return Arc::clone(&slot.ready);
        }
        if slots.by_digest.len() >= CAPACITY {
            slots.forget_oldest(digest);
        }
        let ready = Arc::new(OnceCell::new());
        let slot = Slot {
            ready: Arc::clone(&ready),
            used,
        };
        slots.by_digest.insert(digest, slot);
        ready
    }

    async fn load(&self, digest: Digest) -> Result<Arc<Ready>, LoadError> {
        if let Some(ready) = self.load_compiled(digest).await? {
            return Ok(ready);
        }
        self.compile_again(digest).await?;
        self.load_compiled(digest).await?.ok_or_else(|| {
            LoadError(format!(
                "the compiled code of component {digest} is not there after compiling it"
            ))
        })
    }

    async fn load_compiled(&self, digest: Digest) -> Result<Option<Arc<Ready>>, LoadError> {
        let (code, engine) = (Arc::clone(&self.code), Arc::clone(&self.engine));
        let loaded = tokio::task::spawn_blocking(move || {
            let (component, inspected) = code.load(digest, engine.wasmtime())?;
            let prepare = || -> wasmtime::Result<Ready> {
                let pre = TaskPre::new(linker::instantiate_pre(engine.linker(), &component)?)?;
                let tasks: HashMap<String, Entry> = inspected.descriptor.tasks.into_iter().filter_map(entry).collect();
                Ok(Ready {
                    pre,
                    needs: inspected.needs,
                    schema_bytes: tasks
                        .values()
                        .map(|entry| entry.input.bytes() + entry.output.bytes())
                        .sum(),
                    tasks,
                })
            };
            Some(prepare())
        });
        match loaded.await {
            Ok(Some(Ok(ready))) => Ok(Some(Arc::new(ready))),
            Ok(Some(Err(error))) => Err(LoadError(format!("cannot prepare component {digest}: {error:#}"))),
            Ok(None) => Ok(None),
            Err(error) => Err(LoadError(format!("loading component {digest} was aborted: {error}"))),
        }
    }

    async fn compile_again(&self, digest: Digest) -> Result<(), LoadError> {
        tracing::info!(%digest, "compiling a component whose compiled code is not there");
        let wasm = self
            .fetch(digest)
            .await
            .map_err(|error| LoadError(format!("cannot read component {digest} from storage: {error}")))?;
        match self.compiler.compile(digest, &wasm).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(refusal)) => Err(LoadError(format!(
                "component {digest} was refused: {}",
                refusal.message
            ))),
            Err(error) => Err(LoadError(format!("cannot compile component {digest}: {error}"))),
        }
    }

    async fn fetch(&self, digest: Digest) -> Result<tempfile::TempPath, BlobError> {
        let io = |doing| move |source| BlobError::Io { doing, source };
        let path = self.code.temporary().map_err(io("create a temporary file"))?;
        let mut file = tokio::fs::File::create(&path)
            .await
            .map_err(io("create a temporary file"))?;
        let mut reader = self.blobs.open(digest).await?;
        loop {
            let bytes = reader.read(CHUNK_BYTES).await?;
            if bytes.is_empty() {
                break;
            }
            file.write_all(&bytes).await.map_err(io("write a temporary file"))?;
        }
        file.flush().await.map_err(io("write a temporary file"))?;
        Ok(path)
    }
}

/// The schemas were checked when the component was inspected; one that no longer compiles takes its task with it.
fn entry(task: TaskDescriptor) -> Option<(String, Entry)> {
    let compile = |schema| {
        Validator::compile(schema)
            .map(Arc::new)
            .inspect_err(|error| tracing::warn!(task = task.name, %error, "a schema of a component is not valid"))
            .ok()
    };
    let entry = Entry {
        input: compile(&task.input)?,
        output: compile(&task.output)?,
    };
    Some((task.name, entry))
}
