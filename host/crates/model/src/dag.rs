//! A DAG version, compiled: the graph and everything that a run of it needs to know. It is made from a checked manifest and
//! the digests of its components (`manifest`), and never changes.

use std::collections::HashMap;
use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{DagId, Digest, TaskId, TaskIndex};
use crate::limits::Limits;
use crate::trigger_rule::TriggerRule;

/// The pool of a task that names none (Airflow: `default_pool`).
pub const DEFAULT_POOL: &str = "default_pool";

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
    by_id: HashMap<TaskId, TaskIndex>,
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
    /// Higher goes first.
    pub priority_weight: i32,
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
        let by_id = parts
            .tasks
            .iter()
            .enumerate()
            .map(|(index, task)| (task.id.clone(), TaskIndex(u32::try_from(index).unwrap_or(u32::MAX))))
            .collect();
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
            by_id,
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
            by_id: _,
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
        self.by_id.get(task).copied()
    }

    /// The task at a position.
    pub fn task(&self, index: TaskIndex) -> Option<&Task> {
        self.tasks.get(index.at())
    }
}
