//! Builds the server out of its parts, in the order in which they need each other, and takes it down again.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::{Authenticator, BodyLimits, ConnectionLimits};
use async_trait::async_trait;
use blobs::FileBlobStore;
use catalog::{Catalog, WasmFiles};
use db::Db;
use logs::FileLogStore;
use model::Digest;
use runtime::{
    ChildCompiler, CodeCache, CompilerConfig, EngineConfig, ExecutorConfig, LocalExecutor, Services, TaskEngine,
};
use scheduler::{Handle, Running, Scheduler, StartError, Stopped};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use super::Args;
use super::data_dir::DataDir;
use super::signals::Signals;
use super::{listen, memory, sweep};
use crate::cli::Global;
use crate::client::resolve_data_dir;
use crate::clock::SystemClock;
use crate::failure::{Exit, Failure, OrFail, Result};
use crate::ui::term::{self, Paint};

/// How long open connections and services get to end once the scheduler has stopped.
const CLOSE_GRACE: Duration = Duration::from_secs(3);

/// Runs the server until it is told to stop.
pub(crate) async fn run(args: Args, global: Global) -> Result<()> {
    let started = Instant::now();
    listen::check_exposure(args.listen, args.insecure_http)?;
    let mut signals = Signals::listen()?;
    let mut dir = DataDir::open(&resolve_data_dir(global.data_dir.as_deref()))?;
    let (password, new_password) = dir.admin_password()?;
    let authenticator = Authenticator::new(&password, &dir.signing_key()?);

    let database = open_database(&args, &dir);
    let engine = make_engine(&args);
    let (database, engine) = tokio::try_join!(database, engine)?;
    let clock = Arc::new(SystemClock);
    let storage = Storage::open(&dir, &engine).await?;
    let compiler = Arc::new(compiler(&storage, &args)?);

    let mut config = scheduler::Config::new(dir.scheduler_id()?);
    config.lease_ttl = args.lease;
    config.parallelism = args.parallelism;
    config.max_trigger_depth = args.max_trigger_depth;
    let scheduler = Scheduler::new(config, database.clone(), clock.clone());
    let handle = scheduler.handle();
    let executor = LocalExecutor::new(
        engine,
        storage.code.clone(),
        compiler.clone(),
        Services {
            xcoms: Arc::new(handle.clone()),
            checkpoints: Arc::new(handle.clone()),
            blobs: Arc::new(storage.blobs.clone()),
            logs: Arc::new(storage.logs.clone()),
            events: Arc::new(handle.clone()),
            clock: clock.clone(),
        },
        &ExecutorConfig::default(),
    )
    .or_fail(Exit::Broken, || "cannot start the threads that run tasks".to_owned())?;
    let running = scheduler.start(Arc::new(executor)).await.map_err(not_started)?;

    let (catalog, compile_service) = Catalog::new(
        catalog::Parts {
            store: database.clone(),
            blobs: Arc::new(storage.blobs.clone()),
            files: Arc::new(LocalFiles(storage.blobs.clone())),
            compiler,
            control: Arc::new(handle.clone()),
            clock: clock.clone(),
        },
        catalog::Config {
            max_component_bytes: args.max_component_mib << 20,
            compile_slots: args.compile_slots,
            ..catalog::Config::default()
        },
    );
    let resumed = catalog.resume().await.or_fail(Exit::Broken, || {
        "cannot read the components that were being compiled".to_owned()
    })?;
    if resumed > 0 {
        info!(
            resumed,
            "compiling {resumed} components that an earlier process did not finish"
        );
    }

    let shutdown = CancellationToken::new();
    let services = TaskTracker::new();
    services.spawn(compile_service.run(shutdown.clone()));
    services.spawn(sweep::run(
        storage.blobs.clone(),
        database.clone(),
        {
            let handle = handle.clone();
            move || handle.oldest_start()
        },
        args.blob_sweep,
        shutdown.clone(),
    ));

    services.spawn(memory::run(handle.clone(), shutdown.clone()));

    let listener = listen::bind(args.listen).await?;
    let bound = listener
        .local_addr()
        .or_fail(Exit::Broken, || "the socket has no address".to_owned())?;
    let router = api::router(api::State {
        control: Arc::new(handle.clone()),
        metadata: database.clone(),
        components: Arc::new(catalog.clone()),
        deployer: Arc::new(catalog),
        logs: Arc::new(storage.logs.clone()),
        blobs: Arc::new(storage.blobs.clone()),
        clock,
        authenticator,
        limits: BodyLimits {
            component_bytes: args.max_component_mib << 20,
            ..BodyLimits::default()
        },
        shutdown: shutdown.clone(),
    });
    let serving = tokio::spawn(api::serve(
        listener,
        router,
        ConnectionLimits::default(),
        shutdown.clone(),
    ));

    let url = listen::url(bound);
    dir.announce(&url)
        .or_fail(Exit::Broken, || "cannot write to the data directory".to_owned())?;
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    info!(url, duration_ms, "ready after {duration_ms} ms");
    say_ready(&url, &dir, new_password);

    let ended = supervise(&mut signals, &handle, running, args.grace).await;
    shutdown.cancel();
    if matches!(&ended, Err(failure) if failure.exit() == Exit::Interrupted) {
        return ended;
    }
    services.close();
    let closing = async {
        services.wait().await;
        if let Err(failure) = serving.await {
            error!("the HTTP server ended with a bug: {failure}");
        }
    };
    tokio::select! {
        closed = tokio::time::timeout(CLOSE_GRACE, closing) => {
            if closed.is_err() {
                warn!("some connections did not end in time and are dropped");
            }
        }
        signal = signals.next() => warn!("{signal} again: stopping at once"),
    }
    storage.logs.flush().await;
    if ended.is_ok() {
        info!("stopped");
    }
    ended
}

