//! Work that waits for a tick: per run in order of arrival, runs in turn, so that a large run cannot starve the others.

use std::collections::{HashMap, VecDeque};

use model::{DagRunKey, Timestamp};

use crate::inbox::Item;

/// How many items a run may hand in before it is another run's turn.
const TURN: usize = 16;

/// The queue.
#[derive(Default)]
pub(crate) struct WorkQueue {
    by_run: HashMap<DagRunKey, VecDeque<Item>>,
    turns: VecDeque<DagRunKey>,
    /// How many of the current run's items were taken in this turn.
    taken: usize,
    hard: usize,
    soft: usize,
    soft_since: Option<Timestamp>,
}

impl WorkQueue {
    pub(crate) fn push(&mut self, key: DagRunKey, item: Item, now: Timestamp) {
        self.count(&item, now);
        let items = self.by_run.entry(key).or_default();
        if items.is_empty() {
            self.turns.push_back(key);
        }
        items.push_back(item);
    }

    /// Puts work back that a failed tick had taken, the last taken first.
    pub(crate) fn put_back(&mut self, key: DagRunKey, item: Item, now: Timestamp) {
        self.count(&item, now);
        let items = self.by_run.entry(key).or_default();
        if items.is_empty() {
            self.turns.push_front(key);
        }
        items.push_front(item);
    }

    fn count(&mut self, item: &Item, now: Timestamp) {
        if item.is_soft() {
            self.soft += 1;
            self.soft_since.get_or_insert(now);
        } else {
            self.hard += 1;
        }
    }

    /// The next item, in turn.
    pub(crate) fn pop(&mut self) -> Option<(DagRunKey, Item)> {
        let key = *self.turns.front()?;
        let items = self.by_run.get_mut(&key)?;
        let item = items.pop_front()?;
        self.taken += 1;
        if items.is_empty() {
            self.by_run.remove(&key);
            self.turns.pop_front();
            self.taken = 0;
        } else if self.taken >= TURN {
            self.turns.rotate_left(1);
            self.taken = 0;
        }
        if item.is_soft() {
            self.soft -= 1;
            if self.soft == 0 {
                self.soft_since = None;
            }
        } else {
            self.hard -= 1;
        }
        Some((key, item))
    }

    /// Takes all work of one run out.
    pub(crate) fn take_run(&mut self, key: DagRunKey) -> VecDeque<Item> {
        let Some(items) = self.by_run.remove(&key) else {
            return VecDeque::new();
        };
        if self.turns.front() == Some(&key) {
            self.taken = 0;
        }
        self.turns.retain(|turn| *turn != key);
        let soft = items.iter().filter(|item| item.is_soft()).count();
        self.soft -= soft;
        self.hard -= items.len() - soft;
        if self.soft == 0 {
            self.soft_since = None;
        }
        items
    }

    /// Takes out what somebody waits for.
    pub(crate) fn take_requests(&mut self) -> Vec<Item> {
        let mut requests = Vec::new();
        let keys: Vec<DagRunKey> = self.turns.iter().copied().collect();
        for key in keys {
            let Some(items) = self.by_run.get_mut(&key) else {
                continue;
            };
            let (taken, kept): (VecDeque<Item>, VecDeque<Item>) =
                std::mem::take(items).into_iter().partition(Item::is_request);
            self.hard -= taken.len();
            requests.extend(taken);
            if kept.is_empty() {
                self.by_run.remove(&key);
                self.turns.retain(|turn| *turn != key);
                self.taken = 0;
            } else {
                *items = kept;
            }
        }
        requests
    }

    /// Whether there is work that should not wait.
    pub(crate) fn has_hard(&self) -> bool {
        self.hard > 0
    }

    /// How many items wait.
    pub(crate) fn len(&self) -> usize {
        self.hard + self.soft
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Since when the oldest work that can wait has been waiting.
    pub(crate) fn soft_since(&self) -> Option<Timestamp> {
        self.soft_since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(queue: &mut WorkQueue, n: usize) -> Vec<i64> {
        (0..n).filter_map(|_| queue.pop()).map(|(key, _)| key.0).collect()
    }

    #[test]
    fn a_large_run_lets_the_others_have_their_turn() {
        let mut queue = WorkQueue::default();
        for _ in 0..TURN * 3 {
            queue.push(DagRunKey(1), Item::Timer, Timestamp(0));
        }
        queue.push(DagRunKey(2), Item::Timer, Timestamp(0));
        let order = keys(&mut queue, TURN * 3 + 1);
        assert_eq!(order.len(), TURN * 3 + 1);
        assert_eq!(order.iter().position(|key| *key == 2), Some(TURN));
        assert!(queue.is_empty() && !queue.has_hard());
    }

    #[test]
    fn what_is_put_back_comes_first_and_in_order() {
        let mut queue = WorkQueue::default();
        let started = |n| Item::Started {
            task: model::TaskIndex(n),
            map_index: model::MapIndex::UNMAPPED,
            dispatch: model::DispatchNumber(1),
            at: Timestamp(0),
        };
        for n in 0..3 {
            queue.push(DagRunKey(1), started(n), Timestamp(7));
        }
        let taken: Vec<_> = (0..2).filter_map(|_| queue.pop()).collect();
        for (key, item) in taken.into_iter().rev() {
            queue.put_back(key, item, Timestamp(9));
        }
        let mut tasks = Vec::new();
        assert!(!queue.has_hard());
        assert_eq!(queue.soft_since(), Some(Timestamp(7)));
        while let Some((_, item)) = queue.pop() {
            if let Item::Started { task, .. } = item {
                tasks.push(task.0);
            }
        }
        assert_eq!(tasks, [0, 1, 2]);
        assert_eq!(queue.soft_since(), None);
    }
}
