//! A step that lets only the latest run of a schedule go on.
//!
//! Airflow: `LatestOnlyOperator`. A run is the latest one from the start of its data interval until that of the next run ends, which is
//! when the run after it begins. One without a run after it is the latest, one whose data interval has no length counts as such,
//! and a run that somebody triggered goes on always. Where a run is not the latest, the direct downstream tasks are skipped, as a branch skips
//! what it does not choose; what follows those decides by its trigger rule.

use indexmap::IndexMap;

use crate::dag::TaskKind;
use crate::id::TaskIndex;
use crate::state::DagRunType;
use crate::time::Timestamp;

/// The step, as Airflow's API calls it.
pub const CLASS: &str = "LatestOnlyOperator";
/// What the step answers in the latest run.
pub const LATEST: &str = "latest";
/// What it answers in any other.
pub const OUTDATED: &str = "outdated";

/// What the step needs to know of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dates {
    /// How the run came to be.
    pub run_type: DagRunType,
    /// Its data interval; both ends are its logical date (or when it was due) where it has none.
    pub interval: (Timestamp, Timestamp),
    /// When the data interval of the run after it ends, by the schedule; nothing where no run comes after it.
    pub next_interval_end: Option<Timestamp>,
}

/// Whether the run is the latest one at this time.
pub fn is_latest(dates: Dates, now: Timestamp) -> bool {
    let (start, end) = dates.interval;
    match dates.next_interval_end {
        _ if dates.run_type == DagRunType::Manual || start == end => true,
        None => true,
        Some(next) => start < now && now <= next,
    }
}

/// What the step answers.
pub fn label(dates: Dates, now: Timestamp) -> &'static str {
    if is_latest(dates, now) { LATEST } else { OUTDATED }
}

/// The step as a branch: to all that directly follows it, or to nothing.
pub fn kind(downstream: &[TaskIndex]) -> TaskKind {
    let labels = [
        (LATEST.to_owned(), downstream.to_vec()),
        (OUTDATED.to_owned(), Vec::new()),
    ];
    TaskKind::Branch {
        labels: IndexMap::from(labels),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheduled_run_is_the_latest_until_the_next_one_is_due() {
        let at = |run_type, next: Option<i64>, now: i64| {
            let dates = Dates {
                run_type,
                interval: (Timestamp(10), Timestamp(20)),
                next_interval_end: next.map(Timestamp),
            };
            is_latest(dates, Timestamp(now))
        };
        let scheduled = DagRunType::Scheduled;
        assert!(at(scheduled, Some(30), 20));
        assert!(at(scheduled, Some(30), 30), "the next one is due, and not before");
        assert!(!at(scheduled, Some(30), 31));
        assert!(!at(DagRunType::Backfill, Some(30), 1_000));
        assert!(!at(scheduled, Some(30), 10), "before its own interval");
        assert!(at(scheduled, None, 1_000), "the schedule is over");
        assert!(at(DagRunType::Manual, Some(30), 1_000), "somebody wants it");
        let point = Dates {
            run_type: scheduled,
            interval: (Timestamp(10), Timestamp(10)),
            next_interval_end: Some(Timestamp(20)),
        };
        assert!(is_latest(point, Timestamp(1_000)));
        assert_eq!(label(point, Timestamp(0)), LATEST);
    }
}
