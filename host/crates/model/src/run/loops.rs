//! Loops: when an iteration is over, whether another one follows, and what waits for that.

use std::sync::Arc;

use super::scope::{Fan, NO_FAN, Phase};
use super::state::RunState;
use crate::dag::{Loop, Repeat};
use crate::state::TaskInstanceState;

impl RunState {
    /// Something in an instance of a scope ended, or begins anew: loops around it may be over, or go on after all.
    pub(super) fn reconsider_loops(&mut self, scope: u32) {
        let mut at = scope;
        while let Some(instance) = self.scope(at) {
            let fan = instance.fan;
            let Some(around) = self.fan(fan).map(|fan| fan.scope) else {
                return;
            };
            self.reconsider(fan);
            at = around;
        }
    }

    pub(super) fn reconsider(&mut self, at: u32) {
        let Some(fan) = self.fan(at) else { return };
        let Some(repeat) = self.loop_of(fan.def) else { return };
        let over = self.is_over(fan);
        let goes_on = !over || self.wants_another(at, repeat);
        let (def, scope, looping) = (fan.def, fan.scope, fan.looping);
        if over && goes_on {
            self.due_loops.push(at);
        }
        if goes_on == looping {
            return;
        }
        if let Some(fan) = self.fans.get_mut(at as usize) {
            fan.looping = goes_on;
        }
        for node in self.followers_of_scope(def, scope) {
            if let Some(counted) = self.nodes.get_mut(node) {
                let total = counted.upstream.total;
                counted.upstream.total = if goes_on { total + 1 } else { total.saturating_sub(1) };
            }
            if goes_on {
                self.mark_mappings_stale(node, scope);
            } else {
                self.woken.push(node);
            }
        }
    }

    /// A loop that was over goes on: what was mapped over its last iteration is looked at again when it is over for good. So are
    /// the mapped groups around the node, as far as they lie in `within`.
    fn mark_mappings_stale(&mut self, node: usize, within: u32) {
        let Some(node) = self.nodes.get_mut(node) else { return };
        if self.dag.task(node.task).is_some_and(|task| task.expand.is_some()) && node.phase == Phase::Settled {
            node.phase = Phase::Stale;
        }
        let mut at = node.scope;
        let shared = self.scopes_around(within);
        while !shared.contains(&at)
            && let Some(fan) = self.scopes.get(at as usize).map(|instance| instance.fan)
            && let Some(fan) = self.fans.get_mut(fan as usize)
        {
            if self.dag.mapping(fan.def).is_some() && fan.phase == Phase::Settled {
                fan.phase = Phase::Stale;
            }
            at = fan.scope;
        }
    }

    /// An instance of a scope, and those around it.
    fn scopes_around(&self, scope: u32) -> Vec<u32> {
        let around = |at: &u32| {
            self.scope(*at)
                .and_then(|scope| self.fan(scope.fan))
                .map(|fan| fan.scope)
        };
        std::iter::successors(Some(scope), around).collect()
    }

    /// Whether the iteration that a loop is in has ended: everything in it, and no loop inside has an iteration that is due.
    fn is_over(&self, fan: &Fan) -> bool {
        let last = fan.children.get(fan.last as usize);
        last.is_some_and(|last| self.scope(*last).is_some_and(|scope| scope.unfinished == 0) && !self.has_due(*last))
    }

    /// Whether a loop inside an instance of a scope has an iteration that is due.
    fn has_due(&self, scope: u32) -> bool {
        let Some(instance) = self.scope(scope) else {
            return false;
        };
        let inner = self.dag.scopes().get(instance.def).map_or(0, |def| def.children.len());
        let fans = (0..inner).filter_map(|at| Some(instance.first_fan + u32::try_from(at).ok()?));
        fans.filter_map(|at| Some((at, self.fan(at)?))).any(|(at, fan)| {
            let is_due = self.loop_of(fan.def).is_some() && self.iteration_is_due(at);
            is_due || fan.children.iter().any(|child| self.has_due(*child))
        })
    }

    fn loop_of(&self, def: u32) -> Option<&Loop> {
        match self.dag.repeat(def)? {
            Repeat::Loop(repeated) => Some(repeated),
            Repeat::Mapped(_) => None,
        }
    }

