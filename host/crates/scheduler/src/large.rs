//! Large runs. What happens to one is done in steps that are bounded: a tick takes one of them, so that other runs do not wait.
//!
//! * What follows by the rules (task instances that may run, or cannot; a mapping that grows; a run that takes too long) is left in
//!   the run's state, and goes on with [`Event::GoOn`]. After a crash it follows from the rows again.
//! * What a person asks for (to end the run, to clear, to set states) does not. It is committed as an intent before the answer, and carried
//!   out by one step after another. Until the last of them the run is held: what is out may end, but nothing is let run or
//!   admitted, so each step finds what the last one left. What a step does is its progress: after a crash the first step looks at
//!   all again, and passes over what is done.

use std::ops::Bound;
use std::sync::Arc;

use model::run::{Event, RunState, take_along};
use model::{DagRunKey, DagRunState, TaskInstanceState, TiKey};
use ports::control::ControlError;
use ports::intent::{ClearWork, Intent, IntentWork};
use ports::store::TiNote;
use uuid::Uuid;

use crate::asker::Asker;
use crate::audit;
use crate::core::Core;
use crate::inbox::RunOp;
use crate::mark;
use crate::run::{Draft, Place};
use crate::selection::Selection;
use crate::tick::Tick;

/// The number of task instances a step looks at.
const LOOKS: usize = 50_000;

/// How far an intent is with one run. It is not stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The number of task instances that were looked at.
    at: usize,
}

impl Core {
    /// One of the runs with something left to do goes on, in turn.
    pub(crate) fn go_on(&mut self, tick: &mut Tick) {
        let config = &self.shared.config;
        if self.stopping || tick.transitions >= config.max_transitions_per_tick {
            return;
        }
        let most = config.max_transitions_per_step;
        let later = self.going.range((Bound::Excluded(self.went), Bound::Unbounded));
        let Some(key) = later.chain(&self.going).next().copied() else {
            return;
        };
        self.went = key;
        self.step_within(tick, key, Event::GoOn, most);
    }

    /// The number of task instances that all runs may still have.
    pub(crate) fn room(&self, tick: &Tick) -> usize {
        let most = usize::try_from(self.shared.config.max_task_instances).unwrap_or(usize::MAX);
        most.saturating_sub(self.instances).saturating_sub(tick.grown)
    }

    /// The number of task instances a run may always have, so that a few large runs do not keep small ones out.
    pub(crate) fn always(&self) -> usize {
        usize::try_from(self.shared.config.max_task_instances).unwrap_or(usize::MAX) / 1_000
    }

    /// Refuses a new run that the server has no room for.
    pub(crate) fn check_room(&self, tick: &Tick, size: usize) -> Result<(), ControlError> {
        if size <= self.room(tick) || size <= self.always() {
            return Ok(());
        }
        Err(ControlError::TooManyTaskInstances(format!(
            "the run has {size} task instances, and those of all active runs have {} already; together they may have {} \
             (`--max-task-instances` of the server): wait until others have ended",
            self.instances.saturating_add(tick.grown),
            self.shared.config.max_task_instances
        )))
    }

    /// A run is not in memory any more.
    pub(crate) fn forget_instances(&mut self, key: DagRunKey) {
        if let Some(run) = self.runs.get(&key) {
            self.instances = self.instances.saturating_sub(run.state.size());
        }
        self.going.remove(&key);
    }

    /// What the last process had not done with a large run.
    pub(crate) fn holders_of(&self, key: DagRunKey, state: &RunState) -> Vec<Uuid> {
        if state.size() <= self.shared.config.max_transitions_per_event {
            return Vec::new();
        }
        let of_run = |intent: &&Intent| {
            intent.runs.contains(&key) && !matches!(intent.work, IntentWork::DeleteRuns | IntentWork::DeleteDag)
        };
        let intents = self.stored_intents.iter().filter(of_run);
        intents.map(|intent| intent.id).collect()
    }

