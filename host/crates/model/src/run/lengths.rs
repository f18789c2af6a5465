//! How long the things are that are mapped over, and which task instances a task instance sees.

use super::scope::{Met, Node};
use super::state::RunState;
use crate::dag::{Expansion, MapValues, ROOT};
use crate::id::{MapIndex, TaskIndex};
use crate::state::TaskInstanceState;

/// What is known about a length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// So many.
    Known(Vec<u32>),
    /// Nothing yet.
    Pending,
    /// It will never be known: what it depends on failed.
    Failed,
    /// It will never be known: what it depends on was skipped.
    Skipped,
}

/// One mapping around a task instance, and the element that the instance has of each source.
#[derive(Debug)]
pub struct Mapped<'s> {
    /// The mapping.
    pub expansion: &'s Expansion,
    /// In the order of its sources.
    pub elements: Vec<ElementOf>,
}

/// An element of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElementOf {
    /// Its index.
    pub index: u32,
    /// Where the source is what many task instances published: the one that published this element.
    pub instance: Option<MapIndex>,
}

/// What several instances of a mapping share; good for one state of a run.
#[derive(Debug, Default)]
pub struct Known<'s> {
    by_mapping: std::collections::HashMap<(*const Expansion, u32), Sources>,
    of: std::marker::PhantomData<&'s RunState>,
}

#[derive(Debug)]
struct Sources {
    lengths: Vec<u32>,
    /// Of each source that many task instances published: those, in order.
    instances: Vec<Option<Vec<MapIndex>>>,
}

impl RunState {
    /// The lengths of a mapping's sources, as they are seen from an instance of a scope; `by` is the mapped task, or a task of the
    /// mapped group.
    ///
    /// Airflow: `get_map_length`, and `expand_mapped_task`: a source that did not succeed fails or skips what is mapped over it.
    pub(super) fn source_lengths(&self, expansion: &Expansion, scope: u32) -> Length {
        let mut lengths = Vec::with_capacity(expansion.sources.len());
        for source in &expansion.sources {
            let MapValues::Xcom { task, measure, .. } = &source.values else {
                match self.fixed_length(&source.values) {
                    Some(length) => lengths.push(length),
                    None => return Length::Failed,
                }
                continue;
            };
            match self.published_length(*task, *measure, scope) {
                Ok(length) => lengths.push(length),
                Err(other) => return other,
            }
        }
        Length::Known(lengths)
    }

    fn published_length(&self, task: TaskIndex, measure: u32, scope: u32) -> Result<u32, Length> {
        // What the last iteration publishes counts, and it is not known which one that is.
        if self.loops_between(scope, task) > 0 {
            return Err(Length::Pending);
        }
        let slots = self.visible_slots(scope, task);
        let many = self.is_many(scope, task);
        let mut sum = 0_u32;
        let mut skipped = false;
        let mut failed = false;
        let mut any = false;
        for slot in slots.iter().filter_map(|at| self.tis.get(*at)) {
            match slot.ti.state {
                TaskInstanceState::Success => {
                    let facts = slot.ti.facts.as_ref();
                    let measured = facts.and_then(|facts| facts.measured.get(measure as usize));
                    any = true;
                    match measured {
                        Some(length) => sum = sum.saturating_add(*length),
                        // Marked as a success by a person: it published nothing.
                        None if many => {}
                        None => failed = true,
                    }
                }
                TaskInstanceState::Skipped => skipped = true,
                TaskInstanceState::Failed | TaskInstanceState::UpstreamFailed => failed = true,
                TaskInstanceState::Removed => {}
                _ => return Err(Length::Pending),
            }
        }
        // Of many instances those count that published something.
        if many && any {
            return Ok(sum);
        }
        if failed {
            return Err(Length::Failed);
        }
        if skipped {
            return Err(Length::Skipped);
        }
        Ok(sum)
    }

