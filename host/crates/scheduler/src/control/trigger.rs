//! Triggering a run: its parameters are resolved, its name is made sure of and its key is taken here, so that the loop has
//! nothing to read.

use std::sync::Arc;

use model::between::IfExists;
use model::params::{param_lengths, resolve_params};
use model::run::{RunState, count_from_start};
use model::{Dag, DagId, DagRunKey, DagRunType, RunId, RunUuid, Timestamp};
use ports::control::{ControlError, TriggerRequest};
use ports::executor::RunContext;
use ports::query::RunRow;
use ports::store::{CommitError, NewRun};
use serde_json::Value;
use uuid::{NoContext, Uuid};

use super::blobs;
use crate::asker::Asker;
use crate::checked::checked;
use crate::inbox::{Message, NewRunOp};
use crate::names::KeyedGuard;
use crate::shared::{KnownDag, Name, Shared, query_failed};
use crate::version::Version;

/// How often another generated name is tried when one turns out to be taken.
const NAME_ATTEMPTS: u32 = 8;

pub(crate) async fn trigger(
    shared: &Arc<Shared>,
    request: TriggerRequest,
    row: Option<Uuid>,
) -> Result<RunRow, ControlError> {
    shared.check_open()?;
    let dag = known_dag(shared, &request)?;
    // Not yet in a task of its own: a check ends with who asked for it.
    let params = params_of(&dag, &request).await?;
    let shared = Arc::clone(shared);
    // In a task of its own, so that a caller who leaves does not let go of the name before the commit.
    tokio::spawn(async move { trigger_named(&shared, request, row, dag, params).await })
        .await
        .map_err(|error| ControlError::Internal(Box::new(error)))?
}

fn known_dag(shared: &Shared, request: &TriggerRequest) -> Result<KnownDag, ControlError> {
    shared
        .dag(&request.dag_id)
        .ok_or_else(|| ControlError::DagNotFound(request.dag_id.clone()))
}

/// The parameters of the run, checked.
async fn params_of(dag: &KnownDag, request: &TriggerRequest) -> Result<Value, ControlError> {
    let (dag, conf) = (Arc::clone(dag.version.dag()), request.conf.clone());
    checked(move || resolve_params(&dag, &conf))
        .await?
        .map_err(|problems| ControlError::InvalidParams { problems })
}

async fn trigger_named(
    shared: &Arc<Shared>,
    request: TriggerRequest,
    row: Option<Uuid>,
    dag: KnownDag,
    params: Value,
) -> Result<RunRow, ControlError> {
    shared.check_open()?;
    blobs::check(shared, &request.conf, &params).await?;
    let conf = match &request.conf {
        Value::Null => Value::Object(serde_json::Map::new()),
        conf => conf.clone(),
    };

    let by = Asker {
        user: request.user.clone(),
        row,
    };
    let _date = match request.logical_date {
        Some(date) => Some(reserve_logical_date(shared, &request, date).await?),
        None => None,
    };
    if let Some(run_id) = request.run_id.clone() {
        let _name = shared
            .names
            .lock(Name::RunId(request.dag_id.clone(), run_id.clone()))
            .await;
        if is_taken(shared, &request, &run_id).await? {
            return Err(run_exists(&request, &run_id));
        }
        let run_after = request.run_after.unwrap_or_else(|| shared.clock.now());
        let new = new_run(shared, &request, run_id, run_after, &dag.version, params, conf).await?;
        return create(shared, &by, new, &dag.version).await;
    }
    let mut attempt = 1;
    loop {
        // It may lie a few microseconds ahead of the clock; the run is due at once all the same, see `new_run`.
        let run_after = request.run_after.unwrap_or_else(|| shared.unique_now());
        let run_id = generated_name(
            run_after,
            (request.run_after.is_some() && attempt > 1).then_some(attempt),
        )?;
        let _name = shared
            .names
            .lock(Name::RunId(request.dag_id.clone(), run_id.clone()))
            .await;
        // A name out of this process's own clock is new, unless the clock was set back: then the commit finds it taken, nobody else is
        // hurt, and another one is tried. Any other name may have been used.
        let taken = request.run_after.is_some() && is_taken(shared, &request, &run_id).await?;
        if !taken {
            let (params, conf) = (params.clone(), conf.clone());
            let new = new_run(shared, &request, run_id, run_after, &dag.version, params, conf).await?;
            let created = create(shared, &by, new, &dag.version).await;
            match created {
                Err(ControlError::RunExists(_)) if attempt < NAME_ATTEMPTS => {}
                done => return done,
            }
        } else if attempt >= 1_000 {
            return Err(run_exists(&request, &run_id));
        }
        attempt += 1;
    }
}