    /// Whether the last iteration, which is over, asks for another: its deciding task succeeded and said no, and there may be
    /// more. A failure ends the loop.
    fn wants_another(&self, at: u32, repeat: &Loop) -> bool {
        let Some(fan) = self.fan(at) else { return false };
        if fan.last + 1 >= repeat.max {
            return false;
        }
        let Some(node) = fan
            .children
            .get(fan.last as usize)
            .and_then(|scope| self.node_in(*scope, repeat.until))
            .and_then(|node| self.nodes.get(node))
        else {
            return false;
        };
        node.slot(0).and_then(|at| self.tis.get(at)).is_some_and(|slot| {
            let facts = slot.ti.facts.as_ref();
            let measured = facts.and_then(|facts| facts.measured.get(repeat.measure as usize));
            slot.ti.state == TaskInstanceState::Success && measured == Some(&0)
        })
    }

    /// The task instance that decides whether a loop goes on, in the iteration that it is in.
    pub(super) fn deciding_slot(&self, at: u32) -> Option<usize> {
        let fan = self.fan(at)?;
        let until = self.loop_of(fan.def)?.until;
        let scope = fan.children.get(fan.last as usize)?;
        self.nodes.get(self.node_in(*scope, until)?)?.slot(0)
    }

    /// Whether a loop's next iteration is due.
    pub(super) fn iteration_is_due(&self, at: u32) -> bool {
        let Some(fan) = self.fan(at) else { return false };
        let over = fan
            .children
            .get(fan.last as usize)
            .and_then(|scope| self.scope(*scope))
            .is_some_and(|scope| scope.unfinished == 0);
        over && self
            .loop_of(fan.def)
            .is_some_and(|repeat| self.wants_another(at, repeat))
    }

    /// The nodes outside of a scope that follow tasks inside it, once for each edge.
    pub(super) fn followers_of_scope(&self, def: u32, around: u32) -> Vec<usize> {
        let dag = Arc::clone(&self.dag);
        let scopes = dag.scopes();
        let mut found = Vec::new();
        let mut open = vec![def];
        while let Some(at) = open.pop() {
            let Some(inner) = scopes.get(at) else { continue };
            open.extend(&inner.children);
            for follower in inner.tasks.iter().flat_map(|task| dag.awaiting(*task)) {
                let to = scopes.of_task(*follower).0;
                let common = scopes.common(def, to);
                if common == def {
                    continue;
                }
                let Some(outer) = self.around(around, common) else {
                    continue;
                };
                found.extend(
                    self.within(outer, to)
                        .into_iter()
                        .filter_map(|scope| self.node_in(scope, *follower)),
                );
            }
        }
        found
    }

    /// The nodes of an iteration that begins (again): its loops inside begin with their first iterations.
    pub(super) fn begin_again(&mut self, scope: u32) -> Vec<usize> {
        let mut nodes = Vec::new();
        let mut open = vec![scope];
        while let Some(at) = open.pop() {
            let Some(instance) = self.scope(at).cloned() else {
                continue;
            };
            let Some((tasks, inner)) = self
                .dag
                .scopes()
                .get(instance.def)
                .map(|def| (def.tasks.len(), def.children.len()))
            else {
                continue;
            };
            let first = instance.first_node as usize;
            nodes.extend(first..first + tasks);
            for fan in (0..inner).map(|at| instance.first_fan as usize + at) {
                let Some(fan) = self.fans.get_mut(fan) else { continue };
                let is_loop = self.dag.scopes().get(fan.def).is_some_and(|def| def.is_loop);
                if is_loop {
                    fan.last = 0;
                    open.extend(fan.children.first());
                } else {
                    open.extend(fan.children.iter());
                }
            }
        }
        nodes
    }

    /// Whether a scope's instance lies in an iteration that was taken back: an earlier one is run again.
    pub(super) fn is_taken_back(&self, scope: u32) -> bool {
        let mut at = scope;
        while let Some(instance) = self.scope(at)
            && let Some(fan) = self.fan(instance.fan)
        {
            let later = |position: u32| position > fan.last;
            if self.loop_of(fan.def).is_some() && instance.position.is_some_and(later) {
                return true;
            }
            at = fan.scope;
        }
        false
    }

    /// The loops around a task instance with the iteration that it lies in, where later ones exist.
    pub(super) fn later_iterations(&self, scope: u32) -> Vec<(u32, u32)> {
        let mut found = Vec::new();
        let mut at = scope;
        while let Some(instance) = self.scope(at)
            && instance.fan != NO_FAN
            && let Some(fan) = self.fan(instance.fan)
        {
            if self.loop_of(fan.def).is_some()
                && let Some(position) = instance.position.filter(|position| *position < fan.last)
            {
                found.push((instance.fan, position));
            }
            at = fan.scope;
        }
        found
    }
}
