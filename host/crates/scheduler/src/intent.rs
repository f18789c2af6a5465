//! Carrying out intents. Each has a task of its own, which reads what is left to do and asks the loop for one bounded step after
//! another; the loop commits a step together with the progress that it makes. A task that ends early (a shutdown, a crash)
//! leaves an intent behind that the next process takes up where it was left.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt as _;
use model::{DagId, DagRunKey};
use ports::control::ControlError;
use ports::intent::{Intent, IntentWork, IntentWrite};
use ports::query::QueryError;
use tokio::sync::watch;
use uuid::Uuid;

use crate::inbox::{DagOp, Message, Reply, RunOp};
use crate::large::Progress;
use crate::shared::{Name, Shared, query_failed};

/// What the steps that wait for a tick may weigh together: that much is the most that a tick has to do for intents.
pub(crate) const STEPS: usize = 16;
/// What a step weighs that changes a run.
const CLEAR: u32 = 1;
/// What a step weighs that goes on with a large run.
const LARGE: u32 = 8;
/// What a step weighs that removes rows.
const PURGE: u32 = 8;

/// How many runs of an intent are changed side by side.
const RUNS_AT_A_TIME: usize = 16;
/// How many runs a step removes rows of.
const RUNS_A_STEP: usize = 32;
/// How many keys of runs are read at a time.
const RUNS_A_READ: u32 = 1_024;
/// How many versions a step removes.
const VERSIONS_A_STEP: u32 = 16;

/// Begins to carry out an intent that is committed.
pub(crate) fn carry(shared: &Arc<Shared>, intent: Arc<Intent>) {
    let (going, watched) = watch::channel(());
    shared.carried().insert(intent.id, watched);
    let carried = Carried {
        shared: Arc::clone(shared),
        id: intent.id,
        _going: going,
    };
    tokio::spawn(async move {
        let shared = &carried.shared;
        match carry_out(shared, &intent).await {
            Ok(()) => tracing::debug!(intent = %intent.id, dag.id = %intent.dag_id, "an intent is carried out"),
            Err(ControlError::Stopping) => {}
            Err(error) => {
                tracing::error!(%error, intent = %intent.id, dag.id = %intent.dag_id, "an intent is left for the next start");
            }
        }
    });
}

/// Waits until an intent is carried out, but not for long: it is promised already.
pub(crate) async fn wait(shared: &Shared, id: Uuid) {
    let watched = shared.carried().get(&id).cloned();
    if let Some(mut watched) = watched {
        // The sender goes when the intent does.
        let _ = tokio::time::timeout(shared.config.intent_patience, watched.changed()).await;
    }
}

/// Tells those who wait when the task ends, however it does.
struct Carried {
    shared: Arc<Shared>,
    id: Uuid,
    _going: watch::Sender<()>,
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.shared.carried().remove(&self.id);
    }
}

async fn carry_out(shared: &Shared, intent: &Intent) -> Result<(), ControlError> {
    match &intent.work {
        IntentWork::Clear(_) | IntentWork::SetState { .. } | IntentWork::Note { .. } | IntentWork::EndRun { .. } => {
            each_run(shared, intent).await?
        }
        IntentWork::DeleteRuns => {
            for runs in intent.runs.chunks(RUNS_A_STEP) {
                purge(shared, runs).await?;
            }
        }
        IntentWork::DeleteDag => return delete_dag(shared, intent).await,
    }
    step(
        shared,
        CLEAR,
        IntentWrite::End {
            id: intent.id,
            dag_id: None,
        },
    )
    .await
}

async fn each_run(shared: &Shared, intent: &Intent) -> Result<(), ControlError> {
    let work = Arc::new(intent.work.clone());
    let mut cleared = futures::stream::iter(intent.runs.iter().copied())
        .map(|run| one_run(shared, intent, run, &work))
        .buffer_unordered(RUNS_AT_A_TIME);
    while let Some(result) = cleared.next().await {
        result?;
    }
    Ok(())
}