fn generated_name(run_after: Timestamp, attempt: Option<u32>) -> Result<RunId, ControlError> {
    let suffix = attempt.map(|attempt| format!("_{attempt}")).unwrap_or_default();
    RunId::new(&format!("{}__{run_after}{suffix}", DagRunType::Manual))
        .map_err(|error| ControlError::Internal(Box::new(error)))
}

async fn is_taken(shared: &Shared, request: &TriggerRequest, run_id: &RunId) -> Result<bool, ControlError> {
    let found = shared.store.find_run(&request.dag_id, run_id).await;
    Ok(found.map_err(query_failed)?.is_some())
}

async fn reserve_logical_date(
    shared: &Shared,
    request: &TriggerRequest,
    date: Timestamp,
) -> Result<KeyedGuard<Name>, ControlError> {
    let turn = shared.names.lock(Name::LogicalDate(request.dag_id.clone(), date)).await;
    let found = shared
        .store
        .find_run_by_logical_date(&request.dag_id, date)
        .await
        .map_err(query_failed)?;
    match found {
        Some(run_id) => Err(date_taken(request, date, &run_id)),
        None => Ok(turn),
    }
}

fn date_taken(request: &TriggerRequest, date: Timestamp, run_id: &RunId) -> ControlError {
    ControlError::RunExists(format!(
        "DAG `{}` has a run with the logical date {date} already: `{run_id}`",
        request.dag_id
    ))
}

fn run_exists(request: &TriggerRequest, run_id: &RunId) -> ControlError {
    ControlError::RunExists(format!("DAG `{}` has a run `{run_id}` already", request.dag_id))
}

async fn create(
    shared: &Arc<Shared>,
    by: &Asker,
    (new, state): (NewRun, RunState),
    version: &Arc<Version>,
) -> Result<RunRow, ControlError> {
    let new = NewRun {
        triggering_user: Some(by.user.clone()),
        ..new
    };
    shared
        .ask(|reply| {
            Message::New(Box::new(NewRunOp {
                new,
                state,
                version: Arc::clone(version),
                by: by.clone(),
                reply,
            }))
        })
        .await
}

/// A new run that may be as large as it is. A large one is made in a thread of its own, so that nobody waits for it.
async fn new_state(shared: &Shared, new: &NewRun, dag: &Arc<Dag>) -> Result<RunState, ControlError> {
    let lengths = param_lengths(dag, &new.context.params);
    let count = count_from_start(dag, &lengths);
    let limit = shared.config.max_task_instances_per_run;
    check_count(dag, count, limit)?;
    let (key, run_after, queued_at) = (new.context.key, new.context.run_after, new.queued_at);
    let dag = Arc::clone(dag);
    let make = move || RunState::with_limit(key, dag, run_after, queued_at, &lengths, limit);
    if count <= shared.config.max_transitions_per_event as u64 {
        return Ok(make());
    }
    let made = tokio::task::spawn_blocking(make).await;
    made.map_err(|error| ControlError::Internal(Box::new(error)))
}

