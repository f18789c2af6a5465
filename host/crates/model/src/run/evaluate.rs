//! Readiness: trigger rules, what branches skip, and when the run is over.

use super::advance::Step;
use super::state::Node;
use crate::dag::{Task, TaskKind};
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
        let tasks = u32::try_from(self.run.dag.tasks.len()).unwrap_or(u32::MAX);
        self.to_evaluate = (0..tasks).map(TaskIndex).collect();
    }

    /// Follows up all changes until nothing moves any more, then looks whether the run is over.
    pub(super) fn settle(&mut self) {
        if self.run.state != DagRunState::Running {
            return;
        }
        while let Some(task) = self.to_evaluate.pop_front() {
            self.evaluate(task);
        }
        self.finish_run();
    }

    fn evaluate(&mut self, index: TaskIndex) {
        let (Some(node), Some(task)) = (self.run.nodes.get(index.at()), self.run.dag.task(index)) else {
            return;
        };
        if node.waiting == 0 {
            return;
        }
        let decision = decide(task, node);
        let (first, count) = (node.first as usize, node.count as usize);
        let now = self.now;
        for at in first..first + count {
            if self.run.tis.get(at).is_none_or(|slot| !slot.ti.waits_for_rule()) {
                continue;
            }
            match decision {
                Decision::Wait => return,
                Decision::Run => self.change(at, |ti| {
                    ti.state = TaskInstanceState::Scheduled;
                    ti.scheduled_at = Some(now);
                }),
                Decision::Skip => self.stop(at, TaskInstanceState::Skipped, None),
                Decision::UpstreamFailed => self.stop(at, TaskInstanceState::UpstreamFailed, None),
            }
        }
    }

    /// What a branch or a short-circuit decides is carried out at once, whatever the rules of the skipped tasks say and whatever
    /// they wait for; even one that could not run because of a failure becomes skipped. What was executed to its end stays as it is
    /// (Airflow would overwrite it).
    ///
    /// Airflow: `SkipMixin` and the Execution API's `skip-downstream`.
    pub(super) fn skip_not_chosen(&mut self, branch: TaskIndex, chosen: &[u32]) {
        let Some(task) = self.run.dag.task(branch) else { return };
        let everything = TaskKind::ShortCircuit {
            ignore_downstream_trigger_rules: true,
        };
        let skipped = if task.kind == everything {
            let dag = &self.run.dag;
            let work = |task: &TaskIndex| dag.task(*task).is_some_and(|task| !task.is_teardown());
            dag.descendants(&[branch]).into_iter().filter(work).collect()
        } else {
            self.run.not_chosen_by(branch, chosen)
        };
        for task in skipped {
            let Some(node) = self.run.nodes.get(task.at()) else {
                continue;
            };
            let (first, count) = (node.first as usize, node.count as usize);
            for at in first..first + count {
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
            let failed = totals.failed_leaves > 0;
            self.change_run(if failed {
                DagRunState::Failed
            } else {
                DagRunState::Success
            });
        } else if totals.moving() == 0 {
            self.change_run(DagRunState::Failed);
        }
    }
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
    let setups = &node.setups;
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
