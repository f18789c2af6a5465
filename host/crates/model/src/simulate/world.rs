//! One run on a virtual clock: an executor that is told how every try ends.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::assume::Assumptions;
use super::outcome::{Hang, Outcome, Stretch, TiOutcome};
use super::rng::Rng;
use super::scenario::{Choice, Fault, Scenario, Which, default_option};
use crate::capacity::{Capacity, KeptFor, PoolNow, ReadyQueue, admit, slots, waits_for_pool};
use crate::cause::Cause;
use crate::dag::{Dag, Measured, Task, TaskKind, length};
use crate::id::{DagRunKey, DispatchNumber, MapIndex, TaskIndex, TiKey};
use crate::run::{Event, Loss, RunState, Ti, Transition, TryEnd, advance};
use crate::state::TaskInstanceState;
use crate::template::follow_value;
use crate::time::Timestamp;

/// The key of every simulated run.
const RUN: DagRunKey = DagRunKey(1);

/// No scenario goes on for longer than this many events.
pub(super) const MAX_EVENTS: usize = 2_000_000;

/// What a sensor asks for between two pokes where its manifest does not say (Airflow: `poke_interval`).
const POKE_INTERVAL: Duration = Duration::from_secs(60);

/// So many pokes of a sensor that never succeeds are simulated one by one. The next one stands for all that follow.
const POKES: u32 = 20;

type Instance = (TaskIndex, MapIndex);

/// A DAG, ready to be simulated.
#[derive(Clone, Debug)]
pub struct Simulator {
    dag: Arc<Dag>,
    assumptions: Assumptions,
    /// A run to which nothing has happened.
    fresh: RunState,
}

impl Simulator {
    /// Prepares a DAG.
    pub fn new(dag: Arc<Dag>, assumptions: Assumptions) -> Self {
        let defaults = dag
            .params
            .iter()
            .filter_map(|(name, param)| Some((name.clone(), param.default.clone()?)))
            .collect();
        let defaults = serde_json::Value::Object(defaults);
        let lengths: Vec<u32> = dag
            .mapped_params()
            .into_iter()
            .map(|path| {
                follow_value(&defaults, path)
                    .and_then(length)
                    .unwrap_or(assumptions.map_length)
            })
            .collect();
        let fresh = RunState::with_params(RUN, Arc::clone(&dag), Timestamp(0), Timestamp(0), &lengths);
        Self {
            dag,
            assumptions,
            fresh,
        }
    }

    /// The DAG.
    pub fn dag(&self) -> &Arc<Dag> {
        &self.dag
    }

    /// Plays a scenario.
    pub fn run(&self, scenario: &Scenario) -> Outcome {
        World::new(self, scenario).play()
    }

    /// Plays a scenario, if that takes no more than so many events; nothing where it takes more.
    pub(super) fn run_within(&self, scenario: &Scenario, events: usize) -> Option<Outcome> {
        let mut world = World::new(self, scenario);
        world.max_events = events.min(MAX_EVENTS);
        let outcome = world.play();
        (outcome.hang != Some(Hang::Endless)).then_some(outcome)
    }

    /// What a run waits for that would never end, in words.
    pub fn why(&self, hang: Hang) -> String {
        let name = |task| self.dag.task(task).map_or("", |task| task.id.as_str());
        match hang {
            Hang::Person(task) => format!("{} waits for a person, without `timeout`", name(task)),
            Hang::Capacity(task) => format!(
                "{} waits for slots that there will never be: {}",
                name(task),
                self.slots(task)
            ),
            Hang::Past(task) => format!(
                "{} waits until it has succeeded, or was skipped, in the run before (`depends_on_past`): clear that run, set its state, or \
                 delete it; when it is cleared, this one gives it its run slot where there is no other (`max_active_runs: {}`)",
                name(task),
                self.dag.max_active_runs
            ),
            Hang::Endless => "it goes on for longer than is simulated".to_owned(),
        }
    }

