//! A tick, whole or not at all: everything that can be refused is checked before anything is changed.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use model::{DagRunKey, Timestamp};
use ports::intent::{Intent, IntentWrite};
use ports::query::PoolRow;
use ports::store::{CheckpointSave, CommitError, DagWrite, ParentWrite, PoolWrite, SlotSum, TickWrite};

use super::tables::{MemoryDag, MemoryRun, Tables};

fn refuse(reason: String) -> CommitError {
    CommitError::Data(reason.into())
}

impl Tables {
    pub(super) fn commit(&mut self, tick: &TickWrite) -> Result<(), CommitError> {
        self.check(tick)?;
        self.pools = self.pools_after(tick)?;
        self.apply_dags(tick);
        self.apply_pauses(tick);
        self.apply_runs(tick);
        for delete in &tick.run_deletes {
            self.remove_run(*delete);
        }
        self.intents
            .extend(tick.intents.iter().map(|intent| Intent::clone(intent)));
        for (id, run) in &tick.intent_runs_done {
            if let Some(intent) = self.intents.iter_mut().find(|intent| intent.id == *id) {
                intent.runs.retain(|left| left != run);
            }
        }
        for id in tick.audit.iter().filter_map(|line| line.settles) {
            if let Some(request) = self.inbox.get_mut(&id) {
                request.row.settled = true;
            }
        }
        self.audit.extend(tick.audit.iter().cloned());
        self.remember_tick(tick.tick_id);
        Ok(())
    }

    fn check(&self, tick: &TickWrite) -> Result<(), CommitError> {
        if self.knows_tick(tick.tick_id) {
            return Err(refuse(format!("tick {} exists", tick.tick_id)));
        }
        let mut versions: HashSet<_> = HashSet::new();
        for dag in &tick.dags {
            if let DagWrite::Deploy { version, .. } = dag {
                versions.insert(version.uuid);
            }
        }
        let mut new: HashSet<DagRunKey> = HashSet::new();
        let mut names = HashSet::new();
        let mut dates = HashSet::new();
        for run in &tick.new_runs {
            let context = &run.context;
            if self.runs.contains_key(&context.key) || !new.insert(context.key) {
                return Err(refuse(format!("run key {} exists", context.key)));
            }
            let name = (context.dag_id.clone(), context.run_id.clone());
            if self.names.contains_key(&name) || !names.insert(name) {
                return Err(refuse(format!("run `{}` exists", context.run_id)));
            }
            if let Some(date) = context.logical_date {
                let date = (context.dag_id.clone(), date);
                if self.logical_dates.contains_key(&date) || !dates.insert(date) {
                    return Err(refuse(format!("logical date of `{}` exists", context.run_id)));
                }
            }
            if !versions.contains(&run.version) && !self.versions.contains_key(&run.version) {
                return Err(refuse(format!("version {} does not exist", run.version)));
            }
        }
        let keys = tick
            .runs
            .iter()
            .map(|run| run.key)
            .chain(tick.task_instances.iter().map(|ti| ti.key.run))
            .chain(tick.tries.iter().map(|ti| ti.key.run))
            .chain(tick.xcoms.iter().map(|xcom| xcom.ti.run))
            .chain(tick.callbacks.iter().map(|callback| callback.run));
        for key in keys {
            if !new.contains(&key) && !self.runs.contains_key(&key) {
                return Err(refuse(format!("run {key} does not exist")));
            }
        }
        Ok(())
    }

    /// The pools as the tick leaves them; refused where they have fewer free slots than it takes.
    fn pools_after(&self, tick: &TickWrite) -> Result<BTreeMap<String, PoolRow>, CommitError> {
        let mut pools = self.pools.clone();
        for write in &tick.pools {
            match write {
                PoolWrite::Create(pool) => {
                    if pools.insert(pool.name.clone(), pool.clone()).is_some() {
                        return Err(refuse(format!("pool `{}` exists", pool.name)));
                    }
                }
                PoolWrite::Change { name, pool } => {
                    let used = pools.remove(name).map_or(0, |before| before.used);
                    let pool = PoolRow { used, ..pool.clone() };
                    if pools.insert(pool.name.clone(), pool).is_some() {
                        return Err(refuse(format!("another pool than `{name}` has its new name")));
                    }
                }
                PoolWrite::Delete { name } => drop(pools.remove(name)),
            }
        }
        for (name, sum) in SlotSum::of(&tick.slots) {
            match pools.get_mut(name) {
                Some(pool) => {
                    let used = pool.used.saturating_add(sum.change);
                    let fits = sum.change <= sum.unchecked || pool.slots < 0 || used <= i64::from(pool.slots);
                    if !fits {
                        return Err(CommitError::SlotsTaken);
                    }
                    pool.used = used.max(0);
                }
                None if sum.change > 0 && sum.change > sum.unchecked => return Err(CommitError::SlotsTaken),
                None => {}
            }
        }
        Ok(pools)
    }

