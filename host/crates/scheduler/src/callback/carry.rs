//! Carrying out what is due: read from the database, begun in a tick, given to the executor.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use model::callback::{Callback, CallbackState};
use model::{Cause, DagRunState, DispatchNumber, MapIndex, TaskId, TiKey, Timestamp, TryNumber};
use ports::callback::{CallbackChange, DueCallback, Standing};
use ports::control::ControlError;
use ports::executor::{Executor, NO_TASK, RunContext, TaskSpec, TryId, TryRequest};
use ports::query::QueryError;
use serde_json::Value;

use super::flight::About;
use super::report::{ATTEMPTS, unchanged};
use crate::inbox::{DagOp, Message};
use crate::live::{LiveRun, LiveTry, Sight};
use crate::shared::Shared;
use crate::version::Version;

/// Timers follow the wall clock, which can jump; it is looked at again at least this often while one is set.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Carries out what is due until the scheduler stops. It is the only one who gives callbacks to the executor.
pub(crate) async fn keep(shared: Arc<Shared>, executor: Arc<dyn Executor>) {
    let mut pause = shared.config.backoff;
    loop {
        let next = match step(&shared, &executor).await {
            Ok(next) => {
                pause = shared.config.backoff;
                next.map(|next| next.since(shared.clock.now()).min(LONGEST_SLEEP))
            }
            Err(error) => {
                tracing::warn!(%error, "cannot read which callbacks are due; trying again");
                let wait = pause;
                pause = pause.saturating_mul(2).min(shared.config.backoff_max);
                Some(wait)
            }
        };
        let changed = shared.flights.changed.notified();
        match next {
            None => changed.await,
            Some(wait) => {
                let _ = tokio::time::timeout(wait, changed).await;
            }
        }
        if shared.stopping.load(Ordering::Acquire) {
            return;
        }
    }
}

/// Begins as many as may be out; answers when to look again where nobody says so before.
async fn step(shared: &Arc<Shared>, executor: &Arc<dyn Executor>) -> Result<Option<Timestamp>, QueryError> {
    let free = shared.flights.free();
    if free == 0 {
        return Ok(None);
    }
    // What is out is among what is found. It is asked for first: what ends while the database answers is found as it was before.
    let out = shared.flights.ids();
    let limit = u32::try_from(free.saturating_add(out.len())).unwrap_or(u32::MAX);
    let found = shared.store.due_callbacks(shared.clock.now(), limit).await?;
    for due in found.due {
        if out.contains(&due.id) || !shared.flights.take(due.id, due.attempt.saturating_add(1)) {
            continue;
        }
        let (shared, executor) = (Arc::clone(shared), Arc::clone(executor));
        tokio::spawn(async move {
            let id = due.id;
            match begin(&shared, due).await {
                Ok(Some(request)) => executor.dispatch(request),
                Ok(None) => shared.flights.end(id),
                Err(error) => {
                    if !matches!(error, ControlError::Stopping) {
                        tracing::warn!(%error, callback = %id, "a callback could not be begun; trying again");
                        tokio::time::sleep(shared.config.backoff_max).await;
                    }
                    shared.flights.end(id);
                }
            }
        });
    }
    Ok(found.next_at)
}

/// Commits that an attempt begins, and answers what to send. None where there is nothing to do any more.
async fn begin(shared: &Arc<Shared>, due: DueCallback) -> Result<Option<TryRequest>, ControlError> {
    let Some((context, version)) = run_of(shared, &due).await.map_err(crate::shared::query_failed)? else {
        return Ok(None);
    };
    let task = due.of.as_ref().map(|of| of.task);
    let callback = version.dag().callbacks(task).get(due.ordinal as usize).cloned();
    let Some(callback) = callback else {
        tracing::error!(callback = %due.id, "a stored callback is not in the version of its run");
        let message = "the version of the run does not have this callback";
        let about = Arc::new(about(&due, &context, None));
        let change = failed(&due, Cause::LoadFailed, message, shared.clock.now());
        commit(shared, change, about).await?;
        return Ok(None);
    };
    let about = Arc::new(about(&due, &context, Some(&callback)));
    if due.attempt >= ATTEMPTS {
        // It was out when the last process ended, for the last time that there is.
        let message = format!("the server was lost {ATTEMPTS} times while this callback was carried out");
        let change = failed(&due, Cause::InfrastructureLost, &message, shared.clock.now());
        commit(shared, change, about).await?;
        return Ok(None);
    }
    let attempt = due.attempt.saturating_add(1);
    let Some(request) = request(&due, attempt, &context, &version, &callback) else {
        return Ok(None);
    };
    let change = CallbackChange {
        state: CallbackState::Running,
        attempt,
        started_at: Some(shared.clock.now()),
        ..unchanged(due.id)
    };
    commit(shared, change, Arc::clone(&about)).await?;
    let live = LiveRun::new(context, version, DagRunState::Running);
    let attempt = LiveTry::new(
        request.id.try_number,
        request.id.dispatch,
        sight(&due),
        shared.clock.now(),
    );
    live.tries()
        .insert((request.id.ti.task, request.id.ti.map_index), attempt);
    shared.flights.begin(due.id, live, about);
    Ok(Some(request))
}

