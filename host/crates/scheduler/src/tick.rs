//! One tick: work is taken in turn, each item is applied to the draft of its run, free slots are filled, and all of it
//! becomes one write. Nothing here awaits and nothing leaves the process.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use model::run::{Event, Loss, Transition};
use model::{DagRunKey, DagRunState, DispatchNumber, TaskInstanceState, Timestamp};
use ports::control::ControlError;
use ports::executor::{TryId, TryReport};
use ports::intent::IntentWrite;
use ports::payload::XcomValue;
use ports::store::{DagWrite, HeartbeatWrite, PoolWrite, XcomWrite};
use uuid::Uuid;

use crate::core::Core;
use crate::dags::DagEntry;
use crate::inbox::{DagOp, Item, NewRunOp};
use crate::large::Progress;
use crate::metrics::Metrics;
use crate::outcome::{self, Details};
use crate::past::GivesWay;
use crate::run::{Draft, Place, Run};

/// How many items a tick takes where few wait. A task that runs makes two: its start and its end.
const ITEMS: usize = 48;

/// Work that a tick has taken, kept until its outcome is known.
pub(crate) struct Applied {
    pub(crate) key: DagRunKey,
    pub(crate) item: Item,
    /// Why it was refused.
    pub(crate) refused: Option<ControlError>,
}

/// What a change writes.
pub(crate) enum ChangeWrite {
    Dag(DagWrite),
    Pool(PoolWrite),
}

/// A change of a DAG or pool that a tick has taken.
pub(crate) struct AppliedDag {
    pub(crate) op: DagOp,
    /// What it writes, or why it was refused.
    pub(crate) write: Result<ChangeWrite, ControlError>,
    /// Whether the DAG is new.
    pub(crate) new_dag: bool,
}

/// A tick in the making.
pub(crate) struct Tick {
    pub(crate) now: Timestamp,
    pub(crate) drafts: HashMap<DagRunKey, Draft>,
    /// The keys of the drafts in the order in which they were made.
    pub(crate) order: Vec<DagRunKey>,
    pub(crate) items: Vec<Applied>,
    pub(crate) dag_changes: Vec<AppliedDag>,
    pub(crate) transitions: usize,
    /// Runs that failed, other than by somebody's hand.
    pub(crate) failed: Vec<DagRunKey>,
    /// The number of task instances that there are that were not there before.
    pub(crate) grown: usize,
    /// How far intents are that have not done all with a run.
    pub(crate) progress: HashMap<(DagRunKey, Uuid), Progress>,
    /// Runs of which each is written only with the other.
    pub(crate) ties: Vec<(DagRunKey, DagRunKey)>,
}

impl Tick {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            now,
            drafts: HashMap::new(),
            order: Vec::new(),
            items: Vec::new(),
            dag_changes: Vec::new(),
            transitions: 0,
            failed: Vec::new(),
            grown: 0,
            progress: HashMap::new(),
            ties: Vec::new(),
        }
    }

    /// The draft of a run, made if need be. None where memory does not have the run, or this tick deletes it.
    pub(crate) fn draft<'a>(&'a mut self, runs: &HashMap<DagRunKey, Run>, key: DagRunKey) -> Option<&'a mut Draft> {
        match self.drafts.entry(key) {
            Entry::Occupied(draft) => Some(draft.into_mut()).filter(|draft| !draft.deleted),
            Entry::Vacant(place) => {
                let run = runs.get(&key)?;
                self.order.push(key);
                Some(place.insert(Draft::of(run)))
            }
        }
    }
}

