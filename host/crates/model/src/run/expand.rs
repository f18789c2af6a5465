//! When a mapping is expanded, and when a loop goes round: the rule of a task lets it run, so it must be known how many there are.
//!
//! Airflow: `DagRun.task_instance_scheduling_decisions` expands a mapped task when its dependencies are met
//! (`_expand_mapped_task_if_needed`), and looks at the number again before a cleared one runs (`_revise_map_indexes_if_mapped`).

use super::advance::{Look, Step};
use super::lengths::Length;
use super::room::TooMany;
use super::scope::Phase;
use super::state::RunState;
use super::transition::Transition;
use crate::cause::Cause;
use crate::dag::{Expansion, Task};
use crate::state::TaskInstanceState;
use crate::trigger_rule::Decision;

/// What became of a node whose rule lets it run.
pub(super) enum Expanded {
    /// Nothing is left to expand.
    Settled,
    /// There are others now than there were: look again.
    Grown,
    /// What it is mapped over is being made anew: its instances have no elements until that is done.
    Pending,
    /// It cannot be expanded.
    Never(Decision),
    /// There would be more than may be.
    TooMany,
}

pub(super) enum Want {
    Instances(u32),
    Never(Decision),
    TooMany(TooMany),
}

impl Step<'_> {
    /// Expands what is mapped around a node, then the node's own mapping.
    pub(super) fn expand(&mut self, at: usize, task: &Task) -> Expanded {
        let Some(node) = self.run.nodes.get(at) else {
            return Expanded::Settled;
        };
        let (scope, phase, have) = (node.scope, node.phase, node.len());
        if let Some(fan) = self.run.unsettled_fan(scope) {
            return self.expand_group(fan);
        }
        let (Some(own), true) = (&task.expand, phase != Phase::Settled) else {
            return Expanded::Settled;
        };
        let number = u32::try_from(at).unwrap_or(u32::MAX);
        match self.run.want_node(own, scope, have) {
            // What is there already goes on as it is until more is known.
            Want::Never(_) if phase == Phase::Stale && self.is_being_made(own, scope) => Expanded::Pending,
            Want::Never(_) if phase == Phase::Stale => Expanded::Settled,
            Want::Never(decision) => Expanded::Never(decision),
            Want::TooMany(_) => Expanded::TooMany,
            // Nothing to do is not an instance: it is skipped as it is (Airflow).
            Want::Instances(0) if phase == Phase::Open => Expanded::Never(Decision::Skip),
            Want::Instances(length) => {
                let first_new = self.run.tis.len();
                let so_far = self.grow_to(have, length, 1);
                let surplus = self.run.expand_node(number, so_far);
                if so_far < length
                    && let Some(node) = self.run.nodes.get_mut(at)
                {
                    node.phase = Phase::Stale;
                }
                self.grown(first_new, surplus);
                self.last_is_due(first_new);
                if phase == Phase::Stale {
                    self.renew_node(at, length);
                }
                self.run.reconsider_loops(scope);
                Expanded::Grown
            }
        }
    }

    /// The number of instances that there are after this step, where there have to be `length` and are `have`: all, unless they are more than a step
    /// may make. Until all are there, none of them is let run.
    fn grow_to(&self, have: u32, length: u32, each: u64) -> u32 {
        let most = u64::try_from(self.left()).unwrap_or(u64::MAX) / each.max(1);
        let most = u32::try_from(most).unwrap_or(u32::MAX).max(1);
        length.min(have.saturating_add(most))
    }

    /// Whether a mapped group around a scope has to be looked at again.
    pub(super) fn has_stale_fan(&self, scope: u32) -> bool {
        let outer = |scope: &u32| self.run.scope(*scope).and_then(|scope| self.run.fan(scope.fan));
        let scopes = std::iter::successors(Some(scope), |scope| Some(outer(scope)?.scope));
        scopes
            .into_iter()
            .filter_map(|scope| outer(&scope))
            .any(|fan| fan.phase == Phase::Stale)
    }

    fn expand_group(&mut self, at: u32) -> Expanded {
        let Some(fan) = self.run.fan(at) else {
            return Expanded::Settled;
        };
        let (phase, scope, def) = (fan.phase, fan.scope, fan.def);
        let have = u32::try_from(fan.children.len()).unwrap_or(u32::MAX);
        let Some(want) = self.run.want_fan(at) else {
            return Expanded::Settled;
        };
        match want {
            Want::Never(_)
                if phase == Phase::Stale
                    && self
                        .run
                        .dag
                        .mapping(def)
                        .is_some_and(|mapping| self.is_being_made(mapping, scope)) =>
            {
                Expanded::Pending
            }
            Want::Never(_) if phase == Phase::Stale => Expanded::Settled,
            Want::Never(decision) => Expanded::Never(decision),
            Want::TooMany(_) => Expanded::TooMany,
            Want::Instances(0) if phase == Phase::Open => Expanded::Never(Decision::Skip),
            Want::Instances(length) => {
                let (first_new, first_node) = (self.run.tis.len(), self.run.nodes.len());
                let so_far = self.grow_to(have, length, self.run.instances_in(def));
                let surplus = self.run.expand_fan(at, so_far);
                if so_far < length
                    && let Some(fan) = self.run.fans.get_mut(at as usize)
                {
                    fan.phase = Phase::Stale;
                }
                self.grown(first_new, surplus);
                self.last_is_due(first_new);
                if phase == Phase::Stale {
                    self.renew_fan(at, length);
                }
                self.run.reconsider_loops(scope);
                self.to_evaluate
                    .extend((first_node..self.run.nodes.len()).map(Look::Node));
                Expanded::Grown
            }
        }
    }

    /// Reports task instances that are new, were renumbered, or are one too many.
    fn grown(&mut self, first_new: usize, surplus: Vec<usize>) {
        for (task, from, to) in std::mem::take(&mut self.run.renumbered) {
            self.transitions.push(Transition::Renumbered { task, from, to });
        }
        for at in first_new..self.run.tis.len() {
            let Some(slot) = self.run.tis.get(at) else { continue };
            self.transitions.push(Transition::TaskInstance {
                task: slot.task,
                map_index: slot.map_index,
                from: TaskInstanceState::NoStatus,
                to: slot.ti.state,
            });
        }
        for at in surplus {
            if self.state_at(at) != Some(TaskInstanceState::Removed) {
                self.stop(at, TaskInstanceState::Removed, Some(Cause::Cancelled));
            }
        }
    }

    /// The last row of an expansion tells a run that is taken over how many there are: it is written with the tick.
    fn last_is_due(&mut self, first_new: usize) {
        let last = self.run.tis.len().checked_sub(1).filter(|last| *last >= first_new);
        if let Some(slot) = last.and_then(|last| self.run.tis.get(last)) {
            self.transitions.push(Transition::RowDue {
                task: slot.task,
                map_index: slot.map_index,
            });
        }
    }

    /// Begins the next iteration of a loop.
    pub(super) fn iterate(&mut self, fan: u32) {
        let more = self.run.fan(fan).map_or(0, |fan| self.run.instances_in(fan.def));
        if !self.run.has_room_for(more) {
            return self.end_loop(fan);
        }
        let first_new = self.run.tis.len();
        let Some(scope) = self.run.add_iteration(fan) else {
            return;
        };
        self.grown(first_new, Vec::new());
        let nodes = self.run.begin_again(scope);
        for node in &nodes {
            let slots: Vec<usize> = self
                .run
                .nodes
                .get(*node)
                .into_iter()
                .flat_map(|node| node.slots())
                .collect();
            for at in slots {
                // An iteration that was cleared away before comes again.
                if self.state_at(at) == Some(TaskInstanceState::Removed) {
                    self.reset(at);
                }
            }
        }
        self.to_evaluate.extend(nodes.into_iter().map(Look::Node));
    }

    /// There is no room for another iteration: what asks for one has failed, which ends the loop.
    fn end_loop(&mut self, fan: u32) {
        if let Some(at) = self.run.deciding_slot(fan) {
            self.fail_for_room(at);
        }
    }

    /// What is mapped, or repeated, would be more than may be.
    pub(super) fn fail_for_room(&mut self, at: usize) {
        self.run.edit(at, |ti| ti.cause = Some(Cause::InputInvalid));
        self.stop(at, TaskInstanceState::Failed, Some(Cause::InputInvalid));
    }

    /// What comes after an iteration that is run again is not there any more.
    pub(super) fn drop_later_iterations(&mut self, at: usize) {
        let Some((_, scope)) = self.run.node_of(at) else { return };
        for (fan, position) in self.run.later_iterations(scope) {
            let Some(children) = self.run.fan(fan).map(|fan| std::sync::Arc::clone(&fan.children)) else {
                continue;
            };
            if let Some(fan) = self.run.fans.get_mut(fan as usize) {
                fan.last = position;
            }
            for later in children.iter().skip(position as usize + 1) {
                for node in self.run.nodes_inside(*later) {
                    let slots: Vec<usize> = self
                        .run
                        .nodes
                        .get(node)
                        .into_iter()
                        .flat_map(|node| node.slots())
                        .collect();
                    for slot in slots {
                        if self.state_at(slot) != Some(TaskInstanceState::Removed) {
                            self.stop(slot, TaskInstanceState::Removed, Some(Cause::Cancelled));
                        }
                    }
                }
            }
            self.run.reconsider(fan);
        }
    }
}