    fn apply_dags(&mut self, tick: &TickWrite) {
        for dag in &tick.dags {
            match dag {
                DagWrite::Deploy { version, paused } => {
                    self.versions
                        .entry(version.uuid)
                        .or_insert_with(|| std::sync::Arc::clone(version));
                    let entry = self.dags.entry(version.dag.id.clone()).or_insert(MemoryDag {
                        paused: false,
                        paused_reason: None,
                        current: version.uuid,
                        deleting: false,
                    });
                    entry.current = version.uuid;
                    if let Some(paused) = paused {
                        entry.paused = *paused;
                    }
                }
                DagWrite::SetPaused { dag_id, paused } => {
                    if let Some(dag) = self.dags.get_mut(dag_id) {
                        dag.paused = *paused;
                        dag.paused_reason = None;
                    }
                }
                DagWrite::Delete { dag_id, intent } => {
                    if let Some(dag) = self.dags.get_mut(dag_id) {
                        dag.deleting = true;
                    }
                    self.intents.push(Intent::clone(intent));
                }
                DagWrite::Callback(change) => {
                    let mut runs = self.runs.values_mut();
                    if let Some(callback) = runs.find_map(|run| run.callbacks.get_mut(&change.id)) {
                        callback.now = change.clone();
                    }
                }
                DagWrite::Intent(step) => self.apply_step(step),
            }
        }
    }

    fn apply_pauses(&mut self, tick: &TickWrite) {
        for pause in &tick.pauses {
            if let Some(dag) = self.dags.get_mut(&pause.dag_id) {
                dag.paused = true;
                dag.paused_reason = Some(pause.reason.clone());
            }
        }
    }

    fn apply_step(&mut self, step: &IntentWrite) {
        match step {
            IntentWrite::Begin(intent) => self.intents.push(Intent::clone(intent)),
            IntentWrite::Purge { runs, rows } => {
                let mut room = [usize::try_from(*rows).unwrap_or(usize::MAX); 4];
                for key in runs {
                    if let Some(run) = self.runs.get_mut(key) {
                        run.purge(&mut room);
                        if !run.has_rows() {
                            self.remove_run(*key);
                        }
                    }
                    if let Some(run) = self.gone.get_mut(key) {
                        run.purge(&mut room);
                        if !run.has_rows() {
                            self.gone.remove(key);
                        }
                    }
                }
            }
            IntentWrite::PurgeVersions { dag_id, versions } => {
                let current = self.dags.get(dag_id).map(|dag| dag.current);
                let old = self.versions.iter().filter(|(uuid, version)| {
                    version.dag.id == *dag_id
                        && Some(**uuid) != current
                        && !self.runs.values().any(|run| run.new.version == **uuid)
                });
                let old: Vec<_> = old.map(|(uuid, _)| *uuid).take(*versions as usize).collect();
                for uuid in old {
                    self.versions.remove(&uuid);
                }
            }
            IntentWrite::End { id, dag_id } => {
                self.intents.retain(|intent| intent.id != *id);
                if let Some(dag_id) = dag_id {
                    self.dags.remove(dag_id);
                    self.versions.retain(|_, version| version.dag.id != *dag_id);
                }
            }
        }
    }