impl Core {
    /// Takes work up to the tick's bound and decides.
    pub(crate) fn decide(&mut self, now: Timestamp) -> Tick {
        let mut tick = Tick::new(now);
        while let Some(op) = self.dag_ops.pop_front() {
            let (write, new_dag) = match &op {
                DagOp::Pool { op, .. } => {
                    let change = tick.dag_changes.len();
                    (self.apply_pool(op, change).map(ChangeWrite::Pool), false)
                }
                op => {
                    let (write, new_dag) = self.apply_dag(op, &tick);
                    (write.map(ChangeWrite::Dag), new_dag)
                }
            };
            tick.dag_changes.push(AppliedDag { op, write, new_dag });
        }
        let bound = self.shared.config.max_transitions_per_tick;
        // Small ticks let guests work on while they are committed, and keep the wait of the next request short. Half of what waits:
        // where commits are slow, many results come during each, and ticks grow with them.
        let share = (self.queue.len() / 2).clamp(ITEMS.min(bound), bound);
        let mut taken = 0;
        while tick.transitions < bound && taken < share {
            let Some((key, item)) = self.queue.pop() else { break };
            taken += 1;
            self.apply(&mut tick, key, item);
        }
        self.go_on(&mut tick);
        if !tick.failed.is_empty() {
            self.pause_failing(&mut tick);
        }
        if !self.stopping {
            self.give_way(&mut tick);
            // A run without any work ends at once and makes room for the next.
            loop {
                let startable = self.slots.gate.startable(now);
                if startable.is_empty() {
                    break;
                }
                for key in startable {
                    self.start_run(&mut tick, key);
                }
            }
            self.admit(&mut tick);
        }
        tick
    }

    fn apply_dag(&mut self, op: &DagOp, tick: &Tick) -> (Result<DagWrite, ControlError>, bool) {
        let change = tick.dag_changes.len();
        match op {
            DagOp::Deploy {
                version,
                paused,
                replace,
                ..
            } => {
                let dag_id = &version.dag.id;
                if self.dags.is_going(dag_id) {
                    let message = format!(
                        "DAG `{dag_id}` is being deleted, and not all of its runs are gone yet; deploy it again when they are"
                    );
                    return (Err(ControlError::Conflict(message)), false);
                }
                let known = self.dags.get(dag_id).is_some();
                if known && !replace {
                    let message = format!("DAG `{dag_id}` exists already");
                    return (Err(ControlError::Conflict(message)), false);
                }
                let missing = version
                    .dag
                    .tasks
                    .iter()
                    .find(|task| self.slots.pools.get(&task.pool).is_none());
                if let Some(task) = missing {
                    // It was there when the manifest was checked.
                    return (Err(ControlError::PoolNotFound(task.pool.clone())), false);
                }
                let first = (!known).then_some(paused.unwrap_or(false));
                let entry = DagEntry {
                    paused: first.unwrap_or_else(|| self.dags.get(dag_id).is_some_and(|dag| dag.paused)),
                    version: self.shared.versions().insert(Arc::clone(version)),
                };
                self.slots.set_dag(&entry.version, entry.paused);
                self.dags.set(change, dag_id, entry);
                let write = DagWrite::Deploy {
                    version: Arc::clone(version),
                    paused: first,
                };
                (Ok(write), !known)
            }
            DagOp::SetPaused { dag_id, paused, .. } => {
                let Some(known) = self.dags.get(dag_id).cloned() else {
                    return (Err(ControlError::DagNotFound(dag_id.clone())), false);
                };
                self.slots.set_dag(&known.version, *paused);
                let entry = DagEntry {
                    paused: *paused,
                    ..known
                };
                self.dags.set(change, dag_id, entry);
                let write = DagWrite::SetPaused {
                    dag_id: dag_id.clone(),
                    paused: *paused,
                };
                (Ok(write), false)
            }
            DagOp::Delete { intent, .. } => {
                let dag_id = &intent.dag_id;
                if self.dags.get(dag_id).is_none() {
                    return (Err(ControlError::DagNotFound(dag_id.clone())), false);
                }
                let in_memory = |run: &&Run| run.live.context.dag_id == *dag_id;
                let active = self.runs.values().filter(in_memory).count();
                // One that is being read is refused when it comes.
                if active > 0 {
                    let message = format!("DAG `{dag_id}` has {active} active runs; end or delete them first");
                    return (Err(ControlError::Conflict(message)), false);
                }
                debug_assert!(tick.drafts.is_empty(), "DAG changes come first");
                self.slots.remove_dag(dag_id);
                self.dags.begin_to_go(change, dag_id);
                let write = DagWrite::Delete {
                    dag_id: dag_id.clone(),
                    intent: Arc::clone(intent),
                };
                (Ok(write), false)
            }
            DagOp::Promise { intent, .. } => {
                if self.dags.get(&intent.dag_id).is_none() {
                    return (Err(ControlError::DagNotFound(intent.dag_id.clone())), false);
                }
                let begin = IntentWrite::Begin(Arc::clone(intent));
                (Ok(DagWrite::Intent(begin)), false)
            }
            DagOp::Intent { write, .. } => {
                if let IntentWrite::End {
                    dag_id: Some(dag_id), ..
                } = write
                {
                    self.dags.gone(change, dag_id);
                }
                (Ok(DagWrite::Intent(write.clone())), false)
            }
            DagOp::Callback { change, .. } => (Ok(DagWrite::Callback(change.clone())), false),
            DagOp::Pool { .. } => unreachable!("`decide` tells pools from DAGs"),
        }
    }

