//! WASI calls whose size the guest chooses, each with a bound: random bytes and lists of pollables. One call then holds a
//! guest's thread for no longer than a few epoch ticks, whatever it asks for; between two calls the guest yields.

use std::sync::Arc;

use rand::RngCore as _;
use wasmtime::component::{HasData, Resource, ResourceTable};
use wasmtime_wasi::p2::DynPollable;
use wasmtime_wasi::p2::bindings::io::poll;
use wasmtime_wasi::p2::bindings::random::{insecure, random};

use crate::gate::Gate;
use crate::limits::{Account, Held};

/// The most random bytes that one call answers.
const MAX_RANDOM_BYTES: u64 = 1 << 20;
/// The most pollables that one call waits for.
const MAX_POLLABLES: usize = 4_096;

/// A host call with more than the host takes at a time. It unwinds the guest.
#[derive(Debug, thiserror::Error)]
#[error("the task called {call} with {asked} {unit}; one call takes at most {limit}: {instead}")]
pub(crate) struct TooMuch {
    pub(crate) call: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) asked: u64,
    pub(crate) limit: u64,
    pub(crate) instead: &'static str,
}

/// Bytes that the host has to hold for the guest do not fit into its memory limit. The account has noted it; it unwinds the guest.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{0} do not fit into the memory limit of the task")]
pub(crate) struct NoRoom(pub(crate) &'static str);

/// Random numbers of a try, both kinds from the operating system's seed.
pub(crate) struct Random<'a> {
    pub(crate) account: &'a Arc<Account>,
    pub(crate) gate: &'a Gate,
}

/// See wasmtime's `HasData`.
pub(crate) struct HasRandom;

impl HasData for HasRandom {
    type Data<'a> = Random<'a>;
}

impl Random<'_> {
    fn bytes(&self, call: &'static str, asked: u64) -> wasmtime::Result<Vec<u8>> {
        self.gate.pass()?;
        if asked > MAX_RANDOM_BYTES {
            return Err(TooMuch {
                call,
                unit: "bytes",
                asked,
                limit: MAX_RANDOM_BYTES,
                instead: "ask for them in parts",
            }
            .into());
        }
        let _held = Held::of(self.account, asked).ok_or(NoRoom("the random bytes"))?;
        let mut bytes = vec![0; usize::try_from(asked)?];
        rand::rng().fill_bytes(&mut bytes);
        Ok(bytes)
    }
}

impl random::Host for Random<'_> {
    fn get_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.bytes("`wasi:random/random#get-random-bytes`", len)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.gate.pass()?;
        Ok(rand::rng().next_u64())
    }
}

impl insecure::Host for Random<'_> {
    fn get_insecure_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.bytes("`wasi:random/insecure#get-insecure-random-bytes`", len)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.gate.pass()?;
        Ok(rand::rng().next_u64())
    }
}

/// `wasi:io/poll` over the resources of a try.
pub(crate) struct Polls<'a>(pub(crate) &'a mut ResourceTable);

/// See wasmtime's `HasData`.
pub(crate) struct HasPolls;

impl HasData for HasPolls {
    type Data<'a> = Polls<'a>;
}

impl poll::Host for Polls<'_> {
    async fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        if pollables.len() > MAX_POLLABLES {
            return Err(TooMuch {
                call: "`wasi:io/poll#poll`",
                unit: "pollables",
                asked: crate::limits::as_u64(pollables.len()),
                limit: crate::limits::as_u64(MAX_POLLABLES),
                instead: "wait for fewer things at a time",
            }
            .into());
        }
        poll::Host::poll(self.0, pollables).await
    }
}

impl poll::HostPollable for Polls<'_> {
    async fn ready(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<bool> {
        poll::HostPollable::ready(self.0, pollable).await
    }

    async fn block(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        poll::HostPollable::block(self.0, pollable).await
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        poll::HostPollable::drop(self.0, pollable)
    }
}