    /// Promises what is asked for of a large run; `false` where it can be done at once.
    pub(crate) fn promise(&mut self, tick: &mut Tick, key: DagRunKey, op: &RunOp) -> bool {
        let (promise, by, work) = match op {
            RunOp::Clear { work, promise, by, .. } if !is_small(work) => {
                (promise, by, IntentWork::Clear(ClearWork::clone(work)))
            }
            RunOp::SetState {
                state: state @ (DagRunState::Success | DagRunState::Failed),
                promise,
                by,
                ..
            } => (promise, by, IntentWork::EndRun { state: *state }),
            RunOp::SetTaskInstanceState {
                work,
                state,
                promise,
                by,
                ..
            } => {
                let work = ClearWork::clone(work);
                (promise, by, IntentWork::SetState { work, state: *state })
            }
            RunOp::TaskInstanceNote {
                work,
                note,
                promise,
                by,
                ..
            } if !is_small(work) => {
                let (work, note) = (ClearWork::clone(work), note.clone());
                (promise, by, IntentWork::Note { work, note })
            }
            _ => return false,
        };
        let Some(draft) = tick.draft(&self.runs, key) else {
            return true;
        };
        let (event, extra) = match &work {
            IntentWork::EndRun { state } => ("patch_dag_run", format!("{{\"state\":\"{state}\"}}")),
            IntentWork::SetState { state, .. } => ("patch_task_instance", format!("{{\"new_state\":\"{state}\"}}")),
            IntentWork::Note { .. } => ("patch_task_instance", "{\"dag_runs\":1}".to_owned()),
            _ => ("clear_task_instances", "{\"dag_runs\":1}".to_owned()),
        };
        let line = audit::run(event, by, &draft.live.context, Some(extra));
        draft.audit.push(line);
        self.hold_for(tick, key, *promise, by, work);
        true
    }

    /// Promises that a large run that nobody needs ends; `false` where it can be ended at once.
    pub(crate) fn promise_end(&mut self, tick: &mut Tick, key: DagRunKey, state: DagRunState) -> bool {
        let most = self.shared.config.max_transitions_per_event;
        let is_large = tick
            .draft(&self.runs, key)
            .is_some_and(|draft| draft.state.size() > most && !draft.new_run);
        if is_large {
            let work = IntentWork::EndRun { state };
            self.hold_for(tick, key, Uuid::new_v4(), &Asker::here("airtight"), work);
        }
        is_large
    }

    fn hold_for(&mut self, tick: &mut Tick, key: DagRunKey, id: Uuid, by: &Asker, work: IntentWork) {
        let created_at = tick.now;
        let Some(draft) = tick.draft(&self.runs, key) else {
            return;
        };
        draft.promised.push(Arc::new(Intent {
            id,
            dag_id: draft.live.context.dag_id.clone(),
            user: by.user.clone(),
            created_at,
            runs: vec![key],
            work,
        }));
        draft.hold(id);
        self.slots.hold_run(key, true);
        tick.transitions += 1;
    }

    /// A step of an intent.
    pub(crate) fn carry_on(
        &mut self,
        tick: &mut Tick,
        key: DagRunKey,
        (intent, user): (Uuid, &str),
        work: &IntentWork,
        from: Progress,
    ) {
        let Some(draft) = tick.draft(&self.runs, key) else {
            return;
        };
        draft.hold(intent);
        self.slots.hold_run(key, true);
        let next = match work {
            IntentWork::EndRun { state } => self.end_some(tick, key, *state, from),
            IntentWork::Clear(work) => self.clear_some(tick, key, work, from),
            IntentWork::SetState { work, state } => self.mark_some(tick, key, work, *state, from),
            IntentWork::Note { work, note } => {
                let (places, next) = self.some_to_change(tick, key, work, from);
                if let Some(draft) = tick.draft(&self.runs, key) {
                    draft.note_all(places, note, user);
                }
                next
            }
            IntentWork::DeleteRuns | IntentWork::DeleteDag => None,
        };
        tick.transitions += 1;
        match next {
            Some(next) => drop(tick.progress.insert((key, intent), next)),
            None => self.done_with(tick, key, intent),
        }
    }

