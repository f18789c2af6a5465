//! What the state of a run that has ended does not show.

use super::state::RunState;
use crate::hidden::{Hides, badness, hides};
use crate::id::TaskIndex;
use crate::state::{DagRunState, TaskInstanceState};

/// So many are told of one run.
pub(super) const MAX_HIDDEN_FAILURES: usize = 50;

impl RunState {
    /// Of a run that succeeded: the tasks that failed all the same, and what hides that; no task took notice of it. The first ones
    /// of very many. It follows from the states alone, so a run that is taken over says the same.
    pub fn hidden_failures(&self) -> Vec<(TaskIndex, Hides)> {
        if self.state != DagRunState::Success || self.totals.of(TaskInstanceState::Failed) == 0 {
            return Vec::new();
        }
        let mut worst: Vec<Option<TaskInstanceState>> = vec![None; self.dag.tasks.len()];
        for (task, _, ti) in self.tis() {
            if let Some(known) = worst.get_mut(task.at())
                && known.is_none_or(|known| badness(known) < badness(ti.state))
            {
                *known = Some(ti.state);
            }
        }
        let state_of = |task: TaskIndex| worst.get(task.at()).copied().flatten();
        let tasks = (0_u32..).map(TaskIndex).zip(&worst);
        tasks
            .filter(|(_, state)| **state == Some(TaskInstanceState::Failed))
            .map(|(task, _)| (task, hides(&self.dag, &state_of, task)))
            .filter(|(_, by)| by.unnoticed())
            .take(MAX_HIDDEN_FAILURES)
            .collect()
    }
}
