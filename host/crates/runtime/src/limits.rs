//! Memory of a try: one account for all linear memories, all tables and what the host buffers for the guest.
//!
//! wasmtime's own `StoreLimits` bounds each memory by itself, so a guest with many memories would get many limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use model::Limits;
use wasmtime::ResourceLimiter;

/// What a table element costs.
const TABLE_ELEMENT_BYTES: u64 = size_of::<usize>() as u64;

/// What all guests of the process hold together. It keeps the process from being killed for memory.
#[derive(Debug)]
pub(crate) struct MachineMemory {
    limit: u64,
    used: AtomicU64,
}

impl MachineMemory {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit,
            used: AtomicU64::new(0),
        }
    }

    fn take(&self, bytes: u64) -> bool {
        take(&self.used, bytes, self.limit)
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

fn take(used: &AtomicU64, bytes: u64, limit: u64) -> bool {
    used.try_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
        used.checked_add(bytes).filter(|sum| *sum <= limit)
    })
    .is_ok()
}

/// The memory account of one try. It gives everything back when it is dropped.
#[derive(Debug)]
pub(crate) struct Account {
    machine: Arc<MachineMemory>,
    limit: u64,
    used: AtomicU64,
    peak: AtomicU64,
    refused_bytes: AtomicU64,
    refused_elements: AtomicBool,
    machine_full: AtomicBool,
}

impl Account {
    pub(crate) fn new(machine: Arc<MachineMemory>, limit: u64) -> Self {
        Self {
            machine,
            limit,
            used: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            refused_bytes: AtomicU64::new(0),
            refused_elements: AtomicBool::new(false),
            machine_full: AtomicBool::new(false),
        }
    }

    /// Takes bytes, or notes that they were refused.
    pub(crate) fn take(&self, bytes: u64) -> bool {
        if !take(&self.used, bytes, self.limit) {
            self.refused_bytes
                .fetch_max(self.used().saturating_add(bytes), Ordering::Relaxed);
            return false;
        }
        if !self.machine.take(bytes) {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            self.machine_full.store(true, Ordering::Relaxed);
            return false;
        }
        self.peak.fetch_max(self.used(), Ordering::Relaxed);
        true
    }

    /// Gives back what the host no longer buffers.
    pub(crate) fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        self.machine.give_back(bytes);
    }

    /// What can still be taken.
    pub(crate) fn free(&self) -> u64 {
        let own = self.limit.saturating_sub(self.used());
        let used = self.machine.used.load(Ordering::Relaxed);
        own.min(self.machine.limit.saturating_sub(used))
    }

    /// What is held now.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The most that was held at a time.
    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// Why growth was refused, if it ever was.
    pub(crate) fn refusal(&self) -> Option<MemoryRefusal> {
        let wanted = self.refused_bytes.load(Ordering::Relaxed);
        if wanted > 0 {
            Some(MemoryRefusal::Limit {
                wanted,
                limit: self.limit,
            })
        } else if self.refused_elements.load(Ordering::Relaxed) {
            Some(MemoryRefusal::TableElements)
        } else if self.machine_full.load(Ordering::Relaxed) {
            Some(MemoryRefusal::Machine)
        } else {
            None
        }
    }
}

/// Bytes that the host holds for a guest, until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    account: Arc<Account>,
    bytes: u64,
}

impl Held {
    /// Nothing so far.
    pub(crate) fn nothing(account: &Arc<Account>) -> Self {
        Self {
            account: Arc::clone(account),
            bytes: 0,
        }
    }

    /// None where the account refuses.
    pub(crate) fn of(account: &Arc<Account>, bytes: u64) -> Option<Self> {
        let mut held = Self::nothing(account);
        held.add(bytes).then_some(held)
    }

    /// Takes more, or notes that it was refused.
    pub(crate) fn add(&mut self, bytes: u64) -> bool {
        let taken = self.account.take(bytes);
        if taken {
            self.bytes = self.bytes.saturating_add(bytes);
        }
        taken
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.account.give_back(self.bytes);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.machine.give_back(*self.used.get_mut());
    }
}

