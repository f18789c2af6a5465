//! Readiness: trigger rules, what branches skip, and when the run is over.

use std::sync::Arc;

use super::advance::{Look, Step};
use super::expand::Expanded;
use super::scope::{Node, Phase};
use crate::callback::RunEndReason;
use crate::dag::{MapSource, MapValues, Task, TaskKind};
use crate::id::TaskIndex;
use crate::state::{DagRunState, TaskInstanceState};
use crate::trigger_rule::{Decision, TriggerRule};

impl Step<'_> {
    /// The run has a slot. Retries and pokes that fell due while it was queued happen too.
    pub(super) fn start(&mut self) {
        if self.run.state != DagRunState::Queued {
            return;
        }
        self.change_run(DagRunState::Running);
        self.fall_due();
        self.evaluate_all();
    }

    pub(super) fn evaluate_all(&mut self) {
        self.to_evaluate.clear();
        self.run.later.all();
        let fans = u32::try_from(self.run.fans.len()).unwrap_or(u32::MAX);
        self.run.due_loops = (0..fans).filter(|fan| self.run.iteration_is_due(*fan)).collect();
    }

    /// Follows up all changes until nothing moves any more, then looks whether the run is over.
    pub(super) fn settle(&mut self) {
        if self.run.state != DagRunState::Running {
            self.run.due_loops.clear();
            self.run.later.clear();
            self.run.timing_out = false;
            return;
        }
        if self.run.timing_out {
            return self.skip_unfinished();
        }
        if self.run.held {
            // All is looked at when it goes on.
            self.run.due_loops.clear();
            self.run.later.clear();
            return;
        }
        loop {
            while let Some(look) = self.next_look() {
                self.looks += 1;
                self.evaluate(look);
                if self.is_spent() {
                    return self.leave_the_rest();
                }
            }
            let Some(due) = self.run.due_loops.pop() else { break };
            if self.run.iteration_is_due(due) {
                self.iterate(due);
            }
        }
        self.finish_run();
    }

    fn next_look(&mut self) -> Option<Look> {
        let nodes = self.run.nodes.len();
        self.run.later.pop(nodes).or_else(|| self.to_evaluate.pop_front())
    }

    /// What is still to be looked at is, in the next step.
    fn leave_the_rest(&mut self) {
        self.run.later.extend(&mut self.to_evaluate);
        if self.run.later.is_empty() && self.run.due_loops.is_empty() {
            self.finish_run();
        }
    }

    fn evaluate(&mut self, look: Look) {
        let at = match look {
            Look::Node(at) | Look::Rest(at, _) => at,
            Look::Slot(slot) => match self.run.tis.get(slot) {
                Some(slot) => slot.node as usize,
                None => return,
            },
        };
        let (Some(node), dag) = (self.run.nodes.get(at), Arc::clone(&self.run.dag)) else {
            return;
        };
        // What is mapped over something that was made anew may get more instances, though none of them waits.
        let is_stale = node.phase == Phase::Stale || (node.scope != 0 && self.has_stale_fan(node.scope));
        let Some(task) = dag.task(node.task).filter(|_| node.waiting > 0 || is_stale) else {
            return;
        };
        if node.scope != 0 && self.run.is_taken_back(node.scope) {
            return;
        }
        let mut decision = decide(task, node);
        if decision == Decision::Run && task.past.matters() && !self.run.past_is_met(node.task) {
            decision = Decision::Wait;
        }
        let mut too_many = false;
        if decision == Decision::Run {
            decision = match self.expand(at, task) {
                Expanded::Settled => Decision::Run,
                Expanded::Pending => Decision::Wait,
                Expanded::Grown => return self.to_evaluate.push_back(Look::Node(at)),
                Expanded::Never(decision) => decision,
                Expanded::TooMany => {
                    too_many = true;
                    decision
                }
            };
        }
        if decision == Decision::Wait {
            return;
        }
        let now = self.now;
        let (slots, rest) = self.waiting_slots(at, look);
        self.to_evaluate.extend(rest);
        for slot in slots {
            match decision {
                _ if too_many => self.fail_for_room(slot),
                Decision::Wait => {}
                Decision::Run => self.change(slot, |ti| {
                    ti.state = TaskInstanceState::Scheduled;
                    ti.scheduled_at = Some(now);
                }),
                Decision::Skip => self.stop(slot, TaskInstanceState::Skipped, None),
                Decision::UpstreamFailed => self.stop(slot, TaskInstanceState::UpstreamFailed, None),
            }
        }
    }

    /// Those of a node that wait, as many as the step may still change, and what is left to look at then.
    fn waiting_slots(&self, node: usize, look: Look) -> (Vec<usize>, Option<Look>) {
        let waits = |at: &usize| self.run.tis.get(*at).is_some_and(|slot| slot.ti.waits_for_rule());
        let first = match look {
            Look::Slot(at) => return (Some(at).filter(waits).into_iter().collect(), None),
            Look::Node(_) => 0,
            Look::Rest(_, first) => first,
        };
        let slots = self.run.nodes.get(node).into_iter().flat_map(Node::slots);
        let mut waiting = slots.zip(0..).skip(first as usize).filter(|(at, _)| waits(at));
        let found = waiting.by_ref().take(self.left()).map(|(at, _)| at).collect();
        let rest = waiting.next().map(|(_, item)| Look::Rest(node, item));
        (found, rest)
    }

    /// What a branch or a short-circuit decides is carried out at once, whatever the rules of the skipped tasks say and whatever
    /// they wait for; even one that could not run because of a failure becomes skipped. What was executed to its end stays as it is
    /// (Airflow would overwrite it). In a repeated group it concerns the element or iteration that decided, and nothing outside.
    ///
    /// Airflow: `SkipMixin` and the Execution API's `skip-downstream`.
    pub(super) fn skip_not_chosen(&mut self, branch: usize, chosen: &[u32]) {
        let dag = Arc::clone(&self.run.dag);
        let Some((index, _)) = self.run.node_of(branch) else {
            return;
        };
        let Some(task) = dag.task(index) else { return };
        let everything = TaskKind::ShortCircuit {
            ignore_downstream_trigger_rules: true,
        };
        let skipped = if task.kind == everything {
            let work = |at: &TaskIndex| {
                let is_met = |of: &Task| !of.is_teardown() && reached(of, *at, task);
                dag.scopes().is_within(*at, index) && dag.task(*at).is_some_and(is_met)
            };
            dag.descendants(&[index]).into_iter().filter(work).collect()
        } else {
            self.run.not_chosen_by(index, chosen)
        };
        for task in skipped {
            let met = self.run.met_by(branch, task);
            let nodes = met.iter().filter_map(|node| self.run.nodes.get(node));
            let slots: Vec<usize> = nodes.flat_map(Node::slots).collect();
            for at in slots {
                let gives_way =
                    |state: TaskInstanceState| !state.is_finished() || state == TaskInstanceState::UpstreamFailed;
                if self.state_at(at).is_some_and(gives_way) {
                    self.stop(at, TaskInstanceState::Skipped, None);
                }
            }
        }
    }

    /// Airflow: `DagRun.update_state`. The run ends when every task instance has; it failed if a leaf failed or could not run. A
    /// run in which nothing can move any more is deadlocked, and failed too.
    fn finish_run(&mut self) {
        let totals = &self.run.totals;
        if totals.unfinished == 0 {
            // A cancelled run failed, whatever its teardowns came to.
            let failed = totals.failed_leaves > 0 || totals.cancelled > 0;
            self.end_run(if failed {
                RunEndReason::TaskFailure
            } else {
                RunEndReason::Success
            });
        } else if totals.moving() == 0 && !self.run.waits_for_the_past() {
            self.end_run(RunEndReason::Deadlocked);
        }
    }
}

