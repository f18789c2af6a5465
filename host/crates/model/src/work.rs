//! What a try of a task does: run a task of a component, or one of the steps that need no component.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::between::{TriggerDag, WaitForDag};
use crate::human::HumanStep;
use crate::id::Digest;
use crate::latest_only;
use crate::sensor::{DEFAULT_TIMEOUT, Sensor};

/// What a try does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Work {
    /// Runs a task of a component.
    Component(ComponentTask),
    /// Asks a person and waits for the answer. The task's input holds what is asked: `subject` and `body`.
    Human(Box<HumanStep>),
    /// Renders a text for people: a notification. Only callbacks do that.
    Notify,
    /// Lets only the latest run of a schedule go on.
    LatestOnly,
    /// Starts a run of another DAG. The task's input holds its `conf`, `run_id` and `logical_date`.
    TriggerDag(Box<TriggerDag>),
    /// Waits for another DAG. The task's input says which run by its `run_id` or `logical_date`.
    WaitForDag(Box<WaitForDag>),
}

/// A task of a component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentTask {
    /// The component as the manifest names it, for people: `ml@1.2`.
    pub reference: String,
    /// The component's content.
    pub digest: Digest,
    /// Which task of the component.
    pub entry: String,
}

impl Work {
    /// The task `entry` of a component.
    pub fn of_component(reference: impl Into<String>, digest: Digest, entry: impl Into<String>) -> Self {
        Self::Component(ComponentTask {
            reference: reference.into(),
            digest,
            entry: entry.into(),
        })
    }

    /// The component's task, if it is one.
    pub const fn component(&self) -> Option<&ComponentTask> {
        match self {
            Self::Component(task) => Some(task),
            Self::Human(_) | Self::TriggerDag(_) | Self::WaitForDag(_) | Self::Notify | Self::LatestOnly => None,
        }
    }

    /// The human step, if it is one.
    pub fn human(&self) -> Option<&HumanStep> {
        match self {
            Self::Human(step) => Some(step),
            _ => None,
        }
    }

    /// The step that triggers another DAG, if it is one.
    pub fn trigger_dag(&self) -> Option<&TriggerDag> {
        match self {
            Self::TriggerDag(step) => Some(step),
            _ => None,
        }
    }

    /// The sensor on another DAG, if it is one.
    pub fn wait_for_dag(&self) -> Option<&WaitForDag> {
        match self {
            Self::WaitForDag(step) => Some(step),
            _ => None,
        }
    }

    /// Whether its tries may be deferred.
    pub fn may_defer(&self) -> bool {
        self.deferred_for(None).is_some()
    }

    /// How long a try may be deferred, from its start on; `sensor` is the task's. None where it may not be deferred at all, and
    /// `Some(None)` where nothing bounds it.
    pub(crate) fn deferred_for(&self, sensor: Option<&Sensor>) -> Option<Option<Duration>> {
        match self {
            Self::TriggerDag(step) => Some(step.timeout),
            Self::WaitForDag(_) => Some(Some(sensor.map_or(DEFAULT_TIMEOUT, |sensor| sensor.timeout))),
            Self::Component(_) | Self::Human(_) | Self::Notify | Self::LatestOnly => None,
        }
    }

    /// What does it, as Airflow's API calls it (`operator`): the component as the manifest names it, or the class of Airflow's
    /// operator that a built-in step stands for.
    pub fn operator(&self) -> &str {
        match self {
            Self::Component(task) => &task.reference,
            Self::Human(step) => step.class(),
            Self::Notify => "notify",
            Self::LatestOnly => latest_only::CLASS,
            Self::TriggerDag(_) => TriggerDag::CLASS,
            Self::WaitForDag(_) => WaitForDag::CLASS,
        }
    }

    /// The name of what does it (Airflow: `operator_name`): the component's task, or the built-in step.
    pub fn operator_name(&self) -> &str {
        match self {
            Self::Component(task) => &task.entry,
            Self::Human(step) => step.class(),
            Self::Notify => "notify",
            Self::LatestOnly => latest_only::CLASS,
            Self::TriggerDag(_) => TriggerDag::CLASS,
            Self::WaitForDag(_) => WaitForDag::CLASS,
        }
    }
}
