//! Task instances that wait for capacity, in lanes.
//!
//! A lane holds the entries of one run that need the same: a lane that does not fit is passed over as a whole, however many entries it
//! has. Within a lane the order is fixed when an entry comes in (see [`AGEING`]), so nothing is ever sorted again.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::dag::Task;
use crate::id::{DagId, DagRunKey, TiKey};
use crate::time::Timestamp;

/// Waiting this long weighs as much as one more point of priority weight, so that a starved task is eventually run.
pub const AGEING: Duration = Duration::from_secs(10);

/// Weights beyond this count as this: it bounds how long the lowest can starve.
const MAX_WEIGHT: i64 = 10_000;

/// The task instances that their trigger rule lets run.
#[derive(Clone, Debug, Default)]
pub struct ReadyQueue {
    pub(super) lanes: BTreeMap<LaneKey, Lane>,
    places: HashMap<TiKey, (LaneKey, Rank)>,
    /// Rises with each entry: who came first goes first.
    arrivals: u64,
    /// Rises with each admission: who was served last waits.
    pub(super) services: u64,
    /// The service that each run had last.
    pub(super) served: HashMap<DagRunKey, u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LaneKey {
    pub(super) run: DagRunKey,
    pub(super) pool: String,
    pub(super) pool_slots: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Lane {
    pub(super) dag: DagId,
    pub(super) entries: BTreeMap<Rank, Entry>,
    pub(super) served_at: Option<Timestamp>,
}

/// The order within a lane: time of arrival, earlier by [`AGEING`] for each point of weight; then arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    virtual_arrival: i64,
    arrival: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) key: TiKey,
    weight: i64,
    since: Timestamp,
}

impl Lane {
    /// The entry that goes next, with its weight raised by the time that it, or the lane since it was served, has waited.
    pub(super) fn head(&self, now: Timestamp) -> Option<(i64, Rank, TiKey)> {
        let (rank, entry) = self.entries.first_key_value()?;
        let since = self.served_at.map_or(entry.since, |served| served.max(entry.since));
        let bonus = now.since(since).as_micros() / AGEING.as_micros();
        Some((
            entry.weight.saturating_add(i64::try_from(bonus).unwrap_or(i64::MAX)),
            *rank,
            entry.key,
        ))
    }
}

impl ReadyQueue {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a task instance that waits since `since`. One that is there already stays where it is.
    pub fn push(&mut self, key: TiKey, dag: &DagId, task: &Task, since: Timestamp) {
        if self.places.contains_key(&key) {
            return;
        }
        let weight = i64::from(task.priority_weight).clamp(-MAX_WEIGHT, MAX_WEIGHT);
        let ageing = i64::try_from(AGEING.as_micros()).unwrap_or(i64::MAX);
        self.arrivals += 1;
        let rank = Rank {
            virtual_arrival: since.0.saturating_sub(weight.saturating_mul(ageing)),
            arrival: self.arrivals,
        };
        let lane = LaneKey {
            run: key.run,
            pool: task.pool.clone(),
            pool_slots: task.pool_slots.max(1),
        };
        self.lanes
            .entry(lane.clone())
            .or_insert_with(|| Lane {
                dag: dag.clone(),
                entries: BTreeMap::new(),
                served_at: None,
            })
            .entries
            .insert(rank, Entry { key, weight, since });
        self.places.insert(key, (lane, rank));
    }

    /// Takes a task instance out; `false` where it is not in.
    pub fn remove(&mut self, key: TiKey) -> bool {
        let Some((lane_key, rank)) = self.places.remove(&key) else {
            return false;
        };
        if let Some(lane) = self.lanes.get_mut(&lane_key) {
            lane.entries.remove(&rank);
            if lane.entries.is_empty() {
                self.lanes.remove(&lane_key);
            }
        }
        true
    }

    /// Takes everything of a run out and forgets the run: when it has ended or goes back to queued.
    pub fn remove_run(&mut self, run: DagRunKey) {
        let lanes: Vec<LaneKey> = self
            .lanes
            .range(
                LaneKey {
                    run,
                    pool: String::new(),
                    pool_slots: 0,
                }..,
            )
            .map(|(key, _)| key)
            .take_while(|key| key.run == run)
            .cloned()
            .collect();
        for lane in lanes {
            for entry in self
                .lanes
                .remove(&lane)
                .into_iter()
                .flat_map(|lane| lane.entries.into_values())
            {
                self.places.remove(&entry.key);
            }
        }
        self.served.remove(&run);
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}
