//! Open connections: how many there are, of whom, and which of them wait for nothing but a next request.
//!
//! Where there are too many, the one that has been idle longest makes room, at once. A connection is idle while no request of it is being
//! answered: also one that has sent a part of a request's head.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::client::subnet;

/// See the module.
#[derive(Clone)]
pub(super) struct Registry {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// A connection has ended, or has become idle.
    changed: Notify,
    most: usize,
    most_of_one: usize,
    /// Whose connections are not counted by address: many clients come through them.
    proxies: Arc<[IpAddr]>,
}

#[derive(Default)]
struct State {
    next: u64,
    open: HashMap<u64, Open>,
    /// By the order in which they became idle.
    idle: BTreeMap<u64, u64>,
    /// Of those that are counted.
    by_address: HashMap<IpAddr, usize>,
}

struct Open {
    /// None where it is not counted by address.
    address: Option<IpAddr>,
    idle_since: Option<u64>,
    requests: usize,
    end: CancellationToken,
}

/// A connection that is open until this is dropped.
pub(super) struct Connection {
    registry: Registry,
    id: u64,
    end: CancellationToken,
}

/// A request that is being answered until this is dropped.
pub(super) struct Busy {
    registry: Registry,
    id: u64,
}

/// The address has as many connections as it may have, and all of them are at work.
#[derive(Debug)]
pub(super) struct TooMany;

impl Registry {
    pub(super) fn new(most: usize, most_of_one: usize, proxies: Arc<[IpAddr]>) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                changed: Notify::new(),
                most,
                most_of_one,
                proxies,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection in. An idle one makes room where there is none; where all are at work, this waits until one is not.
    pub(super) async fn admit(&self, peer: IpAddr) -> Result<Connection, TooMany> {
        let peer = peer.to_canonical();
        let counted = !peer.is_loopback() && !self.shared.proxies.contains(&peer);
        let address = counted.then(|| subnet(peer));
        loop {
            // Asked before looking, so that a change in between is not missed.
            let changed = self.shared.changed.notified();
            if let Some(admitted) = self.try_admit(address) {
                return admitted;
            }
            changed.await;
        }
    }

    /// Closes the connection that has been idle longest, where there is one.
    pub(super) fn relieve(&self) -> bool {
        self.state().end_idle(None)
    }

    fn try_admit(&self, address: Option<IpAddr>) -> Option<Result<Connection, TooMany>> {
        let mut state = self.state();
        if let Some(address) = address
            && state
                .by_address
                .get(&address)
                .is_some_and(|count| *count >= self.shared.most_of_one)
            && !state.end_idle(Some(address))
        {
            return Some(Err(TooMany));
        }
        if state.open.len() >= self.shared.most && !state.end_idle(None) {
            return None;
        }
        let (id, end) = (state.next, CancellationToken::new());
        state.next += 1;
        let open = Open {
            address,
            idle_since: None,
            requests: 0,
            end: end.clone(),
        };
        state.open.insert(id, open);
        state.rest(id);
        if let Some(address) = address {
            *state.by_address.entry(address).or_default() += 1;
        }
        drop(state);
        Some(Ok(Connection {
            registry: self.clone(),
            id,
            end,
        }))
    }
}

impl State {
    /// Ends the connection that has been idle longest, of one address or of all. It is out of the books at once.
    fn end_idle(&mut self, of: Option<IpAddr>) -> bool {
        let found = self
            .idle
            .values()
            .copied()
            .find(|id| of.is_none() || self.open.get(id).is_some_and(|open| open.address == of));
        let Some(id) = found else { return false };
        if let Some(open) = self.remove(id) {
            open.end.cancel();
        }
        true
    }

    fn remove(&mut self, id: u64) -> Option<Open> {
        let open = self.open.remove(&id)?;
        if let Some(since) = open.idle_since {
            self.idle.remove(&since);
        }
        if let Some(address) = open.address
            && let Some(count) = self.by_address.get_mut(&address)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
        Some(open)
    }

