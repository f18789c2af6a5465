//! A task asks for a run of another DAG. What has to be read for it is read before the loop takes the report; the tick that takes it
//! creates the run and ends or defers the try, in one transaction.
//!
//! Airflow: `TriggerDagRunOperator.execute`, which triggers by the API and then defers itself: two transactions, of which a crash can
//! leave the first alone.

use std::sync::Arc;

use model::between::{IfExists, TriggerDag};
use model::run::{Event, TryEnd};
use model::{Cause, DagId, DagRunKey, TaskInstanceState, TiKey};
use ports::between::RunParent;
use ports::control::{ControlError, TriggerRequest};
use ports::executor::{TryOutcome, TryReport};
use ports::payload::XcomValue;
use ports::store::NewRun;
use serde_json::json;

use super::existing::Waited;
use super::{BetweenMessage, RETURN_VALUE, TRIGGER_RUN_ID, patiently, send};
use crate::asker::Asker;
use crate::control::trigger::{Existing, Preparation, Prepared, prepare};
use crate::core::Core;
use crate::inbox::Item;
use crate::metrics::Metrics;
use crate::outcome::Details;
use crate::tick::Tick;

/// Who did what a task does, for the audit log, where nobody started the task's run.
const NOBODY: &str = "airtight";

/// The report of a try that asks for a run, with the run, or why there will be none.
pub(crate) struct Triggered {
    pub(crate) report: Box<TryReport>,
    pub(crate) verdict: Result<Preparation, Refusal>,
    if_exists: IfExists,
    /// How often what was prepared did not hold any more.
    again: u8,
}

/// How often a run is prepared anew before whoever asks for it is told that it cannot be had.
const MAX_AGAIN: u8 = 8;

impl Triggered {
    /// The run that it resets.
    pub(crate) fn resets(&self) -> Option<DagRunKey> {
        match &self.verdict {
            Ok(Preparation::Exists(existing)) if self.if_exists == IfExists::Reset => Some(existing.key),
            _ => None,
        }
    }
}

/// What comes of a try that asks for a run.
enum Taken {
    /// It is skipped, and this is why.
    Skipped(String),
    /// There is a run, its own or another's.
    Run(Waited),
}

/// Why no run is triggered.
pub(crate) struct Refusal {
    code: &'static str,
    message: String,
    fatal: bool,
}

impl Refusal {
    pub(super) fn fatal(code: &'static str, message: String) -> Self {
        Self {
            fatal: true,
            ..Self::new(code, message)
        }
    }

    pub(super) fn result_unknown(dag_id: &DagId, task: &str) -> Self {
        Refusal::new(
            "trigger_result_unknown",
            format!("DAG `{dag_id}` has no task `{task}`, which `result` names"),
        )
    }

    pub(super) fn new(code: &'static str, message: String) -> Self {
        Self {
            code,
            message,
            fatal: false,
        }
    }
}

impl Core {
    /// Begins to prepare the run that a report asks for. Answers the report where there is nothing to prepare.
    pub(crate) fn begin_trigger(&mut self, report: Box<TryReport>) -> Option<Box<TryReport>> {
        self.begin_again(report, 0)
    }

    fn begin_again(&mut self, report: Box<TryReport>, again: u8) -> Option<Box<TryReport>> {
        let TryOutcome::TriggerDag(asked) = &report.outcome else {
            return Some(report);
        };
        let id = report.id;
        let Some(run) = self.runs.get(&id.ti.run) else {
            return Some(report);
        };
        let task = run.live.version.dag().task(id.ti.task);
        let current = run.state.accepts_result(id.ti.task, id.ti.map_index, id.dispatch);
        let step = task.and_then(|task| task.work.trigger_dag());
        let Some(step) = step.filter(|_| current && run.live.context.uuid == id.run_uuid) else {
            return Some(report);
        };
        let named = asked.dag.as_ref().map(DagId::as_str);
        let Some(dag_id) = step.target(named) else {
            let allowed: Vec<&str> = step.allowed.iter().map(DagId::as_str).collect();
            let message = format!(
                "DAG `{}` is not one of `allowed`: {}",
                named.unwrap_or_default(),
                allowed.join(", ")
            );
            let triggered = Box::new(Triggered {
                report,
                verdict: Err(Refusal::new("trigger_dag_not_allowed", message)),
                if_exists: step.if_exists,
                again,
            });
            self.between.preparing = self.between.preparing.saturating_add(1);
            send(&self.shared, BetweenMessage::Prepared(id.ti.run, Some(triggered)));
            return None;
        };
        let request = TriggerRequest {
            dag_id: dag_id.clone(),
            run_id: asked.run_id.clone(),
            logical_date: asked.logical_date,
            data_interval: None,
            run_after: None,
            conf: asked.conf.clone(),
            note: None,
            user: NOBODY.to_owned(),
        };
        let (result, if_exists) = (step.result.clone(), step.if_exists);
        let shared = Arc::clone(&self.shared);
        self.between.preparing = self.between.preparing.saturating_add(1);
        tokio::spawn(async move {
            let of = Arc::clone(&shared);
            let prepared = tokio::spawn(async move {
                let prepared = patiently(&of, || prepare(&of, &request, if_exists)).await;
                judge(prepared, result.as_ref().map(model::TaskId::as_str))
            });
            let verdict = prepared.await.ok().flatten();
            let triggered = verdict.map(|verdict| {
                Box::new(Triggered {
                    report,
                    verdict,
                    if_exists,
                    again,
                })
            });
            send(&shared, BetweenMessage::Prepared(id.ti.run, triggered));
        });
        None
    }

