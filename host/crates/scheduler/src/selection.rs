//! Which task instances of a run a request to clear names.

use std::collections::{HashMap, HashSet};

use model::dag::{ROOT, Task};
use model::run::take_along;
use model::{Dag, MapIndex, TaskIndex, TaskInstanceState};
use ports::intent::ClearWork;

use crate::run::{Draft, Place};

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
    dag: &'w Dag,
    work: &'w ClearWork,
    /// By task index.
    tasks: Vec<Chosen>,
}

/// What is selected of one task.
#[derive(Clone, Default)]
struct Chosen {
    all: bool,
    indexes: HashSet<MapIndex>,
    /// Those that lie in the same elements and iterations as a named one; by the positions that they share, from the outside in.
    within: HashSet<Vec<u32>>,
}

impl<'w> Selection<'w> {
    /// What a request to clear names; see [`Self::to_clear`] for what goes along with it.
    pub(crate) fn new(dag: &'w Dag, work: &'w ClearWork) -> Self {
        Self::of_request(dag, work, false)
    }

    /// What a request to set states names. What follows ends before teardowns: whatever a person says of the work, what was prepared for it
    /// has still to be cleaned up.
    pub(crate) fn to_mark(dag: &'w Dag, work: &'w ClearWork) -> Self {
        Self::of_request(dag, work, true)
    }

    fn of_request(dag: &'w Dag, work: &'w ClearWork, before_teardowns: bool) -> Self {
        let mut tasks = vec![Chosen::default(); dag.tasks.len()];
        if work.tasks.is_none() && work.groups.is_empty() {
            for chosen in &mut tasks {
                chosen.all = true;
            }
            return Self { dag, work, tasks };
        }
        let mut starts: HashMap<TaskIndex, Vec<Option<MapIndex>>> = HashMap::new();
        for index in work
            .groups
            .iter()
            .filter_map(|group| dag.tasks_of_group(group))
            .flatten()
        {
            starts.entry(index).or_default().push(None);
            if let Some(chosen) = tasks.get_mut(index.at()) {
                chosen.all = true;
            }
        }
        for (task, map_index) in work.tasks.iter().flatten() {
            let Some(index) = dag.index_of(task.as_str()) else {
                continue;
            };
            starts.entry(index).or_default().push(*map_index);
            if let Some(chosen) = tasks.get_mut(index.at()) {
                match map_index {
                    Some(map_index) => drop(chosen.indexes.insert(*map_index)),
                    None => chosen.all = true,
                }
            }
        }
        let directions: [(bool, Next, bool); 2] = [
            (work.include_upstream, |task| &task.upstream, false),
            (work.include_downstream, |task| &task.downstream, before_teardowns),
        ];
        for (start, indexes) in &starts {
            for (_, next, ends) in directions.iter().filter(|(wanted, ..)| *wanted) {
                for (task, shared) in reach(dag, *start, *next, *ends) {
                    let Some(chosen) = tasks.get_mut(task.at()) else {
                        continue;
                    };
                    for index in indexes {
                        match index.and_then(|index| positions(dag, *start, index)) {
                            Some(positions) if shared > 0 => {
                                chosen.within.insert(positions.into_iter().take(shared).collect());
                            }
                            _ => chosen.all = true,
                        }
                    }
                }
            }
        }
        Self { dag, work, tasks }
    }

    /// Whether a task instance in this state is to be cleared.
    pub(crate) fn contains(&self, task: TaskIndex, map_index: MapIndex, state: TaskInstanceState) -> bool {
        self.names(task, map_index) && state_matches(state, self.work.only_failed, self.work.only_running)
    }

    /// Whether a task instance is to be cleared, as far as its state allows.
    pub(crate) fn names(&self, task: TaskIndex, map_index: MapIndex) -> bool {
        let chosen = self.tasks.get(task.at());
        chosen.is_some_and(|chosen| {
            chosen.all || chosen.indexes.contains(&map_index) || self.lies_within(chosen, task, map_index)
        })
    }

    /// What is named of a run.
    pub(crate) fn of(&self, draft: &Draft) -> Vec<Place> {
        let tis = draft.state.tis();
        tis.filter(|(task, map_index, ti)| self.contains(*task, *map_index, ti.state))
            .map(|(task, map_index, _)| (task, map_index))
            .collect()
    }

    /// What is to be cleared of a run, with the setups in whose scope it lies and their teardowns.
    pub(crate) fn to_clear(&self, draft: &Draft) -> Vec<Place> {
        let mut places = self.of(draft);
        let known = draft
            .state
            .tis()
            .map(|(task, map_index, ti)| (task, map_index, ti.state));
        places.extend(take_along(self.dag, &places, known));
        places
    }

    fn lies_within(&self, chosen: &Chosen, task: TaskIndex, map_index: MapIndex) -> bool {
        if chosen.within.is_empty() {
            return false;
        }
        // What is not expanded yet stands for all that it will be.
        let Some(mut positions) = positions(self.dag, task, map_index) else {
            return true;
        };
        loop {
            if chosen.within.contains(&positions) {
                return true;
            }
            if positions.pop().is_none() {
                return false;
            }
        }
    }
}

type Next = fn(&Task) -> &[TaskIndex];

/// Where a task instance is, from the outside in; nothing where that is not known yet.
fn positions(dag: &Dag, task: TaskIndex, map_index: MapIndex) -> Option<Vec<u32>> {
    if map_index.0 < 0 {
        return None;
    }
    let own = dag.task(task)?.expand.as_ref();
    dag.scopes().positions(task, own, map_index)
}

