//! What runs have to do with other runs: a task that triggers a run of another DAG (`trigger`), the end of that run and the end of the
//! wait for it (`children`), and sensors on runs that somebody else triggers (`sensors`).
//!
//! What is stored: a run names the dispatch that triggered it, a deferred task instance the run that it waits for. All that is kept here
//! can be made anew from those rows. Facts about other runs reach a run as `Event::Resolved`, which names the dispatch that waits: what comes
//! twice, or for a try that is over, changes nothing. So nothing here needs to know whether somebody was told already.

mod children;
mod existing;
mod sensors;
mod trigger;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::between::IfExists;
use model::dag::Task;
use model::run::{Event, Ti, TryEnd};
use model::sensor::Sensor;
use model::{Cause, DagRunKey, DispatchNumber, TaskInstanceState, TiKey, Timestamp, Work};
use ports::between::{ChildRun, RunParent};
use ports::control::ControlError;
use ports::payload::XcomValue;
use ports::store::XcomWrite;

pub(crate) use self::trigger::Triggered;

use self::sensors::Watchers;
use crate::core::Core;
use crate::inbox::{Item, Message};
use crate::metrics::Metrics;
use crate::run::{Draft, Place};
use crate::shared::Shared;
use crate::tick::Tick;

/// The key of a return value (Airflow: `XCOM_RETURN_KEY`).
const RETURN_VALUE: &str = "return_value";
/// The key under which the name of a triggered run is published (Airflow: `XCOM_RUN_ID`).
const TRIGGER_RUN_ID: &str = "trigger_run_id";

/// What memory knows of runs that have to do with others.
#[derive(Default)]
pub(crate) struct Between {
    /// The active runs that a run triggered.
    children: HashMap<DagRunKey, Vec<DagRunKey>>,
    watchers: Watchers,
    /// How many runs are being prepared.
    preparing: usize,
}

/// What was read for the loop.
pub(crate) enum BetweenMessage {
    /// A run that a task asked for, or nothing where the scheduler stops.
    Prepared(DagRunKey, Option<Box<Triggered>>),
    /// The runs that a run triggered, which was taken over while it waited for some.
    Children(DagRunKey, Vec<ChildRun>),
    /// The run that a sensor waits for exists.
    Found {
        waiter: TiKey,
        dispatch: DispatchNumber,
        run: DagRunKey,
    },
    /// The run that a task reuses had ended before the wait began.
    ReusedEnded(DagRunKey, Box<ChildRun>),
    /// What a deferred try waits for has happened.
    Resolved(DagRunKey, Box<Resolution>),
}

/// How a deferred try ends.
#[derive(Clone)]
pub(crate) struct Resolution {
    pub(crate) place: Place,
    pub(crate) dispatch: DispatchNumber,
    pub(crate) end: TryEnd,
    pub(crate) measured: Vec<u32>,
    pub(crate) message: Option<String>,
    pub(crate) code: Option<&'static str>,
    pub(crate) xcoms: Vec<(&'static str, XcomValue)>,
}

impl Resolution {
    fn plain(place: Place, dispatch: DispatchNumber, end: TryEnd) -> Self {
        Self {
            place,
            dispatch,
            end,
            measured: Vec::new(),
            message: None,
            code: None,
            xcoms: Vec::new(),
        }
    }

    fn failed(place: Place, dispatch: DispatchNumber, cause: Cause, code: &'static str, message: String) -> Self {
        let end = TryEnd::Failed {
            cause,
            fatal: false,
            code: Some(code.into()),
        };
        Self {
            message: Some(message),
            code: Some(code),
            ..Self::plain(place, dispatch, end)
        }
    }
}

impl Between {
    /// Whether nothing is under way that a stopping scheduler should wait for.
    pub(crate) fn is_idle(&self) -> bool {
        self.preparing == 0
    }

    /// An active run was triggered by another one.
    pub(crate) fn add_child(&mut self, parent: DagRunKey, child: DagRunKey) {
        let children = self.children.entry(parent).or_default();
        if !children.contains(&child) {
            children.push(child);
        }
    }

    /// A run is not active any more.
    pub(crate) fn forget_run(&mut self, run: DagRunKey, parent: Option<&RunParent>) {
        self.watchers.remove_run(run);
        if let Some(parent) = parent {
            self.remove_child(parent.run, run);
        }
    }