    /// All is done to a run: it goes on.
    fn done_with(&mut self, tick: &mut Tick, key: DagRunKey, intent: Uuid) {
        let Some(draft) = tick.draft(&self.runs, key) else {
            return;
        };
        draft.intents_done.push(intent);
        draft.meta.held_by.retain(|held| *held != intent);
        draft.row_changed |= draft.state.state().is_finished();
        if draft.meta.held_by.is_empty() {
            draft.state.let_go();
            self.slots.hold_run(key, draft.state.is_held());
            if draft.state.state() == DagRunState::Running {
                self.step(tick, key, Event::Resume);
            }
        }
    }

    fn end_some(&mut self, tick: &mut Tick, key: DagRunKey, state: DagRunState, from: Progress) -> Option<Progress> {
        let most = self.shared.config.max_transitions_per_step;
        self.step_within(tick, key, Event::SetRunState { state }, most);
        let draft = tick.draft(&self.runs, key)?;
        draft.state.is_cut_short().then_some(from)
    }

    fn clear_some(&mut self, tick: &mut Tick, key: DagRunKey, work: &ClearWork, from: Progress) -> Option<Progress> {
        let (mut places, next) = self.some_to_change(tick, key, work, from);
        if let Some(draft) = tick.draft(&self.runs, key).filter(|_| !places.is_empty()) {
            let known = draft
                .state
                .tis()
                .map(|(task, map_index, ti)| (task, map_index, ti.state));
            places.extend(take_along(draft.live.version.dag(), &places, known));
            self.clear(tick, key, places);
        }
        next
    }

    /// The next task instances that are named, and where to go on.
    fn some_to_change(
        &self,
        tick: &mut Tick,
        key: DagRunKey,
        work: &ClearWork,
        from: Progress,
    ) -> (Vec<Place>, Option<Progress>) {
        // Each makes up to four transitions.
        let most = (self.shared.config.max_transitions_per_step / 4).max(1);
        let Some(draft) = tick.draft(&self.runs, key) else {
            return (Vec::new(), None);
        };
        let selection = Selection::new(draft.live.version.dag(), work);
        let mut next = from;
        let mut places: Vec<Place> = Vec::new();
        while let Some((task, map_index, ti)) = draft.state.at(next.at)
            && places.len() < most
            && next.at - from.at < LOOKS
        {
            next.at += 1;
            if selection.contains(task, map_index, ti.state) {
                places.push((task, map_index));
            }
        }
        let is_over = next.at >= draft.state.size();
        (places, (!is_over).then_some(next))
    }

    fn mark_some(
        &mut self,
        tick: &mut Tick,
        key: DagRunKey,
        work: &ClearWork,
        state: TaskInstanceState,
        from: Progress,
    ) -> Option<Progress> {
        let most = self.shared.config.max_transitions_per_step;
        let end = tick.transitions.saturating_add(most);
        let draft = tick.draft(&self.runs, key)?;
        let selection = Selection::to_mark(draft.live.version.dag(), work);
        let mut next = from;
        let (places, is_over) = some_to_mark(draft, &selection, state, &mut next, most);
        let changed_before = draft.changed.len();
        for (at, (task, map_index)) in places {
            if tick.transitions >= end {
                next.at = at;
                return self.marked(tick, key, changed_before, Some(next));
            }
            let left = end - tick.transitions;
            let event = Event::SetTaskInstanceState { task, map_index, state };
            self.step_within(tick, key, event, left);
            if tick.draft(&self.runs, key)?.state.is_cut_short() {
                next.at = at;
                return self.marked(tick, key, changed_before, Some(next));
            }
        }
        self.marked(tick, key, changed_before, (!is_over).then_some(next))
    }

