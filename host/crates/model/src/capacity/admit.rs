//! Choosing who runs next.

use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::queue::{LaneKey, Rank, ReadyQueue};
use super::slots::{Capacity, Demand, Room};
use crate::id::TiKey;
use crate::time::Timestamp;

/// A task instance that may be dispatched. Its slots are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Which.
    pub key: TiKey,
}

/// What decides between lanes: the higher weight with its bonus for waiting, then the run that was served longest ago, then the
/// earlier arrival.
type Claim = (i64, Reverse<u64>, Reverse<Rank>);

/// Takes as many task instances out of the queue as fit, the most urgent first, and takes their slots.
///
/// Where the most urgent of a pool needs more slots than are free there, and nothing else holds it back, the free ones are kept for
/// it until it fits ([`Capacity::kept`]): less urgent ones get only what it leaves over of all slots of the pool. So a task that
/// needs many slots waits no longer than for those that run when it becomes the most urgent. Nothing is kept for one that does not
/// fit even when all of them have ended: it needs more than the pool has, or those that wait elsewhere hold the rest.
///
/// The cost is one look at each lane that has something to offer, plus a logarithm for each admission, whatever the number of
/// entries. Give `Event::Admit` to the run for each answer; where the run does not dispatch it (it was overtaken), release it.
/// Where the commit of the tick fails, release and push again.
pub fn admit(capacity: &mut Capacity, ready: &mut ReadyQueue, now: Timestamp) -> Vec<Admitted> {
    let mut admitted = Vec::new();
    if ready.is_empty() {
        capacity.forget_kept();
        return admitted;
    }
    if !capacity.has_room() {
        return admitted;
    }
    ready.bring_back(capacity);
    loop {
        capacity.forget_kept();
        admit_lanes(capacity, ready, now, &mut admitted);
        // An entry that was brought back and then held back by its other limit leaves its room to those behind it.
        if !capacity.has_room() || !ready.bring_back(capacity) {
            return admitted;
        }
    }
}

fn admit_lanes(capacity: &mut Capacity, ready: &mut ReadyQueue, now: Timestamp, admitted: &mut Vec<Admitted>) {
    let mut claims = first_claims(capacity, ready, now);
    // Pools of which all lanes have made their claims, whether they fit or not.
    let mut all_claimed: BTreeSet<String> = BTreeSet::new();
    while let Some((made, lane_key)) = claims.pop() {
        // Another lane of the same run may have been served meanwhile.
        let Some(current) = claim(ready, &lane_key, now) else {
            continue;
        };
        if current < made {
            claims.push((current, lane_key));
            continue;
        }
        let Some(lane) = ready.lanes.get_mut(&lane_key) else {
            continue;
        };
        let Some((_, _, entry)) = lane.head(now) else { continue };
        // What does not fit now does not fit later in this round either: slots are only taken.
        let room = capacity.room(&lane.dag, &lane_key.pool, lane_key.pool_slots);
        if room == Room::No {
            if capacity.has_room() {
                continue;
            }
            break;
        }
        let key = entry.key;
        if let Some(group) = entry.held_back(&lane.dag, capacity) {
            ready.park(key, group);
            if room == Room::Later && all_claimed.insert(lane_key.pool.clone()) {
                // Another lane may be the most urgent now.
                claims.extend(later_claims(capacity, ready, &lane_key.pool, now));
            } else {
                claims.extend(claim(ready, &lane_key, now).map(|claim| (claim, lane_key)));
            }
            continue;
        }
        if room == Room::Later {
            capacity.keep(key, &lane.dag, &lane_key.pool, lane_key.pool_slots);
            continue;
        }
        let demand = Demand {
            dag: &lane.dag,
            task: &entry.task,
            pool: &lane_key.pool,
            slots: lane_key.pool_slots,
        };
        capacity.take(key, demand);
        lane.served_at = Some(now);
        ready.services += 1;
        ready.served.insert(key.run, ready.services);
        ready.serve(key);
        admitted.push(Admitted { key });
        claims.extend(claim(ready, &lane_key, now).map(|claim| (claim, lane_key)));
    }
}

/// The claims of all lanes that fit, and in each pool that of the most urgent of those that do not fit yet.
fn first_claims(capacity: &Capacity, ready: &ReadyQueue, now: Timestamp) -> BinaryHeap<(Claim, LaneKey)> {
    let mut claims = BinaryHeap::new();
    let mut later: BTreeMap<&str, (Claim, &LaneKey)> = BTreeMap::new();
    for (key, lane) in &ready.lanes {
        if capacity.is_on_hold(key.run) {
            continue;
        }
        match capacity.room(&lane.dag, &key.pool, key.pool_slots) {
            Room::No => {}
            Room::Now => claims.extend(claim(ready, key, now).map(|claim| (claim, key.clone()))),
            Room::Later => {
                let Some(claim) = claim(ready, key, now) else { continue };
                match later.entry(&key.pool) {
                    Entry::Vacant(place) => drop(place.insert((claim, key))),
                    Entry::Occupied(mut first) if first.get().0 < claim => drop(first.insert((claim, key))),
                    Entry::Occupied(_) => {}
                }
            }
        }
    }
    claims.extend(later.into_values().map(|(claim, key)| (claim, key.clone())));
    claims
}

/// The claims of all lanes of a pool that do not fit yet.
fn later_claims(capacity: &Capacity, ready: &ReadyQueue, pool: &str, now: Timestamp) -> Vec<(Claim, LaneKey)> {
    let of_pool = ready.lanes.iter();
    let of_pool = of_pool.filter(|(key, _)| key.pool == pool && !capacity.is_on_hold(key.run));
    of_pool
        .filter(|(key, lane)| capacity.room(&lane.dag, pool, key.pool_slots) == Room::Later)
        .filter_map(|(key, _)| Some((claim(ready, key, now)?, key.clone())))
        .collect()
}

fn claim(ready: &ReadyQueue, lane_key: &LaneKey, now: Timestamp) -> Option<Claim> {
    let (weight, rank, _) = ready.lanes.get(lane_key)?.head(now)?;
    let served = ready.served.get(&lane_key.run).copied().unwrap_or(0);
    Some((weight, Reverse(served), Reverse(rank)))
}
