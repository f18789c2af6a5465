//! Task instances that wait for capacity, in lanes.
//!
//! A lane holds the entries of one run that need the same: a lane that does not fit is passed over as a whole, however many entries it
//! has. Within a lane the order is fixed when an entry comes in (see [`AGEING`]), so nothing is ever sorted again.
//!
//! Limits of a single task (`max_active_tis_per_dag`, `max_active_tis_per_dagrun`) are no reason for a lane of its own: an entry that
//! is found to be at such a limit is parked with its kind, out of everybody's way, until one of that kind has ended.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::slots::{Capacity, Group};
use crate::dag::Task;
use crate::id::{DagId, DagRunKey, MapIndex, TaskId, TaskIndex, TiKey};
use crate::time::Timestamp;

/// Waiting this long weighs as much as one more point of priority weight, so that a starved task is eventually run.
pub const AGEING: Duration = Duration::from_secs(10);

/// Weights beyond this count as this: it bounds how long the lowest can starve.
const MAX_WEIGHT: i64 = 10_000;

/// The task instances that their trigger rule lets run.
#[derive(Clone, Debug, Default)]
pub struct ReadyQueue {
    pub(super) lanes: BTreeMap<LaneKey, Lane>,
    places: HashMap<TiKey, Place>,
    /// Entries that are at a limit of their task, by what is counted.
    parked: BTreeMap<Group, BTreeMap<Rank, Parked>>,
    /// The same by task instance, so that those of a run are found.
    parked_keys: BTreeSet<TiKey>,
    /// Groups of which an entry left its lane without being admitted: another one may go in its stead.
    passed_over: BTreeSet<Group>,
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

/// Where an entry is: in its lane, or parked.
#[derive(Clone, Debug)]
struct Place {
    lane: LaneKey,
    rank: Rank,
    parked: Option<Group>,
}

#[derive(Clone, Debug)]
struct Parked {
    lane: LaneKey,
    dag: DagId,
    entry: Entry,
}

/// The order within a lane: time of arrival, earlier by [`AGEING`] for each point of weight; then arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    virtual_arrival: i64,
    arrival: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: TiKey,
    pub(super) task: TaskId,
    weight: i64,
    since: Timestamp,
    max_per_dag: Option<u32>,
    max_per_dagrun: Option<u32>,
}

impl Entry {
    /// The limits of its task, with what is counted for each.
    fn limits(&self, dag: &DagId) -> impl Iterator<Item = (Group, u32)> + use<> {
        let per_dag = self
            .max_per_dag
            .map(|limit| (Group::Dag(dag.clone(), self.task.clone()), limit));
        let per_dagrun = self
            .max_per_dagrun
            .map(|limit| (Group::Run(self.key.run, self.key.task), limit));
        per_dag.into_iter().chain(per_dagrun)
    }

    /// The limit of its task that holds it back now.
    pub(super) fn held_back(&self, dag: &DagId, capacity: &Capacity) -> Option<Group> {
        self.limits(dag)
            .find(|(group, limit)| capacity.active(group) >= *limit)
            .map(|(group, _)| group)
    }

    fn limit_of(&self, group: &Group) -> u32 {
        match group {
            Group::Dag(..) => self.max_per_dag,
            Group::Run(..) => self.max_per_dagrun,
        }
        .unwrap_or(u32::MAX)
    }
}

