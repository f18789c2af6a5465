//! Taking a run over from its stored rows.

use std::sync::Arc;

use super::lengths::Length;
use super::scope::{Node, Phase};
use super::state::RunState;
use super::ti::Ti;
use crate::dag::{Dag, Expansion};
use crate::id::{DagRunKey, MapIndex, TaskIndex};
use crate::state::{DagRunState, TaskInstanceState};
use crate::time::Timestamp;

/// A run as it was stored.
#[derive(Clone, Debug)]
pub struct RunSnapshot {
    /// See [`RunState::run_after`].
    pub run_after: Timestamp,
    /// Its state.
    pub state: DagRunState,
    /// When it was queued last.
    pub queued_at: Timestamp,
    /// When it started.
    pub start_date: Option<Timestamp>,
    /// When it ended.
    pub end_date: Option<Timestamp>,
    /// How long the parameters are that are mapped over, see `Dag::mapped_params`.
    pub param_lengths: Vec<u32>,
    /// Its task instances. One that is missing is as in a new run; one of a task that the DAG version lacks is left out.
    pub task_instances: Vec<TiSnapshot>,
}

/// A task instance as it was stored.
#[derive(Clone, Debug)]
pub struct TiSnapshot {
    /// Its task.
    pub task: TaskIndex,
    /// Its map index.
    pub map_index: MapIndex,
    /// The rest.
    pub ti: Ti,
}

impl RunState {
    /// The run as it was when it was stored: every counter is made anew from the rows, and what the branches chose is applied.
    /// It goes on exactly as the stored one would have. Dispatches that were out are in [`Self::dispatched`], task instances that
    /// wait for capacity in [`Self::ready`].
    pub fn restore(key: DagRunKey, dag: Arc<Dag>, snapshot: RunSnapshot) -> Self {
        let mut run = Self::with_params(
            key,
            dag,
            snapshot.run_after,
            snapshot.queued_at,
            &snapshot.param_lengths,
        );
        run.state = snapshot.state;
        run.start_date = snapshot.start_date;
        run.end_date = snapshot.end_date;
        if !run.is_fixed() {
            // The highest first, so that each mapping grows once.
            let mut places: Vec<(TaskIndex, MapIndex)> = snapshot
                .task_instances
                .iter()
                .map(|ti| (ti.task, ti.map_index))
                .collect();
            places.sort_unstable_by_key(|(task, map_index)| std::cmp::Reverse((map_index.0, task.0)));
            for (task, map_index) in places {
                run.grow_to(task, map_index);
            }
        }
        for TiSnapshot { task, map_index, ti } in snapshot.task_instances {
            if let Some(at) = run.slot_of(task, map_index) {
                run.edit(at, |place| *place = ti);
            }
        }
        // Which iteration is the last decides what is mapped over; what is mapped decides whether an iteration is over.
        run.find_last_iterations();
        run.grow_to_lengths();
        for fan in 0..u32::try_from(run.fans.len()).unwrap_or(u32::MAX) {
            run.reconsider(fan);
        }
        run.woken.clear();
        run.due_loops.clear();
        run.renumbered.clear();
        run
    }

    /// Whether nothing in the run depends on how it went.
    fn is_fixed(&self) -> bool {
        self.dag.scopes().is_flat() && self.dag.tasks.iter().all(|task| task.expand.is_none())
    }

    /// Makes sure that a task instance which was stored is there.
    fn grow_to(&mut self, task: TaskIndex, map_index: MapIndex) {
        let dag = Arc::clone(&self.dag);
        let (Some(definition), scopes) = (dag.task(task), dag.scopes()) else {
            return;
        };
        if map_index.0 < 0 && definition.expand.is_none() && scopes.of_task(task).0 == crate::dag::ROOT {
            return;
        }
        let own = definition.expand.as_ref();
        let Some(positions) = scopes.positions(task, own, map_index) else {
            return;
        };
        // Of what is stored as not expanded it is known only that what has a position other than the first was.
        let sure = match map_index.0 {
            0.. => positions.len(),
            _ => positions
                .iter()
                .rposition(|position| *position > 0)
                .map_or(0, |last| last + 1),
        };
        let mut positions = positions.into_iter().take(sure);
        let mut scope = 0;
        for step in scopes.path(crate::dag::ROOT, scopes.of_task(task).0) {
            let (Some(fan), Some(position)) = (self.fan_in(scope, step), positions.next()) else {
                return;
            };
            let is_loop = scopes.get(step).is_some_and(|def| def.is_loop);
            while is_loop && self.fan(fan).is_some_and(|fan| fan.last < position) && self.has_room_for(1) {
                self.add_iteration(fan);
            }
            let have = self.fan(fan).map_or(0, |fan| fan.children.len());
            let open = self.fan(fan).is_some_and(|fan| fan.phase == Phase::Open);
            let limit = scopes.get(step).map_or(1, |def| def.limit);
            if !is_loop && (have <= position as usize || open) && position < limit && self.has_room_for(1) {
                self.expand_fan(fan, position + 1);
            }
            let Some(child) = self
                .fan(fan)
                .and_then(|fan| fan.children.get(position as usize).copied())
            else {
                return;
            };
            scope = child;
        }
        let (Some(item), Some(node)) = (positions.next(), self.node_in(scope, task)) else {
            return;
        };
        if map_index.0 >= 0
            && own.is_some_and(|own| item < own.limit)
            && self
                .nodes
                .get(node)
                .is_some_and(|node| node.len() <= item || node.phase == Phase::Open)
            && self.has_room_for(item.into())
        {
            self.expand_node(u32::try_from(node).unwrap_or(u32::MAX), item + 1);
        }
    }

