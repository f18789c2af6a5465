//! Bounds failed logins: by account and by who tries, with a delay that grows.
//!
//! A *lane* is an account and where its login comes from: the client's address, or a token of this server that the client still has.
//! The first failures of a lane cost nothing, each further one makes the lane wait, twice as long as the one before and half a minute at
//! most. While it waits no password is looked at, not even the right one. Nobody's failures make another lane wait: neither those of other
//! addresses, nor those for other names, nor those of strangers behind the same proxy for whoever has logged in from here before.
//! Memory is bounded: of too many lanes the one is forgotten that failed longest ago.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use model::{Digest, Timestamp};

use crate::error::{ApiError, Code};
use crate::serve::subnet;

/// Failures that cost nothing.
const FREE: u32 = 10;
/// The first delay, and the longest.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// After so long without a failure a lane is as good as new.
const FORGOTTEN: Duration = Duration::from_secs(15 * 60);
/// Lanes that are counted.
const MAX_LANES: usize = 4_096;

/// An account, and who tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lane {
    /// Tells accounts that exist from names that nobody has, which share one lane.
    pub(crate) known: bool,
    pub(crate) from: From,
}

/// Who tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum From {
    /// Whoever has this address, or is in the same IPv6 network.
    Address(IpAddr),
    /// Whoever still has this token.
    Token(Digest),
}

impl From {
    pub(crate) fn address(peer: IpAddr) -> Self {
        Self::Address(subnet(peer))
    }
}

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    last: Timestamp,
    wait: Duration,
}

#[derive(Default)]
pub(crate) struct LoginLimiter {
    failures: Mutex<HashMap<Lane, Failures>>,
}

impl LoginLimiter {
    /// Lets the login in, or refuses it. Asked and counted in one step: tries that come together are no more than tries that come one by one.
    pub(crate) fn attempt(&self, lane: Lane, now: Timestamp, matches: bool) -> Result<bool, ApiError> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let before = failures.get(&lane).copied();
        let before = before.filter(|found| now.since(found.last) < FORGOTTEN);
        if let Some(found) = before {
            let since = now.since(found.last);
            if since < found.wait {
                let wait = found.wait.saturating_sub(since).as_secs() + 1;
                let text = format!("too many failed logins, wait {wait} s");
                return Err(ApiError::new(Code::TooManyLogins, text).retry_after(wait));
            }
        }
        if matches {
            failures.remove(&lane);
            return Ok(true);
        }
        let count = before.map_or(0, |found| found.count).saturating_add(1);
        let doubled = count.checked_sub(FREE + 1).map(|over| 1_u32 << over.min(16));
        let wait = doubled.map_or(Duration::ZERO, |times| SHORTEST.saturating_mul(times).min(LONGEST));
        if failures.len() >= MAX_LANES && !failures.contains_key(&lane) {
            let oldest = failures
                .iter()
                .min_by_key(|(_, found)| found.last)
                .map(|(lane, _)| *lane);
            if let Some(oldest) = oldest {
                failures.remove(&oldest);
            }
        }
        let failed = Failures { count, last: now, wait };
        failures.insert(lane, failed);
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn lane(last: u8) -> Lane {
        Lane {
            known: true,
            from: From::address(IpAddr::from([10, 0, 0, last])),
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp(0).plus(Duration::from_secs(seconds))
    }

    #[test]
    fn each_failure_makes_the_lane_wait_longer_and_no_other() {
        let limiter = LoginLimiter::default();
        for _ in 0..FREE {
            assert!(!limiter.attempt(lane(1), at(0), false).unwrap());
        }
        assert!(!limiter.attempt(lane(1), at(0), false).unwrap());
        let mut now = 0;
        for wait in [1, 2, 4, 8, 16, 30, 30] {
            // Not even the right password is looked at, and trying it costs nothing.
            for _ in 0..100 {
                let refused = limiter.attempt(lane(1), at(now), true).unwrap_err();
                assert_eq!(refused.code(), Code::TooManyLogins);
            }
            now += wait;
            assert!(!limiter.attempt(lane(1), at(now), false).unwrap(), "after {wait} s");
        }
        // Others are let in meanwhile: another address, a client that is known, and the other way round.
        let known = Lane {
            known: true,
            from: From::Token(Digest::of(b"token")),
        };
        assert!(limiter.attempt(lane(2), at(now), true).unwrap());
        assert!(limiter.attempt(known, at(now), true).unwrap());
        let nobody = Lane {
            known: false,
            ..lane(3)
        };
        for _ in 0..=FREE {
            limiter.attempt(nobody, at(now), false).unwrap();
        }
        assert!(limiter.attempt(nobody, at(now), false).is_err());
        assert!(
            limiter.attempt(lane(3), at(now), true).unwrap(),
            "a name that nobody has is another account"
        );
        // A login that succeeds, and time, make the lane new.
        assert!(limiter.attempt(lane(1), at(now + 30), true).unwrap());
        for _ in 0..=FREE {
            limiter.attempt(lane(1), at(now + 30), false).unwrap();
        }
        assert!(limiter.attempt(lane(1), at(now + 30), false).is_err());
        assert!(!limiter.attempt(lane(1), at(now + 30).plus(FORGOTTEN), false).unwrap());
        assert!(!limiter.attempt(lane(1), at(now + 30).plus(FORGOTTEN), false).unwrap());
    }

    #[test]
    fn memory_is_bounded_and_strangers_lock_nobody_out() {
        let limiter = LoginLimiter::default();
        for bits in 0..20_000 {
            let from = From::address(IpAddr::V4(Ipv4Addr::from_bits(bits)));
            limiter
                .attempt(Lane { known: true, from }, Timestamp(i64::from(bits)), false)
                .unwrap();
        }
        assert!(limiter.failures.lock().unwrap().len() <= MAX_LANES);
        assert!(limiter.attempt(lane(1), Timestamp(20_000), true).unwrap());
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let limiter = LoginLimiter::default();
        let lane = |host: u16| Lane {
            known: true,
            from: From::address(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, host])),
        };
        for host in 0..=10 {
            limiter.attempt(lane(host), at(0), false).unwrap();
        }
        assert!(limiter.attempt(lane(99), at(0), true).is_err());
    }
}
