//! What the outside may know of active runs without asking the loop: which dispatches are current, when they started, how
//! far they say they are, and whether a run has ended. The loop writes here after each commit; the handle reads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{
    DagId, DagRunKey, DagRunState, DispatchNumber, MapIndex, RunId, RunUuid, TaskIndex, TiKey, Timestamp, TryNumber,
};
use ports::executor::{RunContext, TryId};
use tokio::sync::watch;

use crate::version::Version;

/// A dispatch that is out.
#[derive(Debug)]
pub(crate) struct LiveTry {
    pub(crate) try_number: TryNumber,
    pub(crate) dispatch: DispatchNumber,
    /// Whether the try has loaded or saved a checkpoint.
    pub(crate) has_checkpoint: bool,
    pub(crate) started_at: Option<Timestamp>,
    /// When its executor was heard of last, or it was dispatched.
    pub(crate) heard_at: Timestamp,
    pub(crate) progress: Option<(Option<f64>, String)>,
    /// Which instances of repeated tasks it sees; of other tasks it sees all.
    pub(crate) sight: Sight,
}

/// Which instances of repeated tasks a try sees.
#[derive(Debug, Default)]
pub(crate) struct Sight {
    pub(crate) now: HashMap<TaskIndex, Vec<MapIndex>>,
    /// In the iteration before, in a loop around both.
    pub(crate) before: HashMap<TaskIndex, Vec<MapIndex>>,
}

impl LiveTry {
    pub(crate) fn new(try_number: TryNumber, dispatch: DispatchNumber, sight: Sight, now: Timestamp) -> Self {
        Self {
            try_number,
            dispatch,
            has_checkpoint: false,
            started_at: None,
            heard_at: now,
            progress: None,
            sight,
        }
    }
}

/// An active run.
#[derive(Debug)]
pub(crate) struct LiveRun {
    pub(crate) context: Arc<RunContext>,
    pub(crate) version: Arc<Version>,
    /// The committed state; waiters watch it.
    pub(crate) state: watch::Sender<DagRunState>,
    tries: Mutex<HashMap<(TaskIndex, MapIndex), LiveTry>>,
    /// Dispatches that count no more and whose end is waited for.
    ending: Mutex<HashMap<(TaskIndex, MapIndex), LiveTry>>,
}

impl LiveRun {
    pub(crate) fn new(context: Arc<RunContext>, version: Arc<Version>, state: DagRunState) -> Arc<Self> {
        Arc::new(Self {
            context,
            version,
            state: watch::Sender::new(state),
            tries: Mutex::default(),
            ending: Mutex::default(),
        })
    }

    pub(crate) fn tries(&self) -> MutexGuard<'_, HashMap<(TaskIndex, MapIndex), LiveTry>> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ending(&self) -> MutexGuard<'_, HashMap<(TaskIndex, MapIndex), LiveTry>> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An executor has a dispatch. Whether that is one of those that it should have: `Some(true)` for a current one.
    pub(crate) fn hear(&self, id: &TryId, at: Timestamp) -> Option<bool> {
        let place = (id.ti.task, id.ti.map_index);
        let hear = |live: Option<&mut LiveTry>| {
            let live = live.filter(|live| live.dispatch == id.dispatch)?;
            live.heard_at = live.heard_at.max(at);
            Some(())
        };
        if hear(self.tries().get_mut(&place)).is_some() {
            return Some(true);
        }
        hear(self.ending().get_mut(&place)).map(|()| false)
    }

    /// The dispatches that no executor has spoken of since `silent_since`, and whether one has started them. They are asked about again only after the same
    /// time, and so are all where `anew` says that nobody could be heard.
    pub(crate) fn take_silent(&self, silent_since: Timestamp, now: Timestamp, anew: bool) -> Vec<(TryId, bool)> {
        let mut silent = Vec::new();
        let (mut tries, mut ending) = (self.tries(), self.ending());
        for ((task, map_index), live) in tries.iter_mut().chain(ending.iter_mut()) {
            if !anew && live.heard_at >= silent_since {
                continue;
            }
            live.heard_at = now;
            if !anew {
                let id = TryId {
                    ti: TiKey {
                        run: self.context.key,
                        task: *task,
                        map_index: *map_index,
                    },
                    run_uuid: self.context.uuid,
                    try_number: live.try_number,
                    dispatch: live.dispatch,
                    callback: None,
                };
                silent.push((id, live.started_at.is_some()));
            }
        }
        silent
    }

    /// Whether this is the current dispatch of the task instance.
    pub(crate) fn is_current(&self, task: TaskIndex, map_index: MapIndex, dispatch: DispatchNumber) -> bool {
        self.tries()
            .get(&(task, map_index))
            .is_some_and(|live| live.dispatch == dispatch)
    }
}

/// The active runs.
#[derive(Debug, Default)]
pub(crate) struct Active {
    by_key: HashMap<DagRunKey, Arc<LiveRun>>,
    by_name: HashMap<(DagId, RunId), DagRunKey>,
    by_uuid: HashMap<RunUuid, DagRunKey>,
}

impl Active {
    pub(crate) fn insert(&mut self, run: Arc<LiveRun>) {
        let context = &run.context;
        self.by_name
            .insert((context.dag_id.clone(), context.run_id.clone()), context.key);
        self.by_uuid.insert(context.uuid, context.key);
        self.by_key.insert(context.key, run);
    }

    pub(crate) fn remove(&mut self, key: DagRunKey) {
        if let Some(run) = self.by_key.remove(&key) {
            let context = &run.context;
            self.by_name.remove(&(context.dag_id.clone(), context.run_id.clone()));
            self.by_uuid.remove(&context.uuid);
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn get(&self, key: DagRunKey) -> Option<&Arc<LiveRun>> {
        self.by_key.get(&key)
    }

    pub(crate) fn find(&self, dag_id: &DagId, run_id: &RunId) -> Option<&Arc<LiveRun>> {
        let key = self.by_name.get(&(dag_id.clone(), run_id.clone()))?;
        self.by_key.get(key)
    }

    pub(crate) fn has_uuid(&self, uuid: RunUuid) -> bool {
        self.by_uuid.contains_key(&uuid)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// When the try started that has been running longest.
    pub(crate) fn oldest_start(&self) -> Option<Timestamp> {
        let oldest = |run: &Arc<LiveRun>| run.tries().values().filter_map(|live| live.started_at).min();
        self.by_key.values().filter_map(oldest).min()
    }
}
