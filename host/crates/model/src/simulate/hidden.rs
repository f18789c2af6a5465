//! Tasks that can fail while their run succeeds, over all scenarios.

use std::collections::BTreeSet;

use super::outcome::Outcome;
use super::scenario::{Fault, Scenario};
use crate::dag::Dag;
use crate::hidden::{Hides, hides};
use crate::id::TaskIndex;
use crate::state::{DagRunState, TaskInstanceState};

/// A task that can fail while its run succeeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hidden {
    /// The task.
    pub task: TaskIndex,
    /// What hides it.
    pub by: Hides,
    /// By which faults it failed unseen, injected alone; empty where it took several together.
    pub faults: BTreeSet<Fault>,
    /// The first scenario in which it did.
    pub scenario: Scenario,
    /// In how many scenarios it did.
    pub count: u64,
}

impl Hidden {
    /// Whether no task took notice of the failure either.
    pub fn unnoticed(&self) -> bool {
        self.by.unnoticed()
    }

    /// Why nobody notices.
    pub fn why(&self, dag: &Dag) -> String {
        self.by.why(dag)
    }

    /// What to change.
    pub fn advice(&self, dag: &Dag) -> String {
        self.by.advice(dag, self.task)
    }
}

/// The tasks that failed while the run succeeded, and what hides each.
pub(super) fn hidden_in(dag: &Dag, outcome: &Outcome) -> Vec<(TaskIndex, Hides)> {
    if outcome.state != DagRunState::Success {
        return Vec::new();
    }
    let mut failed: Vec<TaskIndex> = outcome
        .tis
        .iter()
        .filter(|ti| ti.state == TaskInstanceState::Failed)
        .map(|ti| ti.task)
        .collect();
    failed.dedup();
    failed
        .into_iter()
        .map(|task| (task, hides(dag, &|task| outcome.state_of(task), task)))
        .collect()
}
