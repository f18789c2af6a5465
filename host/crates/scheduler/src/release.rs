//! After the commit: drafts replace their runs, and effects are released — first what running tries may ask for, then
//! dispatches and cancels, then answers and events.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use model::callback::CallbackState;
use model::{DagRunKey, DagRunState, DispatchNumber, MapIndex, TaskIndex, TaskInstanceState, TiKey};
use ports::callback::CallbackChange;
use ports::control::{ControlError, DagChange, KeptSlots, RunEvent};
use ports::executor::{TryId, TryRequest};
use ports::intent::IntentWrite;
use ports::payload::XcomValue;
use ports::query::{PoolRow, RunRow};
use ports::store::{DagWrite, PoolWrite};
use uuid::Uuid;

use crate::core::Core;
use crate::inbox::{DagOp, Item, RunOp};
use crate::intent;
use crate::large::Progress;
use crate::live::LiveTry;
use crate::metrics::Metrics;
use crate::run::{Draft, Place, Run};
use crate::shared::KnownDag;
use crate::tick::{Applied, AppliedDag, ChangeWrite, Tick};
use crate::write::Write;

/// What the executor is told after a tick.
#[derive(Default)]
struct Orders {
    cancels: Vec<TryId>,
    dispatches: Vec<TryRequest>,
}

impl Core {
    /// Makes what was committed true in memory and tells everybody.
    pub(crate) fn release_all(&mut self, mut tick: Tick, written: Vec<Write>) {
        Metrics::add(
            &self.shared.metrics.transitions,
            u64::try_from(tick.transitions).unwrap_or(u64::MAX),
        );
        let listened = self.shared.events.receiver_count() > 0;
        let mut events = Vec::new();
        for change in tick.dag_changes {
            self.release_dag(change, &mut events);
        }
        self.remember_xcoms(&tick.drafts, written);
        let mut rows: Vec<(DagRunKey, RunRow)> = Vec::new();
        let mut orders = Orders::default();
        for applied in &tick.items {
            if matches!(applied.item, Item::New(_))
                && let Some(draft) = tick.drafts.get(&applied.key)
            {
                rows.push((applied.key, draft.run_row()));
            }
        }
        for key in &tick.order {
            if let Some(draft) = tick.drafts.remove(key) {
                if listened {
                    collect_events(&draft, tick.now, &mut events);
                }
                self.release_run(draft, &mut orders);
            }
        }
        // Before the dispatches: an executor may report a start at once.
        for event in events {
            let _ = self.shared.events.send(event);
        }
        Metrics::add(
            &self.shared.metrics.dispatches,
            u64::try_from(orders.dispatches.len()).unwrap_or(u64::MAX),
        );
        for id in orders.cancels {
            self.executor.cancel(id);
        }
        if !orders.dispatches.is_empty() {
            self.expect_marks(self.shared.clock.now());
        }
        for request in orders.dispatches {
            self.executor.dispatch(request);
        }
        for applied in tick.items {
            self.answer(applied, &mut rows, &tick.progress);
        }
        self.publish_room();
        self.shared.condition().heartbeat = Some(self.shared.clock.now());
    }

    /// Lets those see who ask why something waits for whom slots are kept.
    fn publish_room(&mut self) {
        let kept: Vec<KeptSlots> = self
            .slots
            .kept()
            .filter_map(|(pool, kept)| {
                let run = &self.runs.get(&kept.key.run)?.live;
                Some(KeptSlots {
                    pool: pool.to_owned(),
                    dag_id: run.context.dag_id.clone(),
                    run_id: run.context.run_id.clone(),
                    task_id: run.version.dag().task(kept.key.task)?.id.clone(),
                    map_index: kept.key.map_index,
                    slots: kept.slots,
                })
            })
            .collect();
        if std::mem::replace(&mut self.keeps, !kept.is_empty()) || self.keeps {
            self.shared.room().kept = kept;
        }
    }

