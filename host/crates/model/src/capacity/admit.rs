//! Choosing who runs next.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::queue::{LaneKey, Rank, ReadyQueue};
use super::slots::{Capacity, Demand};
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
/// The cost is one look at each lane that has something to offer, plus a logarithm for each admission, whatever the number of
/// entries. Give `Event::Admit` to the run for each answer; where the run does not dispatch it (it was overtaken), release it.
/// Where the commit of the tick fails, release and push again.
pub fn admit(capacity: &mut Capacity, ready: &mut ReadyQueue, now: Timestamp) -> Vec<Admitted> {
    let mut admitted = Vec::new();
    if !capacity.has_room() || ready.is_empty() {
        return admitted;
    }
    ready.bring_back(capacity);
    loop {
        admit_lanes(capacity, ready, now, &mut admitted);
        // An entry that was brought back and then held back by its other limit leaves its room to those behind it.
        if !capacity.has_room() || !ready.bring_back(capacity) {
            return admitted;
        }
    }
}

fn admit_lanes(capacity: &mut Capacity, ready: &mut ReadyQueue, now: Timestamp, admitted: &mut Vec<Admitted>) {
    let mut claims: BinaryHeap<(Claim, LaneKey)> = BinaryHeap::new();
    for (key, lane) in &ready.lanes {
        if capacity.fits(&lane.dag, &key.pool, key.pool_slots) && !capacity.is_on_hold(key.run) {
            claims.extend(claim(ready, key, now).map(|claim| (claim, key.clone())));
        }
    }
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
        if !capacity.fits(&lane.dag, &lane_key.pool, lane_key.pool_slots) {
            if capacity.has_room() {
                continue;
            }
            break;
        }
        let key = entry.key;
        if let Some(group) = entry.held_back(&lane.dag, capacity) {
            ready.park(key, group);
            claims.extend(claim(ready, &lane_key, now).map(|claim| (claim, lane_key)));
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

fn claim(ready: &ReadyQueue, lane_key: &LaneKey, now: Timestamp) -> Option<Claim> {
    let (weight, rank, _) = ready.lanes.get(lane_key)?.head(now)?;
    let served = ready.served.get(&lane_key.run).copied().unwrap_or(0);
    Some((weight, Reverse(served), Reverse(rank)))
}