    fn apply(&mut self, tick: &mut Tick, key: DagRunKey, item: Item) {
        let mut refused = None;
        let Some(item) = self.reads_first(tick, item) else {
            return;
        };
        if let Item::New(op) = &item {
            refused = self.apply_new(tick, op).err();
        } else if tick.draft(&self.runs, key).is_none() {
            if let Item::Op(op) = item {
                if tick.drafts.contains_key(&key) {
                    // This very tick deletes the run.
                    op.refuse(ControlError::Conflict("the run is being deleted".to_owned()));
                } else {
                    self.load(key, Item::Op(op));
                }
                return;
            }
            if matches!(
                item,
                Item::Finished(_)
                    | Item::Triggered(_)
                    | Item::Started { .. }
                    | Item::Heard { .. }
                    | Item::HandedBack { .. }
            ) {
                Metrics::count(&self.shared.metrics.stale_events);
            }
            return;
        } else {
            match &item {
                Item::New(_) => {}
                Item::Started {
                    task,
                    map_index,
                    dispatch,
                    at,
                } => {
                    let event = Event::TryStarted {
                        task: *task,
                        map_index: *map_index,
                        dispatch: *dispatch,
                        at: *at,
                    };
                    self.step(tick, key, event);
                }
                Item::Heard {
                    task,
                    map_index,
                    dispatch,
                    at,
                } => self.apply_heard(tick, key, (*task, *map_index), *dispatch, *at),
                Item::Finished(report) => self.apply_finished(tick, key, report),
                Item::Triggered(triggered) => self.apply_triggered(tick, key, triggered),
                Item::Resolved(resolution) => self.apply_resolved(tick, key, resolution),
                Item::HandedBack {
                    task,
                    map_index,
                    dispatch,
                } => {
                    let event = Event::TryLost {
                        task: *task,
                        map_index: *map_index,
                        dispatch: *dispatch,
                        loss: Loss::HandedBack,
                    };
                    self.step(tick, key, event);
                }
                Item::Lost {
                    task,
                    map_index,
                    dispatch,
                    acknowledged,
                } => {
                    let loss = if *acknowledged {
                        Loss::Acknowledged
                    } else {
                        Loss::NotAcknowledged
                    };
                    let event = Event::TryLost {
                        task: *task,
                        map_index: *map_index,
                        dispatch: *dispatch,
                        loss,
                    };
                    self.step(tick, key, event);
                }
                Item::Recovered => {
                    self.tell_no_past(tick, key);
                    self.step(tick, key, Event::Resume);
                }
                Item::Past => self.apply_past(tick, key),
                Item::Timer => self.step(tick, key, Event::Timer),
                Item::Op(op) => refused = self.apply_op(tick, key, op).err(),
            }
        }
        tick.items.push(Applied { key, item, refused });
    }