    /// A task asked for a run: it is created with the end, or the wait, of the try.
    pub(crate) fn apply_triggered(&mut self, tick: &mut Tick, key: DagRunKey, triggered: &Triggered) {
        let report = &*triggered.report;
        let (task, map_index, dispatch) = (report.id.ti.task, report.id.ti.map_index, report.id.dispatch);
        let Some(draft) = tick.draft(&self.runs, key) else {
            return;
        };
        let ti = draft.state.ti(task, map_index);
        let restarting = ti.is_some_and(|ti| ti.dispatch == dispatch && ti.state == TaskInstanceState::Restarting);
        if !draft.state.accepts_result(task, map_index, dispatch) {
            if restarting {
                // It was cleared meanwhile: the run is not wanted any more.
                self.report(tick, key, report, TryEnd::Done);
            } else {
                Metrics::count(&self.shared.metrics.stale_events);
            }
            return;
        }
        let depth = draft
            .meta
            .parent
            .as_ref()
            .map_or(0, |parent| parent.depth)
            .saturating_add(1);
        let user = draft.meta.triggering_user.clone().unwrap_or_else(|| NOBODY.to_owned());
        let parent_of = Arc::clone(&draft.live.context);
        let version = Arc::clone(&draft.live.version);
        let Some(definition) = version.dag().task(task) else {
            return;
        };
        let Some(step) = definition.work.trigger_dag() else {
            return;
        };
        let parent = RunParent {
            run: key,
            dag_id: parent_of.dag_id.clone(),
            run_id: parent_of.run_id.clone(),
            task,
            task_id: definition.id.clone(),
            map_index,
            dispatch,
            depth,
        };
        let by = Asker::here(user);
        let taken = match &triggered.verdict {
            Ok(Preparation::New(prepared)) => self.create_child(tick, prepared, parent, &by).map(Taken::Run),
            Ok(Preparation::Exists(existing)) => {
                if tick.drafts.get(&existing.key).is_some_and(|draft| draft.deleted) {
                    // This very tick deletes it: once that is committed, there is none.
                    self.prepare_again(Box::new(report.clone()), triggered.again);
                    return;
                }
                self.take(tick, step, existing, report, parent, &by)
            }
            Err(refusal) => Err(Refusal {
                message: refusal.message.clone(),
                ..*refusal
            }),
        };
        let mut details = Details {
            usage: Some(report.usage),
            rendered_map_index: report.rendered_map_index.clone(),
            ..Details::default()
        };
        let place = (task, map_index);
        let end = match taken {
            Err(refusal) => {
                details.message = Some(refusal.message);
                details.code = Some(refusal.code.to_owned());
                TryEnd::Failed {
                    cause: Cause::Failed,
                    fatal: refusal.fatal,
                    code: Some(refusal.code.into()),
                }
            }
            Ok(Taken::Skipped(reason)) => {
                details.message = Some(reason);
                TryEnd::Skip
            }
            Ok(Taken::Run(run)) if step.wait => {
                details.details = run.to_text();
                TryEnd::Defer
            }
            Ok(Taken::Run(Waited { dag_id, run_id, .. })) => {
                if let Some(draft) = tick.draft(&self.runs, key) {
                    let plain = |value: String| XcomValue {
                        value: value.into(),
                        blobs: Vec::new(),
                    };
                    let names = plain(json!({"dag_id": dag_id, "run_id": run_id}).to_string());
                    let run_id = plain(json!(run_id).to_string());
                    draft.publish(place, &[(RETURN_VALUE, names), (TRIGGER_RUN_ID, run_id)]);
                }
                TryEnd::Done
            }
        };
        if let Some(draft) = tick.draft(&self.runs, key) {
            draft.details.insert(place, Some(details));
        }
        self.report(tick, key, report, end);
    }

    fn create_child(
        &mut self,
        tick: &mut Tick,
        prepared: &Prepared,
        parent: RunParent,
        by: &Asker,
    ) -> Result<Waited, Refusal> {
        let context = &prepared.new.context;
        self.allows(&context.dag_id, parent.depth)?;
        self.check_room(tick, prepared.state.size())
            .map_err(|error| Refusal::new("too_many_task_instances", error.to_string()))?;
        tick.ties.push((parent.run, context.key));
        let new = NewRun {
            parent: Some(Arc::new(parent)),
            ..prepared.new.clone()
        };
        self.create_run(tick, new, prepared.state.clone(), &prepared.version, by);
        Ok(Waited::of(context))
    }