    /// The slots that a task needs, in words: those of its pool, and other limits of its own and of its DAG that are narrow.
    pub fn slots(&self, task: TaskIndex) -> String {
        let Some(task) = self.dag.task(task) else {
            return String::new();
        };
        let needs = task.pool_slots.max(1);
        let pool = self.assumptions.pools.get(&task.pool).map(|slots| PoolNow {
            name: &task.pool,
            slots: *slots,
            used: 0,
            deferred: 0,
        });
        if let Some(pool) = pool
            && let Some(never) = waits_for_pool(&task.pool, Some(pool), needs, KeptFor::Nobody)
        {
            return never;
        }
        let of_pool = pool.filter(|pool| pool.slots >= 0).map(|pool| {
            let needs = slots(i64::from(needs));
            format!("it needs {needs} of pool `{}`, which has {}", pool.name, pool.slots)
        });
        let limits = [
            ("max_active_tis_per_dag", task.queueing.max_active_tis_per_dag),
            ("max_active_tis_per_dagrun", task.queueing.max_active_tis_per_dagrun),
            ("max_active_tasks", Some(self.dag.max_active_tasks)),
        ];
        let limits = limits
            .into_iter()
            .filter_map(|(name, limit)| Some((name, limit.filter(|limit| *limit <= self.assumptions.parallelism)?)))
            .map(|(name, limit)| format!("`{name}: {limit}`"));
        let parallelism = format!("{} run at a time", self.assumptions.parallelism);
        let all: Vec<String> = of_pool.into_iter().chain(limits).chain([parallelism]).collect();
        all.join(", ")
    }

    /// Plays a scenario and finds its critical path.
    pub fn trace(&self, scenario: &Scenario) -> Outcome {
        let mut world = World::new(self, scenario);
        world.woken = Some(HashMap::new());
        world.play()
    }
}

/// Something that will happen unless the dispatch is overtaken.
struct Coming {
    instance: Instance,
    dispatch: DispatchNumber,
    what: What,
}

enum What {
    Ends {
        started_at: Timestamp,
        end: TryEnd,
        measured: Vec<u32>,
    },
    HostDies,
    Answer(TryEnd),
}

/// When a task instance could first run, and whose end let it.
struct Woken {
    at: Timestamp,
    by: Option<Instance>,
}

struct World<'a> {
    of: &'a Simulator,
    scenario: &'a Scenario,
    run: RunState,
    now: Timestamp,
    capacity: Capacity,
    ready: ReadyQueue,
    /// By time, then by order of arrival.
    coming: BTreeMap<(Timestamp, u64), Coming>,
    arrivals: u64,
    /// The instance of each task that was dispatched first.
    first: HashMap<TaskIndex, MapIndex>,
    pokes: HashMap<Instance, u32>,
    rng: Option<Rng>,
    woken: Option<HashMap<Instance, Woken>>,
    events: usize,
    max_events: usize,
}

impl<'a> World<'a> {
    fn new(of: &'a Simulator, scenario: &'a Scenario) -> Self {
        let assumed = &of.assumptions;
        let mut capacity = Capacity::new(assumed.parallelism);
        capacity.set_dag(&of.dag.id, of.dag.max_active_tasks, false);
        for task in &of.dag.tasks {
            if !assumed.pools.contains_key(&task.pool) {
                capacity.set_pool(&task.pool, -1);
            }
        }
        for (pool, slots) in &assumed.pools {
            capacity.set_pool(pool, *slots);
        }
        Self {
            of,
            scenario,
            run: of.fresh.clone(),
            now: Timestamp(0),
            capacity,
            ready: ReadyQueue::new(),
            coming: BTreeMap::new(),
            arrivals: 0,
            first: HashMap::new(),
            pokes: HashMap::new(),
            rng: (scenario.spread_by != 0).then(|| Rng::new(scenario.spread_by, 0)),
            woken: None,
            events: 0,
            max_events: MAX_EVENTS,
        }
    }

    fn play(mut self) -> Outcome {
        // Where no run before failed it is the first run of the DAG.
        let met = if self.scenario.run_before_failed {
            Vec::new()
        } else {
            self.of.dag.looking_back().to_vec()
        };
        self.step(Event::Past { met }, None);
        self.step(Event::Start, None);
        let hang = loop {
            self.fill_slots();
            if self.run.state().is_finished() {
                break None;
            }
            if self.events > self.max_events {
                break Some(Hang::Endless);
            }
            let next = self.coming.first_key_value().map(|((at, _), _)| *at);
            let timer = self.run.next_timer();
            let Some(at) = next.into_iter().chain(timer).min() else {
                break Some(self.hang());
            };
            self.now = self.now.max(at);
            while let Some(entry) = self.coming.first_entry()
                && entry.key().0 <= self.now
            {
                let coming = entry.remove();
                self.happen(coming);
            }
            if timer.is_some_and(|timer| timer <= self.now) {
                self.step(Event::Timer, None);
            }
        };
        self.outcome(hang)
    }

