//! A DAG version, compiled: the graph and everything that a run of it needs to know. It is made from a checked manifest and
//! the digests of its components (`manifest`), and never changes.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::callback::Callback;
use crate::id::{DagId, TaskId, TaskIndex};
use crate::template::Segment;

mod guards;
mod repeat;
mod scopes;
mod task;

pub use repeat::{
    Combine, DEFAULT_MAP_LIMIT, Expansion, Group, GroupIndex, Loop, MAX_ITERATIONS, MAX_MAP_LIMIT, MapSource,
    MapValues, Measure, Measured, Repeat, length,
};
pub use scopes::{ROOT, ScopeDef, Scopes};
pub use task::{Queueing, RetryPolicy, Task, TaskKind, TaskRole};

/// The pool of a task that names none (Airflow: `default_pool`).
pub const DEFAULT_POOL: &str = "default_pool";

/// The queue of a task that names none (Airflow: `default_queue`).
pub const DEFAULT_QUEUE: &str = "default";

/// One version of a DAG.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "DagParts", into = "DagParts")]
pub struct Dag {
    /// Its id.
    pub id: DagId,
    /// One line for people.
    pub description: Option<String>,
    /// Markdown for people.
    pub doc_md: Option<String>,
    /// Who looks after it.
    pub owner: String,
    /// For filtering.
    pub tags: Vec<String>,
    /// The parameters of a run, by name.
    pub params: IndexMap<String, Param>,
    /// Whether `conf` may hold nothing but parameters.
    pub strict_params: bool,
    /// How many runs may be running at a time.
    pub max_active_runs: u32,
    /// How many task instances of all runs may be dispatched at a time.
    pub max_active_tasks: u32,
    /// How long a run may take.
    pub dagrun_timeout: Option<Duration>,
    /// What is done when a run has ended.
    pub callbacks: Vec<Callback>,
    /// After so many failed runs in a row the DAG is paused; 0 is never.
    pub max_consecutive_failed_dag_runs: u32,
    /// The task groups; each after the one around it.
    pub groups: Vec<Group>,
    /// The tasks, in the order of the manifest.
    pub tasks: Vec<Task>,
    derived: Derived,
}

/// One parameter of a DAG.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Param {
    /// The JSON Schema that a value must match.
    pub schema: Value,
    /// The value where the caller gives none; without one the parameter is required. `null` is a value.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub default: Option<Value>,
}

/// What is there is given, `null` too: serde alone reads it as nothing.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// The fields of a `Dag` without the index that is derived from them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DagParts {
    /// See [`Dag::id`].
    pub id: DagId,
    /// See [`Dag::description`].
    pub description: Option<String>,
    /// See [`Dag::doc_md`].
    pub doc_md: Option<String>,
    /// See [`Dag::owner`].
    pub owner: String,
    /// See [`Dag::tags`].
    pub tags: Vec<String>,
    /// See [`Dag::params`].
    pub params: IndexMap<String, Param>,
    /// See [`Dag::strict_params`].
    #[serde(default, skip_serializing_if = "is_false")]
    pub strict_params: bool,
    /// See [`Dag::max_active_runs`].
    pub max_active_runs: u32,
    /// See [`Dag::max_active_tasks`].
    pub max_active_tasks: u32,
    /// See [`Dag::dagrun_timeout`].
    pub dagrun_timeout: Option<Duration>,
    /// See [`Dag::callbacks`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub callbacks: Vec<Callback>,
    /// See [`Dag::max_consecutive_failed_dag_runs`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_consecutive_failed_dag_runs: u32,
    /// See [`Dag::groups`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    /// See [`Dag::tasks`].
    pub tasks: Vec<Task>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

const fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl From<DagParts> for Dag {
    fn from(parts: DagParts) -> Self {
        let DagParts {
            id,
            description,
            doc_md,
            owner,
            tags,
            params,
            strict_params,
            max_active_runs,
            max_active_tasks,
            dagrun_timeout,
            callbacks,
            max_consecutive_failed_dag_runs,
            groups,
            tasks,
        } = parts;
        let derived = Derived::of(&groups, &tasks);
        Self {
            id,
            description,
            doc_md,
            owner,
            tags,
            params,
            strict_params,
            max_active_runs,
            max_active_tasks,
            dagrun_timeout,
            callbacks,
            max_consecutive_failed_dag_runs,
            groups,
            tasks,
            derived,
        }
    }
}