    fn release_dag(&mut self, change: AppliedDag, events: &mut Vec<RunEvent>) {
        let dag_write = match change.write {
            Ok(ChangeWrite::Dag(dag_write)) => dag_write,
            Ok(ChangeWrite::Pool(pool_write)) => return self.release_pool(change.op, pool_write),
            Err(error) => return change.op.refuse(error),
        };
        let (dag_id, kind) = match dag_write {
            DagWrite::Deploy { version, .. } => {
                let dag_id = version.dag.id.clone();
                if let Some(dag) = self.dags.get(&dag_id) {
                    let entry = KnownDag {
                        version: Arc::clone(&dag.version),
                    };
                    self.shared.dags_mut().insert(dag_id.clone(), entry);
                }
                (dag_id, DagChange::Deployed)
            }
            DagWrite::SetPaused { dag_id, paused: true } => (dag_id, DagChange::Paused),
            DagWrite::SetPaused { dag_id, paused: false } => (dag_id, DagChange::Unpaused),
            DagWrite::Delete { dag_id, intent } => {
                self.shared.dags_mut().remove(&dag_id);
                intent::carry(&self.shared, intent);
                (dag_id, DagChange::Deleted)
            }
            DagWrite::Callback(step) => return self.release_callback(change.op, &step, events),
            DagWrite::Intent(step) => {
                self.release_step(step);
                return change.op.confirm(false);
            }
        };
        if matches!(kind, DagChange::Deployed | DagChange::Deleted) {
            self.recent_of_dag_changed(&dag_id);
        }
        events.push(RunEvent::Dag { dag_id, change: kind });
        change.op.confirm(change.new_dag);
    }

    fn release_step(&self, step: IntentWrite) {
        match step {
            IntentWrite::Begin(intent) => intent::carry(&self.shared, intent),
            IntentWrite::Purge { runs, .. } => {
                let set_aside = &mut self.shared.condition().set_aside;
                set_aside.retain(|(aside, _)| !runs.contains(aside));
            }
            IntentWrite::PurgeVersions { .. } | IntentWrite::End { .. } => {}
        }
    }

    /// A step of a callback is committed. Where it was the end of an attempt, the next may begin.
    fn release_callback(&mut self, op: DagOp, change: &CallbackChange, events: &mut Vec<RunEvent>) {
        if let DagOp::Callback { about, reply, .. } = op {
            match change.state {
                CallbackState::Running => {
                    Metrics::count(&self.shared.metrics.callback_attempts);
                    self.begin_watch(self.shared.clock.now());
                }
                CallbackState::Failed => Metrics::count(&self.shared.metrics.callbacks_failed),
                CallbackState::Queued | CallbackState::Success => {}
            }
            if self.shared.events.receiver_count() > 0 {
                events.push(about.event(change, self.shared.clock.now()));
            }
            match reply {
                Some(reply) => drop(reply.send(Ok(()))),
                None => self.shared.flights.end(change.id),
            }
        }
    }

    /// The database refuses a step of a callback. It stays as it was, and out of the others' way until the next start.
    pub(crate) fn callback_refused(&self, op: &DagOp) {
        if let DagOp::Callback { change, reply, .. } = op {
            tracing::error!(callback = %change.id, "a step of a callback cannot be stored");
            if reply.is_none() {
                self.shared.flights.shelve(change.id);
            }
        }
    }

    fn release_pool(&self, op: DagOp, write: PoolWrite) {
        let pool = match write {
            PoolWrite::Create(pool) | PoolWrite::Change { pool, .. } => Some(PoolRow {
                used: self.slots.pool_used(&pool.name),
                ..pool
            }),
            PoolWrite::Delete { .. } => None,
        };
        if let DagOp::Pool { reply, .. } = op {
            drop(reply.send(Ok(pool)));
        }
    }

