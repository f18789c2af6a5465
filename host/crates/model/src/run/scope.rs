//! Where the task instances of a run are: instances of scopes, the nodes that count in them, and who meets whom.
//!
//! The run is one instance of the root scope. In an instance of a scope, a [`Fan`] for each scope right inside holds that one's
//! instances: one for each element of a mapping, one for each iteration of a loop. A mapping that is not expanded yet has one
//! instance without a position, so that its tasks can be seen, skipped and counted.

use std::sync::Arc;

use super::state::RunState;
use crate::id::{MapIndex, TaskIndex};
use crate::trigger_rule::Upstream;

/// No fan: the parent of the run itself.
pub(super) const NO_FAN: u32 = u32::MAX;

/// How far a mapping is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing is mapped here, or it is expanded.
    #[default]
    Settled,
    /// It is not known how many there are.
    Open,
    /// It was expanded, and what it was mapped over is made anew.
    Stale,
}

/// One instance of a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) def: u32,
    /// The fan that it is an instance of.
    pub(super) fan: u32,
    /// Which element or iteration it is; `None` before it is known.
    pub(super) position: Option<u32>,
    /// Its nodes, in the order of the scope's tasks.
    pub(super) first_node: u32,
    /// Its fans, in the order of the scopes inside.
    pub(super) first_fan: u32,
    /// The task instances in it, however deep, that have not ended.
    pub(super) unfinished: u32,
}

/// The instances of one scope within one instance of the scope around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fan {
    /// The instance around.
    pub(super) scope: u32,
    /// Of what scope.
    pub(super) def: u32,
    pub(super) children: Arc<Vec<u32>>,
    pub(super) phase: Phase,
    /// Of a loop: whether there may be another iteration, so that what follows has to wait.
    pub(super) looping: bool,
    /// Of a loop: the iteration that it is in.
    pub(super) last: u32,
}

/// What is counted for one task in one instance of its scope. The instances of a task that is mapped by itself share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) task: TaskIndex,
    pub(super) scope: u32,
    /// Where its instances are in the table: a row of `count`, then those in `rare`.
    pub(super) first: u32,
    pub(super) count: u32,
    /// How many of them wait for the trigger rule.
    pub(super) waiting: u32,
    /// The direct upstream task instances.
    pub(super) upstream: Upstream,
    /// Branches and short-circuits right before it that succeeded and did not choose it.
    pub(super) not_chosen: u32,
    pub(super) phase: Phase,
    pub(super) rare: Option<Box<Rare>>,
}

/// What few nodes have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rare {
    /// More rows of the table: where each starts, and its length.
    pub(super) rows: Vec<(u32, u32)>,
    /// The setups that count for the node, see `Dag::setup_watchers`.
    pub(super) setups: Upstream,
}

impl Node {
    /// The places of its instances, in the order of their items.
    pub(super) fn slots(&self) -> impl Iterator<Item = usize> + use<> {
        let first = self.first as usize..self.first as usize + self.count as usize;
        let rows = self.rare.as_ref().map_or_else(Vec::new, |rare| rare.rows.clone());
        first.chain(
            rows.into_iter()
                .flat_map(|(start, count)| start as usize..start as usize + count as usize),
        )
    }

    fn rows(&self) -> &[(u32, u32)] {
        self.rare.as_ref().map_or(&[], |rare| &rare.rows)
    }

    /// The setups that count for it.
    pub(super) fn setups(&self) -> Upstream {
        self.rare.as_ref().map_or_else(Upstream::default, |rare| rare.setups)
    }

    pub(super) fn setups_mut(&mut self) -> &mut Upstream {
        &mut self.rare.get_or_insert_default().setups
    }

    /// How many instances there are.
    pub(super) fn len(&self) -> u32 {
        self.count + self.rows().iter().map(|(_, count)| count).sum::<u32>()
    }

    /// The place of one.
    pub(super) fn slot(&self, item: u32) -> Option<usize> {
        if item < self.count {
            return Some(self.first as usize + item as usize);
        }
        let mut item = item - self.count;
        for (start, count) in self.rows() {
            if item < *count {
                return Some(*start as usize + item as usize);
            }
            item -= count;
        }
        None
    }
}

/// Nodes that one task instance meets.
pub(super) enum Met {
    One(Option<usize>),
    Many(Vec<usize>),
}

impl Met {
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        let (one, many) = match self {
            Self::One(one) => (*one, &[][..]),
            Self::Many(many) => (None, many.as_slice()),
        };
        one.into_iter().chain(many.iter().copied())
    }
}

impl RunState {
    pub(super) fn scope(&self, scope: u32) -> Option<&Scope> {
        self.scopes.get(scope as usize)
    }

    pub(super) fn fan(&self, fan: u32) -> Option<&Fan> {
        self.fans.get(fan as usize)
    }

    pub(super) fn node(&self, node: u32) -> Option<&Node> {
        self.nodes.get(node as usize)
    }

    /// The node of a task in an instance of its scope.
    pub(super) fn node_in(&self, scope: u32, task: TaskIndex) -> Option<usize> {
        let instance = self.scope(scope)?;
        let (def, place) = self.dag.scopes().of_task(task);
        (instance.def == def).then_some(instance.first_node as usize + place as usize)
    }