impl Lane {
    /// The entry that goes next, with its weight raised by the time that it, or the lane since it was served, has waited.
    pub(super) fn head(&self, now: Timestamp) -> Option<(i64, Rank, &Entry)> {
        let (rank, entry) = self.entries.first_key_value()?;
        let since = self.served_at.map_or(entry.since, |served| served.max(entry.since));
        let bonus = now.since(since).as_micros() / AGEING.as_micros();
        Some((
            entry.weight.saturating_add(i64::try_from(bonus).unwrap_or(i64::MAX)),
            *rank,
            entry,
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
        let weight = i64::from(task.queueing.weight).clamp(-MAX_WEIGHT, MAX_WEIGHT);
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
        let entry = Entry {
            key,
            task: task.id.clone(),
            weight,
            since,
            max_per_dag: task.queueing.max_active_tis_per_dag,
            max_per_dagrun: task.queueing.max_active_tis_per_dagrun,
        };
        self.places.insert(
            key,
            Place {
                lane: lane.clone(),
                rank,
                parked: None,
            },
        );
        self.enter(lane, dag, rank, entry);
    }

    fn enter(&mut self, lane: LaneKey, dag: &DagId, rank: Rank, entry: Entry) {
        self.lanes
            .entry(lane)
            .or_insert_with(|| Lane {
                dag: dag.clone(),
                entries: BTreeMap::new(),
                served_at: None,
            })
            .entries
            .insert(rank, entry);
    }

    /// Takes a task instance out; `false` where it is not in.
    pub fn remove(&mut self, key: TiKey) -> bool {
        let Some((dag, entry)) = self.take_out(key) else {
            return false;
        };
        self.passed_over.extend(entry.limits(&dag).map(|(group, _)| group));
        true
    }

    /// Takes an entry out that was admitted.
    pub(super) fn serve(&mut self, key: TiKey) {
        self.take_out(key);
    }

    fn take_out(&mut self, key: TiKey) -> Option<(DagId, Entry)> {
        let place = self.places.remove(&key)?;
        if let Some(group) = place.parked {
            self.parked_keys.remove(&key);
            let parked = self.parked.get_mut(&group)?;
            let found = parked.remove(&place.rank);
            if parked.is_empty() {
                self.parked.remove(&group);
            }
            return found.map(|parked| (parked.dag, parked.entry));
        }
        let lane = self.lanes.get_mut(&place.lane)?;
        let found = lane.entries.remove(&place.rank).map(|entry| (lane.dag.clone(), entry));
        if lane.entries.is_empty() {
            self.lanes.remove(&place.lane);
        }
        found
    }

    /// Puts an entry aside that a limit of its task holds back.
    pub(super) fn park(&mut self, key: TiKey, group: Group) {
        let Some(place) = self.places.get(&key).cloned() else {
            return;
        };
        let Some((dag, entry)) = self.take_out(key) else {
            return;
        };
        // It may have come back for another limit's sake, and others with it may not be held back by this one.
        let others = entry.limits(&dag).map(|(other, _)| other);
        self.passed_over.extend(others.filter(|other| *other != group));
        let Place { lane, rank, .. } = place;
        let parked = Parked {
            lane: lane.clone(),
            dag,
            entry,
        };
        self.parked.entry(group.clone()).or_default().insert(rank, parked);
        self.parked_keys.insert(key);
        self.places.insert(
            key,
            Place {
                lane,
                rank,
                parked: Some(group),
            },
        );
    }

    /// Brings back as many parked entries as the limits of their tasks leave room for, the most urgent first. Answers whether
    /// there were any.
    pub(super) fn bring_back(&mut self, capacity: &mut Capacity) -> bool {
        let mut groups = capacity.take_freed();
        groups.append(&mut self.passed_over);
        let mut any = false;
        for group in groups {
            let Some(parked) = self.parked.get_mut(&group) else {
                continue;
            };
            let mut active = capacity.active(&group);
            let mut back = Vec::new();
            while let Some(first) = parked.first_entry()
                && active < first.get().entry.limit_of(&group)
            {
                active += 1;
                back.push(first.remove_entry());
            }
            if parked.is_empty() {
                self.parked.remove(&group);
            }
            for (rank, Parked { lane, dag, entry }) in back {
                any = true;
                self.parked_keys.remove(&entry.key);
                if let Some(place) = self.places.get_mut(&entry.key) {
                    place.parked = None;
                }
                self.enter(lane, &dag, rank, entry);
            }
        }
        any
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
            let Some(Lane { dag, entries, .. }) = self.lanes.remove(&lane) else {
                continue;
            };
            for entry in entries.into_values() {
                self.places.remove(&entry.key);
                self.passed_over.extend(entry.limits(&dag).map(|(group, _)| group));
            }
        }
        let first = TiKey {
            run,
            task: TaskIndex(0),
            map_index: MapIndex(i32::MIN),
        };
        let parked: Vec<TiKey> = self
            .parked_keys
            .range(first..)
            .copied()
            .take_while(|key| key.run == run)
            .collect();
        for key in parked {
            self.take_out(key);
        }
        self.served.remove(&run);
    }

    /// Whether a task instance waits.
    pub fn contains(&self, key: TiKey) -> bool {
        self.places.contains_key(&key)
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
