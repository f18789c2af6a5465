//! Locks by name: two requests for the same run id or logical date take turns, all others do not meet.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

/// Locks that exist while somebody holds or wants them.
#[derive(Debug)]
pub(crate) struct KeyedLocks<K> {
    locks: Arc<Mutex<HashMap<K, Arc<tokio::sync::Mutex<()>>>>>,
}

impl<K> Default for KeyedLocks<K> {
    fn default() -> Self {
        Self { locks: Arc::default() }
    }
}

/// Holds the lock of one name.
#[derive(Debug)]
pub(crate) struct KeyedGuard<K: Eq + Hash> {
    key: K,
    guard: Option<OwnedMutexGuard<()>>,
    locks: Arc<Mutex<HashMap<K, Arc<tokio::sync::Mutex<()>>>>>,
}

impl<K: Eq + Hash + Clone> KeyedLocks<K> {
    pub(crate) async fn lock(&self, key: K) -> KeyedGuard<K> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(locks.entry(key.clone()).or_default())
        };
        KeyedGuard {
            key,
            guard: Some(lock.lock_owned().await),
            locks: Arc::clone(&self.locks),
        }
    }
}

impl<K: Eq + Hash> Drop for KeyedGuard<K> {
    fn drop(&mut self) {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        self.guard = None;
        // Those who wait hold a clone of the lock; it goes with the last of them.
        if let Some(lock) = locks.get(&self.key)
            && Arc::strong_count(lock) == 1
        {
            locks.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl<K: Eq + Hash + Clone> KeyedLocks<K> {
        fn len(&self) -> usize {
            self.locks.lock().unwrap_or_else(PoisonError::into_inner).len()
        }
    }

    #[tokio::test]
    async fn the_same_name_takes_turns_and_leaves_nothing_behind() {
        let locks = KeyedLocks::<&str>::default();
        let first = locks.lock("a").await;
        let other = locks.lock("b").await;
        let mut second = Box::pin(locks.lock("a"));
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        let second = second.await;
        drop((second, other));
        assert_eq!(locks.len(), 0);
    }
}
