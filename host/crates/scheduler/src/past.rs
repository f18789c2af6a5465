//! Runs that wait for the run before them (`depends_on_past`). The loop knows of each such run which run is before it and what that one
//! allows; the waiting run is told by an event whenever that changes.
//!
//! Which run is before another is looked up once, when the waiting run starts or is taken over, and again when an earlier run of the
//! DAG is made or deleted. From then on the loop itself, the only writer of runs, sees what happens to the run before: nothing is
//! polled. What is told is committed, always.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::dag::Task;
use model::past::{Past, RunBefore, is_successful, met};
use model::run::{Event, LiveBefore, RunState};
use model::{Dag, DagId, DagRunKey, DagRunState, MapIndex, TaskId, TaskIndex, Timestamp};
use ports::query::QueryError;
use ports::store::StoredBefore;

use crate::core::Core;
use crate::inbox::{Item, Message};
use crate::run::Draft;
use crate::shared::Shared;
use crate::tick::Tick;
use crate::version::Version;

/// The runs that look back, by DAG.
#[derive(Default)]
pub(crate) struct Waiting {
    by_dag: HashMap<DagId, Vec<Waiter>>,
}

/// A running run whose DAG version has tasks that look back.
struct Waiter {
    key: DagRunKey,
    logical_date: Timestamp,
    version: Arc<Version>,
    /// The number of the last look-up; the answers to others are too old.
    asked: u64,
    /// While a look-up is out: earlier runs that changed since it began.
    changed: Option<HashSet<DagRunKey>>,
    before: Option<Before>,
    /// What the run before allows; nothing before that is known.
    met: Option<Vec<TaskIndex>>,
    /// Whether the run is about to be told.
    told: bool,
}

/// The run before.
struct Before {
    key: DagRunKey,
    /// Tasks that it does not have, but an older run.
    older: HashSet<TaskId>,
    /// The tasks of it that matter, each with an instance that was not successful when it was looked at last.
    blocking: HashMap<TaskIndex, Option<MapIndex>>,
}

/// What a look-up found.
pub(crate) struct FoundBefore {
    stored: StoredBefore,
    version: Arc<Version>,
    older: HashSet<TaskId>,
}

/// An ended run, as its rows say.
struct RowsBefore<'a> {
    found: &'a FoundBefore,
}

impl RunBefore for RowsBefore<'_> {
    fn dag(&self) -> &Dag {
        self.found.version.dag()
    }

    fn unsuccessful(&self, task: TaskIndex) -> u64 {
        let of_task = self.found.stored.states.iter().filter(|(at, ..)| *at == task);
        let (mut all, mut waiting) = (0_u64, 0_u64);
        for (_, state, count) in of_task {
            all = all.saturating_add(*count);
            if !is_successful(*state) {
                waiting = waiting.saturating_add(*count);
            }
        }
        // Of a run that has not ended and is not in memory (it was set aside) rows may be missing.
        let unsure = all == 0 || !self.found.stored.state.is_finished();
        waiting.max(u64::from(unsure))
    }

    fn was_there_before(&self, task: &Task) -> bool {
        self.found.older.contains(&task.id)
    }
}

impl Waiting {
    /// Whether no run looks back.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_dag.is_empty()
    }

    fn get_mut(&mut self, dag_id: &DagId, key: DagRunKey) -> Option<&mut Waiter> {
        let waiters = self.by_dag.get_mut(dag_id)?;
        waiters.iter_mut().find(|waiter| waiter.key == key)
    }

    /// A run needs to know nothing any more.
    pub(crate) fn remove(&mut self, dag_id: &DagId, key: DagRunKey) {
        let Some(waiters) = self.by_dag.get_mut(dag_id) else {
            return;
        };
        waiters.retain(|waiter| waiter.key != key);
        if waiters.is_empty() {
            self.by_dag.remove(dag_id);
        }
    }
}

impl Waiter {
    /// Looks at the run before, which is in memory. Answers whether it allows something else than before.
    fn look(&mut self, run: &RunState) -> bool {
        let Some(before) = &mut self.before else { return false };
        let older = &before.older;
        let live = LiveBefore {
            run,
            older: |task: &Task| older.contains(&task.id),
        };
        let met = met(self.version.dag(), &live);
        for (task, blocking) in &mut before.blocking {
            *blocking = run.first_unsuccessful(*task);
        }
        self.allow(met)
    }

    fn allow(&mut self, met: Vec<TaskIndex>) -> bool {
        let changes = self.met.as_ref() != Some(&met);
        self.met = Some(met);
        changes
    }
}

/// The tasks of the run before that matter to a version.
fn that_matter(dag: &Dag, before: &Dag) -> HashMap<TaskIndex, Option<MapIndex>> {
    let mut names: BTreeSet<TaskIndex> = BTreeSet::new();
    for task in dag.looking_back() {
        names.insert(*task);
        if let Some(task) = dag.task(*task).filter(|task| task.past == Past::WaitForDownstream) {
            names.extend(&task.downstream);
        }
    }
    let there = names
        .into_iter()
        .filter_map(|task| before.index_of(dag.task(task)?.id.as_str()));
    there.map(|task| (task, None)).collect()
}