/// The tasks that edges lead to from another one, and how many positions an instance of each has in common with the instance that
/// one came from. On a way that leaves a repeated group and comes back all instances are met.
fn reach(dag: &Dag, start: TaskIndex, next: Next, before_teardowns: bool) -> HashMap<TaskIndex, usize> {
    let scopes = dag.scopes();
    let mut found: HashMap<TaskIndex, usize> = HashMap::new();
    let mut open = vec![(start, usize::MAX)];
    while let Some((from, shared)) = open.pop() {
        for &to in dag.task(from).map(next).unwrap_or_default() {
            if before_teardowns && dag.task(to).is_some_and(Task::is_teardown) {
                continue;
            }
            let common = scopes.common(scopes.of_task(from).0, scopes.of_task(to).0);
            let shared = shared.min(scopes.path(ROOT, common).len());
            let known = found.get(&to);
            if known.is_none_or(|known| shared < *known) {
                found.insert(to, shared);
                open.push((to, shared));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use model::manifest::{Components, ResolvedComponent, compile, parse};
    use serde_json::json;

    use super::*;

    const TASKS: &str = "
  load: {component: C}
  solve:
    expand: {channel: [a, b, c]}
    tasks:
      clean:
        loop: {until: '{{ xcom.step }}', max: 10}
        tasks:
          step: {component: C, after: [load]}
          check: {component: C, after: [step]}
      restore: {component: C, after: [clean]}
  sum: {component: C, after: [solve]}
  again:
    expand: {channel: [a, b, c]}
    tasks:
      first: {component: C, after: [load]}
      second: {component: C, after: [first, sum]}
";

    fn dag() -> Dag {
        let digest = format!("\"sha256:{}\"", "0".repeat(64));
        let manifest = parse(&format!("dag: d\ntasks:{}", TASKS.replace('C', &digest))).unwrap();
        let descriptor = json!({"format": 1, "tasks": [{"name": "t", "input": true, "output": true}]});
        let components: Components = manifest
            .components()
            .into_iter()
            .map(|component| {
                let resolved = ResolvedComponent {
                    digest: component.value.digest().unwrap(),
                    descriptor: serde_json::from_value(descriptor.clone()).unwrap(),
                };
                (component.value, Ok(resolved))
            })
            .collect();
        compile(&manifest, &components).unwrap().dag
    }

    /// The instances of each task that are selected from one instance of one task, of the map indexes 0 to 29 and without one.
    fn selected(start: (&str, i32), include_upstream: bool, include_downstream: bool) -> Vec<(String, Vec<i32>)> {
        let work = ClearWork {
            tasks: Some(vec![(start.0.parse().unwrap(), Some(MapIndex(start.1)))]),
            include_upstream,
            include_downstream,
            ..ClearWork::default()
        };
        shown(&work)
    }

    fn shown(work: &ClearWork) -> Vec<(String, Vec<i32>)> {
        let dag = dag();
        let selection = Selection::new(&dag, work);
        let of = |task: &Task| {
            let index = dag.index_of(task.id.as_str()).unwrap();
            let contains = |at: &i32| selection.contains(index, MapIndex(*at), TaskInstanceState::Success);
            let single = index == dag.index_of("load").unwrap() || index == dag.index_of("sum").unwrap();
            let all = if single { -1..0 } else { 0..30 };
            (task.id.to_string(), all.filter(contains).collect())
        };
        let chosen = dag.tasks.iter().map(of);
        chosen
            .filter(|(_, indexes): &(_, Vec<i32>)| !indexes.is_empty())
            .collect()
    }

    fn expected(of: &[(&str, &[i32])]) -> Vec<(String, Vec<i32>)> {
        of.iter().map(|(task, at)| ((*task).to_owned(), at.to_vec())).collect()
    }

    #[test]
    fn what_follows_an_element_is_that_element_until_its_group_ends() {
        let all: Vec<i32> = (0..30).collect();
        assert_eq!(
            selected(("solve.clean.step", 12), false, true),
            expected(&[
                ("solve.clean.step", &[12]),
                ("solve.clean.check", &[12]),
                ("solve.restore", &[1]),
                ("sum", &[-1]),
                ("again.second", &all),
            ])
        );
        assert_eq!(
            selected(("again.first", 2), false, true),
            expected(&[("again.first", &[2]), ("again.second", &[2])])
        );
    }

    #[test]
    fn a_group_stands_for_all_its_tasks_however_deep() {
        let of = |group: &str, include_downstream| {
            let work = ClearWork {
                groups: vec![group.to_owned()],
                include_downstream,
                ..ClearWork::default()
            };
            let names = shown(&work).into_iter().map(|(task, _)| task);
            names.collect::<Vec<_>>()
        };
        assert_eq!(
            of("solve", false),
            ["solve.clean.step", "solve.clean.check", "solve.restore"]
        );
        assert_eq!(of("solve.clean", false), ["solve.clean.step", "solve.clean.check"]);
        assert_eq!(of("again", false), ["again.first", "again.second"]);
        let all = [
            "solve.clean.step",
            "solve.clean.check",
            "solve.restore",
            "sum",
            "again.second",
        ];
        assert_eq!(of("solve.clean", true), all);
        assert!(of("sol", false).is_empty());
    }

    #[test]
    fn what_leads_to_an_element_is_that_element_in_its_group() {
        let iterations: Vec<i32> = (20..30).collect();
        assert_eq!(
            selected(("solve.restore", 2), true, false),
            expected(&[
                ("load", &[-1]),
                ("solve.clean.step", &iterations),
                ("solve.clean.check", &iterations),
                ("solve.restore", &[2]),
            ])
        );
    }
}
