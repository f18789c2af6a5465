//! Which task instances of a run a request to clear names.

use std::collections::HashSet;

use model::{Dag, MapIndex, TaskIndex, TaskInstanceState};
use ports::intent::ClearWork;

/// Whether a state is among those to clear.
pub(crate) fn state_matches(state: TaskInstanceState, only_failed: bool, only_running: bool) -> bool {
    use TaskInstanceState::{Failed, Queued, Restarting, Running, UpstreamFailed};
    match (only_failed, only_running) {
        (false, false) => true,
        (failed, running) => {
            (failed && matches!(state, Failed | UpstreamFailed))
                || (running && matches!(state, Queued | Running | Restarting))
        }
    }
}

/// The task instances that a request names under one version of the DAG.
pub(crate) struct Selection<'w> {
    work: &'w ClearWork,
    /// By task index: not at all, some map indexes, all.
    tasks: Vec<Chosen>,
}

#[derive(Clone, PartialEq, Eq)]
enum Chosen {
    None,
    Some(Vec<MapIndex>),
    All,
}

impl<'w> Selection<'w> {
    pub(crate) fn new(dag: &Dag, work: &'w ClearWork) -> Self {
        let mut tasks = vec![Chosen::None; dag.tasks.len()];
        let Some(named) = &work.tasks else {
            tasks.fill(Chosen::All);
            return Self { work, tasks };
        };
        let mut starts = Vec::new();
        for (task, map_index) in named {
            let Some(index) = dag.index_of(task.as_str()) else {
                continue;
            };
            starts.push(index);
            if let Some(chosen) = tasks.get_mut(index.at()) {
                match (chosen, map_index) {
                    (chosen, None) => *chosen = Chosen::All,
                    (Chosen::All, Some(_)) => {}
                    (Chosen::Some(indexes), Some(index)) => indexes.push(*index),
                    (chosen @ Chosen::None, Some(index)) => *chosen = Chosen::Some(vec![*index]),
                }
            }
        }
        let mut spread = |next: fn(&model::dag::Task) -> &[TaskIndex]| {
            let mut open = starts.clone();
            let mut seen: HashSet<TaskIndex> = HashSet::new();
            while let Some(task) = open.pop() {
                for &next in dag.task(task).map(next).unwrap_or_default() {
                    if seen.insert(next) {
                        open.push(next);
                        if let Some(chosen) = tasks.get_mut(next.at()) {
                            *chosen = Chosen::All;
                        }
                    }
                }
            }
        };
        if work.include_upstream {
            spread(|task| &task.upstream);
        }
        if work.include_downstream {
            spread(|task| &task.downstream);
        }
        Self { work, tasks }
    }

    /// Whether a task instance in this state is to be cleared.
    pub(crate) fn contains(&self, task: TaskIndex, map_index: MapIndex, state: TaskInstanceState) -> bool {
        let named = match self.tasks.get(task.at()) {
            Some(Chosen::All) => true,
            Some(Chosen::Some(indexes)) => indexes.contains(&map_index),
            Some(Chosen::None) | None => false,
        };
        named && state_matches(state, self.work.only_failed, self.work.only_running)
    }
}
