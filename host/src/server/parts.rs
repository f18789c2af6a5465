//! What the API of a server is built on: the database, what lies in the data directory, the catalog.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use blobs::FileBlobStore;
use catalog::{Catalog, CompileService, WasmFiles};
use db::Db;
use model::Digest;
use ports::control::Control;
use runtime::{ChildCompiler, CodeCache, CompilerConfig, EngineConfig, TaskEngine};

use super::ServerArgs;
use super::data_dir::DataDir;
use super::descriptors::{self, Shares};
use super::space::DiskSpace;
use crate::clock::SystemClock;
use crate::failure::{Exit, OrFail, Result};

/// The parts.
pub(super) struct Parts {
    pub(super) database: Arc<Db>,
    pub(super) engine: Arc<TaskEngine>,
    pub(super) space: Arc<DiskSpace>,
    pub(super) blobs: FileBlobStore,
    pub(super) code: Arc<CodeCache>,
    pub(super) compiler: Arc<ChildCompiler>,
    pub(super) clock: Arc<SystemClock>,
    pub(super) shares: Shares,
}

impl Parts {
    /// Opens them all.
    pub(super) async fn open(dir: &DataDir, args: &ServerArgs, engine: EngineConfig) -> Result<Self> {
        let limit = descriptors::raise();
        let database = open_database(dir, args);
        let engine = blocking("create the wasm engine", move || TaskEngine::new(&engine));
        let (database, engine) = tokio::try_join!(database, engine)?;
        let (at, compiled) = (dir.blobs(), dir.compiled());
        let for_engine = Arc::clone(&engine);
        let space = Arc::new(DiskSpace::new(
            dir.root(),
            args.min_free_mib.map(|mib| mib.saturating_mul(1 << 20)),
        ));
        let disk = space.clone();
        let (blobs, code) = blocking("open the data directory", move || {
            std::io::Result::Ok((
                FileBlobStore::open_on(&at, disk)?,
                CodeCache::open(&compiled, &for_engine)?,
            ))
        })
        .await?;
        let code = Arc::new(code);
        let mut config = CompilerConfig::this_executable().or_fail(Exit::Broken, || {
            "cannot find this program's own file, which compiles components".to_owned()
        })?;
        config.parallel = args.compile_slots;
        config.cpu_time = args.compile_cpu_time;
        let shares = descriptors::shares(limit, engine.slots());
        let compiler = Arc::new(ChildCompiler::new(config, Arc::clone(&code)));
        Ok(Self {
            database,
            engine,
            space,
            blobs,
            code,
            compiler,
            clock: Arc::new(SystemClock),
            shares,
        })
    }

    /// The catalog, which has DAG versions stored by `control`.
    pub(super) fn catalog(&self, args: &ServerArgs, control: Arc<dyn Control>) -> (Catalog, CompileService) {
        let parts = catalog::Parts {
            store: self.database.clone(),
            blobs: Arc::new(self.blobs.clone()),
            files: Arc::new(LocalFiles(self.blobs.clone())),
            compiler: self.compiler.clone(),
            control,
            clock: self.clock.clone(),
        };
        let config = catalog::Config {
            max_component_bytes: args.max_component_mib << 20,
            compile_slots: args.compile_slots,
            ..catalog::Config::default()
        };
        Catalog::new(parts, config)
    }
}

/// Blobs lie in files of this machine.
struct LocalFiles(FileBlobStore);

#[async_trait]
impl WasmFiles for LocalFiles {
    async fn path(&self, digest: Digest) -> std::io::Result<PathBuf> {
        Ok(self.0.path(digest))
    }
}

async fn open_database(dir: &DataDir, args: &ServerArgs) -> Result<Arc<Db>> {
    let options = db::Options::default();
    let root = dir.clone();
    let schema = blocking("wait for the lock of the schema", move || root.lock_schema()).await?;
    let opened = match &args.database {
        Some(url) => Db::open(url, &options).await,
        None => Db::open_sqlite(&dir.database(), &options).await,
    };
    drop(schema);
    opened
        .map(Arc::new)
        .or_fail(Exit::Broken, || "cannot open the metadata database".to_owned())
}

/// Does what blocks on a thread that may.
pub(super) async fn blocking<T: Send + 'static, E: std::error::Error + Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> std::result::Result<T, E> + Send + 'static,
) -> Result<T> {
    let result = tokio::task::spawn_blocking(work)
        .await
        .or_fail(Exit::Broken, || format!("cannot {doing}"))?;
    result.or_fail(Exit::Broken, || format!("cannot {doing}"))
}
