//! The tries of a task instance: the ended ones and the current one.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use model::{MapIndex, TaskInstanceState};
use ports::query::TiRow;
use serde::Serialize;
use utoipa::ToSchema;

use super::task_instances::{find, state};
use super::ti_list::overlay;
use super::under;
use crate::error::{ApiError, Code};
use crate::openapi::{Kind, Op, Routes};
use crate::request::{PathArgs, Query};
use crate::shape::{DagVersionResponse, Null, RawJson, Time, duration};
use crate::state::App;

pub(crate) fn add(routes: Routes) -> Routes {
    let op = |id, summary| Op::new("task_instance", id, summary);
    let map_index = &[("map_index", Kind::Int)];
    routes
        .get(
            under!(ti "/tries"),
            list,
            op("get_task_instance_tries", "The tries of a task instance")
                .query(map_index)
                .ok::<TaskInstanceHistoryCollectionResponse>(),
        )
        .get(
            under!(ti "/{map_index}/tries"),
            list,
            op(
                "get_mapped_task_instance_tries",
                "The tries of an instance of a mapped task",
            )
            .ok::<TaskInstanceHistoryCollectionResponse>(),
        )
        .get(
            under!(ti "/tries/{task_try_number}"),
            get,
            op("get_task_instance_try_details", "One try of a task instance")
                .query(map_index)
                .ok::<TaskInstanceHistoryResponse>(),
        )
        .get(
            under!(ti "/{map_index}/tries/{task_try_number}"),
            get,
            op(
                "get_mapped_task_instance_try_details",
                "One try of an instance of a mapped task",
            )
            .ok::<TaskInstanceHistoryResponse>(),
        )
}

#[derive(Serialize, ToSchema)]
struct TaskInstanceHistoryCollectionResponse {
    task_instances: Vec<TaskInstanceHistoryResponse>,
    total_entries: u64,
}

#[derive(Serialize, ToSchema)]
pub(super) struct TaskInstanceHistoryResponse {
    task_id: String,
    dag_id: String,
    dag_run_id: String,
    map_index: i32,
    start_date: Option<Time>,
    end_date: Option<Time>,
    duration: Option<f64>,
    state: Option<&'static str>,
    try_number: u32,
    /// Tries beyond the first, as Airflow counts.
    max_tries: u32,
    task_display_name: String,
    dag_display_name: String,
    hostname: Null,
    unixname: Null,
    pool: String,
    pool_slots: u32,
    queue: String,
    priority_weight: i32,
    operator: String,
    operator_name: String,
    queued_when: Option<Time>,
    scheduled_when: Option<Time>,
    pid: Null,
    executor: Null,
    executor_config: &'static str,
    dag_version: Option<DagVersionResponse>,
    /// Why the try ended.
    cause: Option<&'static str>,
    /// What the try said when it failed or skipped.
    cause_message: Option<String>,
    /// The code that the task gave its failure.
    failure_code: Option<String>,
    /// The details that the task gave its failure.
    failure_details: Option<RawJson>,
    /// What its `map_index_template` calls it.
    rendered_map_index: Option<String>,
    /// What the task's `retry_policy` decided about the try.
    retry_reason: Option<String>,
    /// The memory limit of the try.
    memory_limit_bytes: u64,
}

impl TaskInstanceHistoryResponse {
    pub(super) async fn new(app: &App, row: TiRow) -> Result<Self, ApiError> {
        let dag_version = app.version(&row.dag_id, row.version_number, row.version_uuid).await?;
        Ok(Self {
            task_display_name: row.task_id.to_string(),
            task_id: row.task_id.to_string(),
            dag_display_name: row.dag_id.to_string(),
            dag_id: row.dag_id.to_string(),
            dag_run_id: row.run_id.to_string(),
            map_index: row.key.map_index.0,
            start_date: row.start_date.map(Time),
            end_date: row.end_date.map(Time),
            duration: duration(row.start_date, row.end_date),
            state: state(row.state),
            try_number: row.try_number.0,
            max_tries: row.max_tries.saturating_sub(1),
            hostname: Null,
            unixname: Null,
            pool: row.pool,
            pool_slots: row.pool_slots,
            queue: row.queue,
            priority_weight: row.priority_weight,
            operator: row.operator,
            operator_name: row.operator_name,
            queued_when: row.queued_at.map(Time),
            scheduled_when: row.scheduled_at.map(Time),
            pid: Null,
            executor: Null,
            executor_config: "{}",
            dag_version,
            cause: row.cause.map(model::Cause::as_str),
            cause_message: row.message,
            failure_code: row.code,
            failure_details: row.details.as_deref().map(RawJson::new).transpose()?,
            rendered_map_index: row.rendered_map_index,
            retry_reason: row.retry_reason,
            memory_limit_bytes: row.memory_limit_bytes,
        })
    }
}

/// The tries, each number once. A task instance that waits for its next try is in the history already, so the current
/// row adds nothing (Airflow does the same); otherwise the current row is the newer one.
async fn tries(app: &App, path: &PathArgs, query: &mut Query) -> Result<Vec<TiRow>, ApiError> {
    let index = query.map_index("map_index");
    query.finish()?;
    let map_index = path.map_index()?.or(index).unwrap_or(MapIndex::UNMAPPED);
    let current = find(app, path, map_index).await?;
    let mut rows = app.metadata.tries(current.key).await?;
    if let Some(last) = rows.last_mut() {
        overlay(app, std::slice::from_mut(last));
    }
    let mut tries: Vec<TiRow> = Vec::with_capacity(rows.len());
    for row in rows {
        match tries.last_mut() {
            Some(last) if last.try_number == row.try_number => {
                if row.state != TaskInstanceState::UpForRetry {
                    *last = row;
                }
            }
            _ => tries.push(row),
        }
    }
    Ok(tries)
}

async fn list(
    State(app): State<Arc<App>>,
    path: PathArgs,
    mut query: Query,
) -> Result<Json<TaskInstanceHistoryCollectionResponse>, ApiError> {
    let mut task_instances = Vec::new();
    for row in tries(&app, &path, &mut query).await? {
        task_instances.push(TaskInstanceHistoryResponse::new(&app, row).await?);
    }
    Ok(Json(TaskInstanceHistoryCollectionResponse {
        total_entries: task_instances.len() as u64,
        task_instances,
    }))
}

async fn get(
    State(app): State<Arc<App>>,
    path: PathArgs,
    mut query: Query,
) -> Result<Json<TaskInstanceHistoryResponse>, ApiError> {
    let row = one_try(&app, &path, &mut query, "task_try_number").await?;
    Ok(Json(TaskInstanceHistoryResponse::new(&app, row).await?))
}

/// The try that the path names, or 404.
pub(super) async fn one_try(app: &App, path: &PathArgs, query: &mut Query, name: &str) -> Result<TiRow, ApiError> {
    let number = path.try_number(name)?;
    let rows = tries(app, path, query).await?;
    let row = rows.into_iter().find(|row| row.try_number == number);
    row.ok_or_else(|| {
        ApiError::new(
            Code::TryNotFound,
            format!("task instance `{}` has no try {}", path.text("task_id"), number.0),
        )
    })
}
