//! Setups, their teardowns, and what lies between them.

use std::collections::BTreeSet;

use super::task::{Task, TaskRole};
use super::{inverse, reach};
use crate::id::TaskIndex;

/// Who counts for whom because of setups and teardowns.
#[derive(Clone, Debug, Default)]
pub(super) struct Guards {
    /// Of each task; empty where there are no setups.
    pub(super) setup_watchers: Vec<Vec<TaskIndex>>,
    pub(super) setups_of: Vec<Vec<TaskIndex>>,
    /// Of each task: whom it waits for. Empty where that is the upstream tasks for all.
    pub(super) awaited: Vec<Vec<TaskIndex>>,
    /// The other way round.
    pub(super) awaiting: Vec<Vec<TaskIndex>>,
}

impl Guards {
    pub(super) fn of(tasks: &[Task]) -> Self {
        let setups: Vec<TaskIndex> = indexes(tasks)
            .filter(|at| tasks.get(at.at()).is_some_and(|task| task.role == TaskRole::Setup))
            .collect();
        if setups.is_empty() {
            return Self::default();
        }
        let mut setup_watchers = vec![Vec::new(); tasks.len()];
        let mut between: Vec<BTreeSet<TaskIndex>> = vec![BTreeSet::new(); tasks.len()];
        for setup in setups {
            let teardowns = teardowns_of(tasks, setup);
            let direct = tasks.get(setup.at()).map_or(&[][..], |task| &task.downstream);
            // Airflow: `get_upstreams_only_setups`. Direct upstream setups are judged by the trigger rule alone.
            let mut watchers: Vec<TaskIndex> = scope_of(tasks, setup, &teardowns)
                .into_iter()
                .filter(|task| direct.binary_search(task).is_err())
                .collect();
            watchers.extend(&teardowns);
            let below = reach(tasks, &[setup], |task| &task.downstream);
            for teardown in teardowns {
                let above = reach(tasks, &[teardown], |task| &task.upstream);
                if let Some(between) = between.get_mut(teardown.at()) {
                    between.extend(above.intersection(&below));
                }
            }
            if let Some(slot) = setup_watchers.get_mut(setup.at()) {
                *slot = watchers;
            }
        }
        let mut guards = Self {
            setups_of: inverse(&setup_watchers, tasks.len()),
            setup_watchers,
            ..Self::default()
        };
        let waits_for_more =
            |(task, between): (&Task, &BTreeSet<TaskIndex>)| between.iter().any(|at| !task.upstream.contains(at));
        if tasks.iter().zip(&between).any(waits_for_more) {
            guards.awaited = tasks
                .iter()
                .zip(between)
                .map(|(task, mut between)| {
                    between.extend(&task.upstream);
                    between.into_iter().collect()
                })
                .collect();
            guards.awaiting = inverse(&guards.awaited, tasks.len());
        }
        guards
    }
}

/// The direct teardowns of a setup.
pub(super) fn teardowns_of(tasks: &[Task], setup: TaskIndex) -> Vec<TaskIndex> {
    let direct = tasks.get(setup.at()).map_or(&[][..], |task| &task.downstream);
    let is_teardown = |at: &TaskIndex| tasks.get(at.at()).is_some_and(Task::is_teardown);
    direct.iter().copied().filter(is_teardown).collect()
}

/// The tasks that need what a setup prepares: all work and setups that it leads to and that lead to one of its teardowns, or that it
/// leads to at all if it has none.
pub(super) fn scope_of(tasks: &[Task], setup: TaskIndex, teardowns: &[TaskIndex]) -> BTreeSet<TaskIndex> {
    let guarded = reach(tasks, teardowns, |task| &task.upstream);
    let is_work = |at: &TaskIndex| tasks.get(at.at()).is_some_and(|task| !task.is_teardown());
    reach(tasks, &[setup], |task| &task.downstream)
        .into_iter()
        .filter(is_work)
        .filter(|at| teardowns.is_empty() || guarded.contains(at))
        .collect()
}

fn indexes(tasks: &[Task]) -> impl Iterator<Item = TaskIndex> {
    (0..u32::try_from(tasks.len()).unwrap_or(u32::MAX)).map(TaskIndex)
}
