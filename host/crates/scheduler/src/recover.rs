//! Runs that come from the database: all active ones at start, ended ones when something is asked of them, and those that
//! are set aside.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use model::params::param_lengths;
use model::run::{RunSnapshot, RunState, Ti, TiSnapshot};
use model::{DagRunKey, DagRunState, TaskInstanceState, Timestamp};
use ports::control::ControlError;
use ports::intent::IntentWork;
use ports::query::QueryError;
use ports::store::{RunWrite, StoredRun, TiWrite, TickWrite};
use uuid::Uuid;

use crate::core::Core;
use crate::dags::DagEntry;
use crate::error::StartError;
use crate::inbox::{Item, LoadedRun, Message};
use crate::live::LiveRun;
use crate::metrics::Metrics;
use crate::outcome::Details;
use crate::run::{Meta, Place, Run, hidden_failures};
use crate::shared::{KnownDag, Shared, query_failed};
use crate::version::Version;

impl Core {
    /// Takes over all that is stored. Dispatches of the last process are lost: those that no executor had acknowledged are
    /// sent again, the others count as infrastructure losses.
    pub(crate) async fn recover(&mut self) -> Result<(), StartError> {
        let shared = Arc::clone(&self.shared);
        for dag in shared.store.load_dags().await.map_err(StartError::Load)? {
            let version = shared.versions().insert(dag.version);
            self.slots.set_dag(&version, dag.paused);
            let known = KnownDag {
                version: Arc::clone(&version),
            };
            shared.dags_mut().insert(dag.dag_id, known);
            self.dags.add(DagEntry {
                paused: dag.paused,
                version,
            });
        }
        self.stored_intents = shared.store.intents().await.map_err(StartError::Load)?;
        for intent in &self.stored_intents {
            if intent.work == IntentWork::DeleteDag {
                self.dags.add_going(intent.dag_id.clone());
            }
        }
        self.recover_recent().await.map_err(StartError::Load)?;
        let now = shared.clock.now();
        for key in shared.store.active_runs().await.map_err(StartError::Load)? {
            match read_run(&shared, key).await.map_err(StartError::Load)? {
                Some(loaded) if loaded.stored.row.set_aside.is_some() => {
                    let row = &loaded.stored.row;
                    let name = format!("{}/{}", row.dag_id, row.run_id);
                    shared.condition().set_aside.push((key, name));
                }
                Some(loaded) => self.adopt(*loaded, now),
                None => return Err(StartError::Damaged(format!("run {key} or its DAG version is missing"))),
            }
        }
        if !self.runs.is_empty() {
            tracing::info!(runs = self.runs.len(), "took over the active runs");
        }
        Ok(())
    }

    /// Takes a stored run into memory.
    pub(crate) fn adopt(&mut self, loaded: LoadedRun, now: Timestamp) {
        let LoadedRun {
            stored,
            mut state,
            lazy,
            version,
        } = loaded;
        let key = stored.context.key;
        let row = &stored.row;
        let mut details = HashMap::new();
        let mut lost = Vec::new();
        let mut deferred: Vec<Place> = Vec::new();
        for ti in &stored.task_instances {
            if !ti.state.is_finished()
                && (ti.message.is_some() || ti.code.is_some() || ti.details.is_some() || ti.usage.is_some())
            {
                details.insert((ti.key.task, ti.key.map_index), details_of(ti));
            }
            if ti.state == TaskInstanceState::Deferred {
                deferred.push((ti.key.task, ti.key.map_index));
            }
            if ti.state.is_dispatched() {
                lost.push(Item::Lost {
                    task: ti.key.task,
                    map_index: ti.key.map_index,
                    dispatch: ti.dispatch,
                    acknowledged: ti.acknowledged,
                });
            }
        }
        let meta = Meta {
            run_type: row.run_type,
            conf: Arc::clone(&row.conf),
            note: row.note.clone(),
            triggering_user: row.triggering_user.clone(),
            parent: row.parent.clone(),
            set_aside: row.set_aside.clone(),
            // Nobody knows.
            noted: true,
            callbacks: stored.callbacks,
            held_by: self.holders_of(key, &state),
        };
        if !meta.held_by.is_empty() {
            state.hold();
        }
        let run = Run {
            live: LiveRun::new(stored.context, version, state.state()),
            state,
            meta,
            details,
            lazy,
            unlisted: 0..0,
        };
        if !run.lazy.is_empty() {
            self.lazy.insert(key);
        }
        self.instances = self.instances.saturating_add(run.state.size());
        if !run.state.state().is_finished() {
            self.shared.active_mut().insert(Arc::clone(&run.live));
        }
        self.slots.add_run(&run);
        self.timers.set(key, run.state.next_timer());
        if run.state.state() == DagRunState::Running {
            // Before anything else: rows may lag behind the rules, and then nothing would seem to move.
            self.queue.push(key, Item::Recovered, now);
        }
        for item in lost {
            self.queue.push(key, item, now);
        }
        let looks_back = !run.state.dag().looking_back().is_empty();
        let is_active = !run.state.state().is_finished();
        if let Some(parent) = run.meta.parent.as_ref().filter(|_| is_active) {
            self.between.add_child(parent.run, key);
        }
        self.runs.insert(key, run);
        if looks_back {
            self.watch_past(key);
        }
        self.waits_again(key, &deferred);
    }