async fn one_run(shared: &Shared, intent: &Intent, run: DagRunKey, work: &Arc<IntentWork>) -> Result<(), ControlError> {
    let _turn = shared.names.lock(Name::Run(run)).await;
    let (mut from, mut weight) = (Progress::default(), CLEAR);
    let changed = loop {
        let changed = ask(shared, weight, |reply| {
            let op = RunOp::CarryOut {
                intent: intent.id,
                work: Arc::clone(work),
                user: intent.user.clone(),
                from,
                reply,
            };
            Message::Run(run, op)
        })
        .await;
        match changed {
            Ok(Some(next)) => (from, weight) = (next, LARGE),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    match changed {
        Err(ControlError::Stopping) => Err(ControlError::Stopping),
        // It was deleted meanwhile.
        Ok(()) | Err(ControlError::Conflict(_) | ControlError::DagNotFound(_)) => Ok(()),
        Err(error) => {
            tracing::error!(%error, dag.id = %intent.dag_id, run.key = %run, "a run could not be changed with the others");
            Ok(())
        }
    }
}

async fn delete_dag(shared: &Shared, intent: &Intent) -> Result<(), ControlError> {
    let dag_id: &DagId = &intent.dag_id;
    loop {
        let runs = read(shared, || shared.store.runs_between(dag_id, None, None, RUNS_A_READ)).await?;
        if runs.is_empty() {
            break;
        }
        for runs in runs.chunks(RUNS_A_STEP) {
            purge(shared, runs).await?;
        }
    }
    while read(shared, || shared.store.old_versions(dag_id)).await? > 0 {
        let versions = IntentWrite::PurgeVersions {
            dag_id: dag_id.clone(),
            versions: VERSIONS_A_STEP,
        };
        step(shared, PURGE, versions).await?;
    }
    // A deploy that has looked for a version of this DAG comes first, and is refused.
    let _deploys = shared.names.lock(Name::Dag(dag_id.clone())).await;
    step(
        shared,
        PURGE,
        IntentWrite::End {
            id: intent.id,
            dag_id: Some(dag_id.clone()),
        },
    )
    .await
}

/// Removes rows of runs until none is left. Runs of a DAG that is being deleted go with their last row, or at once.
async fn purge(shared: &Shared, runs: &[DagRunKey]) -> Result<(), ControlError> {
    loop {
        let some = IntentWrite::Purge {
            runs: runs.to_vec(),
            rows: shared.config.purge_rows,
        };
        step(shared, PURGE, some).await?;
        if !read(shared, || shared.store.has_rows(runs)).await? {
            return Ok(());
        }
    }
}

async fn step(shared: &Shared, weight: u32, write: IntentWrite) -> Result<(), ControlError> {
    ask(shared, weight, |reply| {
        Message::Dag(DagOp::Intent {
            write: write.clone(),
            reply,
        })
    })
    .await
}

/// Asks the loop, in turn with other intents, until it takes the step or stops.
async fn ask<T>(shared: &Shared, weight: u32, message: impl Fn(Reply<T>) -> Message) -> Result<T, ControlError> {
    let mut pause = shared.config.backoff;
    loop {
        let turn = shared.steps.acquire_many(weight).await;
        let answer = shared.ask(&message).await;
        drop(turn);
        match answer {
            Err(ControlError::Unavailable) => rest(shared, &mut pause).await,
            answer => return answer,
        }
    }
}

/// Reads until that succeeds or the scheduler stops.
async fn read<T, F: Future<Output = Result<T, QueryError>>>(
    shared: &Shared,
    read: impl Fn() -> F,
) -> Result<T, ControlError> {
    let mut pause = shared.config.backoff;
    loop {
        match read().await {
            Ok(found) => return Ok(found),
            Err(_) if shared.stopping.load(Ordering::Acquire) => return Err(ControlError::Stopping),
            Err(error @ QueryError::Internal(_)) => return Err(query_failed(error)),
            Err(error) => {
                tracing::warn!(%error, "cannot read what an intent has still to do; trying again");
                rest(shared, &mut pause).await;
            }
        }
    }
}

async fn rest(shared: &Shared, pause: &mut Duration) {
    tokio::time::sleep(*pause).await;
    *pause = pause.saturating_mul(2).min(shared.config.backoff_max);
}