/// Queued runs that are looked at for one that does not come after a run that waits.
const LOOKS: usize = 256;

/// A run that gives its slot to another one.
pub(crate) struct GivesWay {
    pub(crate) run: DagRunKey,
    pub(crate) to: DagRunKey,
}

impl Core {
    /// Running runs that can do nothing before an earlier run has gone on, where that one waits for a run slot (or any other that does
    /// not come after them: what comes after would wait as they do). Without this they would wait for each other.
    pub(crate) fn that_give_way(&self, now: Timestamp) -> Vec<GivesWay> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let mut found: Vec<GivesWay> = Vec::new();
        for dag_id in self.slots.gate.full(now) {
            for waiter in self.waiting.by_dag.get(dag_id).into_iter().flatten() {
                let to = self.to_give_way_to(dag_id, waiter, now);
                let is_new = |to: &DagRunKey| found.iter().all(|known| known.to != *to);
                found.extend(to.filter(is_new).map(|to| GivesWay { run: waiter.key, to }));
            }
        }
        found
    }

    fn to_give_way_to(&self, dag_id: &DagId, waiter: &Waiter, now: Timestamp) -> Option<DagRunKey> {
        let before = waiter.before.as_ref().filter(|_| waiter.changed.is_none())?;
        let waits = |run: &crate::run::Run| run.state.waits_for_the_past_alone();
        if waiter.told || !self.runs.get(&waiter.key).is_some_and(waits) {
            return None;
        }
        if self.slots.gate.is_due(before.key, now) {
            return Some(before.key);
        }
        let mut due = self.slots.gate.due_of(dag_id, now).take(LOOKS);
        due.find(|run| {
            let run = self.runs.get(run);
            run.is_some_and(|run| {
                run.live
                    .context
                    .logical_date
                    .is_none_or(|date| date < waiter.logical_date)
            })
        })
    }

    /// When a run will be due that another one may have to give way to.
    pub(crate) fn next_to_give_way_to(&self, now: Timestamp) -> Option<Timestamp> {
        let dags = self.waiting.by_dag.keys();
        dags.filter_map(|dag_id| self.slots.gate.next_due_of(dag_id, now)).min()
    }

    /// A run without a logical date has none before it, so everything may run.
    pub(crate) fn tell_no_past(&mut self, tick: &mut Tick, key: DagRunKey) {
        let Some(draft) = tick.draft(&self.runs, key) else {
            return;
        };
        let looking_back = draft.state.dag().looking_back();
        if looking_back.is_empty() || draft.live.context.logical_date.is_some() || draft.state.past_met().is_some() {
            return;
        }
        let met = looking_back.to_vec();
        self.step(tick, key, Event::Past { met });
    }

    /// A run runs, from now on or again: if it looks back, what is before it is looked up.
    pub(crate) fn watch_past(&mut self, key: DagRunKey) {
        let Some(run) = self.runs.get(&key) else { return };
        let context = &run.live.context;
        let Some(logical_date) = context.logical_date else {
            return;
        };
        if run.state.dag().looking_back().is_empty() || run.state.state() != DagRunState::Running {
            return;
        }
        let waiters = self.waiting.by_dag.entry(context.dag_id.clone()).or_default();
        if let Some(waiter) = waiters.iter().find(|waiter| waiter.key == context.key) {
            // A run that ended and was cleared in the same tick has forgotten what it was told.
            let forgotten = run.state.past_met().is_none() && waiter.met.is_some();
            let dag_id = context.dag_id.clone();
            return if forgotten {
                self.tell_of_past(&dag_id, key, self.shared.clock.now())
            };
        }
        waiters.push(Waiter {
            key: context.key,
            logical_date,
            version: Arc::clone(&run.live.version),
            asked: 0,
            changed: None,
            before: None,
            met: None,
            told: false,
        });
        let (dag_id, key) = (context.dag_id.clone(), context.key);
        self.ask_before(&dag_id, key);
    }

    /// Looks up which run is before another one.
    fn ask_before(&mut self, dag_id: &DagId, key: DagRunKey) {
        let Some(waiter) = self.waiting.get_mut(dag_id, key) else {
            return;
        };
        waiter.asked += 1;
        waiter.changed = Some(HashSet::new());
        let (asked, date, version) = (waiter.asked, waiter.logical_date, Arc::clone(&waiter.version));
        let (shared, dag_id) = (Arc::clone(&self.shared), dag_id.clone());
        tokio::spawn(async move {
            if let Some(found) = find_before(&shared, &dag_id, date, &version).await {
                let found = found.map(Box::new);
                let _ = shared.inbox.send(Message::Before {
                    dag_id,
                    key,
                    asked,
                    found,
                });
            }
        });
    }

    /// The answer to a look-up.
    pub(crate) fn found_before(
        &mut self,
        dag_id: &DagId,
        key: DagRunKey,
        asked: u64,
        found: Option<Box<FoundBefore>>,
        now: Timestamp,
    ) {
        let Some(waiter) = self.waiting.get_mut(dag_id, key).filter(|waiter| waiter.asked == asked) else {
            return;
        };
        let Some(found) = found else {
            waiter.changed = None;
            waiter.before = None;
            let all = waiter.version.dag().looking_back().to_vec();
            return if waiter.allow(all) {
                self.tell_of_past(dag_id, key, now)
            };
        };
        let before = found.stored.key;
        let live = self.runs.get(&before);
        let changed = waiter.changed.take().is_some_and(|changed| changed.contains(&before));
        if live.is_none() && changed {
            // It ended since its rows were read. It is in memory no more, so that its rows are complete now.
            return self.ask_before(dag_id, key);
        }
        let blocking = that_matter(waiter.version.dag(), found.version.dag());
        let allowed = met(waiter.version.dag(), &RowsBefore { found: &found });
        waiter.before = Some(Before {
            key: before,
            older: found.older,
            blocking,
        });
        let changes = match live {
            Some(run) => waiter.look(&run.state),
            None => waiter.allow(allowed),
        };
        if changes {
            self.tell_of_past(dag_id, key, now);
        }
    }

    fn tell_of_past(&mut self, dag_id: &DagId, key: DagRunKey, now: Timestamp) {
        if let Some(waiter) = self.waiting.get_mut(dag_id, key)
            && !std::mem::replace(&mut waiter.told, true)
        {
            self.queue.push(key, Item::Past, now);
        }
    }

    /// Tells a run what the run before allows.
    pub(crate) fn apply_past(&mut self, tick: &mut Tick, key: DagRunKey) {
        let Some(dag_id) = tick
            .draft(&self.runs, key)
            .map(|draft| draft.live.context.dag_id.clone())
        else {
            return;
        };
        let Some(waiter) = self.waiting.get_mut(&dag_id, key) else {
            return;
        };
        waiter.told = false;
        if let Some(met) = waiter.met.clone() {
            self.step(tick, key, Event::Past { met });
        }
    }

    /// What is committed of a run, where later ones may look back at it.
    pub(crate) fn past_changed(&mut self, draft: &Draft) {
        let context = &draft.live.context;
        let (dag_id, key) = (&context.dag_id, context.key);
        let (Some(date), Some(waiters)) = (context.logical_date, self.waiting.by_dag.get_mut(dag_id)) else {
            return;
        };
        let (mut ask, mut tell) = (Vec::new(), Vec::new());
        for waiter in waiters.iter_mut().filter(|waiter| waiter.logical_date > date) {
            if draft.new_run || draft.deleted {
                ask.push(waiter.key);
                continue;
            }
            if let Some(changed) = &mut waiter.changed {
                changed.insert(key);
                continue;
            }
            let Some(before) = waiter.before.as_ref().filter(|before| before.key == key) else {
                continue;
            };
            let matters = |(task, _): &(TaskIndex, MapIndex)| match before.blocking.get(task) {
                None => false,
                Some(None) => true,
                // As long as this one has not succeeded, nothing changes.
                Some(Some(map_index)) => {
                    let ti = draft.state.ti(*task, *map_index);
                    ti.is_none_or(|ti| is_successful(ti.state))
                }
            };
            if draft.changed.iter().any(matters) && waiter.look(&draft.state) {
                tell.push(waiter.key);
            }
        }
        let (dag_id, now) = (dag_id.clone(), self.shared.clock.now());
        for key in ask {
            self.ask_before(&dag_id, key);
        }
        for key in tell {
            self.tell_of_past(&dag_id, key, now);
        }
    }
}