async fn run_of(shared: &Shared, due: &DueCallback) -> Result<Option<(Arc<RunContext>, Arc<Version>)>, QueryError> {
    let active = shared.active().get(due.run).cloned();
    if let Some(live) = active {
        return Ok(Some((Arc::clone(&live.context), Arc::clone(&live.version))));
    }
    let Some(run) = shared.store.callback_run(due.run).await? else {
        return Ok(None);
    };
    let version = shared.version(run.version).await?;
    Ok(version.map(|version| (run.context, version)))
}

async fn commit(shared: &Shared, change: CallbackChange, about: Arc<About>) -> Result<(), ControlError> {
    shared
        .ask(|reply| {
            Message::Dag(DagOp::Callback {
                change,
                about,
                reply: Some(reply),
            })
        })
        .await
}

fn failed(due: &DueCallback, cause: Cause, message: &str, now: Timestamp) -> CallbackChange {
    CallbackChange {
        state: CallbackState::Failed,
        attempt: due.attempt,
        ended_at: Some(now),
        cause: Some(cause),
        message: Some(message.to_owned()),
        ..unchanged(due.id)
    }
}

fn about(due: &DueCallback, context: &Arc<RunContext>, callback: Option<&Callback>) -> About {
    use model::callback::{CallbackAction, CallbackEvent, CallbackKind};
    About {
        run: Arc::clone(context),
        task_id: due.of.as_ref().map(|of| of.task_id.clone()),
        map_index: due.of.as_ref().map_or(MapIndex::UNMAPPED, |of| of.map_index),
        event: callback.map_or(CallbackEvent::Failure, |callback| callback.event),
        kind: callback.map_or(CallbackKind::Task, Callback::kind),
        name: match callback.map(|callback| &callback.action) {
            Some(CallbackAction::Task { component, .. }) => format!("{} {}", component.reference, component.entry),
            _ => String::new(),
        },
        level: callback.and_then(Callback::level),
    }
}

fn request(
    due: &DueCallback,
    attempt: u32,
    context: &Arc<RunContext>,
    version: &Version,
    callback: &Callback,
) -> Option<TryRequest> {
    let of = due.of.as_ref();
    let definition = of.and_then(|of| version.dag().task(of.task));
    // A callback of the DAG is of no task: it goes by the name of its event, which is an id.
    let task_id = match of {
        Some(of) => of.task_id.clone(),
        None => TaskId::new(callback.event.as_str()).ok()?,
    };
    Some(TryRequest {
        first_of_try: true,
        id: TryId {
            ti: TiKey {
                run: due.run,
                task: of.map_or(NO_TASK, |of| of.task),
                map_index: of.map_or(MapIndex::UNMAPPED, |of| of.map_index),
            },
            run_uuid: context.uuid,
            try_number: of.map_or(TryNumber(0), |of| of.try_number),
            dispatch: DispatchNumber(attempt),
            callback: Some(due.id),
        },
        run: Arc::clone(context),
        task: Arc::new(TaskSpec {
            task_id,
            work: callback.work(),
            input: callback.input.clone(),
            limits: callback.limits(),
            max_tries: definition.map_or(1, |task| task.retry.retries.saturating_add(1)),
            measures: Vec::new(),
            map_index_template: None,
            when: None,
        }),
        position: standing(due).position,
        callback: Some(Arc::new(serde_json::from_str(&due.facts).unwrap_or(Value::Null))),
    })
}

fn standing(due: &DueCallback) -> Standing {
    let text = due.standing.as_deref();
    text.and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

fn sight(due: &DueCallback) -> Sight {
    let Standing { now, before, .. } = standing(due);
    Sight {
        now: now.into_iter().collect::<HashMap<_, _>>(),
        before: before.into_iter().collect(),
    }
}
