//! What is cleared along with others: setups in whose scope they lie, and the teardowns of these. Without that, work runs again on what was
//! torn down, and what a setup prepares again nobody cleans up.
//!
//! Airflow: `get_upstreams_only_setups_and_teardowns` and `get_upstreams_follow_setups`, which look at tasks, where this looks at their
//! instances: a setup whose teardowns have not begun is not run again, since what it prepared is still there.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::dag::{Dag, ROOT};
use crate::id::{MapIndex, TaskIndex};
use crate::state::TaskInstanceState;

type Place = (TaskIndex, MapIndex);

/// The task instances to clear beside those that are named. `known` are all of the run.
pub fn take_along(
    dag: &Dag,
    named: &[Place],
    known: impl Iterator<Item = (TaskIndex, MapIndex, TaskInstanceState)>,
) -> Vec<Place> {
    let scopes = dag.setup_scopes();
    if scopes.is_empty() || named.is_empty() {
        return Vec::new();
    }
    let mut along = Along {
        dag,
        setups_of: HashMap::new(),
        teardowns: HashMap::new(),
        instances: HashMap::new(),
        taken: named.iter().copied().collect(),
        seen: HashSet::new(),
        found: Vec::new(),
    };
    for (setup, scope) in scopes {
        let teardowns = dag.teardowns_of(setup);
        for task in teardowns.iter().chain([&setup]) {
            along.instances.entry(*task).or_default();
        }
        for task in scope {
            along.setups_of.entry(task).or_default().push(setup);
        }
        along.teardowns.insert(setup, teardowns);
    }
    for (task, map_index, state) in known {
        if let Some(instances) = along.instances.get_mut(&task) {
            instances.push((map_index, state));
        }
    }
    along.follow(named.iter().copied().chain(again_in_loops(dag, named)).collect());
    along.found
}

/// The tasks of the loops around what is named: the iterations after it are made anew, with all that lies in them. Without a known place,
/// since they are not there yet.
fn again_in_loops(dag: &Dag, named: &[Place]) -> Vec<Place> {
    let scopes = dag.scopes();
    if scopes.is_flat() {
        return Vec::new();
    }
    let around: BTreeSet<u32> = named.iter().map(|(task, _)| scopes.of_task(*task).0).collect();
    let mut open: Vec<u32> = Vec::new();
    for def in around {
        let outwards = std::iter::successors(Some(def), |def| {
            let parent = scopes.get(*def)?.parent;
            (parent != *def).then_some(parent)
        });
        open.extend(outwards.filter(|def| scopes.get(*def).is_some_and(|def| def.is_loop)));
    }
    let mut inside: BTreeSet<u32> = BTreeSet::new();
    let mut found = Vec::new();
    while let Some(def) = open.pop() {
        let Some(definition) = scopes.get(def).filter(|_| inside.insert(def)) else {
            continue;
        };
        open.extend(&definition.children);
        found.extend(definition.tasks.iter().map(|task| (*task, MapIndex::UNMAPPED)));
    }
    found
}

struct Along<'d> {
    dag: &'d Dag,
    /// The setups in whose scope a task lies.
    setups_of: HashMap<TaskIndex, Vec<TaskIndex>>,
    /// Of each setup.
    teardowns: HashMap<TaskIndex, Vec<TaskIndex>>,
    /// Of setups and teardowns.
    instances: HashMap<TaskIndex, Vec<(MapIndex, TaskInstanceState)>>,
    taken: HashSet<Place>,
    /// What was looked at: a task, and the positions that matter.
    seen: HashSet<(TaskIndex, TaskIndex, Option<Vec<u32>>)>,
    found: Vec<Place>,
}

impl Along<'_> {
    fn follow(&mut self, mut open: Vec<Place>) {
        while let Some(place) = open.pop() {
            let before = self.found.len();
            for setup in self.setups_of.get(&place.0).cloned().unwrap_or_default() {
                if !self.is_first(place, setup) {
                    continue;
                }
                for (at, state) in self.met(place, setup) {
                    let prepared = (setup, at);
                    self.take_teardowns(prepared);
                    if !self.taken.contains(&prepared) && self.must_run_again(prepared, state) {
                        self.take(prepared);
                    }
                }
            }
            if self.teardowns.contains_key(&place.0) && self.is_first(place, place.0) {
                self.take_teardowns(place);
            }
            open.extend(self.found.iter().skip(before));
        }
    }

    /// Whether nobody asked yet for what a place shares with a task.
    fn is_first(&mut self, place: Place, with: TaskIndex) -> bool {
        let shared = self.shared(place, with);
        self.seen.insert((place.0, with, shared))
    }

    /// Of what a setup prepared nothing is left, or it never was, and nobody is about to prepare it.
    fn must_run_again(&self, setup: Place, state: TaskInstanceState) -> bool {
        use TaskInstanceState::{NoStatus, Removed, Scheduled, Success};
        if !state.is_finished() || state == Removed {
            return false;
        }
        let teardowns = self.teardowns.get(&setup.0).into_iter().flatten();
        let mut instances = teardowns.flat_map(|teardown| self.met(setup, *teardown)).peekable();
        let stands = instances.peek().is_some() && instances.all(|(_, state)| matches!(state, NoStatus | Scheduled));
        !(state == Success && stands)
    }

    fn take_teardowns(&mut self, setup: Place) {
        for teardown in self.teardowns.get(&setup.0).cloned().unwrap_or_default() {
            for (at, state) in self.met(setup, teardown) {
                // What waits for its rule waits for what is cleared as well.
                if !matches!(state, TaskInstanceState::NoStatus | TaskInstanceState::Removed) {
                    self.take((teardown, at));
                }
            }
        }
    }

    fn take(&mut self, place: Place) {
        if self.taken.insert(place) {
            self.found.push(place);
        }
    }

    /// The instances of a setup or teardown that lie in the same elements and iterations as a place.
    fn met(&self, place: Place, of: TaskIndex) -> Vec<(MapIndex, TaskInstanceState)> {
        let shared = self.shared(place, of);
        let instances = self.instances.get(&of).into_iter().flatten();
        let meets = |at: MapIndex| {
            let (Some(shared), Some(positions)) = (&shared, positions(self.dag, (of, at))) else {
                // What is not expanded yet stands for all that it will be.
                return true;
            };
            positions.starts_with(shared)
        };
        instances.filter(|(at, _)| meets(*at)).copied().collect()
    }

    /// The positions that a place shares with the instances of a task that it meets; nothing where they are not known yet.
    fn shared(&self, place: Place, with: TaskIndex) -> Option<Vec<u32>> {
        let scopes = self.dag.scopes();
        let common = scopes.common(scopes.of_task(place.0).0, scopes.of_task(with).0);
        let depth = scopes.path(ROOT, common).len();
        if depth == 0 {
            return Some(Vec::new());
        }
        let mut positions = positions(self.dag, place)?;
        positions.truncate(depth);
        Some(positions)
    }
}

