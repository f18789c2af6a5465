//! The latest runs of a DAG, and whether too many of them failed in a row.
//!
//! Airflow: `DagRun._check_last_n_dagruns_failed`: the latest runs by `run_after`, then by key, must all have failed; one that still
//! runs is none that failed. Airflow looks where a leaf has failed; here a run that timed out or is deadlocked counts as much. A
//! run that a person sets to `failed` is looked at only with the next failure, as in Airflow.

use std::collections::BTreeMap;

use crate::id::DagRunKey;
use crate::state::DagRunState;
use crate::time::Timestamp;

/// The latest runs of a DAG.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecentRuns {
    by_time: BTreeMap<(Timestamp, DagRunKey), DagRunState>,
}

impl RecentRuns {
    /// A run is new, or has changed. `most` are kept.
    pub fn note(&mut self, run_after: Timestamp, key: DagRunKey, state: DagRunState, most: u32) {
        self.by_time.insert((run_after, key), state);
        while self.by_time.len() > most as usize {
            self.by_time.pop_first();
        }
    }

    /// A run is deleted.
    pub fn remove(&mut self, run_after: Timestamp, key: DagRunKey) {
        self.by_time.remove(&(run_after, key));
    }

    /// Whether a run is known.
    pub fn knows(&self, run_after: Timestamp, key: DagRunKey) -> bool {
        self.by_time.contains_key(&(run_after, key))
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.by_time.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.by_time.is_empty()
    }

    /// Whether there are `most` runs and the latest `most` have all failed.
    pub fn have_failed(&self, most: u32) -> bool {
        let mut latest = self.by_time.values().rev().take(most as usize);
        most > 0 && self.by_time.len() >= most as usize && latest.all(|state| *state == DagRunState::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(states: &[(i64, DagRunState)], most: u32) -> RecentRuns {
        let mut runs = RecentRuns::default();
        for (key, (at, state)) in (0..).zip(states) {
            runs.note(Timestamp(*at), DagRunKey(key), *state, most);
        }
        runs
    }

    #[test]
    fn the_latest_runs_must_all_have_failed() {
        use DagRunState::{Failed, Running, Success};
        assert!(of(&[(1, Success), (2, Failed), (3, Failed)], 2).have_failed(2));
        assert!(!of(&[(2, Failed), (3, Failed)], 3).have_failed(3), "there are too few");
        assert!(!of(&[(1, Failed), (2, Failed), (3, Running)], 2).have_failed(2));
        assert!(!of(&[(1, Failed), (2, Success), (3, Failed)], 2).have_failed(2));
        // By time, not in the order in which they were made.
        assert!(of(&[(3, Failed), (1, Success), (2, Failed)], 2).have_failed(2));
        assert!(!of(&[(1, Failed)], 0).have_failed(0), "never");
        // A run that is cleared, succeeds, or goes, counts as what it is then.
        let mut runs = of(&[(1, Failed), (2, Failed)], 2);
        runs.note(Timestamp(2), DagRunKey(1), Running, 2);
        assert!(!runs.have_failed(2));
        runs.remove(Timestamp(2), DagRunKey(1));
        assert_eq!((runs.len(), runs.have_failed(1)), (1, true));
    }
}
