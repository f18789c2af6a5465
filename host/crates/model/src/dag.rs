//! A DAG version, compiled: the graph and everything that a run of it needs to know. It is made from a checked manifest and
//! the digests of its components (`manifest`), and never changes.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{DagId, Digest, TaskId, TaskIndex};
use crate::limits::Limits;
use crate::trigger_rule::TriggerRule;
use crate::weight::WeightRule;

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
    /// How many runs may be running at a time.
    pub max_active_runs: u32,
    /// How many task instances of all runs may be dispatched at a time.
    pub max_active_tasks: u32,
    /// How long a run may take.
    pub dagrun_timeout: Option<Duration>,
    /// The tasks, in the order of the manifest.
    pub tasks: Vec<Task>,
    derived: Derived,
}

/// One parameter of a DAG.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Param {
    /// The JSON Schema that a value must match.
    pub schema: Value,
    /// The value where the caller gives none; without one the parameter is required.
    pub default: Option<Value>,
}

/// One task of a DAG version.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    /// Its id in the manifest.
    pub id: TaskId,
    /// The component as the manifest names it, for people: `ml@1.2`.
    pub component: String,
    /// The component's content.
    pub digest: Digest,
    /// Which task of the component.
    pub entry: String,
    /// Markdown for people (Airflow: `doc_md`).
    #[serde(default)]
    pub doc_md: Option<String>,
    /// The input, with templates not yet rendered.
    pub input: Value,
    /// When it may run.
    pub trigger_rule: TriggerRule,
    /// Direct upstream tasks, ascending, without repeats.
    pub upstream: Vec<TaskIndex>,
    /// Direct downstream tasks, ascending, without repeats.
    pub downstream: Vec<TaskIndex>,
    /// What the task is.
    pub kind: TaskKind,
    /// Work, setup or teardown.
    #[serde(default)]
    pub role: TaskRole,
    /// What happens after a failed try.
    pub retry: RetryPolicy,
    /// What one try may use.
    pub limits: Limits,
    /// Run again after an infrastructure loss (the default), or fail the try.
    pub rerun_on_loss: bool,
    /// How many infrastructure losses one try survives.
    pub max_infra_retries: u32,
    /// The pool that its slots come from.
    pub pool: String,
    /// How many slots of the pool it takes.
    pub pool_slots: u32,
    /// Higher goes first; see [`Queueing::weight`] for what counts in the end.
    pub priority_weight: i32,
    /// How it waits for capacity.
    #[serde(default)]
    pub queueing: Queueing,
}

/// How the task instances of a task wait for capacity, beside their pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Queueing {
    /// The queue of executors that it is meant for (Airflow: `queue`). Every executor of this version serves every queue.
    pub queue: String,
    /// What the weight is made of.
    pub weight_rule: WeightRule,
    /// The effective weight by that rule, from [`weight::weigh`](crate::weight::weigh).
    pub weight: i32,
    /// How many task instances of the task may be dispatched at a time in all runs of the DAG (Airflow: `max_active_tis_per_dag`).
    pub max_active_tis_per_dag: Option<u32>,
    /// How many in one run (Airflow: `max_active_tis_per_dagrun`).
    pub max_active_tis_per_dagrun: Option<u32>,
}

impl Default for Queueing {
    fn default() -> Self {
        Self {
            queue: DEFAULT_QUEUE.to_owned(),
            weight_rule: WeightRule::Downstream,
            weight: 1,
            max_active_tis_per_dag: None,
            max_active_tis_per_dagrun: None,
        }
    }
}

/// What a task is, beyond a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TaskKind {
    /// An ordinary task.
    Plain,
    /// A branch: it answers labels, and each label stands for direct downstream tasks.
    Branch {
        /// What each label chooses; ascending, without repeats.
        labels: IndexMap<String, Vec<TaskIndex>>,
    },
    /// Skips what follows when its answer is JSON `false`, `null`, `0`, `""`, `[]` or `{}`.
    ShortCircuit {
        /// Skip everything downstream, not just the direct downstream tasks.
        ignore_downstream_trigger_rules: bool,
    },
}

