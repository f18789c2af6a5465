//! Sensors: tasks that answer "not yet" and are poked again. Between two pokes they hold no slot and no memory.
//!
//! Airflow: `BaseSensorOperator` in the mode `reschedule`, which is the only one here.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::id::{DagId, DagRunKey, MapIndex, TaskId, TryNumber};

/// No task is poked more often than this, whatever it answers: each poke costs a commit.
pub const MIN_POKE_INTERVAL: Duration = Duration::from_secs(1);

/// How long a sensor waits where it says nothing else (Airflow: `[sensors] default_timeout`, a week).
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How a sensor is poked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sensor {
    /// The wait between two pokes; without one, the wait that the task asks for.
    pub poke_interval: Option<Duration>,
    /// How long it may wait, from its first poke to the end of the last, over all tries. Not the wall time of one poke.
    pub timeout: Duration,
    /// Skip instead of failing when time runs out or a failure is fatal.
    pub soft_fail: bool,
    /// Wait longer from poke to poke.
    pub exponential_backoff: bool,
    /// The longest wait between two pokes of a backoff.
    pub max_wait: Option<Duration>,
}

impl Default for Sensor {
    fn default() -> Self {
        Self {
            poke_interval: None,
            timeout: DEFAULT_TIMEOUT,
            soft_fail: false,
            exponential_backoff: false,
            max_wait: None,
        }
    }
}

/// Which try is poked; what the jitter of its backoff is made from.
#[derive(Clone, Copy, Debug)]
pub struct Poked<'a> {
    /// Its DAG.
    pub dag: &'a DagId,
    /// Its task.
    pub task: &'a TaskId,
    /// Its run.
    pub run: DagRunKey,
    /// Its map index.
    pub map_index: MapIndex,
    /// The try.
    pub try_number: TryNumber,
}

impl Sensor {
    /// The wait before the next poke. `elapsed` is the time since the first one, `asked` what the task answered.
    ///
    /// Airflow: `_get_next_poke_interval`: how many pokes there were is estimated from the time that has passed, each wait is twice
    /// the one before plus a jitter of up to as much again, and none goes far beyond the sensor's timeout. (Airflow hashes with
    /// SHA-1 over the start; here it is SHA-256 over the ids.)
    pub fn next_interval(&self, poked: Poked<'_>, elapsed: Duration, asked: Duration) -> Duration {
        let base = self.poke_interval.unwrap_or(asked).max(MIN_POKE_INTERVAL);
        if !self.exponential_backoff {
            return base;
        }
        let (mut waited, mut pokes) = (0, 0);
        let mut interval = 0;
        while waited <= elapsed.as_secs() {
            pokes += 1;
            interval = poked.backoff(base, pokes);
            waited = waited.saturating_add(interval);
        }
        let left = self.timeout.as_secs().saturating_sub(elapsed.as_secs());
        let interval = Duration::from_secs(interval.min(left));
        self.max_wait
            .map_or(interval, |max| interval.min(max))
            .max(MIN_POKE_INTERVAL)
    }
}

impl Poked<'_> {
    /// The wait after so many pokes, in seconds: at least one, so that a sum of them ends.
    fn backoff(&self, base: Duration, pokes: u32) -> u64 {
        let millis = base.as_millis();
        let doubled = match pokes {
            0 | 1 => millis / 2,
            more => millis.saturating_mul(1_u128.checked_shl(more - 2).unwrap_or(u128::MAX)),
        };
        let shortest = u64::try_from(doubled / 1000)
            .unwrap_or(u64::MAX / 4)
            .clamp(1, u64::MAX / 4);
        let Self {
            dag,
            task,
            run,
            map_index,
            try_number,
        } = self;
        let hash = Sha256::digest(format!("{dag}#{task}#{run}#{}#{}#{pokes}", map_index.0, try_number.0));
        let hash = hash
            .iter()
            .take(8)
            .fold(0_u64, |hash, byte| hash << 8 | u64::from(*byte));
        shortest + hash % shortest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(sensor: &Sensor, elapsed: u64, asked: u64) -> Duration {
        let poked = Poked {
            dag: &DagId::new("d").unwrap(),
            task: &TaskId::new("t").unwrap(),
            run: DagRunKey(1),
            map_index: MapIndex::UNMAPPED,
            try_number: TryNumber(1),
        };
        sensor.next_interval(poked, Duration::from_secs(elapsed), Duration::from_secs(asked))
    }

    #[test]
    fn the_interval_is_the_sensors_own_else_what_the_task_asks_for_and_never_nothing() {
        let own = Sensor {
            poke_interval: Some(Duration::from_secs(30)),
            ..Sensor::default()
        };
        assert_eq!(next(&own, 0, 5), Duration::from_secs(30));
        assert_eq!(next(&Sensor::default(), 0, 5), Duration::from_secs(5));
        assert_eq!(next(&Sensor::default(), 0, 0), MIN_POKE_INTERVAL);
    }

    #[test]
    fn a_backoff_grows_with_the_time_that_has_passed_up_to_its_bounds() {
        let backoff = Sensor {
            poke_interval: Some(Duration::from_secs(10)),
            exponential_backoff: true,
            ..Sensor::default()
        };
        // Airflow's series starts at half the interval.
        let first = next(&backoff, 0, 0).as_secs();
        assert!((5..10).contains(&first), "{first}");
        let mut elapsed = 0;
        let mut waits = Vec::new();
        for _ in 0..10 {
            let wait = next(&backoff, elapsed, 0).as_secs();
            elapsed += wait;
            waits.push(wait);
        }
        assert!(waits[9] > 8 * waits[2], "{waits:?}");
        assert_eq!(
            next(&backoff, 1_000, 0),
            next(&backoff, 1_000, 0),
            "it is deterministic"
        );
        let bounded = Sensor {
            max_wait: Some(Duration::from_secs(60)),
            ..backoff
        };
        assert_eq!(next(&bounded, 100_000, 0), Duration::from_secs(60));
        let short = Sensor {
            timeout: Duration::from_secs(1_010),
            ..backoff
        };
        assert_eq!(
            next(&short, 1_000, 0),
            Duration::from_secs(10),
            "the last poke is at the timeout"
        );
        assert_eq!(next(&short, 5_000, 0), MIN_POKE_INTERVAL);
        // However long it takes, the estimate ends.
        assert!(next(&backoff, u64::MAX / 2, 0) >= MIN_POKE_INTERVAL);
    }
}
