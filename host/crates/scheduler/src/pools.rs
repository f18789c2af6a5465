//! The pools as the loop knows them, and what the tick in the making has changed about them.

use std::collections::{BTreeMap, HashMap};

use ports::query::PoolRow;

/// All pools by name.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    by_name: BTreeMap<String, PoolRow>,
    /// Slots that the database counts as used and memory does not know of.
    pub(crate) unknown: HashMap<String, i64>,
    /// The number of the change, and what was there before.
    undo: Vec<(usize, String, Option<PoolRow>)>,
}

impl Pools {
    pub(crate) fn new(pools: Vec<PoolRow>) -> Self {
        Self {
            by_name: pools.into_iter().map(|pool| (pool.name.clone(), pool)).collect(),
            ..Self::default()
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&PoolRow> {
        self.by_name.get(name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &PoolRow> {
        self.by_name.values()
    }

    /// The slots of a pool that memory may give away; negative is without bound.
    pub(crate) fn usable(&self, pool: &PoolRow) -> i64 {
        if pool.slots < 0 {
            return -1;
        }
        let unknown = self.unknown.get(&pool.name).copied().unwrap_or(0);
        i64::from(pool.slots).saturating_sub(unknown).max(0)
    }

    /// Adds, replaces or removes a pool, as the tick's change of this number.
    pub(crate) fn set(&mut self, change: usize, name: &str, pool: Option<PoolRow>) {
        let before = match pool {
            Some(pool) => self.by_name.insert(name.to_owned(), pool),
            None => self.by_name.remove(name),
        };
        self.undo.push((change, name.to_owned(), before));
    }

    /// The changes are committed.
    pub(crate) fn keep(&mut self) {
        self.undo.clear();
    }

    /// Only some of the changes are committed; the others are taken back.
    pub(crate) fn take_back(&mut self, committed: impl Fn(usize) -> bool) {
        for (change, name, before) in std::mem::take(&mut self.undo).into_iter().rev() {
            if committed(change) {
                continue;
            }
            match before {
                Some(pool) => drop(self.by_name.insert(name, pool)),
                None => drop(self.by_name.remove(&name)),
            }
        }
    }
}