impl From<Dag> for DagParts {
    fn from(dag: Dag) -> Self {
        let Dag {
            id,
            description,
            doc_md,
            owner,
            tags,
            params,
            strict_params,
            max_active_runs,
            max_active_tasks,
            dagrun_timeout,
            callbacks,
            max_consecutive_failed_dag_runs,
            groups,
            tasks,
            derived: _,
        } = dag;
        Self {
            id,
            description,
            doc_md,
            owner,
            tags,
            params,
            strict_params,
            max_active_runs,
            max_active_tasks,
            dagrun_timeout,
            callbacks,
            max_consecutive_failed_dag_runs,
            groups,
            tasks,
        }
    }
}

impl Dag {
    /// The position of a task.
    pub fn index_of(&self, task: &str) -> Option<TaskIndex> {
        self.derived.by_id.get(task).copied()
    }

    /// The task at a position.
    pub fn task(&self, index: TaskIndex) -> Option<&Task> {
        self.tasks.get(index.at())
    }

    /// Whether the task's state counts for the state of the run.
    ///
    /// Airflow: `DagRun._tis_for_dagrun_state`. A task counts unless something that counts follows it; teardowns count only with
    /// `on_failure_fail_dagrun`; in a DAG of nothing but teardowns, the last ones count.
    pub fn is_leaf(&self, index: TaskIndex) -> bool {
        self.derived.leaves.get(index.at()).copied().unwrap_or(false)
    }

    /// The tasks for which this setup counts: its direct teardowns, and the tasks within its scope that it is not a direct
    /// upstream of. Empty for anything but a setup.
    pub fn setup_watchers(&self, index: TaskIndex) -> &[TaskIndex] {
        self.derived
            .guards
            .setup_watchers
            .get(index.at())
            .map_or(&[], Vec::as_slice)
    }

    /// The setups that count for a task: the other way round.
    pub fn setups_of(&self, index: TaskIndex) -> &[TaskIndex] {
        self.derived.guards.setups_of.get(index.at()).map_or(&[], Vec::as_slice)
    }

    /// The tasks that a task waits for, ascending: its upstream tasks, and of a teardown every other task between its setups and itself,
    /// since what they prepared is in use until all of these have ended.
    pub fn awaited(&self, index: TaskIndex) -> &[TaskIndex] {
        let more = self.derived.guards.awaited.get(index.at());
        let direct = || self.task(index).map_or(&[][..], |task| &task.upstream);
        more.map_or_else(direct, Vec::as_slice)
    }

    /// The tasks that wait for a task: the other way round.
    pub fn awaiting(&self, index: TaskIndex) -> &[TaskIndex] {
        let more = self.derived.guards.awaiting.get(index.at());
        let direct = || self.task(index).map_or(&[][..], |task| &task.downstream);
        more.map_or_else(direct, Vec::as_slice)
    }

    /// The teardowns of a setup, ascending.
    pub fn teardowns_of(&self, setup: TaskIndex) -> Vec<TaskIndex> {
        guards::teardowns_of(&self.tasks, setup)
    }

    /// The setups with the tasks that need what each prepares; see [`Self::setup_watchers`], which leaves out those that follow directly.
    pub fn setup_scopes(&self) -> Vec<(TaskIndex, BTreeSet<TaskIndex>)> {
        let tasks = (0_u32..).map(TaskIndex).zip(&self.tasks);
        let setups = tasks.filter(|(_, task)| task.role == TaskRole::Setup);
        setups
            .map(|(at, _)| (at, guards::scope_of(&self.tasks, at, &self.teardowns_of(at))))
            .collect()
    }

    /// The tasks that wait for the run before, ascending.
    pub fn looking_back(&self) -> &[TaskIndex] {
        &self.derived.looking_back
    }

    /// The scopes of repeated task groups.
    pub fn scopes(&self) -> &Scopes {
        &self.derived.scopes
    }