    /// Keeps the XComs that somebody downstream may pull soon.
    fn remember_xcoms(&self, drafts: &std::collections::HashMap<DagRunKey, Draft>, written: Vec<Write>) {
        let mut cache = None;
        for part in written {
            for ti in &part.tick.xcom_deletes {
                cache.get_or_insert_with(|| self.shared.xcoms()).remove(*ti);
                self.shared.xcom_lists().remove(*ti);
            }
            let mut xcoms = part.tick.xcoms.into_iter().peekable();
            while let Some(first) = xcoms.next() {
                let ti = first.ti;
                let mut values: Vec<(String, XcomValue)> = vec![(first.key, first.value)];
                while let Some(next) = xcoms.next_if(|next| next.ti == ti) {
                    values.push((next.key, next.value));
                }
                self.shared.xcom_lists().remove(ti);
                let is_pulled = drafts
                    .get(&ti.run)
                    .and_then(|draft| draft.live.version.dag().task(ti.task))
                    .is_some_and(|task| !task.downstream.is_empty());
                if is_pulled {
                    // A repeated key replaces: the last one is found first.
                    values.reverse();
                    cache.get_or_insert_with(|| self.shared.xcoms()).insert(ti, values);
                }
            }
        }
    }

    fn release_run(&mut self, draft: Draft, orders: &mut Orders) {
        let key = draft.key();
        let now = self.shared.clock.now();
        let live = Arc::clone(&draft.live);
        let state = draft.state.state();
        let try_id = |ti: TiKey, try_number, dispatch| TryId {
            ti,
            run_uuid: live.context.uuid,
            try_number,
            dispatch,
            callback: None,
        };

        // Dispatches that were cancelled and that no executor ever saw: nobody else will report their end.
        let mut unsent: Vec<(Place, DispatchNumber)> = Vec::new();
        {
            let mut tries = live.tries();
            for (place, dispatch) in &draft.cancels {
                match tries.get(place).filter(|known| known.dispatch == *dispatch) {
                    Some(known) => orders
                        .cancels
                        .push(try_id(draft.ti(*place), known.try_number, *dispatch)),
                    None => unsent.push((*place, *dispatch)),
                }
            }
            for place in &draft.over {
                let is_out = draft
                    .state
                    .ti(place.0, place.1)
                    .is_some_and(|ti| matches!(ti.state, TaskInstanceState::Queued | TaskInstanceState::Running));
                if !is_out || draft.deleted {
                    let over = tries.remove(place);
                    let restarts = draft
                        .state
                        .ti(place.0, place.1)
                        .is_some_and(|ti| ti.state == TaskInstanceState::Restarting);
                    if let Some(over) = over.filter(|_| restarts && !draft.deleted) {
                        live.ending().insert(*place, over);
                    }
                }
            }
            let mut known = model::run::Known::default();
            for dispatch in &draft.dispatches {
                let Some(ti) = draft.state.ti(dispatch.place.0, dispatch.place.1) else {
                    continue;
                };
                tries.remove(&dispatch.place);
                let is_current = ti.dispatch == dispatch.dispatch && ti.state == TaskInstanceState::Queued;
                if !is_current || draft.deleted || self.stopping {
                    continue;
                }
                if let Some(task) = live.version.spec(dispatch.place.0, ti) {
                    let (of, map_index) = dispatch.place;
                    let repeats = &live.version.repeats;
                    let sight = repeats.sight(&draft.state, of, map_index);
                    tries.insert(
                        dispatch.place,
                        LiveTry::new(dispatch.try_number, dispatch.dispatch, sight, now),
                    );
                    orders.dispatches.push(TryRequest {
                        id: try_id(draft.ti(dispatch.place), dispatch.try_number, dispatch.dispatch),
                        run: Arc::clone(&live.context),
                        position: repeats.position(&draft.state, dispatch.place, &live.context.params, &mut known),
                        task,
                        first_of_try: dispatch.first_of_try,
                        callback: None,
                    });
                }
            }
        }

        for intent in draft.rest.iter().chain(&draft.promised) {
            intent::carry(&self.shared, Arc::clone(intent));
        }
        if !draft.callbacks.is_empty() && !draft.deleted {
            self.shared.flights.changed.notify_one();
        }
        if !self.recent.is_empty() && (draft.new_run || draft.run_changed || draft.deleted) {
            self.recent_changed(&draft);
        }
        if draft.pause.is_some() {
            self.dags.pause(&live.context.dag_id);
        }
        if !self.waiting.is_empty() {
            self.past_changed(&draft);
        }
        let deleted = draft.deleted;
        let run_changed = draft.run_changed;
        let ended = state.is_finished();
        if !deleted && !ended && (draft.new_run || run_changed) {
            let mut active = self.shared.active_mut();
            if active.get(key).is_none() {
                active.insert(Arc::clone(&live));
            }
        }
        let news = self.news_of(&draft);
        let parent = draft.meta.parent.clone();
        let done = self.replace(draft) || deleted;
        if done || ended {
            self.waiting.remove(&live.context.dag_id, key);
        } else if run_changed && !live.version.dag().looking_back().is_empty() {
            self.watch_past(key);
        }
        self.tell(key, news);
        if ended || deleted {
            self.between.forget_run(key, parent.as_deref());
        }
        if done {
            self.forget_instances(key);
            self.runs.remove(&key);
            self.lazy.remove(&key);
            self.timers.set(key, None);
        }
        if run_changed || deleted {
            if ended || deleted {
                self.shared.active_mut().remove(key);
            }
            live.state.send_if_modified(|known| {
                let state = if deleted && !state.is_finished() {
                    DagRunState::Failed
                } else {
                    state
                };
                std::mem::replace(known, state) != state
            });
            if ended {
                Metrics::count(&self.shared.metrics.runs_finished);
            }
        }
        if !done {
            let now = self.shared.clock.now();
            for ((task, map_index), dispatch) in unsent {
                let lost = Item::Lost {
                    task,
                    map_index,
                    dispatch,
                    acknowledged: false,
                };
                self.queue.push(key, lost, now);
            }
        }
    }

