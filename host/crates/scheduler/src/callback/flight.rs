//! The attempts that are out, and the turns that bound how many there are.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::DispatchNumber;
use model::callback::{CallbackEvent, CallbackKind, NotificationLevel};
use model::{MapIndex, TaskId};
use ports::callback::{CallbackChange, CallbackId};
use ports::control::RunEvent;
use ports::executor::{RunContext, TryId};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::live::LiveRun;

/// What people are told of a callback.
#[derive(Clone, Debug)]
pub(crate) struct About {
    pub(crate) run: Arc<RunContext>,
    pub(crate) task_id: Option<TaskId>,
    pub(crate) map_index: MapIndex,
    pub(crate) event: CallbackEvent,
    pub(crate) kind: CallbackKind,
    pub(crate) name: String,
    pub(crate) level: Option<NotificationLevel>,
}

impl About {
    /// The event of a change, for those who watch.
    pub(crate) fn event(&self, change: &CallbackChange, at: model::Timestamp) -> RunEvent {
        RunEvent::Callback {
            dag_id: self.run.dag_id.clone(),
            run_id: self.run.run_id.clone(),
            callback_id: Some(change.id),
            task_id: self.task_id.clone(),
            map_index: self.map_index,
            on: self.event,
            kind: self.kind,
            name: self.name.clone(),
            level: self.level,
            state: change.state,
            cause: change.cause,
            message: change.message.clone(),
            text: change.text.clone(),
            at,
        }
    }
}

/// An attempt that is out.
#[derive(Debug)]
struct Flight {
    attempt: DispatchNumber,
    /// The run, with the callback as its only try: what its pulls are judged by. None until it has begun.
    out: Option<(Arc<LiveRun>, Arc<About>)>,
    started_at: Option<model::Timestamp>,
    /// An executor has said how it ended; what it says again counts no more.
    over: bool,
    turn: Option<OwnedSemaphorePermit>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Flights {
    turns: Arc<Semaphore>,
    out: Mutex<HashMap<CallbackId, Flight>>,
    /// Something is due, or somebody's turn is over.
    pub(crate) changed: Notify,
}

impl Flights {
    pub(crate) fn new(turns: usize) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(turns)),
            out: Mutex::default(),
            changed: Notify::new(),
        }
    }

    fn out(&self) -> MutexGuard<'_, HashMap<CallbackId, Flight>> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that are out.
    pub(crate) fn ids(&self) -> HashSet<CallbackId> {
        self.out().keys().copied().collect()
    }

    /// How many more may be.
    pub(crate) fn free(&self) -> usize {
        self.turns.available_permits()
    }

    /// Takes a turn for an attempt; false where it has one already, or all are taken.
    pub(crate) fn take(&self, id: CallbackId, attempt: u32) -> bool {
        let mut out = self.out();
        if out.contains_key(&id) {
            return false;
        }
        let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() else {
            return false;
        };
        let flight = Flight {
            attempt: DispatchNumber(attempt),
            out: None,
            started_at: None,
            over: false,
            turn: Some(turn),
        };
        out.insert(id, flight);
        true
    }

    /// The attempt begins: from now on it may ask for XComs.
    pub(crate) fn begin(&self, id: CallbackId, live: Arc<LiveRun>, about: Arc<About>) {
        if let Some(flight) = self.out().get_mut(&id) {
            flight.out = Some((live, about));
        }
    }

    /// The attempt is over, whatever came of it.
    pub(crate) fn end(&self, id: CallbackId) {
        let flight = self.out().remove(&id);
        // The turn is free before anybody hears of it.
        drop(flight);
        self.changed.notify_one();
    }

    /// The end of the attempt cannot be stored. It is not looked at again, and others may have its turn.
    pub(crate) fn shelve(&self, id: CallbackId) {
        if let Some(flight) = self.out().get_mut(&id) {
            flight.over = true;
            drop(flight.turn.take());
        }
        self.changed.notify_one();
    }

    /// The run of an attempt that is out.
    pub(crate) fn run_of(&self, id: CallbackId, attempt: DispatchNumber) -> Option<Arc<LiveRun>> {
        let out = self.out();
        let flight = out.get(&id).filter(|flight| flight.attempt == attempt)?;
        flight.out.as_ref().map(|(live, _)| Arc::clone(live))
    }

    /// Notes when an executor started it.
    pub(crate) fn started(&self, id: &TryId, at: model::Timestamp) {
        if let Some(callback) = id.callback
            && let Some(flight) = self.out().get_mut(&callback)
            && flight.attempt == id.dispatch
        {
            flight.started_at = Some(at);
        }
    }

    /// An executor says that an attempt is over: when it started, and what people are told of it. None for any but the current attempt,
    /// and for what was said before.
    pub(crate) fn reported(&self, id: &TryId) -> Option<(Option<model::Timestamp>, Arc<About>)> {
        let mut out = self.out();
        let flight = out.get_mut(&id.callback?)?;
        if flight.attempt != id.dispatch || flight.over {
            return None;
        }
        let (_, about) = flight.out.as_ref()?;
        flight.over = true;
        Some((flight.started_at, Arc::clone(about)))
    }

    /// Those that no executor has spoken of since `silent_since`; none where `anew` says that from now on it counts. And whether there are any at all.
    pub(crate) fn lost(&self, silent_since: model::Timestamp, now: model::Timestamp, anew: bool) -> (bool, Vec<TryId>) {
        let mut lost = Vec::new();
        let mut any = false;
        for (callback, flight) in self.out().iter() {
            if flight.over {
                continue;
            }
            any = true;
            let Some((live, _)) = &flight.out else { continue };
            let silent = live.take_silent(silent_since, now, anew).into_iter();
            lost.extend(silent.map(|(id, _)| TryId {
                callback: Some(*callback),
                ..id
            }));
        }
        (any, lost)
    }

    /// When the attempt started that has been running longest: what it refers to is not swept.
    pub(crate) fn oldest_start(&self) -> Option<model::Timestamp> {
        self.out().values().filter_map(|flight| flight.started_at).min()
    }
}