    fn remove_child(&mut self, parent: DagRunKey, child: DagRunKey) {
        if let Some(children) = self.children.get_mut(&parent) {
            children.retain(|known| *known != child);
            if children.is_empty() {
                self.children.remove(&parent);
            }
        }
    }
}

/// What a tick brings to others than its own runs; told after the commit.
pub(crate) struct News {
    /// A run that was triggered, or taken over.
    child_of: Option<DagRunKey>,
    /// Whose child it was before.
    child_of_before: Option<DagRunKey>,
    /// One that has ended, or is gone.
    ended: Option<(Arc<RunParent>, children::Ended)>,
    /// The same, for those who reuse it.
    ended_for: Vec<(DagRunKey, children::Ended)>,
    deferred: Vec<Place>,
    undeferred: Vec<Place>,
    resolved: Vec<(DagRunKey, Resolution)>,
}

impl Core {
    /// What a draft that was committed brings to others. Nothing for most.
    pub(crate) fn news_of(&self, draft: &Draft) -> Option<Box<News>> {
        let parent = draft.meta.parent.as_ref();
        let is_watched = !self.between.watchers.is_empty();
        if parent.is_none() && !is_watched && draft.deferred.is_empty() && draft.undeferred.is_empty() {
            return None;
        }
        let over = draft.deleted || (draft.run_changed && draft.state.state().is_finished());
        Some(Box::new(News {
            child_of: parent
                .filter(|_| (draft.new_run || draft.reparented.is_some()) && !over)
                .map(|parent| parent.run),
            child_of_before: draft.reparented.flatten(),
            ended: parent
                .filter(|_| over)
                .map(|parent| (Arc::clone(parent), children::Ended::of(draft))),
            ended_for: if over && is_watched {
                self.reused_by(draft)
            } else {
                Vec::new()
            },
            deferred: draft.deferred.clone(),
            undeferred: draft.undeferred.clone(),
            resolved: if is_watched {
                self.resolved_by(draft)
            } else {
                Vec::new()
            },
        }))
    }

    /// Tells the others, once memory has what was committed.
    pub(crate) fn tell(&mut self, run: DagRunKey, news: Option<Box<News>>) {
        let Some(news) = news else { return };
        if let Some(before) = news.child_of_before {
            self.between.remove_child(before, run);
        }
        if let Some(parent) = news.child_of {
            self.between.add_child(parent, run);
        }
        for (task, map_index) in news.undeferred {
            self.between.watchers.remove(TiKey { run, task, map_index });
        }
        for (task, map_index) in news.deferred {
            self.watch(TiKey { run, task, map_index });
        }
        if let Some((parent, ended)) = news.ended {
            self.child_ended(&parent, ended);
        }
        for (waiter, ended) in news.ended_for {
            self.end_wait(waiter, ended);
        }
        for (waiter, resolution) in news.resolved {
            self.resolve(waiter, Box::new(resolution));
        }
    }

    /// A run was taken over while these of its task instances were deferred: what they wait for may have happened.
    pub(crate) fn waits_again(&mut self, run: DagRunKey, deferred: &[Place]) {
        let mut has_children = false;
        for (task, map_index) in deferred {
            let ti = TiKey {
                run,
                task: *task,
                map_index: *map_index,
            };
            has_children |= !self.watch(ti);
        }
        if has_children {
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move {
                let read = patiently(&shared, || async {
                    shared.store.children(run).await.map_err(crate::shared::query_failed)
                });
                if let Ok(children) = read.await {
                    send(&shared, BetweenMessage::Children(run, children));
                }
            });
        }
    }

    pub(crate) fn accept_between(&mut self, message: BetweenMessage, now: Timestamp) {
        match message {
            BetweenMessage::Prepared(run, triggered) => {
                self.between.preparing = self.between.preparing.saturating_sub(1);
                if let Some(triggered) = triggered {
                    self.queue.push(run, Item::Triggered(triggered), now);
                }
            }
            BetweenMessage::Children(run, children) => self.compare_children(run, &children),
            BetweenMessage::Found { waiter, dispatch, run } => self.found(waiter, dispatch, run),
            BetweenMessage::ReusedEnded(waiter, child) => self.reused_ended(waiter, *child),
            BetweenMessage::Resolved(run, resolution) => self.resolve(run, resolution),
        }
    }