/// Waits for a signal or for the scheduler's own end; drains after the first signal, gives up after the second.
async fn supervise(signals: &mut Signals, handle: &Handle, mut running: Running, grace: Duration) -> Result<()> {
    tokio::select! {
        ended = &mut running => return stopped(ended),
        signal = signals.next() => {
            let shown = humantime::format_duration(grace);
            info!("{signal}: stopping; running tasks get up to {shown}, a second signal stops at once");
        }
    }
    let drained = async {
        handle.shutdown(grace).await;
        running.await
    };
    tokio::select! {
        ended = drained => stopped(ended),
        signal = signals.next() => {
            warn!("{signal} again: stopping at once");
            Err(Failure::new(Exit::Interrupted, "stopped before running tasks had ended; they start again with the next server"))
        }
    }
}

fn stopped(ended: Result<(), Stopped>) -> Result<()> {
    ended.map_err(|reason| {
        let exit = if matches!(reason, Stopped::Fenced) {
            Exit::InUse
        } else {
            Exit::Broken
        };
        error!(code = reason.code(), "{reason}");
        let failure = Failure::new(exit, format!("{reason} [{}]", reason.code()));
        match (std::error::Error::source(&reason), exit) {
            (Some(source), _) => failure.because(source),
            (None, Exit::InUse) => failure.hint("nothing is lost: the other server goes on with all runs"),
            (None, _) => failure,
        }
    })
}

fn not_started(error: StartError) -> Failure {
    let in_use = matches!(error, StartError::Lease(ports::store::LeaseError::InUse { .. }));
    let exit = if in_use { Exit::InUse } else { Exit::Broken };
    let failure = Failure::new(exit, format!("{error} [{}]", error.code()));
    let failure = match std::error::Error::source(&error) {
        Some(source) => failure.because(source),
        None => failure,
    };
    if in_use {
        failure.hint("stop that server first; if it is gone already, its lease runs out by itself: try again soon")
    } else {
        failure
    }
}

async fn open_database(args: &Args, dir: &DataDir) -> Result<Arc<Db>> {
    let options = db::Options::default();
    let opened = match &args.database {
        Some(url) => Db::open(url, &options).await,
        None => Db::open_sqlite(&dir.database(), &options).await,
    };
    opened
        .map(Arc::new)
        .or_fail(Exit::Broken, || "cannot open the metadata database".to_owned())
}

async fn make_engine(args: &Args) -> Result<Arc<TaskEngine>> {
    let config = EngineConfig {
        slots: args.parallelism,
        ..EngineConfig::default()
    };
    blocking("create the wasm engine", move || TaskEngine::new(&config)).await
}

/// What lies in the data directory beside the database.
struct Storage {
    blobs: FileBlobStore,
    logs: FileLogStore,
    code: Arc<CodeCache>,
}

impl Storage {
    async fn open(dir: &DataDir, engine: &Arc<TaskEngine>) -> Result<Self> {
        let (blobs, logs, compiled) = (dir.blobs(), dir.logs(), dir.compiled());
        let engine = engine.clone();
        blocking("open the data directory", move || {
            std::io::Result::Ok(Self {
                blobs: FileBlobStore::open(&blobs)?,
                logs: FileLogStore::open(&logs)?,
                code: Arc::new(CodeCache::open(&compiled, &engine)?),
            })
        })
        .await
    }
}

fn compiler(storage: &Storage, args: &Args) -> Result<ChildCompiler> {
    let mut config = CompilerConfig::this_executable().or_fail(Exit::Broken, || {
        "cannot find this program's own file, which compiles components".to_owned()
    })?;
    config.parallel = args.compile_slots;
    Ok(ChildCompiler::new(config, storage.code.clone()))
}

/// Blobs lie in files of this machine.
struct LocalFiles(FileBlobStore);

#[async_trait]
impl WasmFiles for LocalFiles {
    async fn path(&self, digest: Digest) -> std::io::Result<PathBuf> {
        Ok(self.0.path(digest))
    }
}

fn blocking<T: Send + 'static, E: std::error::Error + Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> std::result::Result<T, E> + Send + 'static,
) -> impl Future<Output = Result<T>> {
    let task = tokio::task::spawn_blocking(work);
    async move {
        let result = task.await.or_fail(Exit::Broken, || format!("cannot {doing}"))?;
        result.or_fail(Exit::Broken, || format!("cannot {doing}"))
    }
}

/// One block that says all a person needs to go on.
fn say_ready(url: &str, dir: &DataDir, new_password: bool) {
    let paint = Paint::stdout();
    let generated = if new_password { " (generated just now)" } else { "" };
    let root = dir.root().display();
    let flag = if resolve_data_dir(None)
        .canonicalize()
        .is_ok_and(|default| default == dir.root())
    {
        String::new()
    } else {
        format!(" --data-dir {root}")
    };
    term::outln(&format!(
        "{}\n\n  url       {url}\n  user      admin\n  password  in {}{generated}\n  data      {root}\n  \
         next      airtight dags deploy FILE{flag}\n",
        paint.bold(concat!("Airtight ", env!("CARGO_PKG_VERSION"), " is ready")),
        dir.password_file().display(),
    ));
}