    /// What is mapped over the answers of a task.
    pub fn fed_by(&self, task: TaskIndex) -> &[Fed] {
        self.derived.feeds.get(&task).map_or(&[], Vec::as_slice)
    }

    /// The repeated group of a scope.
    pub fn repeat(&self, scope: u32) -> Option<&Repeat> {
        let group = self.scopes().get(scope)?.group?;
        self.groups.get(group as usize)?.repeat.as_ref()
    }

    /// The mapping of a scope, if it is mapped.
    pub fn mapping(&self, scope: u32) -> Option<&Expansion> {
        match self.repeat(scope)? {
            Repeat::Mapped(expansion) => Some(expansion),
            Repeat::Loop(_) => None,
        }
    }

    /// Whether a task is mapped: itself, or a group around it.
    pub fn is_mapped(&self, index: TaskIndex) -> bool {
        let around = self.scopes().path(scopes::ROOT, self.scopes().of_task(index).0);
        self.task(index).is_some_and(|task| task.expand.is_some())
            || around.into_iter().any(|scope| self.mapping(scope).is_some())
    }

    /// Whether a task may have several instances in a run: it is mapped, or goes round in a loop.
    pub fn is_repeated(&self, index: TaskIndex) -> bool {
        self.task(index).is_some_and(|task| task.expand.is_some()) || self.scopes().of_task(index).0 != scopes::ROOT
    }

    /// Every mapping: of groups, then of tasks.
    pub fn expansions(&self) -> impl Iterator<Item = &Expansion> {
        let groups = self.groups.iter().filter_map(|group| match &group.repeat {
            Some(Repeat::Mapped(expansion)) => Some(expansion),
            _ => None,
        });
        groups.chain(self.tasks.iter().filter_map(|task| task.expand.as_ref()))
    }

    /// The paths of the parameters that are mapped over, in the order of their measures.
    pub fn mapped_params(&self) -> Vec<&[Segment]> {
        let mut paths: Vec<(u32, &[Segment])> = self
            .expansions()
            .flat_map(|expansion| &expansion.sources)
            .filter_map(|source| match &source.values {
                MapValues::Param { path, measure } => Some((*measure, path.as_slice())),
                _ => None,
            })
            .collect();
        paths.sort_by_key(|(measure, _)| *measure);
        paths.dedup_by_key(|(measure, _)| *measure);
        paths.into_iter().map(|(_, path)| path).collect()
    }

    /// The task that a name stands for where `from` uses it: one of its own group, or of a group around that, the innermost
    /// first; else the whole id.
    pub fn resolve(&self, from: TaskIndex, name: &str) -> Option<TaskIndex> {
        let mut group = self.task(from).and_then(|task| task.group);
        while let Some(at) = group {
            let Some(around) = self.groups.get(at.at()) else { break };
            if let Some(found) = self.index_of(&format!("{}.{name}", around.id)) {
                return Some(found);
            }
            group = around.parent;
        }
        self.index_of(name)
    }

    /// The tasks of a group, however deep, ascending; nothing where there is no such group.
    pub fn tasks_of_group(&self, group: &str) -> Option<Vec<TaskIndex>> {
        let at = self.groups.iter().position(|known| known.id == group)?;
        let lies_in = |task: &Task| {
            let parent = |of: &GroupIndex| self.groups.get(of.at())?.parent;
            std::iter::successors(task.group, parent).any(|of| of.at() == at)
        };
        let tasks = (0_u32..).zip(&self.tasks).filter(|(_, task)| lies_in(task));
        Some(tasks.map(|(at, _)| TaskIndex(at)).collect())
    }

    /// All tasks that `starts` lead to, ascending; a start is among them only if another one leads to it.
    pub fn descendants(&self, starts: &[TaskIndex]) -> BTreeSet<TaskIndex> {
        reach(&self.tasks, starts, |task| &task.downstream)
    }

    /// All tasks that lead to `ends`, ascending.
    pub fn ancestors(&self, ends: &[TaskIndex]) -> BTreeSet<TaskIndex> {
        reach(&self.tasks, ends, |task| &task.upstream)
    }
}

