//! Health and version: the two routes of `/api/v2` that need no token.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::openapi::{Op, Routes};
use crate::shape::{Null, Time};
use crate::state::{App, Descriptors};

pub(crate) fn add(routes: Routes) -> Routes {
    routes
        .get(
            "/api/v2/monitor/health",
            health,
            Op::new("monitor", "get_health", "How the parts of the server are")
                .public()
                .ok::<HealthInfoResponse>(),
        )
        .get(
            "/api/v2/version",
            version,
            Op::new("version", "get_version", "The version of the server")
                .public()
                .ok::<VersionInfo>(),
        )
}

#[derive(Serialize, ToSchema)]
struct HealthInfoResponse {
    metadatabase: ComponentHealth,
    scheduler: SchedulerInfoResponse,
    triggerer: TriggererInfoResponse,
    dag_processor: Null,
    descriptors: DescriptorsInfoResponse,
    storage: StorageHealth,
}

#[derive(Serialize, ToSchema)]
struct StorageHealth {
    /// `unhealthy` while the disk is nearly full: tasks and uploads cannot write then.
    status: &'static str,
    /// Free bytes of the disk of blobs and logs; null where nobody knows.
    free_bytes: Option<u64>,
    /// The part of them that is kept for the server itself.
    reserved_bytes: u64,
}

/// File descriptors of the server's process: each connection and each file that is open costs one.
#[derive(Serialize, ToSchema)]
struct DescriptorsInfoResponse {
    /// `unhealthy` when the server is about to run out of them.
    status: &'static str,
    /// The number of open ones; null where it cannot be told, as when there is none left.
    open: Option<u64>,
    /// The most that there may be.
    limit: Option<u64>,
    /// The problem, in words.
    problem: Option<String>,
}

impl From<Descriptors> for DescriptorsInfoResponse {
    fn from(descriptors: Descriptors) -> Self {
        let problem = descriptors.is_short().then(|| {
            let open = descriptors.open.map_or("all".to_owned(), |open| open.to_string());
            let limit = descriptors
                .limit
                .map_or("unknown".to_owned(), |limit| limit.to_string());
            format!(
                "{open} file descriptors are open and the limit is {limit}: start the server with a larger `ulimit -n`"
            )
        });
        Self {
            status: status(problem.is_none()),
            open: descriptors.open,
            limit: descriptors.limit,
            problem,
        }
    }
}

#[derive(Serialize, ToSchema)]
struct ComponentHealth {
    /// `healthy` or `unhealthy`.
    status: &'static str,
}

#[derive(Serialize, ToSchema)]
struct SchedulerInfoResponse {
    status: &'static str,
    latest_scheduler_heartbeat: Time,
    /// What is wrong.
    problem: Option<String>,
    /// Runs in memory.
    active_runs: usize,
    /// How many runs were set aside because their data cannot be committed.
    set_aside_runs: usize,
}

#[derive(Serialize, ToSchema)]
struct TriggererInfoResponse {
    status: Null,
    latest_triggerer_heartbeat: Null,
}

fn status(healthy: bool) -> &'static str {
    if healthy { "healthy" } else { "unhealthy" }
}

/// Answers 200 whatever it finds, as Airflow does: that the server answers is one thing, how its parts are another.
async fn health(State(app): State<Arc<App>>) -> Json<HealthInfoResponse> {
    let database = app.metadata.ping().await;
    let scheduler = app.control.health();
    let room = app.space.room();
    Json(HealthInfoResponse {
        metadatabase: ComponentHealth {
            status: status(database.is_ok()),
        },
        scheduler: SchedulerInfoResponse {
            status: status(scheduler.healthy),
            latest_scheduler_heartbeat: Time(scheduler.latest_heartbeat),
            problem: scheduler.problem,
            active_runs: scheduler.active_runs,
            set_aside_runs: scheduler.set_aside_runs.len(),
        },
        triggerer: TriggererInfoResponse {
            status: Null,
            latest_triggerer_heartbeat: Null,
        },
        dag_processor: Null,
        descriptors: (app.descriptors)().into(),
        storage: StorageHealth {
            status: status(room.check().is_ok()),
            free_bytes: room.free,
            reserved_bytes: room.floor,
        },
    })
}

#[derive(Serialize, ToSchema)]
struct VersionInfo {
    version: &'static str,
    git_version: Null,
    /// The release of Airflow whose REST API this one follows.
    airflow_api: &'static str,
}

async fn version() -> Json<VersionInfo> {
    Json(VersionInfo {
        version: env!("CARGO_PKG_VERSION"),
        git_version: Null,
        airflow_api: "3.3.2",
    })
}
