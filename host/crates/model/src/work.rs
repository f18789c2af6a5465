//! What a try of a task does: run a task of a component, or one of the steps that need no component.

use serde::{Deserialize, Serialize};

use crate::human::HumanStep;
use crate::id::Digest;
use crate::latest_only;

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
            Self::Human(_) | Self::Notify | Self::LatestOnly => None,
        }
    }

    /// The human step, if it is one.
    pub fn human(&self) -> Option<&HumanStep> {
        match self {
            Self::Component(_) | Self::Notify | Self::LatestOnly => None,
            Self::Human(step) => Some(step),
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
        }
    }

    /// The name of what does it (Airflow: `operator_name`): the component's task, or the built-in step.
    pub fn operator_name(&self) -> &str {
        match self {
            Self::Component(task) => &task.entry,
            Self::Human(step) => step.class(),
            Self::Notify => "notify",
            Self::LatestOnly => latest_only::CLASS,
        }
    }
}