    /// What a run waits for in which nothing will happen any more.
    fn hang(&self) -> Hang {
        let waiting = |state| move |of: &(TaskIndex, MapIndex, &Ti)| of.2.state == state;
        let first = |state| self.run.unfinished().find(waiting(state)).map(|(task, ..)| task);
        if let Some(task) = first(TaskInstanceState::AwaitingInput) {
            return Hang::Person(task);
        }
        if let Some(task) = first(TaskInstanceState::Scheduled) {
            return Hang::Capacity(task);
        }
        let looks_back = |task: &TaskIndex| self.of.dag.looking_back().contains(task);
        let past = self.run.unfinished().map(|(task, ..)| task).find(looks_back);
        past.filter(|_| self.run.waits_for_the_past_alone())
            .map_or(Hang::Endless, Hang::Past)
    }

    /// Applies an event, keeps slots and the queue as the scheduler does, and executes what is dispatched.
    fn step(&mut self, event: Event, of: Option<Instance>) -> bool {
        self.events += 1;
        let transitions = advance(&mut self.run, event, self.now);
        let mut dispatched = Vec::new();
        let mut ended = of;
        for transition in &transitions {
            match transition {
                Transition::TaskInstance {
                    task,
                    map_index,
                    from,
                    to,
                } => {
                    let key = TiKey {
                        run: RUN,
                        task: *task,
                        map_index: *map_index,
                    };
                    if from.is_dispatched() && !to.is_dispatched() {
                        self.capacity.release(key);
                    }
                    if to.is_finished() && ended.is_none() {
                        ended = Some((*task, *map_index));
                    }
                    if *to == TaskInstanceState::Scheduled {
                        if let Some(definition) = self.of.dag.task(*task) {
                            self.ready.push(key, &self.of.dag.id, definition, self.now);
                        }
                        if let Some(woken) = &mut self.woken {
                            let (at, by) = (self.now, ended.filter(|by| *by != (*task, *map_index)));
                            woken.entry((*task, *map_index)).or_insert(Woken { at, by });
                        }
                    } else if *from == TaskInstanceState::Scheduled {
                        self.ready.remove(key);
                    }
                }
                Transition::Dispatch {
                    task,
                    map_index,
                    dispatch,
                    ..
                } => dispatched.push(((*task, *map_index), *dispatch)),
                _ => {}
            }
        }
        let any = !dispatched.is_empty();
        for (instance, dispatch) in dispatched {
            self.execute(instance, dispatch);
        }
        any
    }

    fn fill_slots(&mut self) {
        loop {
            let admitted = admit(&mut self.capacity, &mut self.ready, self.now);
            if admitted.is_empty() {
                return;
            }
            for chosen in admitted {
                let (task, map_index) = (chosen.key.task, chosen.key.map_index);
                if !self.step(Event::Admit { task, map_index }, None) {
                    self.capacity.release(chosen.key);
                }
            }
        }
    }

    fn later(&mut self, after: Duration, coming: Coming) {
        self.arrivals += 1;
        self.coming.insert((self.now.plus(after), self.arrivals), coming);
    }

    fn happen(&mut self, coming: Coming) {
        let Coming {
            instance,
            dispatch,
            what,
        } = coming;
        let (task, map_index) = instance;
        let event = match what {
            What::Ends {
                started_at,
                end,
                measured,
            } => Event::TryFinished {
                task,
                map_index,
                dispatch,
                end,
                measured,
                started_at,
                ended_at: self.now,
            },
            What::HostDies => Event::TryLost {
                task,
                map_index,
                dispatch,
                loss: Loss::Acknowledged,
            },
            // The question of an earlier try is not answered any more.
            What::Answer(_) if self.run.ti(task, map_index).is_none_or(|ti| ti.dispatch != dispatch) => return,
            What::Answer(end) => Event::Answered { task, map_index, end },
        };
        self.step(event, Some(instance));
    }

