//! An active run in memory, and the draft that a tick works on. A draft replaces its run only after the commit.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use model::run::RunState;
use model::{DagId, DagRunKey, DagRunType, DispatchNumber, MapIndex, TaskIndex, TaskInstanceState, TiKey, TryNumber};
use ports::between::RunParent;
use ports::callback::CallbackWrite;
use ports::intent::Intent;
use ports::query::{HiddenFailure, RunRow};
use ports::store::{AuditWrite, HeartbeatWrite, HitlAnswer, HitlRequest, NewRun, RunWrite, TiNote, TiWrite, XcomWrite};
use uuid::Uuid;

use crate::live::LiveRun;
use crate::outcome::Details;

/// A task instance within its run.
pub(crate) type Place = (TaskIndex, MapIndex);

/// Of a new run with more task instances the rows that may wait are not kept one by one.
const FEW: usize = 1_000;

/// What is stored of a run beside its task instances.
#[derive(Clone, Debug)]
pub(crate) struct Meta {
    pub(crate) run_type: DagRunType,
    pub(crate) conf: Arc<str>,
    pub(crate) note: Option<String>,
    pub(crate) triggering_user: Option<String>,
    pub(crate) parent: Option<Arc<RunParent>>,
    pub(crate) set_aside: Option<String>,
    /// Whether people may have noted something about its task instances.
    pub(crate) noted: bool,
    /// How many callbacks have become due.
    pub(crate) callbacks: u32,
    /// Intents that do something to the run in several steps, and hold it meanwhile.
    pub(crate) held_by: Vec<Uuid>,
}

/// An active run, as it is committed.
pub(crate) struct Run {
    pub(crate) live: Arc<LiveRun>,
    pub(crate) state: RunState,
    pub(crate) meta: Meta,
    /// Of task instances that have not ended: what their last try said.
    pub(crate) details: HashMap<Place, Details>,
    /// Rows that may be written later: a crash loses nothing by them.
    pub(crate) lazy: BTreeSet<Place>,
    /// The same, for places in its table: those of a large run are looked at one after another.
    pub(crate) unlisted: Range<usize>,
}

impl Run {
    pub(crate) fn key(&self) -> DagRunKey {
        self.live.context.key
    }
}

/// A dispatch to send once it is committed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dispatch {
    pub(crate) place: Place,
    pub(crate) try_number: TryNumber,
    pub(crate) dispatch: DispatchNumber,
    pub(crate) first_of_try: bool,
}

/// What a tick has made of a run so far.
pub(crate) struct Draft {
    pub(crate) live: Arc<LiveRun>,
    pub(crate) state: RunState,
    pub(crate) meta: Meta,
    /// Changes to `Run::details`; none removes.
    pub(crate) details: HashMap<Place, Option<Details>>,
    /// Its row, until it is handed to the tick's write.
    pub(crate) new: Option<NewRun>,
    pub(crate) new_run: bool,
    pub(crate) run_changed: bool,
    /// Whether its row is to be written although the run has not changed its state: what its success hides may be other than it was.
    pub(crate) row_changed: bool,
    pub(crate) new_note: bool,
    /// Whose child it was before, where this tick makes it somebody else's.
    pub(crate) reparented: Option<Option<DagRunKey>>,
    pub(crate) deleted: bool,
    /// What removes the rows of the run once it is deleted.
    pub(crate) rest: Option<Arc<Intent>>,
    /// What is done to the run in several steps from now on.
    pub(crate) promised: Vec<Arc<Intent>>,
    /// Intents that have dealt with the run.
    pub(crate) intents_done: Vec<Uuid>,
    /// Rows that this tick must write.
    pub(crate) changed: Vec<Place>,
    /// Rows to add to `Run::lazy`.
    pub(crate) lazy: Vec<Place>,
    /// Rows of `Run::lazy` and `lazy` that this tick writes, or that were written since.
    pub(crate) lazy_done: Vec<Place>,
    /// See `Run::unlisted`.
    pub(crate) unlisted: Range<usize>,
    /// Rows of `unlisted` that this tick writes.
    pub(crate) listed: Vec<Place>,
    /// The number of task instances that there were.
    pub(crate) size_before: usize,
    /// Rows under map indexes that are replaced.
    pub(crate) renumbered: Vec<TiKey>,
    pub(crate) tries: Vec<TiWrite>,
    pub(crate) xcom_deletes: Vec<TiKey>,
    pub(crate) checkpoint_deletes: Vec<TiKey>,
    pub(crate) xcoms: Vec<XcomWrite>,
    pub(crate) hitl_requests: Vec<HitlRequest>,
    pub(crate) hitl_answers: Vec<HitlAnswer>,
    pub(crate) callbacks: Vec<CallbackWrite>,
    pub(crate) notes: Vec<TiNote>,
    /// What was noted under map indexes that are replaced, and where it goes.
    pub(crate) note_moves: Vec<(TiKey, MapIndex)>,
    pub(crate) heartbeats: Vec<HeartbeatWrite>,
    /// Why its end pauses the DAG, if it does.
    pub(crate) pause: Option<String>,
    pub(crate) audit: Vec<AuditWrite>,
    pub(crate) dispatches: Vec<Dispatch>,
    pub(crate) cancels: Vec<(Place, DispatchNumber)>,
    /// Task instances whose dispatch is over.
    pub(crate) over: Vec<Place>,
    /// Task instances that wait for another DAG from now on.
    pub(crate) deferred: Vec<Place>,
    /// Task instances that do not any more.
    pub(crate) undeferred: Vec<Place>,
}