    fn apply_new(&mut self, tick: &mut Tick, op: &NewRunOp) -> Result<(), ControlError> {
        let context = &op.new.context;
        if self.dags.get(&context.dag_id).is_none() {
            return Err(ControlError::DagNotFound(context.dag_id.clone()));
        }
        self.check_room(tick, op.state.size())?;
        self.create_run(tick, op.new.clone(), op.state.clone(), &op.version, &op.by);
        Ok(())
    }

    fn apply_heard(&mut self, tick: &mut Tick, key: DagRunKey, place: Place, dispatch: DispatchNumber, at: Timestamp) {
        let Some(draft) = tick.draft(&self.runs, key) else {
            return;
        };
        let ti = draft.state.ti(place.0, place.1);
        if ti.is_some_and(|ti| ti.dispatch == dispatch && ti.state.is_dispatched()) {
            let ti = draft.ti(place);
            draft.heartbeats.push(HeartbeatWrite { ti, dispatch, at });
        } else {
            Metrics::count(&self.shared.metrics.stale_events);
        }
    }

    fn apply_finished(&mut self, tick: &mut Tick, key: DagRunKey, report: &TryReport) {
        let id = &report.id;
        let (task, map_index, dispatch) = (id.ti.task, id.ti.map_index, id.dispatch);
        let Some(draft) = tick.draft(&self.runs, key) else {
            return;
        };
        let ours = draft.live.context.uuid == id.run_uuid;
        let restarting = draft
            .state
            .ti(task, map_index)
            .is_some_and(|ti| ours && ti.dispatch == dispatch && ti.state == TaskInstanceState::Restarting);
        let accepted = ours && draft.state.accepts_result(task, map_index, dispatch);
        if !accepted && !restarting {
            Metrics::count(&self.shared.metrics.stale_events);
            return;
        }
        if let Some(details) = outcome::loss(report) {
            return self.apply_loss(tick, key, id, accepted.then_some(details));
        }
        let (end, details, publishes) = outcome::judge(draft.live.version.dag(), report);
        if accepted {
            draft.asked(report);
            draft.details.insert((task, map_index), Some(details));
            if publishes {
                let ti = draft.ti((task, map_index));
                draft.xcoms.extend(report.xcoms.iter().map(|push| XcomWrite {
                    ti,
                    key: push.key.clone(),
                    value: XcomValue {
                        value: Arc::clone(&push.value),
                        blobs: push.blobs.clone(),
                    },
                }));
            }
        }
        let event = Event::TryFinished {
            task,
            map_index,
            dispatch,
            end,
            measured: report.measured.clone(),
            started_at: report.started_at,
            ended_at: report.ended_at,
        };
        self.step(tick, key, event);
    }

    /// The executor says that it failed, not the task: a loss like that of an executor which is gone. `details` are of a try that ends here.
    fn apply_loss(&mut self, tick: &mut Tick, key: DagRunKey, id: &TryId, details: Option<Details>) {
        Metrics::count(&self.shared.metrics.infrastructure_losses);
        let place = (id.ti.task, id.ti.map_index);
        if let (Some(details), Some(draft)) = (details, tick.draft(&self.runs, key)) {
            draft.details.insert(place, Some(details));
        }
        let event = Event::TryLost {
            task: place.0,
            map_index: place.1,
            dispatch: id.dispatch,
            loss: Loss::Acknowledged,
        };
        self.step(tick, key, event);
        // The try goes on: what it comes to is said at its end.
        if let Some(draft) = tick.draft(&self.runs, key)
            && draft
                .state
                .ti(place.0, place.1)
                .is_some_and(|ti| ti.state.is_dispatched())
        {
            draft.details.insert(place, None);
        }
    }

    /// Runs that wait for earlier ones give them their slots.
    fn give_way(&mut self, tick: &mut Tick) {
        for GivesWay { run, to } in self.that_give_way(tick.now) {
            self.step(tick, run, Event::GiveWay);
            if self.slots.gate.start(to, tick.now) {
                self.start_run(tick, to);
            }
        }
    }