/// Refuses a run, or a DAG whose runs would have too many task instances from the start.
pub(super) fn check_count(dag: &Dag, count: u64, limit: u32) -> Result<(), ControlError> {
    if count <= u64::from(limit) {
        return Ok(());
    }
    Err(ControlError::TooManyTaskInstances(format!(
        "a run of DAG `{}` would have {count} task instances; at most {limit} are allowed \
         (`--max-task-instances-per-run` of the server): map over less, or let each task do more",
        dag.id
    )))
}

/// The row of a run, under a key of its own.
async fn new_run(
    shared: &Arc<Shared>,
    request: &TriggerRequest,
    run_id: RunId,
    run_after: Timestamp,
    version: &Arc<Version>,
    params: Value,
    conf: Value,
) -> Result<(NewRun, RunState), ControlError> {
    let now = shared.clock.now();
    // What is not to wait is queued when it is due, even if its name had to lie ahead of the clock.
    let queued_at = match request.run_after {
        Some(_) => now,
        None => now.max(run_after),
    };
    let key = take_key(shared).await?;
    let interval = request
        .data_interval
        .or_else(|| request.logical_date.map(|date| (date, date)));
    let context = RunContext {
        key,
        uuid: RunUuid(uuid_v7(now)),
        dag_id: request.dag_id.clone(),
        run_id,
        run_type: DagRunType::Manual,
        logical_date: request.logical_date,
        data_interval_start: interval.map(|(start, _)| start),
        data_interval_end: interval.map(|(_, end)| end),
        run_after,
        params,
        conf,
    };
    let new = NewRun {
        version: version.uuid(),
        run_type: DagRunType::Manual,
        conf: context.conf.to_string().into(),
        params: context.params.to_string().into(),
        note: request.note.clone(),
        triggering_user: None,
        parent: None,
        queued_at,
        context: Arc::new(context),
    };
    let state = new_state(shared, &new, version.dag()).await?;
    Ok((new, state))
}

/// A run that is complete but for what only the loop knows. Its names are reserved as long as the guards live.
pub(crate) struct Prepared {
    pub(crate) new: NewRun,
    pub(crate) state: RunState,
    pub(crate) version: Arc<Version>,
    #[expect(dead_code, reason = "held until the run is committed")]
    names: Vec<KeyedGuard<Name>>,
}

/// A run that a task asks for and that is there already. If it is to be reset, its names are reserved as long as the guards live.
pub(crate) struct Existing {
    pub(crate) key: DagRunKey,
    pub(crate) dag_id: DagId,
    pub(crate) run_id: RunId,
    #[expect(dead_code, reason = "held until what is done with the run is committed")]
    names: Vec<KeyedGuard<Name>>,
}

/// What there is for a task that asks for a run.
pub(crate) enum Preparation {
    /// A new run.
    New(Prepared),
    /// One that is there.
    Exists(Existing),
}

