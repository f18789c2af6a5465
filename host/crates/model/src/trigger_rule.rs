//! Trigger rules: when a task may run, given how its upstream tasks ended (Airflow: `ti_deps/deps/trigger_rule_dep.py`).

use crate::state::{TaskInstanceState, text_enum};

text_enum! {
    /// When a task may run.
    TriggerRule {
        /// All upstream tasks succeeded.
        AllSuccess = "all_success",
        /// All upstream tasks failed.
        AllFailed = "all_failed",
        /// All upstream tasks ended.
        AllDone = "all_done",
        /// All upstream tasks ended and at least one succeeded.
        AllDoneMinOneSuccess = "all_done_min_one_success",
        /// All upstream tasks were skipped.
        AllSkipped = "all_skipped",
        /// At least one upstream task failed; does not wait for the others.
        OneFailed = "one_failed",
        /// At least one upstream task succeeded; does not wait for the others.
        OneSuccess = "one_success",
        /// At least one upstream task succeeded or failed; does not wait for the others.
        OneDone = "one_done",
        /// All upstream tasks ended and none failed.
        NoneFailed = "none_failed",
        /// All upstream tasks ended, none failed and at least one succeeded.
        NoneFailedMinOneSuccess = "none_failed_min_one_success",
        /// All upstream tasks ended and none was skipped.
        NoneSkipped = "none_skipped",
        /// Whatever the upstream tasks do.
        Always = "always",
        /// All upstream tasks ended and the setups among them succeeded: the rule of teardowns.
        AllDoneSetupSuccess = "all_done_setup_success",
    }
}

/// How upstream task instances ended, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Upstream {
    /// How many there are.
    pub total: u32,
    /// How many succeeded.
    pub success: u32,
    /// How many failed.
    pub failed: u32,
    /// How many could not run because of a failure further up.
    pub upstream_failed: u32,
    /// How many were skipped.
    pub skipped: u32,
    /// How many are no longer in the DAG.
    pub removed: u32,
}

impl Upstream {
    /// How many have ended.
    pub fn done(&self) -> u32 {
        self.success + self.failed + self.upstream_failed + self.skipped + self.removed
    }

    /// The counter of an end state.
    pub fn counter(&mut self, state: TaskInstanceState) -> Option<&mut u32> {
        match state {
            TaskInstanceState::Success => Some(&mut self.success),
            TaskInstanceState::Failed => Some(&mut self.failed),
            TaskInstanceState::UpstreamFailed => Some(&mut self.upstream_failed),
            TaskInstanceState::Skipped => Some(&mut self.skipped),
            TaskInstanceState::Removed => Some(&mut self.removed),
            _ => None,
        }
    }
}

/// What a rule says, given what is known by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may run.
    Run,
    /// Too little is known.
    Wait,
    /// It is skipped.
    Skip,
    /// It cannot run because of a failure.
    UpstreamFailed,
}

impl TriggerRule {
    /// What the rule says about a task with at least one upstream task. `setups` are the setups among the direct upstream tasks,
    /// for a teardown (the rule `all_done_setup_success`); the other rules do not look at them.
    ///
    /// Airflow: `TriggerRuleDep._evaluate_direct_relatives`. Several rules decide before all upstream tasks have ended.
    pub fn decide(self, upstream: &Upstream, setups: &Upstream) -> Decision {
        use Decision::{Run, Skip, UpstreamFailed, Wait};
        let Upstream {
            total,
            success,
            failed,
            upstream_failed,
            skipped,
            removed: _,
        } = *upstream;
        let failures = failed + upstream_failed;
        let done = upstream.done() >= total;
        match self {
            Self::AllSuccess if failures > 0 => UpstreamFailed,
            Self::AllSuccess if skipped > 0 => Skip,
            Self::AllSuccess if success >= total => Run,

            Self::AllFailed if success + skipped > 0 => Skip,
            Self::AllFailed if failures >= total => Run,

            Self::AllDone if done => Run,

            // A skipped upstream task does not count as done here, and decides at once.
            Self::AllDoneMinOneSuccess if skipped > 0 => Skip,
            Self::AllDoneMinOneSuccess if done && success == 0 => UpstreamFailed,
            Self::AllDoneMinOneSuccess if done => Run,

            Self::AllSkipped if success + failures > 0 => Skip,
            Self::AllSkipped if skipped >= total => Run,

            Self::OneFailed if failures > 0 => Run,
            Self::OneFailed if done => Skip,

            Self::OneSuccess if success > 0 => Run,
            Self::OneSuccess if done && upstream.done() == skipped => Skip,
            Self::OneSuccess if done => UpstreamFailed,

            // `upstream_failed` was not done by anybody.
            Self::OneDone if success + failed > 0 => Run,
            Self::OneDone if done => Skip,

            Self::NoneFailed | Self::NoneFailedMinOneSuccess if failures > 0 => UpstreamFailed,
            Self::NoneFailedMinOneSuccess if skipped >= total => Skip,
            Self::NoneFailed | Self::NoneFailedMinOneSuccess if success + skipped >= total => Run,

            Self::NoneSkipped if skipped > 0 => Skip,
            Self::NoneSkipped if done => Run,

            Self::Always => Run,

            // One setup that succeeded is enough: there is something to clean up.
            Self::AllDoneSetupSuccess if done && setups.total > 0 && setups.skipped >= setups.total => Skip,
            Self::AllDoneSetupSuccess if done && setups.total > 0 && setups.success == 0 => UpstreamFailed,
            Self::AllDoneSetupSuccess if done => Run,

            Self::AllSuccess
            | Self::AllFailed
            | Self::AllDone
            | Self::AllDoneMinOneSuccess
            | Self::AllSkipped
            | Self::OneFailed
            | Self::OneSuccess
            | Self::OneDone
            | Self::NoneFailed
            | Self::NoneFailedMinOneSuccess
            | Self::NoneSkipped
            | Self::AllDoneSetupSuccess => Wait,
        }
    }
}