impl Draft {
    pub(crate) fn of(run: &Run) -> Self {
        Self {
            unlisted: run.unlisted.clone(),
            size_before: run.state.size(),
            ..Self::with(Arc::clone(&run.live), run.state.clone(), run.meta.clone())
        }
    }

    pub(crate) fn new(live: Arc<LiveRun>, state: RunState, new: NewRun) -> Self {
        let meta = Meta {
            run_type: new.run_type,
            conf: Arc::clone(&new.conf),
            note: new.note.clone(),
            triggering_user: new.triggering_user.clone(),
            parent: new.parent.clone(),
            set_aside: None,
            noted: false,
            callbacks: 0,
            held_by: Vec::new(),
        };
        let few = state.size() <= FEW;
        let all = state
            .tis()
            .filter(|_| few)
            .map(|(task, map_index, _)| (task, map_index));
        let lazy = all.collect();
        Self {
            new: Some(new),
            new_run: true,
            lazy,
            unlisted: if few { 0..0 } else { 0..state.size() },
            ..Self::with(live, state, meta)
        }
    }

    fn with(live: Arc<LiveRun>, state: RunState, meta: Meta) -> Self {
        Self {
            live,
            state,
            meta,
            details: HashMap::new(),
            new: None,
            new_run: false,
            run_changed: false,
            row_changed: false,
            new_note: false,
            reparented: None,
            deleted: false,
            rest: None,
            promised: Vec::new(),
            intents_done: Vec::new(),
            changed: Vec::new(),
            lazy: Vec::new(),
            lazy_done: Vec::new(),
            unlisted: 0..0,
            listed: Vec::new(),
            size_before: 0,
            renumbered: Vec::new(),
            tries: Vec::new(),
            xcom_deletes: Vec::new(),
            checkpoint_deletes: Vec::new(),
            xcoms: Vec::new(),
            hitl_requests: Vec::new(),
            hitl_answers: Vec::new(),
            callbacks: Vec::new(),
            notes: Vec::new(),
            note_moves: Vec::new(),
            heartbeats: Vec::new(),
            pause: None,
            audit: Vec::new(),
            dispatches: Vec::new(),
            cancels: Vec::new(),
            over: Vec::new(),
            deferred: Vec::new(),
            undeferred: Vec::new(),
        }
    }

    pub(crate) fn key(&self) -> DagRunKey {
        self.live.context.key
    }

    pub(crate) fn pauses_dag(&self, dag_id: &DagId) -> bool {
        self.pause.is_some() && self.live.context.dag_id == *dag_id
    }