    /// Starts a dispatch and fixes how it ends.
    fn execute(&mut self, instance: Instance, dispatch: DispatchNumber) {
        let (task, map_index) = instance;
        let (of, now) = (self.of, self.now);
        let started = Event::TryStarted {
            task,
            map_index,
            dispatch,
            at: now,
        };
        self.step(started, Some(instance));
        let (Some(definition), Some(ti)) = (of.dag.task(task), self.run.ti(task, map_index)) else {
            return;
        };
        let (try_number, started_at) = (ti.try_number.0, ti.start_date.unwrap_or(now));
        self.first.entry(task).or_insert(map_index);
        let time = self.time_of(task);
        let failed = |cause, fatal| TryEnd::Failed {
            cause,
            fatal,
            code: None,
        };
        let fault = self.fault_of(instance);
        // What waits elsewhere has no wall time of its own.
        let deferred = definition.work.deferred_for(definition.sensor.as_ref());
        let wall = deferred.map_or(definition.limits.timeout, |limit| limit.unwrap_or(Duration::MAX));
        let (after, what) = match fault {
            Some(Fault::Lost) if dispatch == DispatchNumber(1) => (time / 2, What::HostDies),
            Some(Fault::LostAlways) => (time / 2, What::HostDies),
            Some(Fault::Fails(times)) if try_number <= times => (time, self.ends(failed(Cause::Failed, false))),
            Some(Fault::FailsAlways) => (time, self.ends(failed(Cause::Failed, false))),
            Some(Fault::FailsFatally) => (time, self.ends(failed(Cause::Failed, true))),
            Some(Fault::Skips) => (time, self.ends(TryEnd::Skip)),
            _ if definition.work.human().is_some() => {
                let answer = (fault != Some(Fault::TimesOut))
                    .then(|| self.answer(task, definition))
                    .flatten();
                if let Some(answer) = answer {
                    let what = What::Answer(answer);
                    self.later(
                        of.assumptions.answer_time,
                        Coming {
                            instance,
                            dispatch,
                            what,
                        },
                    );
                }
                (Duration::ZERO, self.ends(TryEnd::AwaitInput))
            }
            _ if let Some(sensor) = &definition.sensor
                && (fault == Some(Fault::TimesOut) || self.pokes_of(instance) < of.assumptions.pokes) =>
            {
                let pokes = self.pokes.entry(instance).or_default();
                *pokes += 1;
                let left = sensor.timeout.saturating_sub(now.since(started_at));
                let last = fault == Some(Fault::TimesOut) && *pokes > POKES;
                let time = if last { left + Duration::from_secs(1) } else { time };
                (time, self.ends(TryEnd::Reschedule(POKE_INTERVAL)))
            }
            // Nobody needs to inject what is assumed to take longer than it may.
            fault if fault == Some(Fault::TimesOut) || time > wall => (wall, self.ends(failed(Cause::TimedOut, false))),
            _ => (
                time,
                What::Ends {
                    started_at: now,
                    end: self.success(task, definition),
                    measured: self.measured(instance, definition),
                },
            ),
        };
        self.later(
            after,
            Coming {
                instance,
                dispatch,
                what,
            },
        );
    }

    fn ends(&self, end: TryEnd) -> What {
        What::Ends {
            started_at: self.now,
            end,
            measured: Vec::new(),
        }
    }

    fn pokes_of(&self, instance: Instance) -> u32 {
        self.pokes.get(&instance).copied().unwrap_or(0)
    }

    fn time_of(&mut self, task: TaskIndex) -> Duration {
        let time = self.of.assumptions.time_of(task);
        match &mut self.rng {
            Some(rng) => {
                let spread = self.of.assumptions.spread.clamp(0.0, 1.0);
                time.mul_f64(1.0 + spread * (2.0 * rng.fraction() - 1.0))
            }
            None => time,
        }
    }