    /// What runs again begins anew, as after clearing, and not on what was torn down.
    fn marked(
        &mut self,
        tick: &mut Tick,
        key: DagRunKey,
        changed_before: usize,
        next: Option<Progress>,
    ) -> Option<Progress> {
        let base = self.runs.get(&key);
        let draft = tick.draft(&self.runs, key)?;
        let ended =
            |state: &RunState, place: &Place| state.ti(place.0, place.1).is_some_and(|ti| ti.state.is_finished());
        let changed = draft.changed.iter().skip(changed_before);
        let again: Vec<Place> = changed
            .filter(|place| base.is_some_and(|run| ended(&run.state, place)) && !ended(&draft.state, place))
            .copied()
            .collect();
        let known = draft
            .state
            .tis()
            .map(|(task, map_index, ti)| (task, map_index, ti.state));
        let along = take_along(draft.state.dag(), &again, known);
        for place in again.iter().chain(&along) {
            let ti = draft.ti(*place);
            draft.checkpoint_deletes.push(ti);
        }
        if !along.is_empty() {
            let task_instances = along;
            self.step(tick, key, Event::Clear { task_instances });
        }
        next
    }

    /// A large run that is deleted: only what is out matters, no row of it is written any more. `false` where the run is not large.
    pub(crate) fn abandon_if_large(&mut self, tick: &mut Tick, key: DagRunKey) -> bool {
        let most = self.shared.config.max_transitions_per_event;
        let Some(draft) = tick.draft(&self.runs, key).filter(|draft| draft.state.size() > most) else {
            return false;
        };
        let deferred: Vec<Place> = draft
            .state
            .unfinished()
            .filter(|(.., ti)| ti.state == TaskInstanceState::Deferred)
            .map(|(task, map_index, _)| (task, map_index))
            .collect();
        draft.undeferred.extend(&deferred);
        draft.run_changed = true;
        if !deferred.is_empty() {
            self.cancel_children(tick, key, &deferred);
        }
        true
    }
}

impl Draft {
    /// Notes something about task instances.
    pub(crate) fn note_all(&mut self, places: Vec<Place>, note: &str, user: &str) {
        let key = self.key();
        self.notes.extend(places.into_iter().map(|(task, map_index)| TiNote {
            ti: TiKey {
                run: key,
                task,
                map_index,
            },
            content: note.to_owned(),
            user: user.to_owned(),
        }));
    }

    fn hold(&mut self, intent: Uuid) {
        if !self.meta.held_by.contains(&intent) {
            self.meta.held_by.push(intent);
        }
        self.state.hold();
    }
}

/// Whether a request names a few task instances, and nothing that depends on how many there are.
fn is_small(work: &ClearWork) -> bool {
    const FEW: usize = 500;
    let named = work
        .tasks
        .as_ref()
        .is_some_and(|tasks| tasks.len() <= FEW && tasks.iter().all(|(_, map_index)| map_index.is_some()));
    named && work.groups.is_empty() && !work.include_upstream && !work.include_downstream
}

/// The next to mark, each with its place in the order: upstream first, since a new state clears what failed further down. Tells whether
/// there are no others.
fn some_to_mark(
    draft: &Draft,
    selection: &Selection<'_>,
    state: TaskInstanceState,
    next: &mut Progress,
    most: usize,
) -> (Vec<(usize, Place)>, bool) {
    let mut places = Vec::new();
    let (mut before, from) = (0, next.at);
    for task in mark::upstream_first(draft.live.version.dag()) {
        let count = draft.state.count_of(task);
        if before + count <= next.at {
            before += count;
            continue;
        }
        let skipped = next.at - before;
        for at in draft.state.places_of(task).skip(skipped) {
            if places.len() >= most || next.at - from >= LOOKS {
                return (places, false);
            }
            if let Some((task, map_index, ti)) = draft.state.at(at)
                && selection.contains(task, map_index, ti.state)
                && ti.state != state
                && ti.state != TaskInstanceState::Removed
            {
                places.push((next.at, (task, map_index)));
            }
            next.at += 1;
        }
        before += count;
    }
    (places, true)
}