    fn start_run(&mut self, tick: &mut Tick, key: DagRunKey) {
        let Some(draft) = tick.draft(&self.runs, key) else {
            self.slots.gate.remove(key);
            return;
        };
        let waiting: Vec<(Place, Timestamp)> = draft
            .state
            .ready()
            .map(|(task, map_index, ti)| ((task, map_index), ti.scheduled_at.unwrap_or(Timestamp(0))))
            .collect();
        self.tell_no_past(tick, key);
        self.step(tick, key, Event::Start);
        let Some(draft) = tick.draft(&self.runs, key) else {
            return;
        };
        match draft.state.state() {
            DagRunState::Running => {
                for (place, since) in waiting {
                    self.slots.ready(&draft.live, place, since);
                }
            }
            DagRunState::Queued => {
                tracing::error!(run.id = %draft.live.context.run_id, "a run that had a slot did not start");
                self.slots.gate.remove(key);
            }
            DagRunState::Success | DagRunState::Failed => {}
        }
    }

    fn admit(&mut self, tick: &mut Tick) {
        for ti in self.slots.admit(tick.now) {
            self.step(
                tick,
                ti.run,
                Event::Admit {
                    task: ti.task,
                    map_index: ti.map_index,
                },
            );
            let queued = tick
                .draft(&self.runs, ti.run)
                .and_then(|draft| draft.state.ti(ti.task, ti.map_index))
                .is_some_and(|ti| ti.state == TaskInstanceState::Queued);
            if !queued {
                // It went another way since it became ready.
                self.slots.release(ti);
            }
        }
    }

    /// Applies an event to the draft of a run and notes what follows from it.
    pub(crate) fn step(&mut self, tick: &mut Tick, key: DagRunKey, event: Event) {
        let most = match event {
            // A run that is too large for it has been promised the event, see `large`.
            Event::SetRunState { .. } | Event::SetTaskInstanceState { .. } => usize::MAX,
            _ => self.shared.config.max_transitions_per_event,
        };
        self.step_within(tick, key, event, most);
    }

    /// The same, with about so many transitions.
    pub(crate) fn step_within(&mut self, tick: &mut Tick, key: DagRunKey, event: Event, most: usize) {
        let now = tick.now;
        let (room, always) = (self.room(tick), self.always());
        let per_run = self.shared.config.max_task_instances_per_run;
        let Some(draft) = tick.draft(&self.runs, key) else {
            return;
        };
        let by_hand = matches!(event, Event::SetRunState { .. });
        let resolved = matches!(event, Event::Resolved { .. });
        let (size, was_held) = (draft.state.size(), draft.state.is_held());
        let limit = u32::try_from(size.saturating_add(room).max(always)).unwrap_or(u32::MAX);
        draft.state.set_limit(limit.min(per_run));
        let transitions = model::run::advance_within(&mut draft.state, event, now, most);
        let grown = draft.state.size().saturating_sub(size);
        if was_held != draft.state.is_held() {
            self.slots.hold_run(key, !was_held);
        }
        let count = transitions.len();
        let waited = draft.undeferred.len();
        let base = self.runs.get(&key);
        let mut failed = false;
        for transition in transitions {
            failed |= matches!(
                &transition,
                Transition::Run {
                    to: DagRunState::Failed,
                    ..
                }
            );
            draft.note(base, transition, now, &mut self.slots);
        }
        let given_up: Vec<Place> = match resolved {
            false => draft.undeferred.iter().skip(waited).copied().collect(),
            true => Vec::new(),
        };
        tick.transitions += count;
        tick.grown = tick.grown.saturating_add(grown);
        if failed && !by_hand {
            tick.failed.push(key);
        }
        if !given_up.is_empty() {
            self.cancel_children(tick, key, &given_up);
        }
    }
}
