//! Rings the scheduler's doorbell: a datagram to a socket in the data directory.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use tracing::warn;

/// What rings. It never waits, and nobody need be there: the scheduler looks into the inbox by itself once a second.
pub(super) fn bell(path: PathBuf) -> impl Fn() + Send + Sync + 'static {
    let made = UnixDatagram::unbound().and_then(|socket| {
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    let socket = made
        .inspect_err(|error| warn!("cannot ring for what is asked, which takes up to a second longer: {error}"))
        .ok();
    move || {
        if let Some(socket) = &socket {
            // A full queue means that it rings already.
            let _ = socket.send_to(&[1], &path);
        }
    }
}
