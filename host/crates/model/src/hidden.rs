//! Failures that do not show in the state of a run, and why.
//!
//! Airflow: a run's state is the state of its leaves. A task that ran out of tries is not seen there where everything that the run
//! ends with ran, or was skipped, all the same. `dags simulate` finds such failures before anything runs; a run that has one says so
//! when it ends.

use std::collections::BTreeSet;

use crate::callback::CallbackEvent;
use crate::dag::{Dag, TaskRole};
use crate::id::TaskIndex;
use crate::state::TaskInstanceState;
use crate::trigger_rule::TriggerRule;

/// What hides a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hides {
    /// The task is a teardown whose failure does not fail the run.
    Teardown,
    /// These tasks further down are there for failures (`one_failed`, `all_failed`) and ran: somebody is told, perhaps.
    Handled(Vec<TaskIndex>),
    /// It has callbacks for failures: somebody is told.
    Told,
    /// These tasks further down went on, or were skipped, whatever happened.
    Passed(Vec<TaskIndex>),
}

impl Hides {
    /// Whether nothing else took notice of the failure either.
    pub const fn unnoticed(&self) -> bool {
        !matches!(self, Self::Handled(_) | Self::Told)
    }

    /// Why nobody notices.
    pub fn why(&self, dag: &Dag) -> String {
        match self {
            Self::Teardown => "the failure of a teardown does not fail its run".to_owned(),
            Self::Handled(tasks) => format!(
                "{} but the run is a success: in the list of runs nobody sees it",
                tell(dag, tasks, "runs", "run")
            ),
            Self::Told => {
                "its `on_failure` is called, but the run is a success: in the list of runs nobody sees it".to_owned()
            }
            Self::Passed(tasks) if tasks.is_empty() => "nothing that counts for the run's state follows it".to_owned(),
            Self::Passed(tasks) => format!("{} all the same", tell(dag, tasks, "ends well", "end well")),
        }
    }

    /// What to change about a DAG in which the failure of `task` is hidden so.
    pub fn advice(&self, dag: &Dag, task: TaskIndex) -> String {
        let task = name(dag, task);
        match self {
            Self::Teardown => {
                format!("give `{task}` `teardown: {{on_failure_fail_dagrun: true}}`, if its failure matters")
            }
            Self::Handled(tasks) => {
                let handler = tasks.first().map_or_else(String::new, |task| name(dag, *task));
                format!("if the run is to count as failed, let `{handler}` itself fail once it has told somebody")
            }
            Self::Told => format!("if the run is to count as failed, let a last task follow `{task}`"),
            Self::Passed(tasks) => {
                let Some(first) = tasks.first() else {
                    return format!("let a last task follow `{task}`");
                };
                format!(
                    "let a last task follow both `{task}` and `{}` (`all_success`): it cannot run then, and the run fails; or give `{}` \
                     the rule `none_failed`",
                    name(dag, *first),
                    name(dag, *first)
                )
            }
        }
    }
}

fn name(dag: &Dag, task: TaskIndex) -> String {
    dag.task(task).map_or_else(String::new, |task| task.id.to_string())
}

/// `` `notify` (one_failed) runs ``, with at most three names.
fn tell(dag: &Dag, tasks: &[TaskIndex], one: &str, many: &str) -> String {
    let shown = tasks.iter().take(3).filter_map(|task| dag.task(*task));
    let mut names: Vec<String> = shown
        .map(|task| format!("`{}` ({})", task.id, task.trigger_rule))
        .collect();
    if tasks.len() > 3 {
        names.push(format!("{} others", tasks.len() - 3));
    }
    format!("{} {}", names.join(", "), if tasks.len() == 1 { one } else { many })
}

/// What hides the failure of a task in a run that succeeded. `state_of` answers one state for all instances of a task: the worst.
pub fn hides(dag: &Dag, state_of: &impl Fn(TaskIndex) -> Option<TaskInstanceState>, task: TaskIndex) -> Hides {
    let uncounted = |task: TaskIndex| {
        let role = dag.task(task).map(|task| &task.role);
        matches!(
            role,
            Some(TaskRole::Teardown {
                on_failure_fail_dagrun: false
            })
        )
    };
    if dag.calls_back(Some(task), CallbackEvent::Failure) {
        return Hides::Told;
    }
    if uncounted(task) {
        return Hides::Teardown;
    }
    let mut passed = BTreeSet::new();
    let mut seen = BTreeSet::from([task]);
    let mut stack = vec![task];
    while let Some(at) = stack.pop() {
        for next in dag.task(at).into_iter().flat_map(|task| &task.downstream) {
            if uncounted(*next) || !seen.insert(*next) {
                continue;
            }
            match state_of(*next) {
                Some(TaskInstanceState::Failed | TaskInstanceState::UpstreamFailed) => stack.push(*next),
                Some(_) => {
                    passed.insert(*next);
                }
                None => {}
            }
        }
    }
    let handles = |at: &TaskIndex| {
        let rule = dag.task(*at).map(|task| task.trigger_rule);
        matches!(rule, Some(TriggerRule::OneFailed | TriggerRule::AllFailed))
            && state_of(*at) == Some(TaskInstanceState::Success)
    };
    let handlers: Vec<TaskIndex> = passed.iter().copied().filter(handles).collect();
    if handlers.is_empty() {
        Hides::Passed(passed.into_iter().collect())
    } else {
        Hides::Handled(handlers)
    }
}

/// How bad a state is, to find the worst of several.
pub(crate) const fn badness(state: TaskInstanceState) -> u8 {
    match state {
        TaskInstanceState::Removed => 0,
        TaskInstanceState::Skipped => 1,
        TaskInstanceState::Success => 2,
        TaskInstanceState::UpstreamFailed => 4,
        TaskInstanceState::Failed => 5,
        _ => 3,
    }
}