    /// Takes a run that is there, as the task says.
    fn take(
        &mut self,
        tick: &mut Tick,
        step: &TriggerDag,
        existing: &Existing,
        report: &TryReport,
        parent: RunParent,
        by: &Asker,
    ) -> Result<Taken, Refusal> {
        let Existing { dag_id, run_id, .. } = existing;
        match (step.if_exists, &report.outcome) {
            (IfExists::Skip, _) => Ok(Taken::Skipped(format!(
                "DAG `{dag_id}` has the run `{run_id}` already (`if_exists: skip`)"
            ))),
            (IfExists::Reuse, _) => {
                if step.wait {
                    self.check_waits(tick, parent.run, existing)?;
                }
                Ok(Taken::Run(Waited::reused(existing)))
            }
            (IfExists::Reset, TryOutcome::TriggerDag(asked)) => {
                let reset = self.reset(tick, step, existing, &asked.conf, parent, by);
                reset.map(Taken::Run)
            }
            (IfExists::Reset | IfExists::Fail, _) => Err(Refusal::new(
                "trigger_run_exists",
                format!("DAG `{dag_id}` has the run `{run_id}` already"),
            )),
        }
    }

    /// What was prepared does not hold any more: the run that was there is gone.
    fn prepare_again(&mut self, report: Box<TryReport>, again: u8) {
        let run = report.id.ti.run;
        if let Some(report) = self.begin_again(report, again.saturating_add(1)) {
            let now = self.shared.clock.now();
            self.queue.push(run, Item::Finished(report), now);
        }
    }

    /// A run that was to be reset is not there any more.
    pub(crate) fn vanished(&mut self, triggered: Box<Triggered>) {
        if triggered.again < MAX_AGAIN {
            self.prepare_again(triggered.report, triggered.again);
        } else {
            self.unreadable(triggered, "it, or its DAG version, is missing");
        }
    }

    /// A run that a task asked for could not be read.
    pub(crate) fn unreadable(&mut self, mut triggered: Box<Triggered>, problem: &str) {
        let run = triggered.report.id.ti.run;
        triggered.verdict = Err(Refusal::new(
            "trigger_run_exists",
            format!("the run is there already, and cannot be read: {problem}"),
        ));
        let now = self.shared.clock.now();
        self.queue.push(run, Item::Triggered(triggered), now);
    }

    fn report(&mut self, tick: &mut Tick, key: DagRunKey, report: &TryReport, end: TryEnd) {
        let TiKey { task, map_index, .. } = report.id.ti;
        let event = Event::TryFinished {
            task,
            map_index,
            dispatch: report.id.dispatch,
            end,
            measured: Vec::new(),
            started_at: report.started_at,
            ended_at: report.ended_at,
        };
        self.step(tick, key, event);
    }

    /// What only the loop knows, since it may have changed since the run was prepared.
    pub(super) fn allows(&self, dag_id: &DagId, depth: u32) -> Result<(), Refusal> {
        let Some(dag) = self.dags.get(dag_id) else {
            return Err(not_found(dag_id));
        };
        if dag.paused {
            let message = format!("DAG `{dag_id}` is paused, and its run would not start; unpause it");
            return Err(Refusal::new("trigger_dag_paused", message));
        }
        let most = self.shared.config.max_trigger_depth;
        if depth > most {
            return Err(Refusal {
                fatal: true,
                ..Refusal::new(
                    "trigger_too_deep",
                    format!("runs have triggered runs {most} deep; does DAG `{dag_id}` trigger itself?"),
                )
            });
        }
        Ok(())
    }
}

fn not_found(dag_id: &DagId) -> Refusal {
    let message = format!("DAG `{dag_id}` does not exist, or is being deleted; deploy it");
    Refusal::new("trigger_dag_not_found", message)
}

/// What came of preparing a run. Nothing where the scheduler stops: the try is lost, and taken up by the next process.
fn judge(prepared: Result<Preparation, ControlError>, result: Option<&str>) -> Option<Result<Preparation, Refusal>> {
    Some(match prepared {
        Ok(Preparation::New(prepared)) => match result {
            Some(task) if prepared.version.dag().index_of(task).is_none() => {
                Err(Refusal::result_unknown(&prepared.new.context.dag_id, task))
            }
            _ => Ok(Preparation::New(prepared)),
        },
        Ok(exists) => Ok(exists),
        Err(ControlError::DagNotFound(dag_id)) => Err(not_found(&dag_id)),
        Err(error @ ControlError::InvalidParams { .. }) => {
            Err(Refusal::new("trigger_conf_invalid", format!("{error}; change `conf`")))
        }
        Err(error @ ControlError::TooManyTaskInstances(_)) => {
            Err(Refusal::new("too_many_task_instances", error.to_string()))
        }
        Err(ControlError::RunExists(why)) => Err(Refusal::new(
            "trigger_run_exists",
            format!(
                "{why}; leave the name out, make `{{{{ try_number }}}}` part of it, or say what happens then with `if_exists`"
            ),
        )),
        Err(error) => {
            tracing::warn!(%error, "a run that a task asked for could not be prepared");
            return None;
        }
    })
}
