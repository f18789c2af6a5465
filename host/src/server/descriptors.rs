//! File descriptors: the server takes as many as the system lets it, keeps a reserve for itself, and deals out the rest to
//! connections and to blobs that tasks write, so that nobody can take those of another.

use api::Descriptors;
use ports::executor::CALLBACK_SLOTS;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};

/// What the server itself has open at the most: the database, logs, blobs that are read, compilers, and some more.
const OWN: u64 = 256;
/// What most servers need no more than.
const MAX_CONNECTIONS: u64 = 1_024;
const MAX_OPEN_WRITERS: u64 = 16;

/// Who may have how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    /// Connections of clients.
    pub(super) connections: usize,
    /// Blobs that one try writes at a time.
    pub(super) open_writers: u32,
}

/// Raises the limit of this process to what it may raise it to; answers the limit, if there is one.
pub(super) fn raise() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => {
            debug!(from = current, to = maximum, "raised the limit of file descriptors");
            maximum
        }
        Err(error) => {
            warn!(%error, limit = current, "cannot raise the limit of file descriptors");
            current
        }
    }
}

/// Deals out what there is beside the server's own.
pub(super) fn shares(limit: Option<u64>, slots: u32) -> Shares {
    let half = limit.unwrap_or(u64::MAX).saturating_sub(OWN) / 2;
    let tries = u64::from(slots).saturating_add(u64::from(CALLBACK_SLOTS)).max(1);
    let shares = Shares {
        connections: usize::try_from(half.clamp(16, MAX_CONNECTIONS)).unwrap_or(usize::MAX),
        open_writers: u32::try_from((half / tries).clamp(1, MAX_OPEN_WRITERS)).unwrap_or(1),
    };
    if half < 16 || half / tries < 1 {
        warn!(
            limit,
            slots, "the limit of file descriptors is low for so many tasks; start the server with a larger `ulimit -n`"
        );
    }
    shares
}

/// How many are open now, and how many there may be.
pub(super) fn count() -> Descriptors {
    let open = std::fs::read_dir("/proc/self/fd").map(|all| (all.count() as u64).saturating_sub(1));
    Descriptors {
        open: open.ok(),
        limit: getrlimit(Resource::Nofile).current,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dealt_out_fits_under_the_limit() {
        for limit in [1_024, 4_096, 65_536, 1 << 20] {
            for slots in [1, 32, 100] {
                let shares = shares(Some(limit), slots);
                let writers = u64::from(shares.open_writers) * u64::from(slots + CALLBACK_SLOTS);
                assert!(
                    OWN + writers + shares.connections as u64 <= limit,
                    "{limit} {slots}: {shares:?}"
                );
            }
        }
        let plenty = Shares {
            connections: 1_024,
            open_writers: 16,
        };
        assert_eq!((shares(None, 64), shares(Some(1 << 19), 32)), (plenty, plenty));
    }

    #[test]
    fn a_server_with_hardly_any_still_starts() {
        assert_eq!(shares(Some(20), 32).open_writers, 1);
    }

    #[test]
    fn counts_those_of_this_process() {
        let before = count();
        let _files: Vec<_> = (0..3).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let after = count();
        // Other tests open and close files beside it.
        assert!(after.open.unwrap() > 0 && before.open.is_some() && after.limit.is_some());
        let short = Descriptors {
            open: Some(1_000),
            limit: Some(1_024),
        };
        assert!(
            short.is_short()
                && !Descriptors {
                    open: Some(900),
                    ..short
                }
                .is_short()
        );
        assert!(Descriptors { open: None, ..short }.is_short());
    }
}