    fn apply_runs(&mut self, tick: &TickWrite) {
        for new in &tick.new_runs {
            let context = &new.context;
            self.names
                .insert((context.dag_id.clone(), context.run_id.clone()), context.key);
            if let Some(date) = context.logical_date {
                self.logical_dates.insert((context.dag_id.clone(), date), context.key);
            }
            self.runs.insert(
                context.key,
                MemoryRun {
                    state: model::DagRunState::Queued,
                    queued_at: new.queued_at,
                    start_date: None,
                    end_date: None,
                    note: new.note.clone(),
                    set_aside: None,
                    hidden_failures: Vec::new(),
                    task_instances: Default::default(),
                    tries: Default::default(),
                    xcoms: Default::default(),
                    hitl_requests: Default::default(),
                    hitl_answers: Default::default(),
                    checkpoints: Default::default(),
                    callbacks: Default::default(),
                    notes: Default::default(),
                    heartbeats: Default::default(),
                    new: new.clone(),
                },
            );
        }
        for write in &tick.runs {
            if let Some(run) = self.runs.get_mut(&write.key) {
                run.state = write.state;
                run.queued_at = write.queued_at;
                run.start_date = write.start_date;
                run.end_date = write.end_date;
                run.set_aside.clone_from(&write.set_aside);
                run.hidden_failures.clone_from(&write.hidden_failures);
                if write.note.is_some() {
                    run.note.clone_from(&write.note);
                }
            }
        }
        for ParentWrite { run, parent } in &tick.parents {
            if let Some(run) = self.runs.get_mut(run) {
                run.new.parent = Some(Arc::clone(parent));
            }
        }
        for ti in &tick.task_instance_deletes {
            if let Some(run) = self.runs.get_mut(&ti.run) {
                run.task_instances.remove(&(ti.task, ti.map_index));
            }
        }
        for ti in &tick.task_instances {
            if let Some(run) = self.runs.get_mut(&ti.key.run) {
                run.task_instances.insert((ti.key.task, ti.key.map_index), ti.clone());
            }
        }
        for ti in &tick.tries {
            if let Some(run) = self.runs.get_mut(&ti.key.run) {
                run.tries
                    .insert((ti.key.task, ti.key.map_index, ti.try_number), ti.clone());
            }
        }
        for ti in &tick.xcom_deletes {
            if let Some(run) = self.runs.get_mut(&ti.run) {
                run.xcoms
                    .retain(|(task, map_index, _), _| (*task, *map_index) != (ti.task, ti.map_index));
            }
        }
        for xcom in &tick.xcoms {
            if let Some(run) = self.runs.get_mut(&xcom.ti.run) {
                run.xcoms
                    .insert((xcom.ti.task, xcom.ti.map_index, xcom.key.clone()), xcom.value.clone());
            }
        }
        for request in &tick.hitl_requests {
            if let Some(run) = self.runs.get_mut(&request.ti.run) {
                let key = (request.ti.task, request.ti.map_index, request.try_number);
                run.hitl_requests.insert(key, request.clone());
            }
        }
        for answer in &tick.hitl_answers {
            if let Some(run) = self.runs.get_mut(&answer.ti.run) {
                let key = (answer.ti.task, answer.ti.map_index, answer.try_number);
                run.hitl_answers.insert(key, answer.clone());
            }
        }
        for (ti, to) in &tick.note_moves {
            if let Some(run) = self.runs.get_mut(&ti.run)
                && let Some(note) = run.notes.remove(&(ti.task, ti.map_index))
            {
                run.notes.entry((ti.task, *to)).or_insert(note);
            }
        }
        for note in &tick.notes {
            if let Some(run) = self.runs.get_mut(&note.ti.run) {
                run.notes
                    .insert((note.ti.task, note.ti.map_index), note.content.clone());
            }
        }
        for heartbeat in &tick.heartbeats {
            if let Some(run) = self.runs.get_mut(&heartbeat.ti.run) {
                run.heartbeats
                    .insert((heartbeat.ti.task, heartbeat.ti.map_index), *heartbeat);
            }
        }
        for due in &tick.callbacks {
            self.insert_callback(due, tick.now.unwrap_or(Timestamp(0)));
        }
        for ti in &tick.checkpoint_deletes {
            if let Some(run) = self.runs.get_mut(&ti.run) {
                run.checkpoints.remove(&(ti.task, ti.map_index));
            }
        }
    }

    pub(super) fn save_checkpoint(&mut self, save: &CheckpointSave) -> bool {
        let CheckpointSave {
            ti,
            dispatch,
            checkpoint,
        } = save;
        let Some(run) = self.runs.get_mut(&ti.run) else {
            return false;
        };
        let place = (ti.task, ti.map_index);
        match run.task_instances.get(&place) {
            Some(stored) if stored.dispatch == *dispatch && stored.state.is_dispatched() => {}
            _ => return false,
        }
        match checkpoint {
            Some(checkpoint) => drop(run.checkpoints.insert(place, checkpoint.clone())),
            None => drop(run.checkpoints.remove(&place)),
        }
        true
    }
}
