//! Steps between DAGs: one that starts a run of another DAG, and one that waits for a run or for tasks of another DAG. While they wait
//! they are `deferred`: no slot, no executor, and nothing in memory beyond their task instance.
//!
//! Airflow: `TriggerDagRunOperator` and `ExternalTaskSensor`, both in their deferrable form, which is the only one here.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dag::Dag;
use crate::id::{DagId, TaskId, TaskIndex};
use crate::state::{DagRunState, TaskInstanceState, text_enum};

/// How deep runs may trigger runs where the server says nothing else.
pub const MAX_TRIGGER_DEPTH: u32 = 10;

/// The code of a try whose child run ended in a state that does not count as success.
pub const RUN_FAILED: &str = "triggered_run_failed";
/// The code of a try whose child run was deleted while it waited.
pub const RUN_DELETED: &str = "triggered_run_deleted";
/// The code of a sensor that found what it waits for in one of `failed_states`.
pub const EXTERNAL_FAILED: &str = "external_failed";
/// The code of a sensor on something that the other run does not have.
pub const EXTERNAL_NOT_FOUND: &str = "external_task_not_found";

text_enum! {
    /// What becomes of a task that asks for a run which is there already: one with the same name, or, where the task gives none, with the
    /// same logical date.
    IfExists {
        /// The try fails (Airflow: `DagRunAlreadyExists`).
        Fail = "fail",
        /// The task is skipped (Airflow: `skip_when_already_exists`).
        Skip = "skip",
        /// The run is taken as it is, whoever made it.
        Reuse = "reuse",
        /// The run is cleared, and runs again with what it has (Airflow: `reset_dag_run`).
        Reset = "reset",
    }
}

impl IfExists {
    /// Whether it is what a manifest that says nothing means.
    pub fn is_fail(&self) -> bool {
        *self == Self::Fail
    }
}

/// Starts a run of another DAG. The run's `conf`, `run_id` and `logical_date` are templates, and so the task's input; so is the DAG's
/// id, where there are several to choose from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggerDag {
    /// Of which DAG. None where the member `dag` of the input, a template, names one of `allowed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dag: Option<DagId>,
    /// The DAGs that the template may name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<DagId>,
    /// What happens where the run is there already.
    #[serde(default = "fails", skip_serializing_if = "IfExists::is_fail")]
    pub if_exists: IfExists,
    /// Whether the try lasts until that run has ended (Airflow: `wait_for_completion`).
    pub wait: bool,
    /// The ends of the run that let the try succeed; any other fails it.
    pub allowed_states: Vec<DagRunState>,
    /// The task of the other DAG whose return value is published as `result`.
    pub result: Option<TaskId>,
    /// How long the run may take.
    pub timeout: Option<Duration>,
}

/// Waits for a run, or for tasks of a run, of another DAG. Which run is a template, and so the task's input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitForDag {
    /// Of which DAG.
    pub dag: DagId,
    /// What of it.
    pub awaited: Awaited,
}

/// What of another DAG's run is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Awaited {
    /// The run itself.
    Run {
        /// Its states.
        states: States<DagRunState>,
    },
    /// All instances of a task.
    Task {
        /// Which.
        task: TaskId,
        /// Their states.
        states: States<TaskInstanceState>,
    },
    /// All instances of all tasks of a group.
    Group {
        /// Its id.
        group: String,
        /// Their states.
        states: States<TaskInstanceState>,
    },
}

/// What states mean to one who waits (Airflow: `allowed_states`, `failed_states`, `skipped_states`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct States<T> {
    /// When all are in one of these, the wait is over.
    pub allowed: Vec<T>,
    /// When one is in one of these, the try fails.
    pub failed: Vec<T>,
    /// When one is in one of these, the task is skipped.
    pub skipped: Vec<T>,
}

/// What one who waits makes of what it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing yet.
    Wait,
    /// What was waited for is there.
    Done,
    /// It never will be.
    Failed,
    /// It is not needed.
    Skip,
    /// The run does not have it.
    NotFound,
}

impl<T: PartialEq> States<T> {
    /// Airflow: `ExternalTaskSensor.poke`: one failure is enough, then one skip, else all must be allowed.
    fn judge(&self, found: impl Iterator<Item = T>) -> Verdict {
        let (mut any, mut all, mut skipped) = (false, true, false);
        for state in found {
            if self.failed.contains(&state) {
                return Verdict::Failed;
            }
            any = true;
            skipped |= self.skipped.contains(&state);
            all &= self.allowed.contains(&state);
        }
        match (skipped, any && all) {
            (true, _) => Verdict::Skip,
            (false, true) => Verdict::Done,
            (false, false) => Verdict::Wait,
        }
    }
}

const fn fails() -> IfExists {
    IfExists::Fail
}

impl TriggerDag {
    /// Airflow's class for it.
    pub const CLASS: &'static str = "TriggerDagRunOperator";