fn reach(tasks: &[Task], from: &[TaskIndex], next: fn(&Task) -> &Vec<TaskIndex>) -> BTreeSet<TaskIndex> {
    let mut seen = BTreeSet::new();
    let mut stack = from.to_vec();
    while let Some(task) = stack.pop().and_then(|index| tasks.get(index.at())) {
        stack.extend(next(task).iter().filter(|index| seen.insert(**index)));
    }
    seen
}

fn inverse(lists: &[Vec<TaskIndex>], length: usize) -> Vec<Vec<TaskIndex>> {
    if lists.is_empty() {
        return Vec::new();
    }
    let mut inverse = vec![Vec::new(); length];
    for (from, list) in lists.iter().enumerate() {
        let from = TaskIndex(u32::try_from(from).unwrap_or(u32::MAX));
        for to in list {
            if let Some(to) = inverse.get_mut(to.at()) {
                to.push(from);
            }
        }
    }
    inverse
}

/// What is mapped over the answers of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fed {
    /// A task.
    Task(TaskIndex),
    /// The group of a scope.
    Scope(u32),
}

/// What follows from the tasks alone.
#[derive(Clone, Debug)]
struct Derived {
    by_id: HashMap<TaskId, TaskIndex>,
    leaves: Vec<bool>,
    guards: guards::Guards,
    scopes: Scopes,
    looking_back: Vec<TaskIndex>,
    feeds: HashMap<TaskIndex, Vec<Fed>>,
}

impl Derived {
    fn of(groups: &[Group], tasks: &[Task]) -> Self {
        let index = |at: usize| TaskIndex(u32::try_from(at).unwrap_or(u32::MAX));
        let by_id = tasks
            .iter()
            .enumerate()
            .map(|(at, task)| (task.id.clone(), index(at)))
            .collect();
        Self {
            by_id,
            leaves: Self::leaves(tasks),
            looking_back: (0..tasks.len())
                .filter(|at| tasks.get(*at).is_some_and(|task| task.past.matters()))
                .map(index)
                .collect(),
            scopes: Scopes::of(groups, tasks),
            feeds: Self::feeds(groups, tasks),
            guards: guards::Guards::of(tasks),
        }
    }

    fn leaves(tasks: &[Task]) -> Vec<bool> {
        let counts = |task: &Task| {
            !matches!(
                task.role,
                TaskRole::Teardown {
                    on_failure_fail_dagrun: false
                }
            )
        };
        let leaves: Vec<bool> = tasks
            .iter()
            .map(|task| counts(task) && !task.downstream.iter().filter_map(|at| tasks.get(at.at())).any(counts))
            .collect();
        if leaves.contains(&true) {
            return leaves;
        }
        tasks.iter().map(|task| task.downstream.is_empty()).collect()
    }

    fn feeds(groups: &[Group], tasks: &[Task]) -> HashMap<TaskIndex, Vec<Fed>> {
        fn sources(expansion: &Expansion) -> impl Iterator<Item = TaskIndex> {
            expansion.sources.iter().filter_map(|source| match &source.values {
                MapValues::Xcom { task, .. } => Some(*task),
                _ => None,
            })
        }
        let mut feeds: HashMap<TaskIndex, Vec<Fed>> = HashMap::new();
        let mut feed = |from: TaskIndex, fed: Fed| {
            let all = feeds.entry(from).or_default();
            // What names a task twice does so in a row.
            if all.last() != Some(&fed) {
                all.push(fed);
            }
        };
        for (at, task) in tasks.iter().enumerate() {
            let fed = Fed::Task(TaskIndex(u32::try_from(at).unwrap_or(u32::MAX)));
            task.expand.iter().flat_map(sources).for_each(|from| feed(from, fed));
        }
        // Scopes are numbered in the order of the groups that are repeated.
        let repeats = groups.iter().filter_map(|group| group.repeat.as_ref());
        for (scope, repeat) in (1_u32..).zip(repeats) {
            if let Repeat::Mapped(expansion) = repeat {
                sources(expansion).for_each(|from| feed(from, Fed::Scope(scope)));
            }
        }
        feeds
    }
}
