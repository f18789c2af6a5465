//! What is mapped over something that is made anew: whoever has had a try of an element that is not there any more begins with the new one.
//!
//! The run knows no values, so it cannot tell an element that happens to be the same from another one: all that waits begins afresh, with all
//! its tries and without its checkpoint. What has ended stays, and so does what runs; its failure says nothing about the new element.

use std::sync::Arc;

use super::advance::{Look, Step};
use super::scope::{Node, Phase};
use crate::cause::Cause;
use crate::dag::{Expansion, Fed, MapValues};
use crate::state::TaskInstanceState;

impl Step<'_> {
    /// The instances of a task's own mapping have new elements: the first `length` of them, as the others are gone.
    pub(super) fn renew_node(&mut self, node: usize, length: u32) {
        let slots = self.run.nodes.get(node).into_iter().flat_map(Node::slots);
        let slots: Vec<usize> = slots.take(length as usize).collect();
        self.renew(slots);
    }

    /// The same for the first `length` elements of a mapped group.
    pub(super) fn renew_fan(&mut self, fan: u32, length: u32) {
        let children = self.run.fan(fan).map(|fan| Arc::clone(&fan.children));
        let children = children.iter().flat_map(|children| children.iter());
        let nodes = children
            .take(length as usize)
            .flat_map(|scope| self.run.nodes_inside(*scope));
        let slots: Vec<usize> = nodes
            .filter_map(|node| self.run.nodes.get(node))
            .flat_map(Node::slots)
            .collect();
        self.renew(slots);
    }

    /// Whether one of the tasks whose lists a mapping takes has not ended. Whoever waits for that is looked at when it has, see
    /// [`Self::wake_fed`].
    pub(super) fn is_being_made(&self, mapping: &Expansion, scope: u32) -> bool {
        mapping.sources.iter().any(|source| match &source.values {
            MapValues::Xcom { task, .. } => self.run.has_unfinished_source(*task, scope),
            _ => false,
        })
    }

    /// The end of a task whose list is made anew lets those go on that wait for their elements of it.
    pub(super) fn wake_fed(&mut self, at: usize) {
        let Some((task, scope)) = self.run.node_of(at) else {
            return;
        };
        let dag = Arc::clone(&self.run.dag);
        for fed in dag.fed_by(task) {
            // A mapped task follows its source, and is looked at because of that.
            let Fed::Scope(def) = fed else { continue };
            for fan in self.run.fans_met(scope, task, *def) {
                let Some(fan) = self.run.fan(fan).filter(|fan| fan.phase == Phase::Stale) else {
                    continue;
                };
                let nodes = fan.children.iter().flat_map(|child| self.run.nodes_inside(*child));
                let waits = |node: &usize| self.run.nodes.get(*node).is_some_and(|node| node.waiting > 0);
                self.to_evaluate.extend(nodes.filter(waits).map(Look::Node));
            }
        }
    }

    fn renew(&mut self, slots: Vec<usize>) {
        use TaskInstanceState::{AwaitingInput, Deferred, Queued, Running, Scheduled, UpForReschedule, UpForRetry};
        for at in slots {
            let Some(ti) = self.run.tis.get(at).map(|slot| &slot.ti) else {
                continue;
            };
            match ti.state {
                UpForRetry | UpForReschedule => self.start_afresh(at),
                Scheduled if ti.try_number.0 > 0 => self.start_afresh(at),
                Queued | Running | Deferred | AwaitingInput => {
                    self.change(at, |ti| ti.remember(|facts| facts.outlived = true));
                }
                _ => {}
            }
        }
    }

    /// Ends the try, if one is open, and begins from nothing.
    pub(super) fn start_afresh(&mut self, at: usize) {
        if self.run.tis.get(at).is_some_and(|slot| slot.ti.try_is_open()) {
            self.stop(at, TaskInstanceState::Failed, Some(Cause::Cancelled));
        }
        self.reset(at);
        self.evaluate_later(at);
    }
}
