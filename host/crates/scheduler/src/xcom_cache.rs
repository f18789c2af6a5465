//! XComs that were just committed, so that the next step of a chain reads its input without a query. Bounded by bytes and
//! entries, first in first out; what is not here is in the database.

use std::collections::{HashMap, VecDeque};

use model::TiKey;
use ports::payload::XcomValue;

const MAX_BYTES: usize = 8 << 20;
const MAX_ENTRIES: usize = 4_096;
/// Larger values are not worth the memory: reading them is cheap beside what a task does with them.
const MAX_VALUE_BYTES: usize = 64 << 10;

/// Committed values by task instance and key.
#[derive(Debug, Default)]
pub(crate) struct XcomCache {
    values: HashMap<TiKey, Vec<(String, XcomValue)>>,
    order: VecDeque<TiKey>,
    bytes: usize,
}

impl XcomCache {
    /// Replaces what is known of a task instance.
    pub(crate) fn insert(&mut self, ti: TiKey, values: Vec<(String, XcomValue)>) {
        self.remove(ti);
        let values: Vec<_> = values
            .into_iter()
            .filter(|(_, value)| value.value.len() <= MAX_VALUE_BYTES)
            .collect();
        if values.is_empty() {
            return;
        }
        self.bytes += cost(&values);
        self.values.insert(ti, values);
        self.order.push_back(ti);
        while self.bytes > MAX_BYTES || self.order.len() > MAX_ENTRIES {
            let Some(oldest) = self.order.pop_front() else { break };
            self.forget(oldest);
        }
    }

    /// Forgets a task instance.
    pub(crate) fn remove(&mut self, ti: TiKey) {
        if self.values.contains_key(&ti) {
            self.forget(ti);
            self.order.retain(|other| *other != ti);
        }
    }

    /// A value, if it is known.
    pub(crate) fn get(&self, ti: TiKey, key: &str) -> Option<&XcomValue> {
        self.values
            .get(&ti)?
            .iter()
            .find_map(|(known, value)| (known == key).then_some(value))
    }

    fn forget(&mut self, ti: TiKey) {
        if let Some(values) = self.values.remove(&ti) {
            self.bytes = self.bytes.saturating_sub(cost(&values));
        }
    }
}

fn cost(values: &[(String, XcomValue)]) -> usize {
    values
        .iter()
        .map(|(key, value)| 128 + key.len() + value.value.len() + 96 * value.blobs.len())
        .sum()
}

#[cfg(test)]
mod tests {
    use model::{DagRunKey, MapIndex, TaskIndex};

    use super::*;

    fn ti(run: i64) -> TiKey {
        TiKey {
            run: DagRunKey(run),
            task: TaskIndex(0),
            map_index: MapIndex::UNMAPPED,
        }
    }

    fn value(bytes: usize) -> Vec<(String, XcomValue)> {
        vec![(
            "k".to_owned(),
            XcomValue {
                value: "x".repeat(bytes).into(),
                blobs: Vec::new(),
            },
        )]
    }

    #[test]
    fn stays_within_its_bounds_and_drops_the_oldest() {
        let mut cache = XcomCache::default();
        for run in 0..1_000 {
            cache.insert(ti(run), value(60 << 10));
        }
        assert!(cache.bytes <= MAX_BYTES);
        assert!(cache.get(ti(0), "k").is_none());
        assert!(cache.get(ti(999), "k").is_some());
        for run in 0..10_000 {
            cache.insert(ti(run), value(1));
        }
        assert!(cache.order.len() <= MAX_ENTRIES);
        assert_eq!(cache.order.len(), cache.values.len());
    }

    #[test]
    fn a_removed_value_is_gone_and_a_large_one_never_enters() {
        let mut cache = XcomCache::default();
        cache.insert(ti(1), value(5));
        cache.remove(ti(1));
        assert!(cache.get(ti(1), "k").is_none());
        assert_eq!(cache.bytes, 0);
        cache.insert(ti(1), value(MAX_VALUE_BYTES + 1));
        assert!(cache.get(ti(1), "k").is_none());
    }
}
