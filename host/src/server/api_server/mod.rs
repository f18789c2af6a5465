//! `airtight api-server`: serves the API on the data directory and the database of a `standalone`, and never schedules. What changes
//! something is asked of the scheduler through the database; what the scheduler tells of runs is followed over HTTP.

mod args;
mod bell;
mod follow;

use std::sync::Arc;
use std::time::Instant;

use api::{Authenticator, EventsOf};
use logs::SharedLogs;
use runtime::EngineConfig;
use scheduler::{Remote, RemoteConfig};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

pub(crate) use args::Args;

use self::follow::Follower;
use super::data_dir::DataDir;
use super::front::{self, Behind, Front, Kind};
use super::listen;
use super::parts::Parts;
use super::signals::Signals;
use crate::cli::Global;
use crate::client::resolve_data_dir;
use crate::failure::{Exit, Failure, Result};

/// Runs the server until it is told to stop.
pub(crate) async fn run(args: Args, global: Global) -> Result<()> {
    let started = Instant::now();
    listen::check_exposure(args.server.listen, args.server.insecure_http)?;
    let mut signals = Signals::listen()?;
    let dir = DataDir::open(&resolve_data_dir(global.data_dir.as_deref()))?;
    let (password, new_password) = dir.admin_password()?;
    let authenticator = || Ok::<_, Failure>(Authenticator::new(&password, &dir.signing_key()?));
    let scheduler_id = dir.scheduler_id()?;
    // It runs no task; the engine only says which compiled code is of use here.
    let engine = EngineConfig {
        slots: Some(1),
        ..EngineConfig::default()
    };
    let parts = Parts::open(&dir, &args.server, engine).await?;

    let mut config = RemoteConfig::new(scheduler_id);
    config.scheduler_patience = args.scheduler_patience;
    config.answer_patience = args.answer_patience;
    let (remote, remote_service) = Remote::new(
        config,
        parts.database.clone(),
        parts.database.clone(),
        parts.clock.clone(),
        bell::bell(dir.doorbell()),
    );
    let (follower, gaps) = Follower::new(
        remote.clone(),
        dir.url_file(),
        scheduler_id,
        authenticator()?,
        parts.clock.clone(),
    )?;
    let (catalog, compile_service) = parts.catalog(&args.server, Arc::new(remote.clone()));

    let shutdown = CancellationToken::new();
    let services = TaskTracker::new();
    services.spawn(compile_service.run(shutdown.clone()));
    // Open requests may wait for answers while the server stops: these two go on until the process ends.
    tokio::spawn(remote_service.run());
    tokio::spawn(follower.run());

    let behind = Behind {
        control: Arc::new(remote),
        catalog,
        logs: Arc::new(SharedLogs::new(&dir.logs())),
        authenticator: authenticator()?,
        events_of: EventsOf::Another(gaps),
    };
    let Front { url, serving } = front::serve(&args.server, &parts, behind, &shutdown).await?;
    front::say_ready(Kind::ApiServer, &url, &dir, new_password, started);
    supervise(&mut signals, serving, &services, &shutdown).await
}

/// Waits for a signal; lets open requests end after the first, gives up after the second.
async fn supervise(
    signals: &mut Signals,
    mut serving: JoinHandle<()>,
    services: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<()> {
    tokio::select! {
        ended = &mut serving => {
            let why = ended.err().map_or_else(|| "it stopped by itself".to_owned(), |failure| failure.to_string());
            error!("the HTTP server ended with a bug: {why}");
            return Err(Failure::new(Exit::Broken, format!("the HTTP server ended: {why}")));
        }
        signal = signals.next() => info!("{signal}: stopping; open requests get a moment, a second signal stops at once"),
    }
    shutdown.cancel();
    services.close();
    let closing = async {
        services.wait().await;
        if let Err(failure) = serving.await {
            error!("the HTTP server ended with a bug: {failure}");
        }
    };
    tokio::select! {
        () = closing => {
            info!("stopped");
            Ok(())
        }
        signal = signals.next() => {
            warn!("{signal} again: stopping at once");
            Err(Failure::new(Exit::Interrupted, "stopped before open requests had been answered"))
        }
    }
}
