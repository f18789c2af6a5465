//! The API on its socket, and what a server says once it is ready.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use api::{Authenticator, BodyLimits, ConnectionLimits, EventsOf};
use catalog::Catalog;
use ports::control::Control;
use ports::log::LogReader;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::ServerArgs;
use super::data_dir::DataDir;
use super::descriptors;
use super::listen;
use super::parts::Parts;
use crate::client::resolve_data_dir;
use crate::failure::{Exit, OrFail, Result};
use crate::ui::term::{self, Paint};

/// What differs between servers.
pub(super) struct Behind {
    pub(super) control: Arc<dyn Control>,
    pub(super) catalog: Catalog,
    pub(super) logs: Arc<dyn LogReader>,
    pub(super) authenticator: Authenticator,
    pub(super) events_of: EventsOf,
}

/// The API, served.
pub(super) struct Front {
    pub(super) url: String,
    pub(super) serving: JoinHandle<()>,
}

/// Serves the API until `shutdown`.
pub(super) async fn serve(
    args: &ServerArgs,
    parts: &Parts,
    behind: Behind,
    shutdown: &CancellationToken,
) -> Result<Front> {
    let listener = listen::bind(args.listen).await?;
    let bound = listener
        .local_addr()
        .or_fail(Exit::Broken, || "the socket has no address".to_owned())?;
    let router = api::router(api::State {
        control: behind.control,
        metadata: parts.database.clone(),
        components: Arc::new(behind.catalog.clone()),
        deployer: Arc::new(behind.catalog),
        logs: behind.logs,
        blobs: Arc::new(parts.blobs.clone()),
        uploads: parts.database.clone(),
        space: parts.space.clone(),
        clock: parts.clock.clone(),
        authenticator: behind.authenticator,
        limits: BodyLimits {
            component_bytes: args.max_component_mib << 20,
            ..BodyLimits::default()
        },
        events_of: behind.events_of,
        descriptors: descriptors::count,
        shutdown: shutdown.clone(),
    });
    let limits = ConnectionLimits {
        connections: parts.shares.connections,
        per_address: usize::try_from(args.max_connections_per_address).unwrap_or(usize::MAX),
        proxies: args.trusted_proxies.iter().map(IpAddr::to_canonical).collect(),
        ..ConnectionLimits::default()
    };
    let serving = api::serve(listener, router, limits, shutdown.clone());
    Ok(Front {
        url: listen::url(bound),
        serving: tokio::spawn(serving),
    })
}

/// One block that says all a person needs to go on.
pub(super) fn say_ready(kind: Kind, url: &str, dir: &DataDir, new_password: bool, started: Instant) {
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    info!(url, duration_ms, "ready after {duration_ms} ms");
    let paint = Paint::stdout();
    let generated = if new_password { " (generated just now)" } else { "" };
    let root = dir.root().display();
    let mut flags = if resolve_data_dir(None)
        .canonicalize()
        .is_ok_and(|default| default == dir.root())
    {
        String::new()
    } else {
        format!(" --data-dir {root}")
    };
    let (name, asks) = match kind {
        Kind::Standalone => ("Airtight ", String::new()),
        Kind::ApiServer => {
            // The command line finds the server that schedules by itself, but not this one.
            flags.push_str(&format!(" --server {url}"));
            let asks = "  scheduler asked through the database: start it with `airtight standalone`\n".to_owned();
            ("Airtight API server ", asks)
        }
    };
    let title = format!("{name}{} is ready", env!("CARGO_PKG_VERSION"));
    term::outln(&format!(
        "{}\n\n  url       {url}\n  user      admin\n  password  in {}{generated}\n  data      {root}\n{asks}  \
         next      airtight dags deploy FILE{flags}\n",
        paint.bold(&title),
        dir.password_file().display(),
    ));
}

/// Which server says that it is ready.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Everything in one process.
    Standalone,
    /// The API alone.
    ApiServer,
}