    /// From now on the connection is idle.
    fn rest(&mut self, id: u64) {
        let since = self.next;
        self.next += 1;
        if let Some(open) = self.open.get_mut(&id) {
            open.idle_since = Some(since);
            self.idle.insert(since, id);
        }
    }
}

impl Connection {
    /// Waits until it has to make room.
    pub(super) fn ended(&self) -> CancellationToken {
        self.end.clone()
    }

    /// A request of it is answered from now on.
    pub(super) fn work(&self) -> Busy {
        let mut state = self.registry.state();
        if let Some(open) = state.open.get_mut(&self.id) {
            open.requests += 1;
            if let Some(since) = open.idle_since.take() {
                state.idle.remove(&since);
            }
        }
        Busy {
            registry: self.registry.clone(),
            id: self.id,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.registry.state().remove(self.id);
        self.registry.shared.changed.notify_waiters();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.registry.state();
        let Some(open) = state.open.get_mut(&self.id) else {
            return;
        };
        open.requests = open.requests.saturating_sub(1);
        if open.requests == 0 {
            state.rest(self.id);
            drop(state);
            self.registry.shared.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn now(registry: &Registry, peer: IpAddr) -> Option<Result<Connection, TooMany>> {
        registry.admit(peer).now_or_never()
    }

    #[test]
    fn the_longest_idle_one_makes_room_and_those_at_work_do_not() {
        let registry = Registry::new(3, 10, Arc::from([]));
        let all: Vec<_> = (0..3).map(|n| now(&registry, address(n)).unwrap().unwrap()).collect();
        let working = all[0].work();
        drop(all[1].work());
        // 0 is at work, 1 has been idle since a moment ago: it is 2.
        let fourth = now(&registry, address(9)).unwrap().unwrap();
        let ended = |connection: &Connection| connection.ended().is_cancelled();
        assert_eq!(all.iter().map(ended).collect::<Vec<_>>(), [false, false, true]);
        let _fourth_works = fourth.work();
        let second_works = all[1].work();
        assert!(now(&registry, address(9)).is_none(), "all are at work");
        drop(second_works);
        assert!(now(&registry, address(9)).is_some());
        assert!(ended(&all[1]));
        drop(working);
        // What was ended is counted no more when its end comes through.
        drop(all);
        let state = registry.state();
        assert!(state.open.len() <= 3 && state.idle.len() <= state.open.len());
    }

    #[test]
    fn an_address_makes_room_among_its_own() {
        let proxies = [IpAddr::from([10, 0, 0, 7])];
        let registry = Registry::new(100, 2, Arc::from(proxies));
        let other = now(&registry, address(1)).unwrap().unwrap();
        let own: Vec<_> = (0..2).map(|_| now(&registry, address(2)).unwrap().unwrap()).collect();
        let third = now(&registry, address(2)).unwrap().unwrap();
        assert!(own[0].ended().is_cancelled() && !other.ended().is_cancelled());
        let _work = (own[1].work(), third.work());
        assert!(matches!(now(&registry, address(2)), Some(Err(TooMany))));
        drop(third);
        assert!(matches!(now(&registry, address(2)), Some(Ok(_))));
        // Proxies speak for many.
        for peer in [
            proxies[0],
            IpAddr::from([127, 0, 0, 1]),
            "::ffff:127.0.0.1".parse().unwrap(),
        ] {
            let many: Vec<_> = (0..10).map(|_| now(&registry, peer).unwrap().unwrap()).collect();
            assert!(many.iter().all(|connection| !connection.ended().is_cancelled()));
        }
        // Whoever has one IPv6 address has 2^64 of them.
        let six: Vec<_> = (1..=3_u16)
            .map(|n| {
                now(&registry, IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n]))
                    .unwrap()
                    .unwrap()
            })
            .collect();
        assert!(six[0].ended().is_cancelled());
        drop((other, own, six));
        assert!(registry.state().by_address.len() <= 1);
    }
}