/// Prepares a run for a task that triggers it: everything that a request to trigger one is refused for is looked at here.
pub(crate) async fn prepare(
    shared: &Arc<Shared>,
    request: &TriggerRequest,
    if_exists: IfExists,
) -> Result<Preparation, ControlError> {
    let dag = known_dag(shared, request)?;
    let mut names = Vec::new();
    // What is there is found before `conf` is looked at: a run that is taken as it is has one of its own.
    if if_exists != IfExists::Fail
        && let Some((key, run_id)) = existing(shared, request, &mut names).await?
    {
        // Who changes nothing of it keeps nobody waiting.
        if if_exists != IfExists::Reset {
            names.clear();
        }
        return Ok(Preparation::Exists(Existing {
            key,
            dag_id: request.dag_id.clone(),
            run_id,
            names,
        }));
    }
    let reserved = !names.is_empty();
    let params = params_of(&dag, request).await?;
    blobs::check(shared, &request.conf, &params).await?;
    if let Some(date) = request.logical_date.filter(|_| !reserved) {
        names.push(reserve_logical_date(shared, request, date).await?);
    }
    let (run_id, run_after) = loop {
        let (run_id, run_after) = match &request.run_id {
            // It is reserved, and free.
            Some(run_id) if reserved => break (run_id.clone(), shared.clock.now()),
            Some(run_id) => (run_id.clone(), shared.clock.now()),
            None => {
                let run_after = shared.unique_now();
                (generated_name(run_after, None)?, run_after)
            }
        };
        let name = Name::RunId(request.dag_id.clone(), run_id.clone());
        let turn = shared.names.lock(name).await;
        // A generated name is looked at, too: where the clock was set back another process may have given it away, and a commit that
        // is refused for it would set the waiting run aside.
        if !is_taken(shared, request, &run_id).await? {
            names.push(turn);
            break (run_id, run_after);
        }
        if request.run_id.is_some() {
            return Err(run_exists(request, &run_id));
        }
    };
    let conf = request.conf.clone();
    let (new, state) = new_run(shared, request, run_id, run_after, &dag.version, params, conf).await?;
    Ok(Preparation::New(Prepared {
        new,
        state,
        version: dag.version,
        names,
    }))
}

/// Reserves the names that a request gives, and finds the run that has them: by its name, else by its date. A date that is taken by a
/// run of another name than the one that is asked for is refused.
async fn existing(
    shared: &Arc<Shared>,
    request: &TriggerRequest,
    names: &mut Vec<KeyedGuard<Name>>,
) -> Result<Option<(DagRunKey, RunId)>, ControlError> {
    let mut dated = None;
    // In this order everywhere, so that nobody waits for each other.
    if let Some(date) = request.logical_date {
        names.push(shared.names.lock(Name::LogicalDate(request.dag_id.clone(), date)).await);
        dated = shared
            .store
            .find_run_by_logical_date(&request.dag_id, date)
            .await
            .map_err(query_failed)?
            .map(|run_id| (run_id, date));
    }
    if let Some(run_id) = &request.run_id {
        let name = Name::RunId(request.dag_id.clone(), run_id.clone());
        names.push(shared.names.lock(name).await);
    }
    let run_id = match (&request.run_id, &dated) {
        (Some(run_id), _) | (None, Some((run_id, _))) => run_id.clone(),
        (None, None) => return Ok(None),
    };
    let found = shared.store.find_run(&request.dag_id, &run_id).await;
    match (found.map_err(query_failed)?, dated) {
        (Some(key), _) => Ok(Some((key, run_id))),
        (None, Some((taken, date))) => Err(date_taken(request, date, &taken)),
        (None, None) => Ok(None),
    }
}

fn uuid_v7(now: Timestamp) -> Uuid {
    let micros = u64::try_from(now.0).unwrap_or(0);
    let nanos = u32::try_from(micros % 1_000_000).unwrap_or(0) * 1_000;
    Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, micros / 1_000_000, nanos))
}

async fn take_key(shared: &Arc<Shared>) -> Result<model::DagRunKey, ControlError> {
    let lease = shared.lease.get().ok_or(ControlError::Stopping)?;
    let (key, low) = shared.keys.take();
    if let Some(key) = key {
        if low {
            let shared = Arc::clone(shared);
            tokio::spawn(async move {
                if let Some(lease) = shared.lease.get()
                    && let Err(error) = shared.keys.refill(&*shared.store, lease).await
                {
                    tracing::debug!(%error, "could not reserve run keys ahead of time");
                }
            });
        }
        return Ok(key);
    }
    shared
        .keys
        .refill(&*shared.store, lease)
        .await
        .map_err(|error| match error {
            CommitError::Fenced => ControlError::Stopping,
            CommitError::Passing(_) | CommitError::Unknown(_) | CommitError::SlotsTaken => ControlError::Unavailable,
            CommitError::Data(source) => ControlError::Internal(source),
        })?;
    shared.keys.take().0.ok_or(ControlError::Unavailable)
}