/// Whether a short-circuit that skips everything downstream reaches a task. Airflow skips by a query for rows that the unexpanded
/// names find; instances of a mapping over a literal have others, unless they follow directly.
fn reached(task: &Task, at: TaskIndex, circuit: &Task) -> bool {
    let literal = task.expand.as_ref().is_some_and(|expand| {
        let literal = |source: &MapSource| matches!(source.values, MapValues::Literal { .. });
        expand.sources.iter().all(literal)
    });
    !literal || circuit.downstream.binary_search(&at).is_ok()
}

/// What may happen to the task's instances that wait.
///
/// Airflow: `NotPreviouslySkippedDep`, then `TriggerRuleDep`: no upstream or `always` runs at once; a setup in whose scope the task
/// lies must have succeeded, and decides at once if it has not; then the rule.
fn decide(task: &Task, node: &Node) -> Decision {
    if node.not_chosen > 0 {
        return Decision::Skip;
    }
    if task.upstream.is_empty() || task.trigger_rule == TriggerRule::Always {
        return Decision::Run;
    }
    let setups = &node.setups();
    if task.is_teardown() {
        return task.trigger_rule.decide(&node.upstream, setups);
    }
    if setups.failed + setups.upstream_failed > 0 {
        return Decision::UpstreamFailed;
    }
    if setups.skipped > 0 {
        return Decision::Skip;
    }
    match task.trigger_rule.decide(&node.upstream, setups) {
        Decision::Run if setups.success < setups.total => Decision::Wait,
        decision => decision,
    }
}
