//! How a run grows: task instances, and instances of scopes, that come to be when it is known how many there are.

use std::sync::Arc;

use super::room;
use super::scope::{Fan, NO_FAN, Node, Phase, Scope};
use super::state::{RunState, exclusion};
use super::ti::{Slot, Ti};
use crate::dag::{Expansion, MapValues, TaskKind};
use crate::id::{MapIndex, TaskIndex};
use crate::state::TaskInstanceState;
use crate::trigger_rule::Upstream;

impl RunState {
    /// The run itself, with what is known to be in it from the start.
    pub(super) fn grow_root(&mut self) {
        self.create_scope(NO_FAN, crate::dag::ROOT, None);
        self.tally(0);
    }

    /// Makes an instance of a scope with all that belongs to it. What it sees, and what sees it, is counted by the caller: see
    /// [`Self::tally`] and [`Self::announce`].
    fn create_scope(&mut self, fan: u32, def: u32, position: Option<u32>) -> u32 {
        let dag = Arc::clone(&self.dag);
        let scope = number(self.scopes.len());
        let (first_node, first_fan) = (number(self.nodes.len()), number(self.fans.len()));
        self.scopes.push(Scope {
            def,
            fan,
            position,
            first_node,
            first_fan,
            unfinished: 0,
        });
        if let Some(fan) = self.fans.get_mut(fan as usize) {
            Arc::make_mut(&mut fan.children).push(scope);
        }
        let Some(definition) = dag.scopes().get(def) else {
            return scope;
        };
        // Under something that is not expanded there is one instance of each task.
        let expanded = self.positions(scope).1;
        for task in &definition.tasks {
            let own = dag.task(*task).and_then(|task| task.expand.as_ref());
            let known = own.filter(|_| expanded).and_then(|own| self.length_from_start(own));
            let node = number(self.nodes.len());
            self.nodes.push(Node {
                task: *task,
                scope,
                first: number(self.tis.len()),
                count: 0,
                waiting: 0,
                upstream: Upstream::default(),
                not_chosen: 0,
                rare: None,
                phase: if own.is_some() && known.is_none() {
                    Phase::Open
                } else {
                    Phase::Settled
                },
            });
            self.push_tis(node, known.unwrap_or(1));
        }
        for inner in &definition.children {
            let Some(inner_def) = dag.scopes().get(*inner) else {
                continue;
            };
            let fan = number(self.fans.len());
            self.fans.push(Fan {
                scope,
                def: *inner,
                children: Arc::default(),
                phase: if inner_def.is_loop { Phase::Settled } else { Phase::Open },
                looping: inner_def.is_loop,
                last: 0,
            });
            debug_assert_eq!(fan, first_fan + inner_def.position);
        }
        for inner in &definition.children {
            let Some(fan) = self.fan_in(scope, *inner) else {
                continue;
            };
            if dag.scopes().get(*inner).is_some_and(|inner| inner.is_loop) {
                self.create_scope(fan, *inner, Some(0));
                continue;
            }
            let known = dag
                .mapping(*inner)
                .filter(|_| expanded)
                .and_then(|mapping| self.length_from_start(mapping));
            match known {
                Some(length) => {
                    if let Some(fan) = self.fans.get_mut(fan as usize) {
                        fan.phase = Phase::Settled;
                    }
                    for position in 0..length {
                        self.create_scope(fan, *inner, Some(position));
                    }
                }
                None => {
                    self.create_scope(fan, *inner, None);
                }
            }
        }
        scope
    }

    /// How many a mapping makes, where that is known before anything has run, and not none.
    fn length_from_start(&self, expansion: &Expansion) -> Option<u32> {
        room::length_from_start(expansion, &self.param_lengths).filter(|_| !self.is_over)
    }

    /// The length of what does not depend on any task.
    pub(super) fn fixed_length(&self, values: &MapValues) -> Option<u32> {
        room::fixed_length(values, &self.param_lengths)
    }

    /// Adds task instances to the end of a node.
    fn push_tis(&mut self, at: u32, count: u32) {
        let Some(node) = self.node(at).cloned() else { return };
        let Some(retries) = self.dag.task(node.task).map(|task| task.retry.retries) else {
            return;
        };
        let leaf = self.dag.is_leaf(node.task);
        let (start, have) = (number(self.tis.len()), node.len());
        for item in have..have + count {
            let ti = Ti::new(retries);
            self.totals.count_new(&ti, leaf);
            self.tis.push(Slot {
                task: node.task,
                map_index: self.map_index(&node, item),
                node: at,
                ti,
            });
        }
        if let Some(node) = self.nodes.get_mut(at as usize) {
            node.waiting += count;
            if node.rare.as_ref().is_none_or(|rare| rare.rows.is_empty()) && node.first + node.count == start {
                node.count += count;
            } else {
                node.rare.get_or_insert_default().rows.push((start, count));
            }
        }
        self.count_unfinished(node.scope, i64::from(count));
    }