    /// Reads an ended run for the sake of a request; what else comes for it waits.
    pub(crate) fn load(&mut self, key: DagRunKey, item: Item) {
        if let Some(waiting) = self.loading.get_mut(&key) {
            waiting.push_back(item);
            return;
        }
        self.loading.insert(key, VecDeque::from([item]));
        let (shared, loads) = (Arc::clone(&self.shared), Arc::clone(&self.loads));
        tokio::spawn(async move {
            let _turn = loads.acquire().await;
            let result = read_run(&shared, key).await;
            let _ = shared.inbox.send(Message::Loaded(key, result));
        });
    }

    pub(crate) fn loaded(
        &mut self,
        key: DagRunKey,
        result: Result<Option<Box<LoadedRun>>, QueryError>,
        now: Timestamp,
    ) {
        let Some(items) = self.loading.remove(&key) else { return };
        match result {
            // It was read while its DAG went.
            Ok(Some(loaded)) if self.dags.get(&loaded.stored.row.dag_id).is_none() => {
                for item in items {
                    match item {
                        Item::Triggered(triggered) => self.vanished(triggered),
                        item => item.refuse(ControlError::DagNotFound(loaded.stored.row.dag_id.clone())),
                    }
                }
            }
            Ok(Some(loaded)) => {
                if !self.runs.contains_key(&key) {
                    self.shared.condition().set_aside.retain(|(aside, _)| *aside != key);
                    self.adopt(*loaded, now);
                }
                for item in items {
                    // It was read for the sake of another run's task.
                    let key = match &item {
                        Item::Triggered(triggered) => triggered.report.id.ti.run,
                        _ => key,
                    };
                    self.queue.push(key, item, now);
                }
            }
            Ok(None) => {
                for item in items {
                    match item {
                        Item::Triggered(triggered) => self.vanished(triggered),
                        item => item.refuse(ControlError::Conflict("the run does not exist any more".to_owned())),
                    }
                }
            }
            Err(error) => {
                let problem = error.to_string();
                let mut first = Some(query_failed(error));
                for item in items {
                    if let Item::Triggered(triggered) = item {
                        self.unreadable(triggered, &problem);
                        continue;
                    }
                    item.refuse(
                        first
                            .take()
                            .unwrap_or_else(|| ControlError::Internal(problem.clone().into())),
                    );
                }
            }
        }
    }

