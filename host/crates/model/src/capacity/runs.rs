//! Which queued runs may start.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

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
