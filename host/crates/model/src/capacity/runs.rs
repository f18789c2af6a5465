//! Which queued runs may start.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;

use crate::id::{DagId, DagRunKey};
use crate::time::Timestamp;

/// Keeps runs queued until their DAG has a free slot for them.
///
/// Airflow: `SchedulerJobRunner._start_queued_dagruns`: by `run_after`, at most `max_active_runs` of a DAG running, none of a paused DAG.
#[derive(Clone, Debug, Default)]
pub struct RunGate {
    dags: BTreeMap<DagId, GateDag>,
    runs: HashMap<DagRunKey, (DagId, Timestamp)>,
    /// DAGs with something queued.
    queued: BTreeSet<DagId>,
}

#[derive(Clone, Debug)]
struct GateDag {
    max_active_runs: u32,
    paused: bool,
    running: HashSet<DagRunKey>,
    queued: BTreeSet<(Timestamp, DagRunKey)>,
}

impl Default for GateDag {
    fn default() -> Self {
        Self {
            max_active_runs: u32::MAX,
            paused: false,
            running: HashSet::new(),
            queued: BTreeSet::new(),
        }
    }
}

impl GateDag {
    fn open(&self) -> bool {
        !self.paused && self.running.len() < self.max_active_runs as usize
    }

    fn first_due(&self, now: Timestamp) -> Option<DagRunKey> {
        let first = self.queued.first().filter(|(run_after, _)| *run_after <= now);
        first.map(|(_, run)| *run)
    }
}

impl RunGate {
    /// An empty gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// The limits of a DAG.
    pub fn set_dag(&mut self, dag: &DagId, max_active_runs: u32, paused: bool) {
        let entry = self.dags.entry(dag.clone()).or_default();
        entry.max_active_runs = max_active_runs;
        entry.paused = paused;
    }

    /// Forgets a DAG that was deleted, with its runs.
    pub fn remove_dag(&mut self, dag: &DagId) {
        let Some(entry) = self.dags.remove(dag) else { return };
        for run in entry
            .running
            .into_iter()
            .chain(entry.queued.into_iter().map(|(_, run)| run))
        {
            self.runs.remove(&run);
        }
        self.queued.remove(dag);
    }

    /// The run is queued: a new one, or one that was cleared.
    pub fn queue(&mut self, run: DagRunKey, dag: &DagId, run_after: Timestamp) {
        self.remove(run);
        self.dags
            .entry(dag.clone())
            .or_default()
            .queued
            .insert((run_after, run));
        self.runs.insert(run, (dag.clone(), run_after));
        self.queued.insert(dag.clone());
    }

    /// The run is running: recovered, or started by [`Self::startable`].
    pub fn running(&mut self, run: DagRunKey, dag: &DagId, run_after: Timestamp) {
        self.remove(run);
        self.dags.entry(dag.clone()).or_default().running.insert(run);
        self.runs.insert(run, (dag.clone(), run_after));
    }

    /// The run has ended or is gone.
    pub fn remove(&mut self, run: DagRunKey) {
        let Some((dag, run_after)) = self.runs.remove(&run) else {
            return;
        };
        if let Some(entry) = self.dags.get_mut(&dag) {
            entry.running.remove(&run);
            entry.queued.remove(&(run_after, run));
            if entry.queued.is_empty() {
                self.queued.remove(&dag);
            }
        }
    }

    /// The runs that start now: give each `Event::Start`. They count as running from here on; where the tick is not committed,
    /// `queue` them again.
    pub fn startable(&mut self, now: Timestamp) -> Vec<DagRunKey> {
        let mut started = Vec::new();
        let mut emptied = Vec::new();
        for dag in &self.queued {
            let Some(entry) = self.dags.get_mut(dag) else { continue };
            while entry.open()
                && let Some((_, run)) = entry.queued.first().copied().filter(|(run_after, _)| *run_after <= now)
            {
                entry.queued.pop_first();
                entry.running.insert(run);
                started.push(run);
            }
            if entry.queued.is_empty() {
                emptied.push(dag.clone());
            }
        }
        for dag in emptied {
            self.queued.remove(&dag);
        }
        started
    }

    /// The DAGs of which something is due and finds no slot, since as many runs are running as may be.
    pub fn full(&self, now: Timestamp) -> impl Iterator<Item = &DagId> {
        self.queued.iter().filter(move |dag| {
            let entry = self.dags.get(*dag).filter(|entry| !entry.paused && !entry.open());
            entry.is_some_and(|entry| entry.first_due(now).is_some())
        })
    }

    /// The runs of a DAG that are due, in their turn.
    pub fn due_of(&self, dag: &DagId, now: Timestamp) -> impl Iterator<Item = DagRunKey> {
        let queued = self.dags.get(dag).into_iter().flat_map(|entry| &entry.queued);
        queued
            .take_while(move |(run_after, _)| *run_after <= now)
            .map(|(_, run)| *run)
    }

    /// Whether a run is queued and due.
    pub fn is_due(&self, run: DagRunKey, now: Timestamp) -> bool {
        let known = self.runs.get(&run).filter(|(_, run_after)| *run_after <= now);
        known.is_some_and(|(dag, run_after)| {
            let entry = self.dags.get(dag);
            entry.is_some_and(|entry| entry.queued.contains(&(*run_after, run)))
        })
    }

    /// Lets a run start out of turn, where its DAG has a slot: give it `Event::Start`. Answers whether it may.
    pub fn start(&mut self, run: DagRunKey, now: Timestamp) -> bool {
        let Some((dag, run_after)) = self.runs.get(&run).cloned().filter(|_| self.is_due(run, now)) else {
            return false;
        };
        let open = self.dags.get(&dag).is_some_and(GateDag::open);
        if open {
            self.running(run, &dag, run_after);
        }
        open
    }

    /// When the first run of a DAG without a free slot will be due.
    pub fn next_due_of(&self, dag: &DagId, now: Timestamp) -> Option<Timestamp> {
        let entry = self.dags.get(dag).filter(|entry| !entry.paused && !entry.open())?;
        let after = (now, DagRunKey(i64::MAX));
        let mut later = entry.queued.range((Bound::Excluded(after), Bound::Unbounded));
        later.next().map(|(run_after, _)| *run_after)
    }

    /// When `startable` will next have an answer for no other reason than time.
    pub fn next_timer(&self) -> Option<Timestamp> {
        self.queued
            .iter()
            .filter_map(|dag| self.dags.get(dag).filter(|entry| entry.open()))
            .filter_map(|entry| entry.queued.first().map(|(run_after, _)| *run_after))
            .min()
    }

    /// How many runs of a DAG are running.
    pub fn running_of(&self, dag: &DagId) -> usize {
        self.dags.get(dag).map_or(0, |entry| entry.running.len())
    }
}
