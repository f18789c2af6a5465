//! The number of task instances a run may have. They are counted before any of them is made.

use super::expand::Want;
use super::scope::{Node, Phase};
use super::state::RunState;
use super::ti::Ti;
use crate::dag::{Dag, Expansion, MapValues, ROOT};
use crate::id::{MapIndex, TaskIndex};

/// The most task instances that a run can be allowed to have.
pub const MAX_TASK_INSTANCES: u32 = 1_000_000;

/// The task instances that a run may have where nothing else is said: one of the largest mappings, of 100,000, and the tasks around it.
pub const DEFAULT_TASK_INSTANCES: u32 = 110_000;

/// Why a mapping is not expanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMany {
    /// It has more elements than its `map_limit` allows.
    Elements {
        /// So many.
        elements: u64,
        /// The `map_limit`.
        limit: u32,
    },
    /// The run would have more task instances than it may.
    TaskInstances {
        /// So many.
        would_be: u64,
        /// As many as there may be.
        limit: u32,
    },
}

/// The number of task instances a new run has: one of each task, and all of what is mapped over literals and parameters. The lengths of the
/// parameters are in the order of `Dag::mapped_params`.
pub fn count_from_start(dag: &Dag, param_lengths: &[u32]) -> u64 {
    count_in(dag, param_lengths, ROOT, true)
}

/// The number of task instances an instance of a scope has when it is made. Under something that is not expanded there is one of each task.
fn count_in(dag: &Dag, param_lengths: &[u32], def: u32, expanded: bool) -> u64 {
    let Some(definition) = dag.scopes().get(def) else {
        return 0;
    };
    let known = |expansion: Option<&Expansion>| {
        let length = length_from_start(expansion.filter(|_| expanded)?, param_lengths)?;
        Some(u64::from(length))
    };
    let own = definition.tasks.iter().map(|task| {
        let expansion = dag.task(*task).and_then(|task| task.expand.as_ref());
        known(expansion).unwrap_or(1)
    });
    let inner = definition.children.iter().map(|child| {
        let is_loop = dag.scopes().get(*child).is_some_and(|child| child.is_loop);
        match known(dag.mapping(*child)) {
            Some(length) => count_in(dag, param_lengths, *child, true).saturating_mul(length),
            None => count_in(dag, param_lengths, *child, expanded && is_loop),
        }
    });
    own.chain(inner).fold(0, u64::saturating_add)
}

/// How many a mapping makes, where that is known before anything has run, and not none.
pub(super) fn length_from_start(expansion: &Expansion, param_lengths: &[u32]) -> Option<u32> {
    let lengths = expansion
        .sources
        .iter()
        .map(|source| fixed_length(&source.values, param_lengths))
        .collect::<Option<Vec<u32>>>()?;
    let length = u32::try_from(expansion.combine(&lengths)).ok()?;
    (length > 0 && length <= expansion.limit).then_some(length)
}

/// The length of what does not depend on any task.
pub(super) fn fixed_length(values: &MapValues, param_lengths: &[u32]) -> Option<u32> {
    match values {
        MapValues::Literal { .. } => values.literal_length(),
        MapValues::Param { measure, .. } => param_lengths.get(*measure as usize).copied(),
        MapValues::Xcom { .. } => None,
    }
}

impl RunState {
    /// The number of task instances it has.
    pub fn size(&self) -> usize {
        self.tis.len()
    }

    /// The task instance at a place in its table; they are counted from 0, and new ones come last.
    pub fn at(&self, place: usize) -> Option<(TaskIndex, MapIndex, &Ti)> {
        let slot = self.tis.get(place)?;
        Some((slot.task, slot.map_index, &slot.ti))
    }

    /// The place of a task instance.
    pub fn place_of(&self, task: TaskIndex, map_index: MapIndex) -> Option<usize> {
        self.slot_of(task, map_index)
    }

    /// The places of a task's instances, in index order.
    pub fn places_of(&self, task: TaskIndex) -> impl Iterator<Item = usize> {
        let scopes = self.within(ROOT, self.dag.scopes().of_task(task).0).into_iter();
        let nodes = scopes.filter_map(move |scope| self.nodes.get(self.node_in(scope, task)?));
        nodes.flat_map(Node::slots)
    }

    /// The number of instances a task has.
    pub fn count_of(&self, task: TaskIndex) -> usize {
        let scopes = self.within(ROOT, self.dag.scopes().of_task(task).0).into_iter();
        let nodes = scopes.filter_map(|scope| self.nodes.get(self.node_in(scope, task)?));
        nodes.map(|node| node.len() as usize).sum()
    }

    /// Sets how many task instances it may have from now on. What it has already stays.
    pub fn set_limit(&mut self, limit: u32) {
        self.limit = limit.min(MAX_TASK_INSTANCES);
    }

    /// Whether so many more task instances may be made.
    pub(super) fn has_room_for(&self, more: u64) -> bool {
        // Whoever has more than there may be now keeps it.
        more == 0 || self.would_be(more) <= u64::from(self.limit)
    }

    fn would_be(&self, more: u64) -> u64 {
        u64::try_from(self.tis.len()).unwrap_or(u64::MAX).saturating_add(more)
    }

    /// The number of task instances a new instance of a scope has.
    pub(super) fn instances_in(&self, def: u32) -> u64 {
        count_in(&self.dag, &self.param_lengths, def, true)
    }

    /// The number of task instances that are added when the fan has `length` elements.
    pub(super) fn more_in_fan(&self, at: u32, length: u32) -> u64 {
        let Some(fan) = self.fan(at) else { return 0 };
        let each = self.instances_in(fan.def);
        let (have, length) = (u64::try_from(fan.children.len()).unwrap_or(u64::MAX), u64::from(length));
        if fan.phase == Phase::Open {
            // The first element is there, and what is known to be mapped in it is not expanded.
            let first = count_in(&self.dag, &self.param_lengths, fan.def, false);
            return each.saturating_mul(length).saturating_sub(first);
        }
        each.saturating_mul(length.saturating_sub(have))
    }

    /// Why the mapping of a task instance, or the outermost one around it, cannot be expanded.
    pub fn too_many(&self, task: TaskIndex, map_index: MapIndex) -> Option<TooMany> {
        let slot = self.tis.get(self.slot_of(task, map_index)?)?;
        let node = self.node(slot.node)?;
        let want = match self.unsettled_fan(node.scope) {
            Some(fan) => self.want_fan(fan)?,
            None => {
                let own = self.dag.task(task)?.expand.as_ref();
                self.want_node(own.filter(|_| node.phase != Phase::Settled)?, node.scope, node.len())
            }
        };
        match want {
            Want::TooMany(why) => Some(why),
            _ => None,
        }
    }

    pub(super) fn judge(&self, length: u64, limit: u32, more: u64) -> Option<TooMany> {
        if length > u64::from(limit) {
            return Some(TooMany::Elements {
                elements: length,
                limit,
            });
        }
        (!self.has_room_for(more)).then(|| TooMany::TaskInstances {
            would_be: self.would_be(more),
            limit: self.limit,
        })
    }
}
