//! One task of a DAG version: what it does, when it may run, how it is retried, and how it waits for capacity.

use std::num::NonZeroU8;
use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{DEFAULT_QUEUE, Expansion, GroupIndex, Measure};
use crate::callback::Callback;
use crate::cause::Cause;
use crate::id::{TaskId, TaskIndex};
use crate::limits::Limits;
use crate::past::Past;
use crate::retry_rule::RetryRule;
use crate::sensor::Sensor;
use crate::trigger_rule::TriggerRule;
use crate::weight::WeightRule;
use crate::work::Work;

/// One task of a DAG version.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    /// Its id in the manifest.
    pub id: TaskId,
    /// What a try of it does.
    pub work: Work,
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
    /// The group that it lies in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupIndex>,
    /// What it is mapped over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expand: Option<Expansion>,
    /// A template that names a mapped instance for people (Airflow: `map_index_template`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map_index_template: Option<String>,
    /// A template of true or false, rendered when a try begins: false skips the task instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// What is measured of what a successful try publishes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measures: Vec<Measure>,
    /// What the task is.
    pub kind: TaskKind,
    /// Work, setup or teardown.
    #[serde(default)]
    pub role: TaskRole,
    /// Whether it waits for the run before.
    #[serde(default, skip_serializing_if = "Past::is_ignored")]
    pub past: Past,
    /// What happens after a failed try.
    pub retry: RetryPolicy,
    /// How it is poked while it answers "not yet".
    #[serde(default)]
    pub sensor: Option<Sensor>,
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
    /// What is done when a try of it has ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub callbacks: Vec<Callback>,
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
    /// What decides before all that, by how the try ended (Airflow: `retry_policy`).
    #[serde(default)]
    pub rules: Vec<RetryRule>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            retries: 0,
            delay: Duration::from_secs(300),
            exponential_backoff: false,
            max_delay: None,
            rules: Vec::new(),
        }
    }
}

impl RetryPolicy {
    /// The first rule that speaks about a try that ended so, and its number, counted from one.
    pub fn rule_for(&self, cause: Cause, code: Option<&str>) -> Option<(NonZeroU8, &RetryRule)> {
        let at = self.rules.iter().position(|rule| rule.matches(cause, code))?;
        let number = NonZeroU8::new(u8::try_from(at + 1).ok()?)?;
        Some((number, self.rules.get(at)?))
    }

    /// The rule with this number.
    pub fn rule(&self, number: NonZeroU8) -> Option<&RetryRule> {
        self.rules.get(usize::from(number.get()) - 1)
    }

    /// What a rule says, for people.
    pub fn reason(&self, number: NonZeroU8) -> Option<String> {
        Some(format!("rule {number} of `retry_policy`: {}", self.rule(number)?))
    }
}

impl Task {
    /// Whether it cleans up.
    pub fn is_teardown(&self) -> bool {
        matches!(self.role, TaskRole::Teardown { .. })
    }
}