    fn fault_of(&self, (task, map_index): Instance) -> Option<Fault> {
        let hits = |which| match which {
            Which::First => self.first.get(&task) == Some(&map_index),
            Which::Every => true,
            Which::Index(index) => index == map_index,
        };
        let mut injections = self.scenario.injections.iter();
        injections
            .find(|injection| injection.task == task && hits(injection.which))
            .map(|injection| injection.fault)
    }

    fn answer(&self, task: TaskIndex, definition: &Task) -> Option<TryEnd> {
        let step = definition.work.human()?;
        let option = match self.scenario.choices.get(&task) {
            Some(Choice::Option(option)) => option.as_str(),
            _ => default_option(definition)?,
        };
        Some(step.end(definition, &[option.to_owned()]))
    }

    fn success(&self, task: TaskIndex, definition: &Task) -> TryEnd {
        let choice = self.scenario.choices.get(&task);
        match &definition.kind {
            TaskKind::Branch { labels } => TryEnd::Branch(match choice {
                Some(Choice::Tasks(tasks)) => tasks.clone(),
                Some(Choice::Label(label)) => labels.get(label).cloned().unwrap_or_default(),
                _ => labels.first().map(|(_, tasks)| tasks.clone()).unwrap_or_default(),
            }),
            TaskKind::ShortCircuit { .. } if choice == Some(&Choice::Falsy) => TryEnd::DoneFalsy,
            _ => TryEnd::Done,
        }
    }

    fn measured(&self, (task, map_index): Instance, definition: &Task) -> Vec<u32> {
        let assumed = &self.of.assumptions;
        let measures = definition.measures.iter().map(|measure| match measure.what {
            Measured::Length { limit } => assumed.length_of(task).min(limit),
            Measured::Present => 1,
            Measured::Truth { .. } => {
                let iteration = self.run.iteration(task, map_index).unwrap_or(0);
                u32::from(iteration.saturating_add(1) >= assumed.iterations)
            }
        });
        measures.collect()
    }

    fn outcome(self, hang: Option<Hang>) -> Outcome {
        let start = self.run.start_date().unwrap_or(self.now);
        let end = self.run.end_date().unwrap_or(self.now);
        let mut tis: Vec<TiOutcome> = self
            .run
            .tis()
            .map(|(task, map_index, ti)| TiOutcome {
                task,
                map_index,
                state: ti.state,
                cause: ti.cause,
                tries: ti.try_number.0,
                dispatches: ti.dispatch.0,
            })
            .collect();
        tis.sort_by_key(|ti| (ti.task, ti.map_index));
        Outcome {
            state: self.run.state(),
            hang,
            run_time: end.since(start),
            tis,
            critical_path: self.critical_path(start),
            waits: self.waits(),
            events: self.events,
        }
    }

    /// How long tasks waited for slots.
    fn waits(&self) -> Vec<(TaskIndex, Duration)> {
        if self.woken.is_none() {
            return Vec::new();
        }
        let mut longest: BTreeMap<TaskIndex, Duration> = BTreeMap::new();
        for (task, _, ti) in self.run.tis() {
            if let (Some(scheduled), Some(queued)) = (ti.scheduled_at, ti.queued_at) {
                let known = longest.entry(task).or_default();
                *known = queued.since(scheduled).max(*known);
            }
        }
        let mut waits: Vec<_> = longest.into_iter().filter(|(_, wait)| !wait.is_zero()).collect();
        waits.sort_by_key(|(task, wait)| (std::cmp::Reverse(*wait), *task));
        waits
    }

    /// From what ended last back to what let it run, and so on.
    fn critical_path(&self, start: Timestamp) -> Vec<Stretch> {
        let Some(woken) = &self.woken else { return Vec::new() };
        let end = |instance: Instance| self.run.ti(instance.0, instance.1).and_then(|ti| ti.end_date);
        let mut at = woken.keys().copied().max_by_key(|instance| (end(*instance), *instance));
        let mut path = Vec::new();
        while let Some(instance) = at
            && let Some(Woken { at: from, by }) = woken.get(&instance)
            && path.len() <= woken.len()
        {
            path.push(Stretch {
                task: instance.0,
                map_index: instance.1,
                from: from.since(start),
                to: end(instance).unwrap_or(self.now).since(start),
            });
            at = *by;
        }
        path.reverse();
        path
    }
}
