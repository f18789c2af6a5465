//! What is due when: one entry a run, its earliest. Entries that were overtaken are skipped when they come up.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use model::{DagRunKey, Timestamp};

/// The timers.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Timestamp, DagRunKey)>>,
    due: HashMap<DagRunKey, Timestamp>,
}

impl Timers {
    /// Sets, moves or removes the timer of a run.
    pub(crate) fn set(&mut self, key: DagRunKey, due: Option<Timestamp>) {
        match due {
            Some(due) => {
                if self.due.insert(key, due) != Some(due) {
                    self.heap.push(Reverse((due, key)));
                    self.compact();
                }
            }
            None => {
                self.due.remove(&key);
            }
        }
    }

    /// When the next timer is due.
    pub(crate) fn next(&mut self) -> Option<Timestamp> {
        while let Some(Reverse((at, key))) = self.heap.peek().copied() {
            if self.due.get(&key) == Some(&at) {
                return Some(at);
            }
            self.heap.pop();
        }
        None
    }

    /// Takes a run whose timer is due.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<DagRunKey> {
        if self.next()? > now {
            return None;
        }
        let Reverse((_, key)) = self.heap.pop()?;
        self.due.remove(&key);
        Some(key)
    }

    /// Overtaken entries must not pile up behind a far one.
    fn compact(&mut self) {
        if self.heap.len() > 64 && self.heap.len() > 4 * self.due.len() {
            let due = &self.due;
            self.heap.retain(|Reverse((at, key))| due.get(key) == Some(at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_run_comes_up_once_at_its_latest_setting() {
        let mut timers = Timers::default();
        let (a, b) = (DagRunKey(1), DagRunKey(2));
        timers.set(a, Some(Timestamp(50)));
        timers.set(b, Some(Timestamp(20)));
        timers.set(a, Some(Timestamp(10)));
        assert_eq!(timers.next(), Some(Timestamp(10)));
        assert_eq!(timers.pop_due(Timestamp(9)), None);
        assert_eq!(timers.pop_due(Timestamp(60)), Some(a));
        timers.set(b, None);
        assert_eq!(timers.pop_due(Timestamp(60)), None);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn moving_a_timer_for_ever_does_not_grow_the_heap() {
        let mut timers = Timers::default();
        for at in 0..10_000 {
            timers.set(DagRunKey(1), Some(Timestamp(10_000 - at)));
        }
        assert!(timers.heap.len() <= 65);
    }
}