    /// Counts from nothing what the nodes from `first` on see.
    fn tally(&mut self, first: usize) {
        for at in first..self.nodes.len() {
            let Some(node) = self.nodes.get(at) else { return };
            let (task, scope) = (node.task, node.scope);
            let dag = Arc::clone(&self.dag);
            let mut upstream = Upstream::default();
            let mut not_chosen = 0;
            for of in dag.awaited(task) {
                for seen in self.seen(scope, task, *of).iter() {
                    self.sum(seen, &mut upstream);
                    not_chosen += self.refusals(seen, task);
                }
                upstream.total += self.loops_between(scope, *of);
            }
            let mut setups = Upstream::default();
            for of in dag.setups_of(task) {
                for seen in self.seen(scope, task, *of).iter() {
                    self.sum(seen, &mut setups);
                }
            }
            if let Some(node) = self.nodes.get_mut(at) {
                node.upstream = upstream;
                node.not_chosen = not_chosen;
                if setups.total > 0 {
                    *node.setups_mut() = setups;
                }
            }
        }
    }

    fn sum(&self, node: usize, into: &mut Upstream) {
        let Some(node) = self.nodes.get(node) else { return };
        for slot in node.slots().filter_map(|at| self.tis.get(at)) {
            match slot.ti.state {
                TaskInstanceState::Removed => continue,
                state => {
                    if let Some(count) = into.counter(state) {
                        *count += 1;
                    }
                }
            }
            into.total += 1;
        }
    }

    /// How many instances of a branch's node chose others than this task.
    fn refusals(&self, node: usize, task: TaskIndex) -> u32 {
        let Some(node) = self.nodes.get(node) else { return 0 };
        if self.dag.task(node.task).is_none_or(|task| task.kind == TaskKind::Plain) {
            return 0;
        }
        let refuses = |at: &usize| {
            let facts = self.tis.get(*at).and_then(|slot| exclusion(&slot.ti));
            let chosen = facts.as_ref().and_then(|facts| facts.chosen.as_deref());
            chosen.is_some_and(|chosen| self.not_chosen_by(node.task, chosen).contains(&task))
        };
        number(node.slots().filter(refuses).count())
    }

    /// How many loops that may still go on lie between a scope's instance and the instances of `of` that are seen from it: what
    /// follows waits for each.
    pub(super) fn loops_between(&self, scope: u32, of: TaskIndex) -> u32 {
        let scopes = self.dag.scopes();
        let Some(to) = self.scope(scope).map(|scope| scope.def) else {
            return 0;
        };
        let from = scopes.of_task(of).0;
        let common = scopes.common(to, from);
        let Some(outer) = self.around(scope, common) else {
            return 0;
        };
        let mut looping = 0;
        for step in scopes.path(common, from) {
            let Some(def) = scopes.get(step).filter(|def| def.is_loop) else {
                continue;
            };
            for around in self.within(outer, def.parent) {
                let fan = self.fan_in(around, step).and_then(|fan| self.fan(fan));
                looping += u32::from(fan.is_some_and(|fan| fan.looping));
            }
        }
        looping
    }

    /// Lets the nodes that were there before know of new task instances and loops: of the nodes from `first` and the fans from
    /// `first_fan` on, but not to those nodes.
    fn announce(&mut self, first: usize, first_fan: usize) {
        let dag = Arc::clone(&self.dag);
        for at in first..self.nodes.len() {
            let Some(node) = self.nodes.get(at) else { return };
            let (task, scope, count) = (node.task, node.scope, node.len());
            self.expect(&dag, task, scope, count, Some(first));
        }
        for at in first_fan..self.fans.len() {
            let Some(fan) = self.fans.get(at).filter(|fan| fan.looping) else {
                continue;
            };
            for follower in self.followers_of_scope(fan.def, fan.scope) {
                if let Some(node) = self.nodes.get_mut(follower).filter(|_| follower < first) {
                    node.upstream.total += 1;
                }
            }
        }
    }

    /// The followers of a task see `count` more instances of it.
    fn expect(&mut self, dag: &crate::Dag, task: TaskIndex, scope: u32, count: u32, before: Option<usize>) {
        let old = |at: &usize| before.is_none_or(|before| *at < before);
        for follower in dag.awaiting(task) {
            for met in self.met(scope, task, *follower).iter().filter(old) {
                if let Some(node) = self.nodes.get_mut(met) {
                    node.upstream.total += count;
                }
            }
        }
        for watcher in dag.setup_watchers(task) {
            for met in self.met(scope, task, *watcher).iter().filter(old) {
                if let Some(node) = self.nodes.get_mut(met) {
                    node.setups_mut().total += count;
                }
            }
        }
    }

