//! WASI 0.2 with nothing granted: no environment, no arguments, no directories, no network, closed standard input. Standard
//! output and error go to the try's log; clocks and random numbers work.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use ports::log::{LogLevel, LogSource};
use tokio::io::AsyncWrite;
use wasmtime::component::{HasData, Resource};
use wasmtime_wasi::WasiCtx;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::{self, ResolveAddressStream};
use wasmtime_wasi::p2::bindings::sockets::network::{self, ErrorCode, IpAddress, IpAddressFamily, Network};
use wasmtime_wasi::p2::bindings::sockets::tcp::TcpSocket;
use wasmtime_wasi::p2::bindings::sockets::udp::UdpSocket;
use wasmtime_wasi::p2::bindings::sockets::{tcp_create_socket, udp_create_socket};
use wasmtime_wasi::p2::{DynPollable, OutputStream, Pollable, SocketError, SocketResult, StreamError, StreamResult};

use crate::gate::Gate;
use crate::try_log::TryLog;

/// What one write may hold.
const WRITE_BYTES: usize = 64 << 10;

/// The WASI context of a try.
pub(crate) fn context(log: &Arc<TryLog>, gate: &Arc<Gate>) -> WasiCtx {
    let stream = |source| LogStream {
        log: Arc::clone(log),
        gate: Arc::clone(gate),
        source,
    };
    WasiCtx::builder()
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .stdout(stream(LogSource::Stdout))
        .stderr(stream(LogSource::Stderr))
        .build()
}

/// Standard output or error of a guest.
#[derive(Clone)]
struct LogStream {
    log: Arc<TryLog>,
    gate: Arc<Gate>,
    source: LogSource,
}

impl LogStream {
    fn append(&self, bytes: &[u8]) -> wasmtime::Result<()> {
        self.gate.pass()?;
        Ok(self.log.write(self.source, bytes)?)
    }
}

impl IsTerminal for LogStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for LogStream {
    async fn ready(&mut self) {}
}

impl OutputStream for LogStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        // The contract of streams: nobody writes more at a time than `check-write` allows.
        if bytes.len() > WRITE_BYTES {
            return Err(StreamError::Trap(wasmtime::format_err!(
                "a write of {} bytes where {WRITE_BYTES} are allowed at a time",
                bytes.len()
            )));
        }
        self.append(&bytes).map_err(StreamError::Trap)
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES)
    }
}

impl AsyncWrite for LogStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.append(bytes).map(|()| bytes.len()).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Answers every attempt to reach the network with `access-denied`, before a socket of the host exists.
pub(crate) struct DeniedNetwork<'a> {
    pub(crate) log: &'a TryLog,
    pub(crate) gate: &'a Gate,
}

impl DeniedNetwork<'_> {
    fn deny<T>(&self, what: &str) -> SocketResult<T> {
        if !self.gate.was_denied() {
            self.log.system(
                LogLevel::Warning,
                &format!("denied: {what}; the task has no grant for the network"),
            );
        }
        self.gate.note_denied();
        Err(ErrorCode::AccessDenied.into())
    }
}

/// See wasmtime's `HasData`.
pub(crate) struct HasDeniedNetwork;

impl HasData for HasDeniedNetwork {
    type Data<'a> = DeniedNetwork<'a>;
}

// The generated bindings ask for these of whoever answers with the network's error code.
impl network::Host for DeniedNetwork<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn network_error_code(&mut self, _: Resource<wasmtime::Error>) -> wasmtime::Result<Option<ErrorCode>> {
        Ok(None)
    }
}

impl network::HostNetwork for DeniedNetwork<'_> {
    fn drop(&mut self, _: Resource<Network>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl tcp_create_socket::Host for DeniedNetwork<'_> {
    fn create_tcp_socket(&mut self, _: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        self.deny("creating a TCP socket")
    }
}

impl udp_create_socket::Host for DeniedNetwork<'_> {
    async fn create_udp_socket(&mut self, _: IpAddressFamily) -> SocketResult<Resource<UdpSocket>> {
        self.deny("creating a UDP socket")
    }
}

impl ip_name_lookup::Host for DeniedNetwork<'_> {
    fn resolve_addresses(&mut self, _: Resource<Network>, _: String) -> SocketResult<Resource<ResolveAddressStream>> {
        self.deny("looking up a host name")
    }
}

// No such resource is ever handed out, so the guest cannot name one.
impl ip_name_lookup::HostResolveAddressStream for DeniedNetwork<'_> {
    fn resolve_next_address(&mut self, _: Resource<ResolveAddressStream>) -> SocketResult<Option<IpAddress>> {
        Err(ErrorCode::InvalidState.into())
    }

    fn subscribe(&mut self, _: Resource<ResolveAddressStream>) -> wasmtime::Result<Resource<DynPollable>> {
        Err(wasmtime::format_err!("there is no such stream"))
    }

    fn drop(&mut self, _: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        Ok(())
    }
}