    /// Of what was expanded some rows may not have been written: there are as many as what it is mapped over says. What that is made
    /// anew, or was before anything ran, is looked at again. Of a run that has ended all rows are there: what it does not have was never
    /// made, since what is mapped was skipped after its source had published something else.
    fn grow_to_lengths(&mut self) {
        if self.is_fixed() {
            return;
        }
        let ended = self.state.is_finished();
        let dag = Arc::clone(&self.dag);
        let mut at = 0;
        while let Some(fan) = self.fan(at) {
            let (scope, have, phase) = (fan.scope, fan.children.len(), fan.phase);
            if let Some(mapping) = dag.mapping(fan.def).filter(|_| phase == Phase::Settled) {
                let nodes = fan.children.iter().flat_map(|child| self.nodes_inside(*child));
                let waits = self.all_wait(nodes.collect());
                match self.wanted(mapping, scope) {
                    Some(length) if length as usize == have => {}
                    Some(length)
                        if length as usize > have
                            && !waits
                            && !ended
                            && self.has_room_for(self.more_in_fan(at, length)) =>
                    {
                        drop(self.expand_fan(at, length));
                    }
                    _ => {
                        if let Some(fan) = self.fans.get_mut(at as usize) {
                            fan.phase = Phase::Stale;
                        }
                    }
                }
            }
            at += 1;
        }
        let mut at = 0;
        while let Some(node) = self.node(at) {
            let (scope, have, phase) = (node.scope, node.len(), node.phase);
            let own = dag.task(node.task).and_then(|task| task.expand.as_ref());
            if let Some(own) = own.filter(|_| phase == Phase::Settled) {
                let waits = self.all_wait(vec![at as usize]);
                match self.wanted(own, scope) {
                    Some(length) if length == have => {}
                    Some(length)
                        if length > have && !waits && !ended && self.has_room_for(u64::from(length - have)) =>
                    {
                        drop(self.expand_node(at, length));
                    }
                    _ => {
                        if let Some(node) = self.nodes.get_mut(at as usize) {
                            node.phase = Phase::Stale;
                        }
                    }
                }
            }
            at += 1;
        }
    }

    /// Whether nothing of these nodes was let run yet.
    fn all_wait(&self, nodes: Vec<usize>) -> bool {
        let mut slots = nodes
            .into_iter()
            .filter_map(|node| self.nodes.get(node))
            .flat_map(Node::slots);
        slots.all(|slot| {
            self.tis
                .get(slot)
                .is_some_and(|slot| slot.ti.state == TaskInstanceState::NoStatus)
        })
    }

    /// Iterations that were cleared away are stored as removed: the loop is in the one before.
    fn find_last_iterations(&mut self) {
        for at in 0..u32::try_from(self.fans.len()).unwrap_or(u32::MAX) {
            let Some(fan) = self.fan(at).filter(|fan| fan.last > 0) else {
                continue;
            };
            let children = Arc::clone(&fan.children);
            let is_there = |scope: &u32| {
                let nodes = self.nodes_inside(*scope).into_iter();
                let mut slots = nodes.filter_map(|node| self.nodes.get(node)).flat_map(Node::slots);
                slots.any(|slot| {
                    let state = self.tis.get(slot).map(|slot| slot.ti.state);
                    state.is_some_and(|state| state != TaskInstanceState::Removed)
                })
            };
            let last = children.iter().rposition(is_there).unwrap_or(0);
            if let Some(fan) = self.fans.get_mut(at as usize) {
                fan.last = u32::try_from(last).unwrap_or(u32::MAX);
            }
            self.reconsider(at);
        }
    }

    fn wanted(&self, mapping: &Expansion, scope: u32) -> Option<u32> {
        let Length::Known(lengths) = self.source_lengths(mapping, scope) else {
            return None;
        };
        let length = u32::try_from(mapping.combine(&lengths)).ok()?;
        (length <= mapping.limit).then_some(length)
    }

    /// What `restore` takes.
    pub fn snapshot(&self) -> RunSnapshot {
        RunSnapshot {
            run_after: self.run_after,
            state: self.state,
            queued_at: self.queued_at,
            start_date: self.start_date,
            end_date: self.end_date,
            param_lengths: self.param_lengths.to_vec(),
            task_instances: self
                .tis()
                .map(|(task, map_index, ti)| TiSnapshot {
                    task,
                    map_index,
                    ti: ti.clone(),
                })
                .collect(),
        }
    }
}
