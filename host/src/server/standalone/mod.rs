//! `airtight standalone`: the whole server in one process. Builds it out of its parts, in the order in which they need each other, and
//! takes it down again.

mod args;
mod doorbell;
mod memory;
mod sweep;

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::{Authenticator, EventsOf};
use logs::FileLogStore;
use runtime::{EngineConfig, ExecutorConfig, LocalExecutor, Services};
use scheduler::{Handle, Running, Scheduler, StartError, Stopped};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

pub(crate) use args::Args;

use super::data_dir::DataDir;
use super::front::{self, Behind, Front, Kind};
use super::listen;
use super::own_thread::OwnThread;
use super::parts::{Parts, blocking};
use super::signals::Signals;
use super::space::Checkpoints;
use crate::cli::Global;
use crate::client::resolve_data_dir;
use crate::failure::{Exit, Failure, OrFail, Result};

/// How long open connections and services get to end once the scheduler has stopped.
const CLOSE_GRACE: Duration = Duration::from_secs(3);

/// Runs the server until it is told to stop.
pub(crate) async fn run(args: Args, global: Global) -> Result<()> {
    let started = Instant::now();
    listen::check_exposure(args.server.listen, args.server.insecure_http)?;
    let mut signals = Signals::listen()?;
    let dir = DataDir::open(&resolve_data_dir(global.data_dir.as_deref()))?;
    let mut held = dir.lock()?;
    let (password, new_password) = dir.admin_password()?;
    let authenticator = Authenticator::new(&password, &dir.signing_key()?);
    let scheduler_id = dir.scheduler_id()?;

    let engine = EngineConfig {
        slots: args.parallelism,
        ..EngineConfig::default()
    };
    let parts = Parts::open(&dir, &args.server, engine).await?;
    let logs = dir.logs();
    let disk = parts.space.clone();
    let logs = blocking("open the directory of logs", move || FileLogStore::open_on(&logs, disk)).await?;

    let mut config = scheduler::Config::new(scheduler_id);
    config.lease_ttl = args.lease;
    config.parallelism = args.parallelism;
    config.max_trigger_depth = args.max_trigger_depth;
    config.max_task_instances_per_run = args.max_task_instances_per_run;
    config.max_task_instances = args.max_task_instances;
    let scheduler = Scheduler::new(config, parts.database.clone(), parts.clock.clone());
    let handle = scheduler.handle();
    let executor = LocalExecutor::new(
        parts.engine.clone(),
        parts.code.clone(),
        parts.compiler.clone(),
        Services {
            xcoms: Arc::new(handle.clone()),
            checkpoints: Arc::new(Checkpoints {
                backend: handle.clone(),
                space: parts.space.clone(),
            }),
            blobs: Arc::new(parts.blobs.clone()),
            logs: Arc::new(logs.clone()),
            events: Arc::new(handle.clone()),
            clock: parts.clock.clone(),
        },
        &ExecutorConfig {
            open_writers: parts.shares.open_writers,
            ..ExecutorConfig::default()
        },
    )
    .or_fail(Exit::Broken, || "cannot start the threads that run tasks".to_owned())?;
    let thread =
        OwnThread::start("airtight-loop").or_fail(Exit::Broken, || "cannot start the scheduler's thread".to_owned())?;
    let begun = thread.spawn(scheduler.start(Arc::new(executor))).await;
    let running = begun
        .or_fail(Exit::Broken, || "the scheduler did not start".to_owned())?
        .map_err(not_started)?;

    let (catalog, compile_service) = parts.catalog(&args.server, Arc::new(handle.clone()));
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
    services.spawn(
        catalog
            .clone()
            .take_over_abandoned(args.compile_patience, shutdown.clone()),
    );
    services.spawn(sweep::run(
        parts.blobs.clone(),
        parts.database.clone(),
        parts.database.clone(),
        {
            let handle = handle.clone();
            move || handle.oldest_start()
        },
        args.blob_sweep,
        shutdown.clone(),
    ));
    services.spawn(memory::run(handle.clone(), shutdown.clone()));
    services.spawn(doorbell::run(dir.doorbell(), handle.clone(), shutdown.clone()));

    let behind = Behind {
        control: Arc::new(handle.clone()),
        catalog,
        logs: Arc::new(logs.clone()),
        authenticator,
        events_of: EventsOf::This(scheduler_id),
    };
    let Front { url, serving } = front::serve(&args.server, &parts, behind, &shutdown).await?;
    held.announce(&url)
        .or_fail(Exit::Broken, || "cannot write to the data directory".to_owned())?;
    front::say_ready(Kind::Standalone, &url, &dir, new_password, started);

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
    logs.flush().await;
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
