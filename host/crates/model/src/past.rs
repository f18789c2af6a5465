//! What a task came to in the run before: whether it lets the task run again.
//!
//! Airflow: `PrevDagrunDep`. The run before is the one of the same DAG with the next earlier logical date; a run without a logical date
//! has none before it, and neither has the first. Its task must have succeeded or been skipped, all instances of it; with
//! `wait_for_downstream` so must the tasks that directly follow it, as far as the run before has them. A task that no earlier run
//! knows is let go (`ignore_first_depends_on_past`); one that only an older run knows waits. What a skip or an upstream failure decides
//! is decided at once, without a look at the past.
//!
//! Here instances that were removed (an iteration that is gone, an element that is there no more) count for nothing, as everywhere
//! else; Airflow waits for them for ever.

use serde::{Deserialize, Serialize};

use crate::dag::{Dag, Task};
use crate::id::TaskIndex;
use crate::state::TaskInstanceState;

/// Whether a task looks back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Past {
    /// It does not.
    #[default]
    Ignored,
    /// It waits for itself (Airflow: `depends_on_past`).
    DependsOnPast,
    /// It waits for itself and for what directly follows it (Airflow: `wait_for_downstream`, which implies `depends_on_past`).
    WaitForDownstream,
}

impl Past {
    /// Of the two settings.
    pub const fn of(depends_on_past: bool, wait_for_downstream: bool) -> Self {
        match (depends_on_past, wait_for_downstream) {
            (_, true) => Self::WaitForDownstream,
            (true, false) => Self::DependsOnPast,
            (false, false) => Self::Ignored,
        }
    }

    /// Whether it does not look back.
    pub const fn is_ignored(&self) -> bool {
        matches!(self, Self::Ignored)
    }

    /// Whether it looks back.
    pub const fn matters(self) -> bool {
        !self.is_ignored()
    }
}

/// A run as the run after it sees it.
pub trait RunBefore {
    /// Its DAG version.
    fn dag(&self) -> &Dag;
    /// How many instances of a task have neither succeeded nor been skipped. One that was never stored has not.
    fn unsuccessful(&self, task: TaskIndex) -> u64;
    /// Whether a run older than this one had a task of this name.
    fn was_there_before(&self, task: &Task) -> bool;
}

/// Why a task may not run yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unmet {
    /// The run before has no such task, but an older one has.
    Missing,
    /// So many instances of the task have not succeeded in the run before.
    Unsuccessful(u64),
    /// The task succeeded, but this one, which follows it, has not.
    Downstream(TaskIndex),
}

impl Unmet {
    /// For people; `run` is the run before, and `dag` the version of the run that waits.
    pub fn reason(&self, dag: &Dag, task: &Task, run: &str) -> String {
        match self {
            Self::Missing => format!(
                "`depends_on_past`: the run before, `{run}`, has no task `{}`, but an older one has",
                task.id
            ),
            Self::Unsuccessful(1) => {
                format!(
                    "`depends_on_past`: `{}` has not succeeded in the run before, `{run}`",
                    task.id
                )
            }
            Self::Unsuccessful(count) => format!(
                "`depends_on_past`: {count} instances of `{}` have not succeeded in the run before, `{run}`",
                task.id
            ),
            Self::Downstream(follower) => format!(
                "`wait_for_downstream`: `{}`, which follows `{}`, has not succeeded in the run before, `{run}`",
                dag.task(*follower).map_or("", |task| task.id.as_str()),
                task.id
            ),
        }
    }
}

/// Whether the run before lets a task of `dag` run.
pub fn judge(dag: &Dag, task: &Task, before: &impl RunBefore) -> Result<(), Unmet> {
    if task.past.is_ignored() {
        return Ok(());
    }
    let Some(there) = before.dag().index_of(task.id.as_str()) else {
        return match before.was_there_before(task) {
            true => Err(Unmet::Missing),
            false => Ok(()),
        };
    };
    match before.unsuccessful(there) {
        0 => {}
        count => return Err(Unmet::Unsuccessful(count)),
    }
    if task.past == Past::WaitForDownstream {
        for follower in &task.downstream {
            let there = dag
                .task(*follower)
                .and_then(|task| before.dag().index_of(task.id.as_str()));
            if there.is_some_and(|there| before.unsuccessful(there) > 0) {
                return Err(Unmet::Downstream(*follower));
            }
        }
    }
    Ok(())
}