/// The part that a task plays for the others (Airflow: `as_setup`, `as_teardown`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TaskRole {
    /// An ordinary task.
    #[default]
    Work,
    /// Prepares something for the tasks between it and its teardowns.
    Setup,
    /// Cleans up what its setups (upstream tasks with the role `Setup`) prepared. Its trigger rule is `all_done_setup_success`.
    Teardown {
        /// Whether its failure fails the run.
        on_failure_fail_dagrun: bool,
    },
}

/// What happens after a failed try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// How many tries there are beyond the first.
    pub retries: u32,
    /// How long to wait before the next try.
    pub delay: Duration,
    /// Double the wait with each try (Airflow: `retry_exponential_backoff`).
    pub exponential_backoff: bool,
    /// The longest wait.
    pub max_delay: Option<Duration>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            retries: 0,
            delay: Duration::from_secs(300),
            exponential_backoff: false,
            max_delay: None,
        }
    }
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
    /// See [`Dag::max_active_runs`].
    pub max_active_runs: u32,
    /// See [`Dag::max_active_tasks`].
    pub max_active_tasks: u32,
    /// See [`Dag::dagrun_timeout`].
    pub dagrun_timeout: Option<Duration>,
    /// See [`Dag::tasks`].
    pub tasks: Vec<Task>,
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
            max_active_runs,
            max_active_tasks,
            dagrun_timeout,
            tasks,
        } = parts;
        let derived = Derived::of(&tasks);
        Self {
            id,
            description,
            doc_md,
            owner,
            tags,
            params,
            max_active_runs,
            max_active_tasks,
            dagrun_timeout,
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
            max_active_runs,
            max_active_tasks,
            dagrun_timeout,
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
            max_active_runs,
            max_active_tasks,
            dagrun_timeout,
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
        self.derived.setup_watchers.get(index.at()).map_or(&[], Vec::as_slice)
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

/// What follows from the tasks alone.
#[derive(Clone, Debug)]
struct Derived {
    by_id: HashMap<TaskId, TaskIndex>,
    leaves: Vec<bool>,
    setup_watchers: Vec<Vec<TaskIndex>>,
}

impl Derived {
    fn of(tasks: &[Task]) -> Self {
        let index = |at: usize| TaskIndex(u32::try_from(at).unwrap_or(u32::MAX));
        let by_id = tasks
            .iter()
            .enumerate()
            .map(|(at, task)| (task.id.clone(), index(at)))
            .collect();
        Self {
            by_id,
            leaves: Self::leaves(tasks),
            setup_watchers: Self::setup_watchers(tasks),
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

    /// Airflow: `get_upstreams_only_setups`. A setup counts for a task further down if one of its teardowns is downstream of that
    /// task, or if it has none. Direct upstream setups are judged by the trigger rule alone.
    fn setup_watchers(tasks: &[Task]) -> Vec<Vec<TaskIndex>> {
        if tasks.iter().all(|task| task.role != TaskRole::Setup) {
            return Vec::new();
        }
        let is_teardown = |at: &TaskIndex| tasks.get(at.at()).is_some_and(Task::is_teardown);
        tasks
            .iter()
            .enumerate()
            .map(|(at, setup)| {
                if setup.role != TaskRole::Setup {
                    return Vec::new();
                }
                let at = TaskIndex(u32::try_from(at).unwrap_or(u32::MAX));
                let teardowns: Vec<TaskIndex> = setup.downstream.iter().copied().filter(is_teardown).collect();
                let guarded = reach(tasks, &teardowns, |task| &task.upstream);
                let mut watchers: Vec<TaskIndex> = reach(tasks, &[at], |task| &task.downstream)
                    .into_iter()
                    .filter(|task| !is_teardown(task) && setup.downstream.binary_search(task).is_err())
                    .filter(|task| teardowns.is_empty() || guarded.contains(task))
                    .collect();
                watchers.extend(teardowns);
                watchers
            })
            .collect()
    }
}

impl Task {
    /// Whether it cleans up.
    pub fn is_teardown(&self) -> bool {
        matches!(self.role, TaskRole::Teardown { .. })
    }
}