    /// Takes a run out of the others' way: what it would write cannot be written.
    pub(crate) async fn set_aside(&mut self, key: DagRunKey, reason: String, items: Vec<Item>) {
        let mut items = VecDeque::from(items);
        items.extend(self.queue.take_run(key));
        for item in items {
            match item {
                Item::New(op) => {
                    let context = &op.new.context;
                    let found = self.shared.store.find_run(&context.dag_id, &context.run_id).await;
                    let error = match found {
                        Ok(Some(_)) => ControlError::RunExists(format!(
                            "DAG `{}` has a run `{}` already",
                            context.dag_id, context.run_id
                        )),
                        _ => ControlError::Internal(reason.clone().into()),
                    };
                    let _ = op.reply.send(Err(error));
                }
                item => item.refuse(ControlError::Internal(reason.clone().into())),
            }
        }
        // A run that is new does not exist at all.
        self.forget_instances(key);
        let Some(run) = self.runs.remove(&key) else { return };
        Metrics::count(&self.shared.metrics.runs_set_aside);
        let context = &run.live.context;
        self.waiting.remove(&context.dag_id, key);
        tracing::error!(dag.id = %context.dag_id, run.id = %context.run_id, reason, "set a run aside");
        self.shared.active_mut().remove(key);
        self.between.forget_run(key, run.meta.parent.as_deref());
        self.lazy.remove(&key);
        self.timers.set(key, None);
        self.cancel_all(&run);
        self.rebuild_slots();
        let name = format!("{}/{}", context.dag_id, context.run_id);
        self.shared.condition().set_aside.push((key, name));
        let mark = TickWrite {
            tick_id: Uuid::new_v4(),
            now: Some(self.shared.clock.now()),
            runs: vec![RunWrite {
                key,
                state: run.state.state(),
                queued_at: run.state.queued_at(),
                start_date: run.state.start_date(),
                end_date: run.state.end_date(),
                note: None,
                set_aside: Some(reason),
                hidden_failures: hidden_failures(&run.state),
            }],
            slots: run.slots_given_back(),
            ..TickWrite::default()
        };
        if let Some(lease) = self.shared.lease.get()
            && let Err(error) = self.shared.store.commit_tick(lease, &mark).await
        {
            // It is out of the way all the same; after a restart it is tried again.
            tracing::warn!(%error, run.key = %key, "could not store that a run was set aside");
        }
    }
}

async fn read_run(shared: &Shared, key: DagRunKey) -> Result<Option<Box<LoadedRun>>, QueryError> {
    let Some(stored) = shared.store.load_run(key).await? else {
        return Ok(None);
    };
    let Some(version) = shared.version(stored.version).await? else {
        return Ok(None);
    };
    let is_large = stored.task_instances.len() > shared.config.max_transitions_per_event;
    let restore = move || Box::new(restored(key, stored, version));
    let loaded = match is_large {
        true => tokio::task::spawn_blocking(restore).await,
        false => return Ok(Some(restore())),
    };
    let loaded = loaded.map_err(|error| QueryError::Internal(Box::new(error)))?;
    Ok(Some(loaded))
}

/// A run made of its rows. It takes as long as the run is large, so the loop does not.
fn restored(key: DagRunKey, stored: StoredRun, version: Arc<Version>) -> LoadedRun {
    let row = &stored.row;
    let snapshot = RunSnapshot {
        run_after: row.run_after,
        state: row.state,
        queued_at: row.queued_at,
        start_date: row.start_date,
        end_date: row.end_date,
        param_lengths: param_lengths(version.dag(), &stored.context.params),
        task_instances: stored.task_instances.iter().map(snapshot).collect(),
    };
    let state = RunState::restore(key, Arc::clone(version.dag()), snapshot);
    let mut lazy = BTreeSet::new();
    if stored.task_instances.len() < state.size() {
        let rows = stored.task_instances.iter();
        let known: HashSet<Place> = rows.map(|ti| (ti.key.task, ti.key.map_index)).collect();
        let all = state.tis().map(|(task, map_index, _)| (task, map_index));
        lazy.extend(all.filter(|place| !known.contains(place)));
    }
    LoadedRun {
        stored,
        state,
        lazy,
        version,
    }
}

fn details_of(ti: &TiWrite) -> Details {
    Details {
        message: ti.message.clone(),
        code: ti.code.clone(),
        details: ti.details.clone(),
        usage: ti.usage,
        rendered_map_index: ti.rendered_map_index.clone(),
    }
}

fn snapshot(ti: &TiWrite) -> TiSnapshot {
    TiSnapshot {
        task: ti.key.task,
        map_index: ti.key.map_index,
        ti: Ti {
            state: ti.state,
            cause: ti.cause,
            acknowledged: ti.acknowledged,
            try_number: ti.try_number,
            max_tries: ti.max_tries,
            dispatch: ti.dispatch,
            infra_losses: ti.infra_losses,
            scheduled_at: ti.scheduled_at,
            queued_at: ti.queued_at,
            start_date: ti.start_date,
            end_date: ti.end_date,
            next_at: ti.next_at,
            retry_rule: ti.retry_rule,
            raised_memory_kib: ti.raised_memory_kib,
            facts: ti.facts.clone().map(Arc::new),
        },
    }
}