    /// A task instance has another map index: what people noted about it is found under that from now on.
    pub(crate) fn move_notes(&mut self, from: TiKey, to: MapIndex) {
        if !self.meta.noted {
            return;
        }
        for note in self.notes.iter_mut().filter(|note| note.ti == from) {
            note.ti.map_index = to;
        }
        let mut earlier = self.note_moves.iter_mut();
        match earlier.find(|(ti, at)| (ti.run, ti.task, *at) == (from.run, from.task, from.map_index)) {
            Some((_, at)) => *at = to,
            None => self.note_moves.push((from, to)),
        }
    }

    pub(crate) fn ti(&self, (task, map_index): Place) -> TiKey {
        TiKey {
            run: self.key(),
            task,
            map_index,
        }
    }

    pub(crate) fn run_write(&self) -> RunWrite {
        RunWrite {
            key: self.key(),
            state: self.state.state(),
            queued_at: self.state.queued_at(),
            start_date: self.state.start_date(),
            end_date: self.state.end_date(),
            note: self.new_note.then(|| self.meta.note.clone()).flatten(),
            set_aside: self.meta.set_aside.clone(),
            hidden_failures: hidden_failures(&self.state),
        }
    }

    /// The row of a task instance. `base` is the run that the draft came from.
    pub(crate) fn row(&self, base: Option<&Run>, place: Place) -> Option<TiWrite> {
        let ti = self.state.ti(place.0, place.1)?;
        let task = self.live.version.dag().task(place.0)?;
        let details = match self.details.get(&place) {
            Some(changed) => changed.as_ref(),
            None => base.and_then(|run| run.details.get(&place)),
        };
        let no_details = Details::default();
        let details = details.unwrap_or(&no_details);
        Some(TiWrite {
            key: self.ti(place),
            task_id: task.id.clone(),
            state: ti.state,
            try_number: ti.try_number,
            max_tries: ti.max_tries,
            dispatch: ti.dispatch,
            infra_losses: ti.infra_losses,
            acknowledged: ti.acknowledged,
            cause: ti.cause,
            message: details.message.clone(),
            code: details.code.clone(),
            details: details.details.clone(),
            scheduled_at: ti.scheduled_at,
            queued_at: ti.queued_at,
            start_date: ti.start_date,
            end_date: ti.end_date,
            next_at: ti.next_at,
            retry_rule: ti.retry_rule,
            raised_memory_kib: ti.raised_memory_kib,
            usage: details.usage,
            facts: ti.facts.as_deref().cloned(),
            rendered_map_index: details.rendered_map_index.clone(),
        })
    }

    /// The run as the API shows it.
    pub(crate) fn run_row(&self) -> RunRow {
        let context = &self.live.context;
        let version = &self.live.version.stored;
        RunRow {
            key: context.key,
            uuid: context.uuid,
            dag_id: context.dag_id.clone(),
            run_id: context.run_id.clone(),
            version_uuid: version.uuid,
            version_number: version.number,
            state: self.state.state(),
            run_type: self.meta.run_type,
            logical_date: context.logical_date,
            data_interval_start: context.data_interval_start,
            data_interval_end: context.data_interval_end,
            run_after: context.run_after,
            queued_at: self.state.queued_at(),
            start_date: self.state.start_date(),
            end_date: self.state.end_date(),
            conf: Arc::clone(&self.meta.conf),
            note: self.meta.note.clone(),
            triggering_user: self.meta.triggering_user.clone(),
            parent: self.meta.parent.clone(),
            set_aside: self.meta.set_aside.clone(),
            hidden_failures: hidden_failures(&self.state),
        }
    }
}

/// What the success of a run hides, for people.
pub(crate) fn hidden_failures(state: &RunState) -> Vec<HiddenFailure> {
    let dag = state.dag();
    let hidden = state.hidden_failures().into_iter();
    hidden
        .filter_map(|(task, by)| {
            Some(HiddenFailure {
                task_id: dag.task(task)?.id.clone(),
                reason: by.why(dag),
                advice: by.advice(dag, task),
            })
        })
        .collect()
}

/// Whether a row in this state may be written later: stored as `no_status`, or not at all, it is scheduled again.
pub(crate) fn may_wait(from: TaskInstanceState, to: TaskInstanceState) -> bool {
    use TaskInstanceState::{NoStatus, Scheduled};
    from == NoStatus && matches!(to, NoStatus | Scheduled)
}
