//! The doorbell: servers that do not schedule ring it when they have put something into the inbox, so that the scheduler looks at once.
//! Without it the scheduler looks once a second.

use std::io;
use std::path::{Path, PathBuf};

use scheduler::Handle;
use tokio::net::UnixDatagram;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Answers the door until `shutdown`. The caller holds the lock of the data directory: a socket that is there is a dead process's.
pub(super) async fn run(path: PathBuf, handle: Handle, shutdown: CancellationToken) {
    let door = match hang(&path) {
        Ok(door) => door,
        Err(error) => {
            warn!(path = %path.display(), "other servers cannot ring for what they ask, which takes up to a second longer: {error}");
            return;
        }
    };
    let answer = async {
        let mut note = [0];
        loop {
            match door.recv(&mut note).await {
                Ok(_) => handle.ring(),
                Err(error) => {
                    warn!("the doorbell is broken, what other servers ask takes up to a second longer: {error}");
                    return;
                }
            }
        }
    };
    tokio::select! {
        () = answer => {}
        () = shutdown.cancelled() => {}
    }
    if let Err(error) = std::fs::remove_file(&path) {
        debug!("cannot remove the doorbell: {error}");
    }
}

fn hang(path: &Path) -> io::Result<UnixDatagram> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixDatagram::bind(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn replaces_what_a_dead_process_left_and_refuses_long_paths() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("inbox.sock");
        drop(hang(&path).unwrap());
        assert!(path.exists(), "a dead process leaves it");
        let door = hang(&path).unwrap();
        let ringing = std::os::unix::net::UnixDatagram::unbound().unwrap();
        ringing.send_to(&[1], &path).unwrap();
        let mut note = [0];
        assert_eq!(door.recv(&mut note).await.unwrap(), 1);
        assert!(hang(&dir.path().join("x".repeat(120))).is_err());
    }
}
