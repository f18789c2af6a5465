//! Sensors on runs of other DAGs, which somebody else triggers. Each is told by what happens there; the database is asked once, when the wait
//! begins or is taken over, since what it waits for may have happened before.
//!
//! Airflow: `ExternalTaskSensor`, and `WorkflowTrigger`, which polls.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use model::between::{EXTERNAL_FAILED, EXTERNAL_NOT_FOUND, Verdict, WaitForDag};
use model::dag::Task;
use model::run::TryEnd;
use model::{Cause, Dag, DagId, DagRunKey, DagRunState, DispatchNumber, MapIndex, TaskIndex, TaskInstanceState, TiKey};
use ports::between::RunSelector;
use ports::control::ControlError;
use ports::executor::RunContext;

use super::{BetweenMessage, Resolution, patiently, send, waits};
use crate::core::Core;
use crate::run::Draft;
use crate::shared::{Shared, query_failed};

/// The sensors that wait.
#[derive(Default)]
pub(super) struct Watchers {
    by_waiter: BTreeMap<TiKey, Watch>,
    by_dag: HashMap<DagId, BTreeSet<TiKey>>,
}

/// What one of them waits for.
pub(super) struct Watch {
    dag: DagId,
    run: RunSelector,
    dispatch: DispatchNumber,
}

impl Watch {
    pub(super) const fn new(dag: DagId, run: RunSelector, dispatch: DispatchNumber) -> Self {
        Self { dag, run, dispatch }
    }

    fn is_of(&self, context: &RunContext) -> bool {
        match &self.run {
            RunSelector::RunId(run_id) => *run_id == context.run_id,
            RunSelector::LogicalDate(date) => context.logical_date == Some(*date),
        }
    }
}

impl Watchers {
    pub(super) fn is_empty(&self) -> bool {
        self.by_waiter.is_empty()
    }

    /// Those that wait for a run, with the dispatch that does.
    pub(super) fn of<'w>(&'w self, context: &'w RunContext) -> impl Iterator<Item = (TiKey, DispatchNumber)> + 'w {
        let waiters = self.by_dag.get(&context.dag_id).into_iter().flatten();
        waiters.filter_map(|waiter| {
            let watch = self.by_waiter.get(waiter)?;
            watch.is_of(context).then_some((*waiter, watch.dispatch))
        })
    }

    pub(super) fn insert(&mut self, waiter: TiKey, watch: Watch) {
        self.remove(waiter);
        self.by_dag.entry(watch.dag.clone()).or_default().insert(waiter);
        self.by_waiter.insert(waiter, watch);
    }

    pub(super) fn remove(&mut self, waiter: TiKey) {
        let Some(watch) = self.by_waiter.remove(&waiter) else {
            return;
        };
        if let Some(waiters) = self.by_dag.get_mut(&watch.dag) {
            waiters.remove(&waiter);
            if waiters.is_empty() {
                self.by_dag.remove(&watch.dag);
            }
        }
    }

    pub(super) fn remove_run(&mut self, run: DagRunKey) {
        let first = TiKey {
            run,
            task: TaskIndex(0),
            map_index: MapIndex(i32::MIN),
        };
        let of_run: Vec<TiKey> = self
            .by_waiter
            .range(first..)
            .take_while(|(ti, _)| ti.run == run)
            .map(|(ti, _)| *ti)
            .collect();
        for waiter in of_run {
            self.remove(waiter);
        }
    }
}

impl Core {
    /// A sensor begins to wait, or its run was taken over. False where the task is none.
    pub(super) fn watch(&mut self, waiter: TiKey) -> bool {
        let Some(run) = self.runs.get(&waiter.run) else {
            return true;
        };
        let place = (waiter.task, waiter.map_index);
        let version = Arc::clone(&run.live.version);
        let Some(task) = version.dag().task(place.0) else {
            return true;
        };
        let Some(dispatch) = run
            .state
            .ti(place.0, place.1)
            .filter(|ti| ti.state == TaskInstanceState::Deferred)
            .map(|ti| ti.dispatch)
        else {
            return true;
        };
        let Some(step) = task.work.wait_for_dag() else {
            return self.watch_reused(waiter, dispatch);
        };
        let said = run.details.get(&place).and_then(|details| details.details.as_deref());
        let Some(selector) = said.and_then(|said| serde_json::from_str::<RunSelector>(said).ok()) else {
            tracing::error!(run.id = %run.live.context.run_id, "a sensor does not know what it waits for; it runs into its timeout");
            return true;
        };
        let watch = Watch {
            dag: step.dag.clone(),
            run: selector.clone(),
            dispatch,
        };
        self.between.watchers.insert(waiter, watch);
        let (shared, dag) = (Arc::clone(&self.shared), step.dag.clone());
        tokio::spawn(async move {
            if let Ok(Some(run)) = patiently(&shared, || find(&shared, &dag, &selector)).await {
                send(&shared, BetweenMessage::Found { waiter, dispatch, run });
            }
        });
        true
    }

