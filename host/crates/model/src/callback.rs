//! Callbacks: what is done when a try of a task, or a run, has ended. Each is a task of a component that runs by itself, or a
//! notification for people. What becomes of a callback never changes the run.
//!
//! Airflow: `on_success_callback`, `on_failure_callback`, `on_retry_callback` and `on_skipped_callback` of tasks (`task_runner.finalize`),
//! `on_success_callback` and `on_failure_callback` of DAGs (`DagRun.update_state`).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dag::Dag;
use crate::id::TaskIndex;
use crate::limits::Limits;
use crate::state::{DagRunState, TaskInstanceState, text_enum};
use crate::template::is_template;
use crate::work::{ComponentTask, Work};

/// The member of a notification's input that holds its text.
pub const TEXT: &str = "notify";
/// The most callbacks of one event.
pub const MAX_CALLBACKS: usize = 16;

text_enum! {
    /// What callbacks wait for.
    CallbackEvent {
        /// The task, or the run, succeeded.
        Success = "on_success",
        /// The task failed and has no tries left, or the run failed.
        Failure = "on_failure",
        /// A try failed and another one follows.
        Retry = "on_retry",
        /// The task skipped itself.
        Skipped = "on_skipped",
    }
}

impl CallbackEvent {
    /// Those that a DAG can have callbacks for.
    pub const OF_DAG: [Self; 2] = [Self::Success, Self::Failure];

    /// What the end of a try calls.
    ///
    /// Airflow: `task_runner.finalize` goes by the state that the task itself came to. A task instance that is skipped by a branch,
    /// cannot run because of an upstream failure, or is marked by a person, ends without its callbacks ("callback functions are only
    /// invoked when the task state changes due to execution by a worker").
    pub const fn of_try(state: TaskInstanceState) -> Option<Self> {
        match state {
            TaskInstanceState::Success => Some(Self::Success),
            TaskInstanceState::Failed => Some(Self::Failure),
            TaskInstanceState::UpForRetry => Some(Self::Retry),
            TaskInstanceState::Skipped => Some(Self::Skipped),
            _ => None,
        }
    }

    /// What the end of a run calls.
    pub const fn of_run(state: DagRunState) -> Option<Self> {
        match state {
            DagRunState::Success => Some(Self::Success),
            DagRunState::Failed => Some(Self::Failure),
            DagRunState::Queued | DagRunState::Running => None,
        }
    }

    /// The state that a task instance has come to.
    pub const fn ti_state(self) -> TaskInstanceState {
        match self {
            Self::Success => TaskInstanceState::Success,
            Self::Failure => TaskInstanceState::Failed,
            Self::Retry => TaskInstanceState::UpForRetry,
            Self::Skipped => TaskInstanceState::Skipped,
        }
    }
}

text_enum! {
    /// Why a run ended (Airflow: `reason` of a DAG's callbacks, `msg` of `DagCallbackRequest`).
    RunEndReason {
        /// All that counts succeeded.
        Success = "success",
        /// Something that counts failed.
        TaskFailure = "task_failure",
        /// Nothing could move any more.
        Deadlocked = "all_tasks_deadlocked",
        /// It took longer than `dagrun_timeout`.
        TimedOut = "timed_out",
    }
}

text_enum! {
    /// How urgent a notification is.
    NotificationLevel {
        /// Good to know.
        Info = "info",
        /// Worth a look.
        Warning = "warning",
        /// Something failed.
        Error = "error",
    }
}

text_enum! {
    /// What a callback is, in rows and answers.
    CallbackKind {
        /// A task of a component.
        Task = "task",
        /// A text for people.
        Notification = "notification",
    }
}

text_enum! {
    /// How far a callback is.
    CallbackState {
        /// It is due.
        Queued = "queued",
        /// An executor has it.
        Running = "running",
        /// It is done.
        Success = "success",
        /// It failed, and is not tried again.
        Failed = "failed",
    }
}

impl CallbackState {
    /// Whether nothing follows any more.
    pub const fn is_finished(self) -> bool {
        matches!(self, Self::Success | Self::Failed)
    }
}

/// One callback of a task or of a DAG.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Callback {
    /// What it waits for.
    pub event: CallbackEvent,
    /// What it does.
    pub action: CallbackAction,
    /// Its input, with templates not yet rendered; of a notification an object whose member [`TEXT`] is the text.
    pub input: Value,
}

/// What a callback does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum CallbackAction {
    /// Runs a task of a component, in the same sandbox as any task.
    Task {
        /// Which.
        component: ComponentTask,
        /// What it may use.
        limits: Limits,
    },
    /// Leaves a text for people.
    Notify {
        /// How urgent it is.
        level: NotificationLevel,
    },
}

impl Callback {
    /// What it is.
    pub const fn kind(&self) -> CallbackKind {
        match self.action {
            CallbackAction::Task { .. } => CallbackKind::Task,
            CallbackAction::Notify { .. } => CallbackKind::Notification,
        }
    }

    /// How urgent a notification is.
    pub const fn level(&self) -> Option<NotificationLevel> {
        match self.action {
            CallbackAction::Task { .. } => None,
            CallbackAction::Notify { level } => Some(level),
        }
    }

    /// What an executor does to carry it out.
    pub fn work(&self) -> Work {
        match &self.action {
            CallbackAction::Task { component, .. } => Work::Component(component.clone()),
            CallbackAction::Notify { .. } => Work::Notify,
        }
    }

    /// What it may use.
    pub fn limits(&self) -> Limits {
        match &self.action {
            CallbackAction::Task { limits, .. } => limits.clone(),
            CallbackAction::Notify { .. } => Limits::default(),
        }
    }

    /// The text of a notification that is no template: there is nothing to render.
    pub fn plain_text(&self) -> Option<&str> {
        let text = match self.action {
            CallbackAction::Task { .. } => return None,
            CallbackAction::Notify { .. } => self.input.get(TEXT)?.as_str()?,
        };
        (!is_template(text)).then_some(text)
    }
}

impl Dag {
    /// The callbacks of a task, or of the DAG itself.
    pub fn callbacks(&self, task: Option<TaskIndex>) -> &[Callback] {
        match task {
            None => &self.callbacks,
            Some(task) => self.task(task).map_or(&[], |task| &task.callbacks),
        }
    }

    /// Whether anything is called at this event.
    pub fn calls_back(&self, task: Option<TaskIndex>, event: CallbackEvent) -> bool {
        self.callbacks(task).iter().any(|callback| callback.event == event)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_text_without_templates_is_complete_at_once() {
        let of = |text: &str| Callback {
            event: CallbackEvent::Failure,
            action: CallbackAction::Notify {
                level: NotificationLevel::Info,
            },
            input: json!({ TEXT: text }),
        };
        assert_eq!(of("it failed").plain_text(), Some("it failed"));
        assert_eq!(of("{{ task_id }} failed").plain_text(), None);
    }

    #[test]
    fn what_is_not_the_end_of_a_try_calls_nothing() {
        let called: Vec<_> = TaskInstanceState::ALL
            .iter()
            .filter_map(|state| CallbackEvent::of_try(*state).map(|event| (*state, event.as_str())))
            .collect();
        assert_eq!(
            called,
            [
                (TaskInstanceState::Success, "on_success"),
                (TaskInstanceState::Failed, "on_failure"),
                (TaskInstanceState::UpForRetry, "on_retry"),
                (TaskInstanceState::Skipped, "on_skipped"),
            ]
        );
    }
}