    /// Brings a task's own mapping to `length` instances. Answers the task instances that are one too many.
    pub(super) fn expand_node(&mut self, at: u32, length: u32) -> Vec<usize> {
        let Some(node) = self.nodes.get_mut(at as usize) else {
            return Vec::new();
        };
        let was_open = std::mem::take(&mut node.phase) == Phase::Open;
        let node = node.clone();
        if was_open {
            self.renumber(&node);
        }
        let have = node.len();
        if length > have {
            self.push_tis(at, length - have);
            let dag = Arc::clone(&self.dag);
            self.expect(&dag, node.task, node.scope, length - have, None);
        }
        node.slots().skip(length as usize).collect()
    }

    /// Brings the mapping of a group to `length` instances. Answers the task instances that are too many.
    pub(super) fn expand_fan(&mut self, at: u32, length: u32) -> Vec<usize> {
        let Some(fan) = self.fans.get_mut(at as usize) else {
            return Vec::new();
        };
        let was_open = std::mem::take(&mut fan.phase) == Phase::Open;
        let (def, children) = (fan.def, Arc::clone(&fan.children));
        let first = children.first().copied();
        if was_open && let Some(first) = first {
            if let Some(scope) = self.scopes.get_mut(first as usize) {
                scope.position = Some(0);
            }
            for node in self.nodes_inside(first) {
                if let Some(node) = self.nodes.get(node).cloned() {
                    self.renumber(&node);
                }
            }
        }
        let (first_new, first_fan) = (self.nodes.len(), self.fans.len());
        for position in number(children.len())..length {
            self.create_scope(at, def, Some(position));
        }
        self.tally(first_new);
        self.announce(first_new, first_fan);
        let surplus = children.iter().skip(length as usize);
        surplus
            .flat_map(|scope| self.nodes_inside(*scope))
            .filter_map(|node| self.nodes.get(node))
            .flat_map(Node::slots)
            .collect()
    }

    /// The next iteration of a loop. Answers its scope.
    pub(super) fn add_iteration(&mut self, at: u32) -> Option<u32> {
        let fan = self.fans.get_mut(at as usize)?;
        fan.last += 1;
        let (def, last) = (fan.def, fan.last);
        if let Some(known) = fan.children.get(last as usize) {
            return Some(*known);
        }
        let (first_new, first_fan) = (self.nodes.len(), self.fans.len());
        let scope = self.create_scope(at, def, Some(last));
        self.tally(first_new);
        self.announce(first_new, first_fan);
        Some(scope)
    }

    fn renumber(&mut self, node: &Node) {
        for (item, at) in (0..).zip(node.slots()) {
            let Some(from) = self.tis.get(at).map(|slot| slot.map_index) else {
                continue;
            };
            let to = self.map_index(node, item);
            if from != to {
                self.tis.renumber(at, to);
                self.renumbered.push((node.task, from, to));
            }
        }
    }

    /// The mappings that a task feeds are made anew when its answer is.
    pub(super) fn mark_stale(&mut self, task: TaskIndex, scope: u32) {
        let dag = Arc::clone(&self.dag);
        for fed in dag.fed_by(task) {
            match fed {
                crate::dag::Fed::Task(mapped) => {
                    for at in self.met(scope, task, *mapped).iter() {
                        if let Some(node) = self.nodes.get_mut(at).filter(|node| node.phase == Phase::Settled) {
                            node.phase = Phase::Stale;
                        }
                    }
                }
                crate::dag::Fed::Scope(def) => {
                    for fan in self.fans_met(scope, task, *def) {
                        if let Some(fan) = self
                            .fans
                            .get_mut(fan as usize)
                            .filter(|fan| fan.phase == Phase::Settled)
                        {
                            fan.phase = Phase::Stale;
                        }
                    }
                }
            }
        }
    }

    /// The fans of a scope that meet the instances of a task.
    pub(super) fn fans_met(&self, scope: u32, task: TaskIndex, def: u32) -> Vec<u32> {
        let scopes = self.dag.scopes();
        let Some(parent) = scopes.get(def).map(|def| def.parent) else {
            return Vec::new();
        };
        let common = scopes.common(scopes.of_task(task).0, parent);
        let outer = self.around(scope, common);
        let around = outer.into_iter().flat_map(|outer| self.within(outer, parent));
        around.filter_map(|scope| self.fan_in(scope, def)).collect()
    }

    /// Counts task instances that have (not) ended, at every instance of a scope around them.
    pub(super) fn count_unfinished(&mut self, scope: u32, by: i64) {
        let mut at = scope;
        while let Some(instance) = self.scopes.get_mut(at as usize) {
            instance.unfinished = u32::try_from(i64::from(instance.unfinished) + by).unwrap_or(0);
            let fan = instance.fan;
            let Some(fan) = self.fan(fan) else { return };
            at = fan.scope;
        }
    }
}

fn number(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// A map index that was replaced.
pub(super) type Renumbered = (TaskIndex, MapIndex, MapIndex);
