//! Serving connections so that no client can hold the server: time to send a request's head, size and number of its
//! headers, time to take an answer, and the number of connections are all bounded.

mod client;
mod io;
mod registry;

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use hyper::body::{Frame, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

pub(crate) use self::client::subnet;
use self::io::{StallGuard, Unread, Watched};
use self::registry::{Busy, Connection, Registry};

/// `ENFILE` and `EMFILE`: there are no more file descriptors.
const OUT_OF_FILES: [i32; 2] = [23, 24];

/// Bounds on connections.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Open connections. For a next one the one that has been idle longest is closed; where all are at work, it waits.
    pub connections: usize,
    /// Those of one address, or of one IPv6 network. Loopback and `proxies` have no bound of their own.
    pub per_address: usize,
    /// Proxies that are trusted to say in `X-Forwarded-For` whom they speak for.
    pub proxies: Arc<[IpAddr]>,
    /// Time to send the head of a request, and to begin the next one on an open connection.
    pub head_timeout: Duration,
    /// All headers of a request, in bytes.
    pub head_bytes: usize,
    /// Headers of a request.
    pub headers: usize,
    /// How long a client may take nothing of an answer.
    pub stall_timeout: Duration,
    /// How long open requests may go on once the server stops.
    pub drain: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections: 1_024,
            per_address: 256,
            proxies: Arc::from([]),
            head_timeout: Duration::from_secs(30),
            head_bytes: 64 << 10,
            headers: 100,
            stall_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(10),
        }
    }
}

/// The address of the caller; where a trusted proxy speaks for it, the one that the proxy says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Serves until `shutdown` is cancelled, then lets open requests end within the drain time.
pub async fn serve(listener: TcpListener, router: Router, limits: ConnectionLimits, shutdown: CancellationToken) {
    let registry = Registry::new(limits.connections, limits.per_address, Arc::clone(&limits.proxies));
    let connections = TaskTracker::new();
    let abort = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &registry) => accepted,
            () = shutdown.cancelled() => break,
        };
        let (stream, peer, slot) = accepted;
        let ended = slot.ended();
        let connection = connection(stream, peer, slot, router.clone(), limits.clone(), shutdown.clone());
        let abort = abort.clone();
        connections.spawn(async move {
            tokio::select! {
                () = connection => {}
                () = abort.cancelled() => {}
                // It answers nothing just now: it makes room.
                () = ended.cancelled() => {}
            }
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(limits.drain, connections.wait()).await.is_err() {
        tracing::warn!("{} connections were cut off at shutdown", connections.len());
        abort.cancel();
        connections.wait().await;
    }
}

/// The next connection, once there is room for it.
async fn accept(listener: &TcpListener, registry: &Registry) -> (TcpStream, SocketAddr, Connection) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => match registry.admit(peer.ip()).await {
                Ok(slot) => return (stream, peer, slot),
                Err(registry::TooMany) => {
                    tracing::debug!(net.peer = %peer, "closed a connection: its address has too many that are at work");
                }
            },
            Err(error) => {
                // Out of file descriptors, or a client that left: neither is a reason to stop, both to slow down.
                tracing::warn!("cannot accept a connection: {error}");
                if error.raw_os_error().is_some_and(|code| OUT_OF_FILES.contains(&code)) {
                    registry.relieve();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// A body during whose sending the connection is at work.
struct Sent {
    body: Body,
    _busy: Busy,
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    slot: Connection,
    router: Router,
    limits: ConnectionLimits,
    shutdown: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(net.peer = %peer, "cannot set TCP_NODELAY: {error}");
    }
    let unread = Unread::default();
    let io = TokioIo::new(StallGuard::new(stream, limits.stall_timeout, unread.clone()));
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let mut request: Request = request.map(|body| Body::new(Watched::new(body, unread.clone())));
        let client = client::client_of(peer.ip(), request.headers(), &limits.proxies);
        request.extensions_mut().insert(Peer(client));
        let (answer, busy) = (router.clone().oneshot(request), slot.work());
        async move {
            let Ok(response) = answer.await;
            Ok::<_, std::convert::Infallible>(response.map(|body| Sent { body, _busy: busy }))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_headers(limits.headers)
        .max_header_size(limits.head_bytes)
        .max_buf_size(limits.head_bytes.max(64 << 10))
        .serve_connection(io, service);
    tokio::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(net.peer = %peer, "connection ended: {error}");
    }
}
