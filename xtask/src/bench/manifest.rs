//! The DAGs that are measured.

use std::fmt::Write as _;

/// `count` no-op tasks one after the other.
pub(crate) fn chain(count: usize) -> String {
    let mut text = format!("dag: bench_chain_{count}\ntasks:\n");
    for index in 0..count {
        let after = index
            .checked_sub(1)
            .map_or_else(String::new, |before| format!(", after: [t{before}]"));
        let _ = writeln!(text, "  t{index}: {{component: bench@1, task: noop{after}}}");
    }
    text
}

/// One no-op task, then `count` no-op tasks side by side.
pub(crate) fn fan_out(count: usize) -> String {
    let mut text = format!(
        "dag: bench_fan_out_{count}\nmax_active_tasks: 100000\ntasks:\n  s: {{component: bench@1, task: noop}}\n"
    );
    for index in 0..count {
        let _ = writeln!(text, "  t{index}: {{component: bench@1, task: noop, after: [s]}}");
    }
    text
}

/// One task that lists `count` elements, and a task of the bench component mapped over them.
pub(crate) fn mapped(task: &str, count: usize) -> String {
    format!(
        "dag: bench_mapped_{task}_{count}\nmax_active_tasks: 1000000\ntasks:\n  list: {{component: bench@1, task: list, input: {{count: \
         {count}}}}}\n  each: {{component: bench@1, task: {task}, expand: {{x: \"{{{{ xcom.list }}}}\"}}, map_limit: 100000}}\n"
    )
}

/// One no-op task.
pub(crate) fn one() -> String {
    "dag: bench_one\nmax_active_runs: 1000\ntasks:\n  t: {component: bench@1, task: noop}\n".to_owned()
}

/// 10 MB from one task to another.
pub(crate) fn blob() -> String {
    "dag: bench_blob\ntasks:\n  make: {component: bench@1, task: blob_make, input: {size: 10000000}}\n  read: {component: \
     bench@1, task: blob_read, input: {blob: \"{{ xcom.make }}\"}}\n"
        .to_owned()
}