    /// The draft becomes the run. Answers whether memory is done with the run.
    fn replace(&mut self, draft: Draft) -> bool {
        let key = draft.key();
        let size_before = self.runs.get(&key).map_or(0, |run| run.state.size());
        let Draft {
            live,
            state,
            meta,
            details,
            lazy,
            lazy_done,
            unlisted,
            ..
        } = draft;
        let run = self.runs.entry(key).or_insert_with(|| Run {
            live,
            state: state.clone(),
            meta: meta.clone(),
            details: Default::default(),
            lazy: Default::default(),
            unlisted: 0..0,
        });
        self.instances = (self.instances + state.size()).saturating_sub(size_before);
        run.state = state;
        run.unlisted = unlisted;
        run.meta = meta;
        for (place, details) in details {
            let goes_on = run.state.ti(place.0, place.1).is_some_and(|ti| !ti.state.is_finished());
            match details {
                Some(details) if goes_on => drop(run.details.insert(place, details)),
                _ => drop(run.details.remove(&place)),
            }
        }
        if lazy.len() == lazy_done.len() && run.lazy.is_empty() {
            // All that was put off is written already.
        } else {
            run.lazy.extend(lazy);
            for place in lazy_done {
                run.lazy.remove(&place);
            }
        }
        if run.lazy.is_empty() && run.unlisted.is_empty() {
            self.lazy.remove(&key);
        } else {
            self.lazy.insert(key);
        }
        self.timers.set(key, run.state.next_timer());
        if run.state.has_more() {
            self.going.insert(key);
        } else {
            self.going.remove(&key);
        }
        let is_written = run.lazy.is_empty() && run.unlisted.is_empty();
        run.state.state().is_finished() && is_written && run.meta.held_by.is_empty()
    }

    fn answer(
        &self,
        applied: Applied,
        rows: &mut Vec<(DagRunKey, RunRow)>,
        progress: &HashMap<(DagRunKey, Uuid), Progress>,
    ) {
        if let Some(error) = applied.refused {
            return applied.item.refuse(error);
        }
        match applied.item {
            Item::New(op) => {
                let row = rows.iter().position(|(key, _)| *key == applied.key);
                let answer = row
                    .map(|row| rows.swap_remove(row).1)
                    .ok_or_else(|| ControlError::Internal("the new run was not committed".into()));
                let _ = op.reply.send(answer);
            }
            Item::Op(RunOp::CarryOut { intent, reply, .. }) => {
                let _ = reply.send(Ok(progress.get(&(applied.key, intent)).copied()));
            }
            Item::Op(
                RunOp::Clear { reply, .. }
                | RunOp::SetState { reply, .. }
                | RunOp::SetTaskInstanceState { reply, .. }
                | RunOp::Respond { reply, .. }
                | RunOp::Note { reply, .. }
                | RunOp::TaskInstanceNote { reply, .. }
                | RunOp::Delete { reply, .. },
            ) => {
                let _ = reply.send(Ok(()));
            }
            Item::HandedBack { .. } => Metrics::count(&self.shared.metrics.handed_back),
            Item::Lost { acknowledged: true, .. } => Metrics::count(&self.shared.metrics.infrastructure_losses),
            Item::Lost { .. }
            | Item::Started { .. }
            | Item::Heard { .. }
            | Item::Finished(_)
            | Item::Triggered(_)
            | Item::Resolved(_)
            | Item::Timer
            | Item::Recovered
            | Item::Past => {}
        }
    }
}