/// Reads until that succeeds; nothing where the scheduler stops.
async fn find_before(
    shared: &Shared,
    dag_id: &DagId,
    date: Timestamp,
    version: &Version,
) -> Option<Option<FoundBefore>> {
    let mut pause = shared.config.backoff;
    loop {
        match read_before(shared, dag_id, date, version).await {
            Ok(found) => return Some(found),
            Err(_) if shared.stopping.load(Ordering::Acquire) => return None,
            Err(error) => {
                tracing::warn!(%error, dag.id = %dag_id, "cannot read which run is before another one; trying again");
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2).min(shared.config.backoff_max);
            }
        }
    }
}

async fn read_before(
    shared: &Shared,
    dag_id: &DagId,
    date: Timestamp,
    version: &Version,
) -> Result<Option<FoundBefore>, QueryError> {
    let Some(stored) = shared.store.run_before(dag_id, date).await? else {
        return Ok(None);
    };
    let Some(before) = shared.version(stored.version).await? else {
        return Ok(None);
    };
    let dag = version.dag();
    let mut older = HashSet::new();
    for task in dag.looking_back().iter().filter_map(|task| dag.task(*task)) {
        if before.dag().index_of(task.id.as_str()).is_none()
            && shared.store.has_task_before(dag_id, date, &task.id).await?
        {
            older.insert(task.id.clone());
        }
    }
    Ok(Some(FoundBefore {
        stored,
        version: before,
        older,
    }))
}
