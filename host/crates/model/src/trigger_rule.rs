//! Trigger rules: when a task may run, given how its upstream tasks ended (Airflow: `ti_deps/deps/trigger_rule_dep.py`).

use crate::state::text_enum;

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
