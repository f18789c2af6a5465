//! What a draft changes about the slots in use. It is read off the states before and after, like the rows that the tick writes:
//! so the pools' counters in the database always agree with the task instances there, whatever way led to a state.

use std::collections::BTreeMap;

use model::{Dag, TaskIndex};
use ports::store::SlotChange;

use crate::run::{Draft, Place, Run};

impl Run {
    /// The slots that the run holds, by pool; none while it is set aside.
    pub(crate) fn slots_held(&self) -> BTreeMap<&str, i64> {
        let mut sums = BTreeMap::new();
        if self.meta.set_aside.is_none() {
            for (task, _, _) in self.state.dispatched() {
                add(&mut sums, self.live.version.dag(), task, 1);
            }
        }
        sums
    }

    /// All of them given back.
    pub(crate) fn slots_given_back(&self) -> Vec<SlotChange> {
        self.slots_held()
            .into_iter()
            .map(|(pool, slots)| SlotChange {
                run: self.key(),
                pool: pool.to_owned(),
                change: -slots,
                unchecked: false,
            })
            .collect()
    }
}

impl Draft {
    /// What the draft takes and gives back. `base` is the run that it came from; the rows in `changed` are all that differ.
    pub(crate) fn slot_changes(&self, base: Option<&Run>) -> Vec<SlotChange> {
        let dag = self.live.version.dag();
        let was_aside = base.is_some_and(|run| run.meta.set_aside.is_some());
        let is_gone = self.deleted || self.meta.set_aside.is_some();
        let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
        if is_gone {
            return base.map(Run::slots_given_back).unwrap_or_default();
        }
        if was_aside {
            for (task, _, _) in self.state.dispatched() {
                add(&mut sums, dag, task, 1);
            }
        } else {
            for place in &self.changed {
                let before = base.is_some_and(|run| is_dispatched(&run.state, *place));
                let after = is_dispatched(&self.state, *place);
                if before != after {
                    add(&mut sums, dag, place.0, if after { 1 } else { -1 });
                }
            }
        }
        sums.into_iter()
            .filter(|(_, change)| *change != 0)
            .map(|(pool, change)| SlotChange {
                run: self.key(),
                pool: pool.to_owned(),
                change,
                unchecked: was_aside,
            })
            .collect()
    }
}

fn is_dispatched(state: &model::run::RunState, (task, map_index): Place) -> bool {
    state.ti(task, map_index).is_some_and(|ti| ti.state.is_dispatched())
}

fn add<'d>(sums: &mut BTreeMap<&'d str, i64>, dag: &'d Dag, task: TaskIndex, times: i64) {
    if let Some(task) = dag.task(task) {
        *sums.entry(&task.pool).or_default() += times * i64::from(task.pool_slots.max(1));
    }
}