/// Events for those who watch. Start marks were announced when they came.
fn collect_events(draft: &Draft, now: model::Timestamp, events: &mut Vec<RunEvent>) {
    const SCHEDULED: usize = 256;
    let context = &draft.live.context;
    let dag = draft.live.version.dag();
    // Thousands of tasks that become ready at once are no news.
    if draft.state.size().saturating_sub(draft.size_before) > SCHEDULED {
        let mut instances: BTreeMap<TaskIndex, usize> = BTreeMap::new();
        for (task, map_index, _) in (draft.size_before..draft.state.size()).filter_map(|at| draft.state.at(at)) {
            if map_index.0 >= 0 {
                instances.entry(task).or_insert_with(|| draft.state.count_of(task));
            }
        }
        events.extend(instances.into_iter().filter_map(|(task, instances)| {
            Some(RunEvent::Expanded {
                dag_id: context.dag_id.clone(),
                run_id: context.run_id.clone(),
                task_id: dag.task(task)?.id.clone(),
                instances,
            })
        }));
    }
    let ready = draft.lazy.iter().take(SCHEDULED).filter(|(task, map_index)| {
        draft
            .state
            .ti(*task, *map_index)
            .is_some_and(|ti| ti.state == TaskInstanceState::Scheduled)
    });
    for (task, map_index) in ready.chain(&draft.changed) {
        let (Some(ti), Some(task)) = (draft.state.ti(*task, *map_index), dag.task(*task)) else {
            continue;
        };
        if ti.state == TaskInstanceState::Running {
            continue;
        }
        events.push(RunEvent::TaskInstance {
            dag_id: context.dag_id.clone(),
            run_id: context.run_id.clone(),
            task_id: task.id.clone(),
            map_index: *map_index,
            try_number: ti.try_number.0,
            state: ti.state,
            cause: ti.cause,
            at: now,
        });
    }
    collect_callbacks(draft, now, events);
    if draft.pause.is_some() {
        events.push(RunEvent::Dag {
            dag_id: context.dag_id.clone(),
            change: DagChange::Paused,
        });
    }
    if draft.run_changed || draft.new_run {
        events.push(RunEvent::DagRun {
            dag_id: context.dag_id.clone(),
            run_id: context.run_id.clone(),
            state: draft.state.state(),
            at: now,
        });
    }
}

/// How many callbacks that become due at once are told one by one.
const MOST_CALLBACKS: usize = 256;

/// What has become due. Notifications that need no rendering are complete by now.
fn collect_callbacks(draft: &Draft, now: model::Timestamp, events: &mut Vec<RunEvent>) {
    let context = &draft.live.context;
    // As with task instances: thousands at once are no news.
    let told = draft.callbacks.iter().take(MOST_CALLBACKS);
    events.extend(told.map(|callback| RunEvent::Callback {
        dag_id: context.dag_id.clone(),
        run_id: context.run_id.clone(),
        callback_id: None,
        task_id: callback.of.as_ref().map(|of| of.task_id.clone()),
        map_index: callback.of.as_ref().map_or(MapIndex::UNMAPPED, |of| of.map_index),
        on: callback.event,
        kind: callback.kind,
        name: callback.name.clone(),
        level: callback.level,
        state: callback.state,
        cause: None,
        message: None,
        text: callback.text.clone(),
        at: now,
    }));
}
