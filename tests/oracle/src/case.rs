//! A case as it is written in the file.

use std::collections::BTreeMap;

use serde::Deserialize;

/// One workflow with its known result.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    /// Its name.
    pub id: String,
    /// `basic`, `branch`, `setup_teardown` or `mapping`.
    pub category: String,
    /// In a topological order.
    pub tasks: Vec<Task>,
    /// The state of every task instance at the end.
    #[serde(rename = "final")]
    pub end: BTreeMap<String, String>,
    /// How many times each was executed.
    pub tries: BTreeMap<String, u32>,
    /// The state of the run at the end.
    pub run_state: String,
}

/// One task of a case.
#[derive(Clone, Debug, Deserialize)]
pub struct Task {
    /// Its id.
    pub id: String,
    /// `task`, `branch` or `short_circuit`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its trigger rule.
    pub trigger_rule: String,
    /// Direct upstream tasks.
    pub upstream: Vec<String>,
    /// What its body does; none for a mapped task.
    pub outcome: Option<Outcome>,
    /// Tries beyond the first.
    pub retries: u32,
    /// Whether it is a setup.
    pub setup: bool,
    /// Set for a teardown.
    pub teardown: Option<Teardown>,
    /// Set for a mapped task.
    pub map: Option<Map>,
    /// Of a short-circuit: whether it skips everything downstream.
    #[serde(default)]
    pub ignore_downstream_trigger_rules: bool,
}

/// What a task is mapped over.
#[derive(Clone, Debug, Deserialize)]
pub struct Map {
    /// `literal`, or a task id.
    pub over: String,
    /// What the body does for each element.
    pub outcomes: Vec<Outcome>,
}

/// What makes a task a teardown.
#[derive(Clone, Debug, Deserialize)]
pub struct Teardown {
    /// Whether its failure fails the run.
    pub on_failure_fail_dagrun: bool,
}

/// What the body of a task does each time that it is executed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// Succeeds.
    Success {
        /// How many elements the list has that it returns.
        #[serde(default)]
        emits: Option<u32>,
    },
    /// Fails on every try.
    Fail,
    /// Fails with an error that forbids retries.
    FailNoRetry,
    /// Skips itself.
    Skip,
    /// Fails on the first tries, then succeeds.
    FailThenSucceed {
        /// How many.
        failures: u32,
        /// How many elements the list has that it returns in the end.
        #[serde(default)]
        emits: Option<u32>,
    },
    /// Chooses these direct downstream tasks.
    Branch {
        /// Task ids.
        follow: Vec<String>,
    },
    /// A short-circuit that answers a false value.
    ShortCircuitFalse,
    /// A short-circuit that answers a true value.
    ShortCircuitTrue,
}
