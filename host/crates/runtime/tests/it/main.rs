//! The runtime from outside: real components, the real compiler child, the real executor; stores in memory.

mod answer;
mod between;
mod blob;
mod callback;
mod cause;
mod checkpoint;
mod compile;
mod context;
mod executor;
mod held;
mod hostile;
mod latency;
mod log;
mod support;
mod wat;
mod when;
mod xcom;

/// A guest of these suites without a test of its name does not compile.
mod every_guest_has_a_test {
    macro_rules! assert_test_exists {
        ($name:ident) => {
            #[expect(unused_imports, reason = "only the existence matters")]
            use super::suites::$name as _;
        };
    }
    test_artifacts::foreach_answer!(assert_test_exists);
    test_artifacts::foreach_blob!(assert_test_exists);
    test_artifacts::foreach_cause!(assert_test_exists);
    test_artifacts::foreach_checkpoint!(assert_test_exists);
    test_artifacts::foreach_context!(assert_test_exists);
    test_artifacts::foreach_log!(assert_test_exists);
    test_artifacts::foreach_xcom!(assert_test_exists);
}

mod suites {
    pub(crate) use super::answer::answer_kinds;
    pub(crate) use super::blob::blob_access;
    pub(crate) use super::cause::{cause_limit, cause_trap};
    pub(crate) use super::checkpoint::checkpoint_access;
    pub(crate) use super::context::context_fields;
    pub(crate) use super::log::log_lines;
    pub(crate) use super::xcom::{xcom_limits, xcom_round_trip};
}