    /// Whether a task that publishes one list, seen from an instance of a scope, has not ended.
    pub(super) fn has_unfinished_source(&self, task: TaskIndex, scope: u32) -> bool {
        if self.is_many(scope, task) || self.loops_between(scope, task) > 0 {
            return false;
        }
        let slots = self.visible_slots(scope, task).into_iter();
        slots
            .filter_map(|at| self.tis.get(at))
            .any(|slot| !slot.ti.state.is_finished())
    }

    fn is_many(&self, scope: u32, of: TaskIndex) -> bool {
        let def = self.scope(scope).map_or(ROOT, |scope| scope.def);
        is_many(&self.dag, def, of)
    }

    /// The task instances of `of` that are seen from an instance of a scope, in index order: of a loop that does not lie around
    /// both, its last iteration.
    pub(super) fn visible_slots(&self, scope: u32, of: TaskIndex) -> Vec<usize> {
        let scopes = self.dag.scopes();
        let Some(def) = self.scope(scope).map(|scope| scope.def) else {
            return Vec::new();
        };
        let from = scopes.of_task(of).0;
        let common = scopes.common(def, from);
        let Some(outer) = self.around(scope, common) else {
            return Vec::new();
        };
        self.slots_below(outer, common, from, of)
    }

    fn slots_below(&self, outer: u32, common: u32, from: u32, of: TaskIndex) -> Vec<usize> {
        let scopes = self.dag.scopes();
        let mut found = vec![outer];
        for step in scopes.path(common, from) {
            let mut inner = Vec::new();
            for at in found {
                let Some(fan) = self.fan_in(at, step).and_then(|fan| self.fan(fan)) else {
                    continue;
                };
                if scopes.get(step).is_some_and(|def| def.is_loop) {
                    inner.extend(fan.children.get(fan.last as usize));
                } else {
                    inner.extend(fan.children.iter());
                }
            }
            found = inner;
        }
        found
            .into_iter()
            .filter_map(|scope| self.nodes.get(self.node_in(scope, of)?))
            .flat_map(Node::slots)
            .collect()
    }

    /// The map indexes of `of` that a task instance sees, in index order; what is removed is not among them.
    pub fn visible(&self, task: TaskIndex, map_index: MapIndex, of: TaskIndex) -> Vec<MapIndex> {
        let scope = self.scope_of(task, map_index);
        self.indexes(self.visible_slots(scope.unwrap_or(0), of))
    }

    /// The map indexes of `of`, a task of the loop right around the task instance (or one further out), in the iteration before;
    /// none in the first one.
    pub fn previous(&self, task: TaskIndex, map_index: MapIndex, of: TaskIndex) -> Vec<MapIndex> {
        let scopes = self.dag.scopes();
        let from = scopes.of_task(of).0;
        let mut at = self.scope_of(task, map_index).unwrap_or(0);
        while let Some(instance) = self.scope(at)
            && let Some(fan) = self.fan(instance.fan)
        {
            let is_loop = scopes.get(instance.def).is_some_and(|def| def.is_loop);
            if is_loop && scopes.common(instance.def, from) == instance.def {
                let before = instance.position.and_then(|position| position.checked_sub(1));
                let Some(before) = before.and_then(|before| fan.children.get(before as usize)) else {
                    return Vec::new();
                };
                return self.indexes(self.slots_below(*before, instance.def, from, of));
            }
            at = fan.scope;
        }
        Vec::new()
    }

    fn indexes(&self, slots: Vec<usize>) -> Vec<MapIndex> {
        slots
            .into_iter()
            .filter_map(|at| self.tis.get(at))
            .filter(|slot| slot.ti.state != TaskInstanceState::Removed)
            .map(|slot| slot.map_index)
            .collect()
    }

    pub(super) fn scope_of(&self, task: TaskIndex, map_index: MapIndex) -> Option<u32> {
        let slot = self.tis.get(self.slot_of(task, map_index)?)?;
        self.node(slot.node).map(|node| node.scope)
    }

