//! What an executor reported, as the run's decisions need it: labels become tasks, the rest becomes the row's details.

use model::Dag;
use model::dag::TaskKind;
use model::run::TryEnd;
use model::{Cause, TaskIndex};
use ports::executor::{TryOutcome, TryReport, TryUsage};

/// What the rows show of an ended try beyond what the run's state holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Details {
    pub(crate) message: Option<String>,
    pub(crate) code: Option<String>,
    pub(crate) details: Option<String>,
    pub(crate) usage: Option<TryUsage>,
    pub(crate) rendered_map_index: Option<String>,
}

/// What is to be said where the executor reports that it failed itself. The task's own retries are not spent for that.
pub(crate) fn loss(report: &TryReport) -> Option<Details> {
    match &report.outcome {
        TryOutcome::Failed(failure) if failure.cause == Cause::InfrastructureLost => Some(Details {
            message: Some(failure.message.clone()),
            usage: Some(report.usage),
            rendered_map_index: report.rendered_map_index.clone(),
            ..Details::default()
        }),
        _ => None,
    }
}

/// The end of a try, its details, and whether what it published counts.
pub(crate) fn judge(dag: &Dag, report: &TryReport) -> (TryEnd, Details, bool) {
    let mut details = Details {
        usage: Some(report.usage),
        rendered_map_index: report.rendered_map_index.clone(),
        ..Details::default()
    };
    let is_branch = dag
        .task(report.id.task())
        .is_some_and(|task| matches!(task.kind, TaskKind::Branch { .. }));
    let end = match &report.outcome {
        TryOutcome::Done { .. } if is_branch => {
            let message = "the task is a branch, but it answered without choosing a label".to_owned();
            return breach(details, "no_branch_label", message);
        }
        TryOutcome::Done { falsy: false } => TryEnd::Done,
        TryOutcome::Done { falsy: true } => TryEnd::DoneFalsy,
        TryOutcome::Skip { reason } => {
            details.message = (!reason.is_empty()).then(|| reason.clone());
            TryEnd::Skip
        }
        TryOutcome::Reschedule { after } => TryEnd::Reschedule(*after),
        TryOutcome::AwaitInput { .. } => TryEnd::AwaitInput,
        TryOutcome::WaitForDag(run) => {
            details.details = serde_json::to_string(run).ok();
            TryEnd::Defer
        }
        // What it asks for is prepared before it gets here: this one is of a dispatch that does not count any more.
        TryOutcome::TriggerDag(_) => TryEnd::Defer,
        TryOutcome::Branch { labels } => match chosen(dag, report.id.task(), labels) {
            Ok(tasks) => TryEnd::Branch(tasks),
            Err(message) => return breach(details, "unknown_branch_label", message),
        },
        TryOutcome::Failed(failure) => {
            details.message = Some(failure.message.clone());
            details.code.clone_from(&failure.code);
            details.details.clone_from(&failure.details);
            TryEnd::Failed {
                cause: failure.cause,
                fatal: failure.fatal,
                code: failure.code.as_deref().map(Into::into),
            }
        }
    };
    (end, details, true)
}

/// An answer against the contract publishes nothing, as a trap does.
fn breach(details: Details, code: &str, message: String) -> (TryEnd, Details, bool) {
    let details = Details {
        message: Some(message),
        code: Some(code.to_owned()),
        ..details
    };
    let end = TryEnd::Failed {
        cause: Cause::ContractViolation,
        fatal: false,
        code: Some(code.into()),
    };
    (end, details, false)
}

/// The direct downstream tasks that labels stand for, ascending, without repeats.
fn chosen(dag: &Dag, task: TaskIndex, labels: &[String]) -> Result<Vec<TaskIndex>, String> {
    let Some(TaskKind::Branch { labels: known }) = dag.task(task).map(|task| &task.kind) else {
        return Err("the task answered with branch labels, but the manifest gives it no `branches`".to_owned());
    };
    let mut chosen = Vec::new();
    for label in labels {
        let Some(tasks) = known.get(label) else {
            let shown: String = label.chars().take(64).collect();
            let known: Vec<&str> = known.keys().map(String::as_str).collect();
            return Err(format!(
                "the task chose the branch `{shown}`, which is not one of: {}",
                known.join(", ")
            ));
        };
        chosen.extend_from_slice(tasks);
    }
    chosen.sort_unstable();
    chosen.dedup();
    Ok(chosen)
}
