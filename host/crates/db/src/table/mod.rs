//! One module a table: its statements, its rows, and how they become the types that other crates know.

pub(crate) mod audit_log;
pub(crate) mod callback;
pub(crate) mod checkpoint;
pub(crate) mod component;
pub(crate) mod component_tag;
pub(crate) mod dag;
pub(crate) mod dag_run;
pub(crate) mod dag_version;
pub(crate) mod hitl_detail;
pub(crate) mod inbox;
pub(crate) mod intent;
pub(crate) mod purge;
pub(crate) mod scheduler_lease;
pub(crate) mod slot_pool;
pub(crate) mod task_instance;
pub(crate) mod task_instance_heartbeat;
pub(crate) mod task_instance_note;
pub(crate) mod uploaded_blob;
pub(crate) mod xcom;
