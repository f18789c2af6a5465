//! How long to wait before the next try.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::dag::RetryPolicy;
use crate::id::{DagId, DagRunKey, MapIndex, TaskId, TryNumber};

/// The longest wait of an exponential backoff (Airflow: `MAX_RETRY_DELAY`, one day).
const MAX_RETRY_DELAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The wait after the try `ended` failed.
///
/// Airflow: `TaskInstance.next_retry_datetime`. A fixed delay is taken as it is. An exponential one is the delay doubled with
/// each try, in whole seconds and at least one, plus a jitter of up to as much again; then capped by one day and by `max_delay`, but never
/// shorter than the delay itself (in Airflow the caps win). The
/// jitter comes from a hash of the ids, so it is the same whenever it is computed (Airflow hashes with SHA-1 over the logical
/// date; here it is SHA-256 over the run).
pub fn retry_delay(
    policy: &RetryPolicy,
    dag: &DagId,
    task: &TaskId,
    run: DagRunKey,
    map_index: MapIndex,
    ended: TryNumber,
) -> Duration {
    if !policy.exponential_backoff {
        return policy.delay;
    }
    let doublings = ended.0.saturating_sub(1);
    let micros = policy
        .delay
        .as_micros()
        .max(1)
        .checked_shl(doublings)
        .filter(|micros| micros >> doublings != 0);
    let ceiling = MAX_RETRY_DELAY.as_secs();
    let seconds = micros
        .and_then(|micros| u64::try_from(micros.div_ceil(1_000_000)).ok())
        .unwrap_or(ceiling)
        .clamp(1, ceiling);
    let hash = Sha256::digest(format!("{dag}#{task}#{run}#{}#{}", map_index.0, ended.0));
    let hash = hash
        .iter()
        .take(8)
        .fold(0_u64, |hash, byte| hash << 8 | u64::from(*byte));
    let delay = Duration::from_secs(seconds + hash % seconds).min(MAX_RETRY_DELAY);
    policy.max_delay.map_or(delay, |max| delay.min(max)).max(policy.delay)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delay(policy: &RetryPolicy, run: i64, ended: u32) -> Duration {
        retry_delay(
            policy,
            &DagId::new("d").unwrap(),
            &TaskId::new("t").unwrap(),
            DagRunKey(run),
            MapIndex::UNMAPPED,
            TryNumber(ended),
        )
    }

    #[test]
    fn a_fixed_delay_is_taken_as_it_is() {
        let policy = RetryPolicy {
            retries: 3,
            delay: Duration::from_millis(1500),
            exponential_backoff: false,
            max_delay: Some(Duration::from_secs(1)),
            rules: Vec::new(),
        };
        assert_eq!(delay(&policy, 1, 1), Duration::from_millis(1500));
        assert_eq!(delay(&policy, 1, 9), Duration::from_millis(1500));
    }

    #[test]
    fn an_exponential_delay_doubles_with_jitter_up_to_the_cap() {
        let policy = RetryPolicy {
            retries: 3,
            delay: Duration::from_millis(2500),
            exponential_backoff: true,
            max_delay: None,
            rules: Vec::new(),
        };
        for run in 0..50 {
            for (ended, seconds) in [(1, 3), (2, 5), (3, 10), (4, 20)] {
                let delay = delay(&policy, run, ended).as_secs();
                assert!((seconds..2 * seconds).contains(&delay), "{ended}: {delay}");
            }
        }
        assert!(
            (0..50).any(|run| delay(&policy, run, 3) != delay(&policy, 50, 3)),
            "there is jitter"
        );
        assert_eq!(delay(&policy, 1, 3), delay(&policy, 1, 3), "and it is deterministic");
        assert_eq!(delay(&policy, 1, u32::MAX), MAX_RETRY_DELAY);
        let capped = RetryPolicy {
            max_delay: Some(Duration::from_secs(7)),
            ..policy
        };
        assert_eq!(delay(&capped, 1, 4), Duration::from_secs(7));
    }

    #[test]
    fn an_exponential_delay_is_never_shorter_than_the_delay_itself() {
        let day = 24 * 60 * 60;
        for (seconds, max) in [(2 * day, None), (300, Some(60)), (day - 1, None)] {
            let policy = RetryPolicy {
                retries: 3,
                delay: Duration::from_secs(seconds),
                exponential_backoff: true,
                max_delay: max.map(Duration::from_secs),
                rules: Vec::new(),
            };
            for ended in [1, 2, 40] {
                assert!(delay(&policy, 1, ended) >= policy.delay, "{seconds} s, try {ended}");
            }
        }
    }

    #[test]
    fn no_delay_becomes_a_second_when_it_is_exponential() {
        let policy = RetryPolicy {
            delay: Duration::ZERO,
            exponential_backoff: true,
            ..RetryPolicy::default()
        };
        assert_eq!(delay(&policy, 1, 1), Duration::from_secs(1));
    }
}