/// The tasks of `dag` that the run before lets run, ascending.
pub fn met(dag: &Dag, before: &impl RunBefore) -> Vec<TaskIndex> {
    let looks_back = dag.looking_back().iter().copied();
    looks_back
        .filter(|at| dag.task(*at).is_some_and(|task| judge(dag, task, before).is_ok()))
        .collect()
}

/// Whether an instance in this state lets the same task of the next run go.
pub const fn is_successful(state: TaskInstanceState) -> bool {
    matches!(
        state,
        TaskInstanceState::Success | TaskInstanceState::Skipped | TaskInstanceState::Removed
    )
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use super::*;
    use crate::run::testing::{dag, task};

    struct Before {
        dag: Arc<Dag>,
        unsuccessful: HashMap<u32, u64>,
        older: Vec<&'static str>,
    }

    impl RunBefore for Before {
        fn dag(&self) -> &Dag {
            &self.dag
        }

        fn unsuccessful(&self, task: TaskIndex) -> u64 {
            self.unsuccessful.get(&task.0).copied().unwrap_or(0)
        }

        fn was_there_before(&self, task: &Task) -> bool {
            self.older.contains(&task.id.as_str())
        }
    }

    fn looking_back(id: &str, upstream: &[u32], past: Past) -> Task {
        Task {
            past,
            ..task(id, upstream)
        }
    }

    fn now() -> Arc<Dag> {
        let tasks = vec![
            looking_back("a", &[], Past::DependsOnPast),
            looking_back("b", &[0], Past::WaitForDownstream),
            task("c", &[1]),
            looking_back("new", &[], Past::DependsOnPast),
        ];
        dag(tasks, |_| {})
    }

    fn before(unsuccessful: &[(u32, u64)], older: &[&'static str]) -> Before {
        // In another order, and without the last task.
        let tasks = vec![task("c", &[]), task("b", &[]), task("a", &[])];
        Before {
            dag: dag(tasks, |_| {}),
            unsuccessful: unsuccessful.iter().copied().collect(),
            older: older.to_vec(),
        }
    }

    #[test]
    fn the_same_task_must_have_succeeded_and_what_follows_it_too_where_that_is_waited_for() {
        let at = |task| TaskIndex(task);
        assert_eq!(met(&now(), &before(&[], &[])), [at(0), at(1), at(3)]);
        assert_eq!(met(&now(), &before(&[(2, 1)], &[])), [at(1), at(3)]);
        assert_eq!(met(&now(), &before(&[(1, 2)], &[])), [at(0), at(3)]);
        // The task right behind `a` counts for `b` alone.
        assert_eq!(met(&now(), &before(&[(0, 1)], &[])), [at(0), at(3)]);
        assert_eq!(met(&now(), &before(&[], &["new"])), [at(0), at(1)]);
    }

    #[test]
    fn the_reason_names_what_is_waited_for() {
        let dag = now();
        let reason = |task: u32, before: &Before| {
            let task = dag.task(TaskIndex(task)).unwrap();
            judge(&dag, task, before).unwrap_err().reason(&dag, task, "r1")
        };
        assert_eq!(
            reason(0, &before(&[(2, 1)], &[])),
            "`depends_on_past`: `a` has not succeeded in the run before, `r1`"
        );
        assert_eq!(
            reason(0, &before(&[(2, 7)], &[])),
            "`depends_on_past`: 7 instances of `a` have not succeeded in the run before, `r1`"
        );
        assert_eq!(
            reason(1, &before(&[(0, 1)], &[])),
            "`wait_for_downstream`: `c`, which follows `b`, has not succeeded in the run before, `r1`"
        );
        assert_eq!(
            reason(3, &before(&[], &["new"])),
            "`depends_on_past`: the run before, `r1`, has no task `new`, but an older one has"
        );
    }
}