    /// The instance around `scope` (or itself) that is of the scope `def`.
    pub(super) fn around(&self, scope: u32, def: u32) -> Option<u32> {
        let mut at = scope;
        loop {
            let instance = self.scope(at)?;
            if instance.def == def {
                return Some(at);
            }
            at = self.fan(instance.fan)?.scope;
        }
    }

    /// The fan of a scope right inside an instance.
    pub(super) fn fan_in(&self, scope: u32, def: u32) -> Option<u32> {
        let position = self.dag.scopes().get(def)?.position;
        Some(self.scope(scope)?.first_fan + position)
    }

    /// The instances of `def` within an instance that lies around them, in order.
    pub(super) fn within(&self, scope: u32, def: u32) -> Vec<u32> {
        let Some(outer) = self.scope(scope) else {
            return Vec::new();
        };
        let mut found = vec![scope];
        for step in self.dag.scopes().path(outer.def, def) {
            let mut inner = Vec::new();
            for at in found {
                let fan = self.fan_in(at, step).and_then(|fan| self.fan(fan));
                inner.extend(fan.iter().flat_map(|fan| fan.children.iter().copied()));
            }
            found = inner;
        }
        found
    }

    /// The nodes of `to` that meet the instances of `from` in `scope`: in the innermost instance that both lie in.
    pub(super) fn met(&self, scope: u32, from: TaskIndex, to: TaskIndex) -> Met {
        let scopes = self.dag.scopes();
        let (from, (to_def, place)) = (scopes.of_task(from).0, scopes.of_task(to));
        if from == to_def {
            return Met::One(self.scope(scope).map(|scope| (scope.first_node + place) as usize));
        }
        let Some(common) = self.around(scope, scopes.common(from, to_def)) else {
            return Met::One(None);
        };
        let nodes = self.within(common, to_def).into_iter();
        Met::Many(
            nodes
                .filter_map(|scope| self.scope(scope))
                .map(|scope| (scope.first_node + place) as usize)
                .collect(),
        )
    }

    /// The nodes of the upstream task `of` that a node in `scope` sees.
    pub(super) fn seen(&self, scope: u32, by: TaskIndex, of: TaskIndex) -> Met {
        // Who meets whom is mutual.
        self.met(scope, by, of)
    }

    /// The positions of a scope's instance, from the outside in, as far as they are known; and whether all are.
    pub(super) fn positions(&self, scope: u32) -> (Vec<u32>, bool) {
        let mut way = Vec::new();
        let mut at = scope;
        while let Some(instance) = self.scope(at)
            && instance.fan != NO_FAN
            && let Some(fan) = self.fan(instance.fan)
        {
            way.push(instance.position);
            at = fan.scope;
        }
        way.reverse();
        let known: Vec<u32> = way.iter().map_while(|position| *position).collect();
        let all = known.len() == way.len();
        (known, all)
    }

    /// The map index of a node's item.
    pub(super) fn map_index(&self, node: &Node, item: u32) -> MapIndex {
        let scopes = self.dag.scopes();
        let Some(task) = self.dag.task(node.task) else {
            return MapIndex::UNMAPPED;
        };
        let (mut positions, all) = self.positions(node.scope);
        if all && task.expand.is_some() && node.phase != Phase::Open {
            positions.push(item);
        }
        scopes.map_index(node.task, task.expand.as_ref(), &positions)
    }

    /// The place of a task instance in the table.
    pub(super) fn slot_of(&self, task: TaskIndex, map_index: MapIndex) -> Option<usize> {
        let definition = self.dag.task(task)?;
        let scopes = self.dag.scopes();
        let def = scopes.of_task(task).0;
        let own = definition.expand.as_ref();
        let at = if def == crate::dag::ROOT && own.is_none() {
            self.nodes.get(self.node_in(0, task)?)?.slot(0)?
        } else {
            let mut positions = scopes.positions(task, own, map_index)?.into_iter();
            let mut scope = 0;
            for step in scopes.path(crate::dag::ROOT, def) {
                let fan = self.fan(self.fan_in(scope, step)?)?;
                let position = positions.next()?;
                let open = fan.phase == Phase::Open;
                scope = *fan.children.get(if open { 0 } else { position as usize })?;
            }
            let node = self.nodes.get(self.node_in(scope, task)?)?;
            let item = positions.next().filter(|_| node.phase != Phase::Open);
            node.slot(item.unwrap_or(0))?
        };
        self.tis.get(at).filter(|slot| slot.map_index == map_index)?;
        Some(at)
    }

    /// The task of a task instance, and the instance of a scope that it lies in.
    pub(super) fn node_of(&self, at: usize) -> Option<(TaskIndex, u32)> {
        let node = self.node(self.tis.get(at)?.node)?;
        Some((node.task, node.scope))
    }

    /// All nodes in an instance of a scope and in those inside it.
    pub(super) fn nodes_inside(&self, scope: u32) -> Vec<usize> {
        let mut nodes = Vec::new();
        let mut open = vec![scope];
        while let Some(at) = open.pop() {
            let Some(instance) = self.scope(at) else { continue };
            let Some(def) = self.dag.scopes().get(instance.def) else {
                continue;
            };
            let first = instance.first_node as usize;
            nodes.extend(first..first + def.tasks.len());
            for inner in 0..u32::try_from(def.children.len()).unwrap_or(0) {
                let fan = self.fan(instance.first_fan + inner);
                open.extend(fan.iter().flat_map(|fan| fan.children.iter().copied()));
            }
        }
        nodes
    }
}
