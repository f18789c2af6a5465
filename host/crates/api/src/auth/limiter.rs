//! Bounds failed logins by address. Memory is bounded too: when too many addresses fail at once, they share one count.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use model::Timestamp;

use crate::error::{ApiError, Code};

/// Failures within [`WINDOW`] before an address has to wait.
const MAX_FAILURES: u32 = 20;
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are counted by themselves.
const MAX_ADDRESSES: usize = 1_024;
/// Where the addresses beyond them are counted.
const ALL_OTHERS: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

#[derive(Clone, Copy)]
struct Failures {
    since: Timestamp,
    count: u32,
}

#[derive(Default)]
pub(crate) struct LoginLimiter {
    failures: Mutex<HashMap<IpAddr, Failures>>,
}

impl LoginLimiter {
    /// Refuses an address that failed too often.
    pub(crate) fn check(&self, peer: IpAddr, now: Timestamp) -> Result<(), ApiError> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let peer = slot(&failures, subnet(peer));
        let Some(found) = failures.get(&peer) else {
            return Ok(());
        };
        let age = now.since(found.since);
        if found.count < MAX_FAILURES || age >= WINDOW {
            return Ok(());
        }
        let wait = WINDOW.saturating_sub(age).as_secs() + 1;
        Err(ApiError::new(Code::TooManyLogins, "too many failed logins, wait a minute").retry_after(wait))
    }

    /// Counts a failure.
    pub(crate) fn failed(&self, peer: IpAddr, now: Timestamp) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= MAX_ADDRESSES {
            failures.retain(|_, found| now.since(found.since) < WINDOW);
        }
        let peer = slot(&failures, subnet(peer));
        let fresh = Failures { since: now, count: 0 };
        let found = failures.entry(peer).or_insert(fresh);
        if now.since(found.since) >= WINDOW {
            *found = fresh;
        }
        found.count = found.count.saturating_add(1);
    }
}

fn slot(failures: &HashMap<IpAddr, Failures>, peer: IpAddr) -> IpAddr {
    if failures.contains_key(&peer) || failures.len() < MAX_ADDRESSES {
        peer
    } else {
        ALL_OTHERS
    }
}

/// Whoever has one IPv6 address has 2^64 of them.
fn subnet(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn an_address_waits_after_too_many_failures() {
        let limiter = LoginLimiter::default();
        let (peer, now) = (IpAddr::from([10, 0, 0, 1]), Timestamp(0));
        for _ in 0..MAX_FAILURES {
            assert!(limiter.check(peer, now).is_ok());
            limiter.failed(peer, now);
        }
        assert_eq!(limiter.check(peer, now).unwrap_err().code(), Code::TooManyLogins);
        assert!(limiter.check(IpAddr::from([10, 0, 0, 2]), now).is_ok());
        assert!(limiter.check(peer, now.plus(WINDOW)).is_ok());
    }

    #[test]
    fn memory_is_bounded() {
        let limiter = LoginLimiter::default();
        for bits in 0..5_000 {
            limiter.failed(IpAddr::V4(Ipv4Addr::from_bits(bits)), Timestamp(0));
        }
        assert!(limiter.failures.lock().unwrap().len() <= MAX_ADDRESSES + 1);
        let other = IpAddr::V4(Ipv4Addr::from_bits(4_999));
        assert_eq!(
            limiter.check(other, Timestamp(0)).unwrap_err().code(),
            Code::TooManyLogins
        );
    }
}
