//! One file a resource. Each adds its routes, with their description, to the whole.

mod blobs;
mod bulk_task_instances;
mod callbacks;
mod clear;
mod components;
mod constants;
mod dag_runs;
mod dag_sources;
mod dag_stats;
mod dag_tags;
mod dag_versions;
mod dags;
mod dependencies;
mod deploy;
mod event_logs;
mod events;
mod hitl;
mod landing;
mod logs;
mod monitor;
mod pools;
mod router;
mod run_list;
mod set_state;
mod task_instances;
mod tasks;
mod ti_list;
mod token;
mod tries;
mod wait;
mod waits;
mod xcoms;

pub use events::EVENTS_OF;
pub use router::router;
#[cfg(test)]
pub(crate) use router::routes;

/// The paths that many routes begin with.
macro_rules! under {
    (dag $rest:literal) => {
        concat!("/api/v2/dags/{dag_id}", $rest)
    };
    (run $rest:literal) => {
        concat!("/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}", $rest)
    };
    (ti $rest:literal) => {
        concat!(
            "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}",
            $rest
        )
    };
}
use under;
