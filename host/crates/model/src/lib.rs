//! The pure domain of Airtight: ids, states, DAGs, manifests, templates, schemas and the run state machine.
//!
//! Nothing here does IO, reads a clock or is async. Time is passed in. Everything that decides lives here, so that the
//! server, `airtight dags test` and simulation decide alike.

pub mod between;
pub mod budget;
pub mod callback;
pub mod capacity;
pub mod cause;
pub mod dag;
pub mod graph;
pub mod hidden;
pub mod human;
pub mod id;
pub mod json;
pub mod latest_only;
pub mod limits;
pub mod manifest;
pub mod params;
pub mod past;
pub mod recent_runs;
pub mod retry_rule;
pub mod run;
pub mod schema;
pub mod sensor;
pub mod simulate;
pub mod state;
pub mod template;
pub mod time;
pub mod trigger_rule;
pub mod weight;
pub mod work;

pub use cause::Cause;
pub use dag::Dag;
pub use id::{
    ComponentName, ComponentVersion, DagId, DagRunKey, Digest, DispatchNumber, MapIndex, RunId, RunUuid, TaskId,
    TaskIndex, TiKey, TryNumber,
};
pub use json::BlobRef;
pub use limits::{Limits, OnLogLimit};
pub use state::{DagRunState, DagRunType, TaskInstanceState};
pub use time::{Clock, Timestamp};
pub use trigger_rule::TriggerRule;
pub use weight::WeightRule;
pub use work::Work;