    /// The DAG of a try, given what its template named. None where it named nothing, or none of those that are allowed.
    pub fn target<'s>(&'s self, named: Option<&str>) -> Option<&'s DagId> {
        match &self.dag {
            Some(dag) => Some(dag),
            None => self.allowed.iter().find(|dag| Some(dag.as_str()) == named),
        }
    }
}

impl WaitForDag {
    /// Airflow's class for it.
    pub const CLASS: &'static str = "ExternalTaskSensor";

    /// The tasks of the other DAG that are waited for; none where it is the run itself.
    pub fn tasks(&self, dag: &Dag) -> Option<Vec<TaskIndex>> {
        match &self.awaited {
            Awaited::Run { .. } => None,
            Awaited::Task { task, .. } => Some(dag.index_of(task.as_str()).into_iter().collect()),
            Awaited::Group { group, .. } => Some(tasks_of(dag, group)),
        }
    }

    /// Judges a run of the other DAG by its state and those of its task instances.
    pub fn judge(
        &self,
        dag: &Dag,
        run: DagRunState,
        task_instances: impl Iterator<Item = (TaskIndex, TaskInstanceState)>,
    ) -> Verdict {
        let states = match &self.awaited {
            Awaited::Run { states } => return states.judge(std::iter::once(run)),
            Awaited::Task { states, .. } | Awaited::Group { states, .. } => states,
        };
        let tasks = self.tasks(dag).unwrap_or_default();
        if tasks.is_empty() {
            return Verdict::NotFound;
        }
        states.judge(
            task_instances
                .filter(|(task, state)| tasks.contains(task) && *state != TaskInstanceState::Removed)
                .map(|(_, state)| state),
        )
    }

    /// What is waited for, in words.
    pub fn in_words(&self) -> String {
        match &self.awaited {
            Awaited::Run { .. } => format!("a run of DAG `{}`", self.dag),
            Awaited::Task { task, .. } => format!("task `{task}` of DAG `{}`", self.dag),
            Awaited::Group { group, .. } => format!("group `{group}` of DAG `{}`", self.dag),
        }
    }
}

/// The tasks of a group, and of the groups inside of it: their ids begin with its own.
fn tasks_of(dag: &Dag, group: &str) -> Vec<TaskIndex> {
    if !dag.groups.iter().any(|known| known.id == group) {
        return Vec::new();
    }
    let inside = |id: &TaskId| {
        let rest = id.as_str().strip_prefix(group);
        rest.is_some_and(|rest| rest.starts_with('.'))
    };
    (0..)
        .map(TaskIndex)
        .zip(&dag.tasks)
        .filter(|(_, task)| inside(&task.id))
        .map(|(at, _)| at)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use TaskInstanceState::{Failed, Running, Skipped, Success};

    fn judge(found: &[TaskInstanceState]) -> Verdict {
        let states = States {
            allowed: vec![Success],
            failed: vec![Failed],
            skipped: vec![Skipped],
        };
        states.judge(found.iter().copied())
    }

    fn dag() -> Dag {
        use crate::run::testing;
        let tasks = vec![
            testing::task("a", &[]),
            testing::task("g.b", &[]),
            testing::task("g.h.c", &[]),
            testing::task("gg", &[]),
        ];
        let dag = testing::dag(tasks, |dag| {
            dag.groups = vec![crate::dag::Group {
                id: "g".to_owned(),
                parent: None,
                tooltip: None,
                repeat: None,
            }];
        });
        Dag::clone(&dag)
    }

    #[test]
    fn a_step_that_was_stored_before_it_had_a_choice_is_read_and_written_as_it_was() {
        let text = r#"{"dag":"solver","wait":true,"allowed_states":["success"],"result":null,"timeout":null}"#;
        let step: TriggerDag = serde_json::from_str(text).unwrap();
        assert_eq!(
            (step.if_exists, step.target(Some("other"))),
            (IfExists::Fail, step.dag.as_ref())
        );
        assert_eq!(serde_json::to_string(&step).unwrap(), text);
        let chooses = TriggerDag {
            dag: None,
            allowed: vec![DagId::new("a").unwrap()],
            ..step
        };
        assert_eq!(chooses.target(Some("a")), chooses.allowed.first());
        assert_eq!((chooses.target(Some("b")), chooses.target(None)), (None, None));
    }

    #[test]
    fn a_group_is_all_tasks_inside_of_it() {
        assert_eq!(tasks_of(&dag(), "g"), [TaskIndex(1), TaskIndex(2)]);
        assert_eq!(tasks_of(&dag(), "h"), []);
        assert_eq!(tasks_of(&dag(), "gg"), [], "a task is no group");
    }

    #[test]
    fn one_failure_ends_a_wait_then_one_skip_and_only_all_that_is_allowed_succeeds() {
        assert_eq!(judge(&[]), Verdict::Wait, "nothing is there yet");
        assert_eq!(judge(&[Success, Running]), Verdict::Wait);
        assert_eq!(judge(&[Success, Success]), Verdict::Done);
        assert_eq!(judge(&[Success, Skipped]), Verdict::Skip);
        assert_eq!(judge(&[Skipped, Running, Failed]), Verdict::Failed);
    }
}