    /// Hands a run what one of its task instances waits for.
    fn resolve(&mut self, waiter: DagRunKey, resolution: Box<Resolution>) {
        // Taken over again it looks for itself.
        if self.runs.contains_key(&waiter) {
            let now = self.shared.clock.now();
            self.queue.push(waiter, Item::Resolved(resolution), now);
        }
    }

    /// What a deferred try waits for has happened.
    pub(crate) fn apply_resolved(&mut self, tick: &mut Tick, key: DagRunKey, resolution: &Resolution) {
        let Some(draft) = tick.draft(&self.runs, key) else {
            return;
        };
        let place = resolution.place;
        if !waits(draft.state.ti(place.0, place.1), resolution.dispatch) {
            Metrics::count(&self.shared.metrics.stale_events);
            return;
        }
        let said = match draft.details.get(&place) {
            Some(changed) => changed.clone(),
            None => self.runs.get(&key).and_then(|run| run.details.get(&place).cloned()),
        };
        let mut details = said.unwrap_or_default();
        details.message.clone_from(&resolution.message);
        if resolution.code.is_none() {
            // What it waited for explains a failure, and nothing else.
            details.details = None;
        }
        details.code = resolution.code.map(str::to_owned);
        draft.details.insert(place, Some(details));
        draft.publish(place, &resolution.xcoms);
        let event = Event::Resolved {
            task: place.0,
            map_index: place.1,
            dispatch: resolution.dispatch,
            end: resolution.end.clone(),
            measured: resolution.measured.clone(),
        };
        self.step(tick, key, event);
    }
}

impl Draft {
    fn publish(&mut self, place: Place, xcoms: &[(&'static str, XcomValue)]) {
        let ti = self.ti(place);
        self.xcoms.extend(xcoms.iter().map(|(key, value)| XcomWrite {
            ti,
            key: (*key).to_owned(),
            value: value.clone(),
        }));
    }
}

/// Whether a try is deferred, and by this dispatch.
fn waits(ti: Option<&Ti>, dispatch: DispatchNumber) -> bool {
    ti.is_some_and(|ti| ti.state == TaskInstanceState::Deferred && ti.dispatch == dispatch)
}

/// What to say of a try that was deferred for too long.
pub(crate) fn ran_out_of_time(task: &Task, ti: &Ti, now: Timestamp) -> Option<&'static str> {
    let (since, limit, message) = match &task.work {
        Work::TriggerDag(step) if step.if_exists == IfExists::Reuse => (
            ti.start_date?,
            step.timeout?,
            "the run that it waited for took longer than the task's `timeout`",
        ),
        Work::TriggerDag(step) => (
            ti.start_date?,
            step.timeout?,
            "the run that it triggered took longer than the task's `timeout`; that run was cancelled",
        ),
        Work::WaitForDag(_) => (
            ti.poked_since()?,
            task.sensor
                .as_ref()
                .map_or(Sensor::default().timeout, |sensor| sensor.timeout),
            "the sensor has waited longer than its `timeout`",
        ),
        Work::Component(_) | Work::Human(_) | Work::Notify | Work::LatestOnly => return None,
    };
    (since.plus(limit) <= now).then_some(message)
}

fn send(shared: &Shared, message: BetweenMessage) {
    let _ = shared.inbox.send(Message::Between(Box::new(message)));
}

/// Reads something until it can be read. Only a stopping scheduler gives up: what is stored is found again by the next one.
async fn patiently<T, F>(shared: &Shared, read: impl Fn() -> F) -> Result<T, ControlError>
where
    F: Future<Output = Result<T, ControlError>>,
{
    let mut pause = shared.config.backoff;
    loop {
        match read().await {
            Err(error @ (ControlError::Unavailable | ControlError::Internal(_))) => {
                if shared.stopping.load(Ordering::Acquire) {
                    return Err(error);
                }
                tracing::warn!(%error, "cannot read what another run has to do with this one; trying again");
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2).min(shared.config.backoff_max);
            }
            done => return done,
        }
    }
}