/// Why growth was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemoryRefusal {
    /// The try's own limit.
    Limit {
        /// What the sum would have been.
        wanted: u64,
        /// What it may be.
        limit: u64,
    },
    /// The try's limit on table elements.
    TableElements,
    /// All guests together hold what this machine gives to guests.
    Machine,
}

/// The limiter of a store.
pub(crate) struct TryLimiter {
    account: Arc<Account>,
    elements: u64,
    max_elements: u64,
}

impl TryLimiter {
    pub(crate) fn new(account: Arc<Account>, limits: &Limits) -> Self {
        Self {
            account,
            elements: 0,
            max_elements: limits.table_elements,
        }
    }
}

pub(crate) fn as_u64(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}

impl ResourceLimiter for TryLimiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            // The guest's own maximum: it fails without being charged, and it is not this limiter that refuses.
            return Ok(true);
        }
        Ok(self.account.take(as_u64(desired.saturating_sub(current))))
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        tracing::debug!(error = format!("{error:#}"), "a guest's memory could not grow");
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(true);
        }
        let more = as_u64(desired.saturating_sub(current));
        let elements = self.elements.saturating_add(more);
        if elements > self.max_elements {
            self.account.refused_elements.store(true, Ordering::Relaxed);
            return Ok(false);
        }
        if !self.account.take(more.saturating_mul(TABLE_ELEMENT_BYTES)) {
            return Ok(false);
        }
        self.elements = elements;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(limit: u64, machine: u64) -> Arc<Account> {
        Arc::new(Account::new(Arc::new(MachineMemory::new(machine)), limit))
    }

    #[test]
    fn sums_memories_tables_and_host_buffers() {
        let account = account(100, 1000);
        let mut limiter = TryLimiter::new(Arc::clone(&account), &Limits::default());
        assert!(limiter.memory_growing(0, 50, None).unwrap());
        assert!(limiter.table_growing(0, 5, None).unwrap());
        assert!(account.take(10));
        assert!(!limiter.memory_growing(0, 1, None).unwrap());
        assert_eq!(
            account.refusal(),
            Some(MemoryRefusal::Limit {
                wanted: 101,
                limit: 100
            })
        );
        account.give_back(10);
        assert!(limiter.memory_growing(0, 1, None).unwrap());
        assert_eq!(account.peak(), 100);
    }

    #[test]
    fn what_the_host_holds_is_given_back_when_it_is_dropped() {
        let account = account(100, 70);
        assert_eq!(account.free(), 70);
        let mut held = Held::of(&account, 40).unwrap();
        assert!(held.add(20));
        assert_eq!(account.free(), 10);
        assert!(!held.add(11), "the machine has no more");
        assert!(Held::of(&account, 41).is_none(), "its limit");
        drop(held);
        assert_eq!((account.free(), account.peak()), (70, 60));
        let wanted = Some(MemoryRefusal::Limit {
            wanted: 101,
            limit: 100,
        });
        assert_eq!(account.refusal(), wanted);
    }

    #[test]
    fn a_guests_own_maximum_is_not_a_refusal() {
        let account = account(100, 1000);
        let mut limiter = TryLimiter::new(Arc::clone(&account), &Limits::default());
        assert!(limiter.memory_growing(0, 500, Some(64)).unwrap());
        assert_eq!(account.refusal(), None);
        assert_eq!(account.peak(), 0);
    }

    #[test]
    fn the_machines_memory_is_shared_and_given_back() {
        let machine = Arc::new(MachineMemory::new(100));
        let first = Account::new(Arc::clone(&machine), 1000);
        let second = Account::new(Arc::clone(&machine), 1000);
        assert!(first.take(80));
        assert!(!second.take(30));
        assert_eq!(second.refusal(), Some(MemoryRefusal::Machine));
        drop(first);
        assert!(second.take(30));
    }

    #[test]
    fn table_elements_have_their_own_limit() {
        let account = account(1 << 30, 1 << 30);
        let limits = Limits {
            table_elements: 10,
            ..Limits::default()
        };
        let mut limiter = TryLimiter::new(Arc::clone(&account), &limits);
        assert!(limiter.table_growing(0, 10, None).unwrap());
        assert!(!limiter.table_growing(10, 11, None).unwrap());
        assert_eq!(account.refusal(), Some(MemoryRefusal::TableElements));
    }
}