/// Where a task instance is, from the outside in; nothing where that is not known yet.
fn positions(dag: &Dag, (task, map_index): Place) -> Option<Vec<u32>> {
    let own = dag.task(task)?.expand.as_ref();
    if map_index.0 < 0 && (own.is_some() || dag.scopes().of_task(task).0 != ROOT) {
        return None;
    }
    dag.scopes().positions(task, own, map_index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dag::{Task, TaskRole};
    use crate::run::testing::{dag, task};
    use crate::trigger_rule::TriggerRule;
    use TaskInstanceState::{Failed, NoStatus, Running, Scheduled, Skipped, Success, UpstreamFailed};

    fn setup(id: &str, upstream: &[u32]) -> Task {
        Task {
            role: TaskRole::Setup,
            ..task(id, upstream)
        }
    }

    fn teardown(id: &str, upstream: &[u32]) -> Task {
        Task {
            role: TaskRole::Teardown {
                on_failure_fail_dagrun: false,
            },
            trigger_rule: TriggerRule::AllDoneSetupSuccess,
            ..task(id, upstream)
        }
    }

    fn along(tasks: Vec<Task>, states: &[TaskInstanceState], named: &[u32]) -> Vec<u32> {
        let dag = dag(tasks, |_| {});
        let place = |at: u32| (TaskIndex(at), MapIndex::UNMAPPED);
        let known = (0_u32..)
            .zip(states)
            .map(|(at, state)| (TaskIndex(at), MapIndex::UNMAPPED, *state));
        let named: Vec<Place> = named.iter().copied().map(place).collect();
        let mut found: Vec<u32> = take_along(&dag, &named, known)
            .into_iter()
            .map(|(task, _)| task.0)
            .collect();
        found.sort_unstable();
        found
    }

    #[test]
    fn work_takes_its_setups_along_and_these_their_teardowns() {
        // 0 outer → 1 inner → 2 work, 3 work → 4 inner's teardown → 5 outer's teardown; 6 follows nothing.
        let tasks = || {
            vec![
                setup("outer", &[]),
                setup("inner", &[0]),
                task("direct", &[1]),
                task("further", &[2]),
                teardown("inner_down", &[1, 3]),
                teardown("down", &[0, 4]),
                task("other", &[]),
            ]
        };
        let ended = [Success, Success, Failed, UpstreamFailed, Success, Success, Success];
        assert_eq!(along(tasks(), &ended, &[2]), [0, 1, 4, 5]);
        assert_eq!(along(tasks(), &ended, &[3]), [0, 1, 4, 5]);
        assert_eq!(
            along(tasks(), &ended, &[1]),
            [0, 4, 5],
            "a setup, and what it stands on"
        );
        assert_eq!(along(tasks(), &ended, &[0]), [5]);
        assert!(along(tasks(), &ended, &[4, 5, 6]).is_empty(), "teardowns by themselves");
        // The outer resource is still there.
        let outer_stands = [Success, Success, Failed, UpstreamFailed, Success, NoStatus, Success];
        assert_eq!(along(tasks(), &outer_stands, &[2]), [1, 4]);
    }

    #[test]
    fn what_stands_is_not_prepared_again_and_its_teardown_waits() {
        let tasks = || vec![setup("up", &[]), task("w", &[0]), teardown("down", &[0, 1])];
        let of = |up, w, down| along(tasks(), &[up, w, down], &[1]);
        assert!(of(Success, Failed, NoStatus).is_empty());
        assert_eq!(of(Success, Failed, Scheduled), [2], "it must not begin meanwhile");
        assert_eq!(of(Success, Failed, Running), [0, 2]);
        assert_eq!(of(Success, Success, Success), [0, 2]);
        assert_eq!(of(Failed, UpstreamFailed, UpstreamFailed), [0, 2]);
        assert_eq!(of(Skipped, Skipped, NoStatus), [0], "nothing was prepared");
        assert!(of(Running, NoStatus, NoStatus).is_empty(), "it is being prepared");
        // One without a teardown runs again, as in Airflow.
        let bare = vec![setup("up", &[]), task("w", &[0])];
        assert_eq!(along(bare, &[Success, Failed], &[1]), [0]);
    }
}