    /// What a task instance is mapped over, from the outside in. `known` keeps what several instances of a mapping share.
    pub fn elements<'s>(&'s self, task: TaskIndex, map_index: MapIndex, known: &mut Known<'s>) -> Vec<Mapped<'s>> {
        let mut found = Vec::new();
        let Some((at, slot)) = self
            .slot_of(task, map_index)
            .and_then(|at| Some((at, self.tis.get(at)?)))
        else {
            return found;
        };
        let Some(node) = self.node(slot.node) else { return found };
        if let Some(own) = self.dag.task(task).and_then(|task| task.expand.as_ref())
            && let Some(item) = node.slots().position(|slot| slot == at)
        {
            let item = u32::try_from(item).unwrap_or(u32::MAX);
            found.push(self.mapped(own, node.scope, item, known));
        }
        let mut scope = node.scope;
        while let Some(instance) = self.scope(scope)
            && let Some(fan) = self.fan(instance.fan)
        {
            if let (Some(mapping), Some(position)) = (self.dag.mapping(instance.def), instance.position) {
                found.push(self.mapped(mapping, fan.scope, position, known));
            }
            scope = fan.scope;
        }
        found.reverse();
        found
    }

    fn mapped<'s>(&'s self, expansion: &'s Expansion, scope: u32, item: u32, known: &mut Known<'s>) -> Mapped<'s> {
        let sources = known
            .by_mapping
            .entry((std::ptr::from_ref(expansion), scope))
            .or_insert_with(|| self.known(expansion, scope));
        let elements = expansion.elements(&sources.lengths, item);
        let elements = elements
            .into_iter()
            .zip(&sources.instances)
            .map(|(index, instances)| ElementOf {
                index,
                instance: instances
                    .as_ref()
                    .and_then(|instances| instances.get(index as usize).copied()),
            });
        Mapped {
            expansion,
            elements: elements.collect(),
        }
    }

    fn known(&self, expansion: &Expansion, scope: u32) -> Sources {
        let lengths = match self.source_lengths(expansion, scope) {
            Length::Known(lengths) => lengths,
            _ => vec![1; expansion.sources.len()],
        };
        let instances = expansion.sources.iter().map(|source| match &source.values {
            MapValues::Xcom { task, measure, .. } if self.is_many(scope, *task) => {
                let published = |slot: &&super::ti::Slot| {
                    let facts = slot.ti.facts.as_ref();
                    let measured = facts.and_then(|facts| facts.measured.get(*measure as usize));
                    slot.ti.state == TaskInstanceState::Success && measured == Some(&1)
                };
                let slots = self.visible_slots(scope, *task);
                let slots = slots.iter().filter_map(|at| self.tis.get(*at)).filter(published);
                Some(slots.map(|slot| slot.map_index).collect())
            }
            _ => None,
        });
        Sources {
            instances: instances.collect(),
            lengths,
        }
    }

    /// The iteration of the innermost loop around a task instance, counted from 0.
    pub fn iteration(&self, task: TaskIndex, map_index: MapIndex) -> Option<u32> {
        let mut scope = self.scope_of(task, map_index)?;
        while let Some(instance) = self.scope(scope)
            && let Some(fan) = self.fan(instance.fan)
        {
            if self.dag.scopes().get(instance.def).is_some_and(|def| def.is_loop) {
                return instance.position;
            }
            scope = fan.scope;
        }
        None
    }

    /// The nodes of `to` that meet a task instance.
    pub(super) fn met_by(&self, at: usize, to: TaskIndex) -> Met {
        match self.tis.get(at).and_then(|slot| self.node(slot.node)) {
            Some(node) => self.met(node.scope, node.task, to),
            None => Met::One(None),
        }
    }
}

/// Whether `of` has, from a scope, a list of instances: it is mapped itself, or lies in a mapped group that is not around both.
pub fn is_many(dag: &crate::Dag, scope: u32, of: TaskIndex) -> bool {
    let scopes = dag.scopes();
    let from = scopes.of_task(of).0;
    let common = scopes.common(scope, from);
    dag.task(of).is_some_and(|task| task.expand.is_some())
        || scopes
            .path(common, from)
            .iter()
            .any(|step| scopes.get(*step).is_some_and(|def| !def.is_loop))
}