    /// The run that a sensor waits for exists. One in memory is judged as it is there, any other by its rows, which are complete.
    pub(super) fn found(&mut self, waiter: TiKey, dispatch: DispatchNumber, run: DagRunKey) {
        let Some(waiting) = self.runs.get(&waiter.run) else {
            return;
        };
        if !waits(waiting.state.ti(waiter.task, waiter.map_index), dispatch) {
            return;
        }
        let version = Arc::clone(&waiting.live.version);
        if version
            .dag()
            .task(waiter.task)
            .is_some_and(|task| task.work.trigger_dag().is_some())
        {
            return self.found_reused(waiter, dispatch, run);
        }
        if let Some(other) = self.runs.get(&run) {
            let Some(task) = version.dag().task(waiter.task) else {
                return;
            };
            let states = other.state.tis().map(|(task, _, ti)| (task, ti.state));
            let resolution = judge(
                task,
                waiter,
                dispatch,
                (other.live.version.dag(), other.state.state()),
                states,
            );
            if let Some(resolution) = resolution {
                self.resolve(waiter.run, Box::new(resolution));
            }
            return;
        }
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let read = patiently(&shared, || async {
                let Some(stored) = shared.store.load_run(run).await.map_err(query_failed)? else {
                    return Ok(None);
                };
                let other = shared.version(stored.version).await.map_err(query_failed)?;
                Ok(other.map(|other| (stored, other)))
            });
            let Ok(Some((stored, other))) = read.await else {
                return;
            };
            let Some(task) = version.dag().task(waiter.task) else {
                return;
            };
            // Of a run that is set aside some task instances may have no rows.
            let complete = stored.row.state.is_finished();
            if !complete
                && task
                    .work
                    .wait_for_dag()
                    .is_some_and(|step| step.tasks(other.dag()).is_some())
            {
                return;
            }
            let states = stored.task_instances.iter().map(|ti| (ti.key.task, ti.state));
            let found = (&**other.dag(), stored.row.state);
            if let Some(resolution) = judge(task, waiter, dispatch, found, states) {
                send(&shared, BetweenMessage::Resolved(waiter.run, Box::new(resolution)));
            }
        });
    }

    /// The waits that end with what a draft has made of its run.
    pub(super) fn resolved_by(&self, draft: &Draft) -> Vec<(DagRunKey, Resolution)> {
        let context = &draft.live.context;
        let moved = draft.new_run || draft.run_changed || !draft.changed.is_empty();
        let Some(waiters) = self.between.watchers.by_dag.get(&context.dag_id).filter(|_| moved) else {
            return Vec::new();
        };
        let resolved = waiters.iter().filter_map(|waiter| {
            let watch = self.between.watchers.by_waiter.get(waiter)?;
            if !watch.is_of(context) || draft.deleted {
                return None;
            }
            let waiting = self.runs.get(&waiter.run)?;
            let task = waiting.live.version.dag().task(waiter.task)?;
            if !moves(task, draft) {
                return None;
            }
            let found = (&**draft.live.version.dag(), draft.state.state());
            let states = draft.state.tis().map(|(task, _, ti)| (task, ti.state));
            Some((waiter.run, judge(task, *waiter, watch.dispatch, found, states)?))
        });
        resolved.collect()
    }
}

/// Whether a draft moves what a sensor waits for: a large run is not looked through with each of its ticks.
fn moves(task: &Task, draft: &Draft) -> bool {
    let Some(step) = task.work.wait_for_dag() else {
        return false;
    };
    draft.new_run
        || draft.run_changed
        || step
            .tasks(draft.live.version.dag())
            .is_some_and(|tasks| draft.changed.iter().any(|(changed, _)| tasks.contains(changed)))
}

pub(super) async fn find(shared: &Shared, dag: &DagId, run: &RunSelector) -> Result<Option<DagRunKey>, ControlError> {
    let run_id = match run {
        RunSelector::RunId(run_id) => Some(run_id.clone()),
        RunSelector::LogicalDate(date) => shared
            .store
            .find_run_by_logical_date(dag, *date)
            .await
            .map_err(query_failed)?,
    };
    match run_id {
        Some(run_id) => shared.store.find_run(dag, &run_id).await.map_err(query_failed),
        None => Ok(None),
    }
}

/// How a wait ends, given what was found of the other run; nothing where it goes on.
fn judge(
    task: &Task,
    waiter: TiKey,
    dispatch: DispatchNumber,
    (dag, run): (&Dag, DagRunState),
    task_instances: impl Iterator<Item = (TaskIndex, TaskInstanceState)>,
) -> Option<Resolution> {
    let step: &WaitForDag = task.work.wait_for_dag()?;
    let place = (waiter.task, waiter.map_index);
    let failed = |code, message| Resolution::failed(place, dispatch, Cause::Failed, code, message);
    Some(match step.judge(dag, run, task_instances) {
        Verdict::Wait => return None,
        Verdict::Done => Resolution::plain(place, dispatch, TryEnd::Done),
        Verdict::Skip => Resolution {
            message: Some(format!("{} is in one of `skipped_states`", step.in_words())),
            ..Resolution::plain(place, dispatch, TryEnd::Skip)
        },
        Verdict::NotFound => failed(
            EXTERNAL_NOT_FOUND,
            format!(
                "the run that this task waits for has nothing that is {}",
                step.in_words()
            ),
        ),
        Verdict::Failed => {
            let message = format!("{} is in one of `failed_states`", step.in_words());
            // Airflow: `soft_fail` turns `ExternalTaskFailedError` into a skip.
            if task.sensor.as_ref().is_some_and(|sensor| sensor.soft_fail) {
                Resolution {
                    message: Some(message),
                    ..Resolution::plain(place, dispatch, TryEnd::Skip)
                }
            } else {
                failed(EXTERNAL_FAILED, message)
            }
        }
    })
}