impl RunState {
    /// The outermost mapped group around a scope that is not expanded, or has to be looked at again.
    pub(super) fn unsettled_fan(&self, scope: u32) -> Option<u32> {
        let mut found = None;
        let mut at = scope;
        while let Some(fan) = self.scope(at).and_then(|scope| self.fan(scope.fan)) {
            if fan.phase != Phase::Settled {
                found = self.scope(at).map(|scope| scope.fan);
            }
            at = fan.scope;
        }
        found
    }

    /// The number of instances of a task that is mapped by itself that there have to be.
    pub(super) fn want_node(&self, mapping: &Expansion, scope: u32, have: u32) -> Want {
        self.want(mapping, scope, |length| u64::from(length.saturating_sub(have)))
    }

    /// The number of elements a mapped group has to have.
    pub(super) fn want_fan(&self, at: u32) -> Option<Want> {
        let fan = self.fan(at)?;
        let mapping = self.dag.mapping(fan.def)?;
        Some(self.want(mapping, fan.scope, |length| self.more_in_fan(at, length)))
    }

    fn want(&self, mapping: &Expansion, scope: u32, more: impl Fn(u32) -> u64) -> Want {
        match self.source_lengths(mapping, scope) {
            Length::Known(lengths) => {
                let length = mapping.combine(&lengths);
                let fits = u32::try_from(length).unwrap_or(u32::MAX);
                match self.judge(length, mapping.limit, more(fits)) {
                    Some(why) => Want::TooMany(why),
                    None => Want::Instances(fits),
                }
            }
            // Its rule let it go before there was anything to map over.
            Length::Pending | Length::Failed => Want::Never(Decision::UpstreamFailed),
            Length::Skipped => Want::Never(Decision::Skip),
        }
    }
}
