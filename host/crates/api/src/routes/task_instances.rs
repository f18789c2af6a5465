//! Task instances of runs.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use model::{Dag, MapIndex, TaskInstanceState};
use ports::query::{Listed, Page, RunRow, TiRow};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use super::ti_list::{FILTERS, TiSelection, overlay};
use super::{dag_runs, under};
use crate::error::{ApiError, Code};
use crate::openapi::{Kind, Op, PAGE, Routes};
use crate::page::Cursor;
use crate::request::{JsonObject, PathArgs, Query};
use crate::shape::{DagVersionResponse, Null, RawJson, Time, duration};
use crate::state::App;

pub(crate) fn add(routes: Routes) -> Routes {
    let op = |id, summary| Op::new("task_instance", id, summary);
    routes
        .get(
            under!(run "/taskInstances"),
            list,
            op(
                "get_task_instances",
                "The task instances of a run; `~` is all DAGs, all runs",
            )
            .query(PAGE)
            .query(FILTERS)
            .ok::<TaskInstanceCollectionResponse>(),
        )
        .post_word(
            under!(run "/taskInstances/list"),
            "task_id",
            list_batch,
            op(
                "get_task_instances_batch",
                "Task instances by a body of filters; DAG and run in the path are `~`",
            )
            .body::<TaskInstancesBatchBody>()
            .ok::<TaskInstanceCollectionResponse>(),
        )
        .get(
            under!(ti ""),
            get,
            op("get_task_instance", "One task instance").ok::<TaskInstanceResponse>(),
        )
        .get(
            under!(ti "/{map_index}"),
            get,
            op("get_mapped_task_instance", "One instance of a mapped task").ok::<TaskInstanceResponse>(),
        )
        .get(
            under!(ti "/listMapped"),
            list_mapped,
            op("get_mapped_task_instances", "The instances of a mapped task")
                .query(PAGE)
                .query(FILTERS)
                .ok::<TaskInstanceCollectionResponse>(),
        )
        .get(
            under!(ti "/progress"),
            progress,
            op("get_task_instance_progress", "How far a running task says that it is")
                .query(&[("map_index", Kind::Int)])
                .ok::<ProgressResponse>(),
        )
}

#[derive(Serialize, ToSchema)]
pub(super) struct TaskInstanceCollectionResponse {
    task_instances: Vec<TaskInstanceResponse>,
    total_entries: u64,
    next_cursor: Option<String>,
    previous_cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct TaskInstanceResponse {
    id: String,
    task_id: String,
    dag_id: String,
    dag_run_id: String,
    map_index: i32,
    logical_date: Option<Time>,
    run_after: Time,
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
    note: Option<String>,
    /// What its `map_index_template` calls it.
    rendered_map_index: Option<String>,
    #[schema(value_type = Value)]
    rendered_fields: Map<String, Value>,
    trigger: Null,
    triggerer_job: Null,
    dag_version: Option<DagVersionResponse>,
    /// Why the last try ended.
    cause: Option<&'static str>,
    /// What the last try said when it failed or skipped.
    cause_message: Option<String>,
    /// The code that the task gave its failure.
    failure_code: Option<String>,
    /// The details that the task gave its failure.
    failure_details: Option<RawJson>,
    /// The last dispatch: the fencing token.
    dispatch: u32,
    /// When an executor was last heard of that has the last dispatch.
    last_heartbeat_at: Option<Time>,
    /// When the next try or poke is due.
    next_at: Option<Time>,
    /// What the task's `retry_policy` decided about the last try.
    retry_reason: Option<String>,
    /// The memory limit of the last try.
    memory_limit_bytes: u64,
    /// The component's content; `null` for a built-in step.
    component_digest: Option<String>,
    usage: Option<UsageResponse>,
}

/// What the last try used.
#[derive(Serialize, ToSchema)]
struct UsageResponse {
    cpu_seconds: f64,
    peak_memory_bytes: u64,
    log_bytes: u64,
}

/// The id of a task instance is computed, not stored: one for each try, as in Airflow.
pub(super) fn id(row: &TiRow) -> Uuid {
    let name = format!("{}/{}/{}", row.task_id, row.key.map_index.0, row.try_number.0);
    Uuid::new_v5(&row.run_uuid.0, name.as_bytes())
}

pub(super) fn state(state: TaskInstanceState) -> Option<&'static str> {
    (state != TaskInstanceState::NoStatus).then(|| state.as_str())
}

impl TaskInstanceResponse {
    pub(super) async fn new(app: &App, row: TiRow) -> Result<Self, ApiError> {
        let dag_version = app.version(&row.dag_id, row.version_number, row.version_uuid).await?;
        Ok(Self {
            id: id(&row).to_string(),
            task_display_name: row.task_id.to_string(),
            task_id: row.task_id.to_string(),
            dag_display_name: row.dag_id.to_string(),
            dag_id: row.dag_id.to_string(),
            dag_run_id: row.run_id.to_string(),
            map_index: row.key.map_index.0,
            logical_date: row.logical_date.map(Time),
            run_after: Time(row.run_after),
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
            note: row.note.clone(),
            rendered_map_index: row.rendered_map_index,
            rendered_fields: Map::new(),
            trigger: Null,
            triggerer_job: Null,
            dag_version,
            cause: row.cause.map(model::Cause::as_str),
            cause_message: row.message,
            failure_code: row.code,
            failure_details: row.details.as_deref().map(RawJson::new).transpose()?,
            dispatch: row.dispatch.0,
            last_heartbeat_at: row.last_heartbeat_at.map(Time),
            next_at: row.next_at.map(Time),
            retry_reason: row.retry_reason,
            memory_limit_bytes: row.memory_limit_bytes,
            component_digest: row.component_digest.map(|digest| digest.to_string()),
            usage: row.usage.map(|usage| UsageResponse {
                cpu_seconds: usage.cpu.as_secs_f64(),
                peak_memory_bytes: usage.peak_memory_bytes,
                log_bytes: usage.log_bytes,
            }),
        })
    }
}

pub(super) async fn responses(app: &App, rows: Vec<TiRow>) -> Result<Vec<TaskInstanceResponse>, ApiError> {
    let mut responses = Vec::with_capacity(rows.len());
    for row in rows {
        responses.push(TaskInstanceResponse::new(app, row).await?);
    }
    Ok(responses)
}

async fn collection(
    app: &App,
    listed: Listed<TiRow>,
    page: Page,
) -> Result<Json<TaskInstanceCollectionResponse>, ApiError> {
    let (next_cursor, previous_cursor) = Cursor::around(page, listed.total);
    Ok(Json(TaskInstanceCollectionResponse {
        task_instances: responses(app, listed.items).await?,
        total_entries: listed.total,
        next_cursor,
        previous_cursor,
    }))
}

/// All rows as one answer.
pub(super) async fn whole(app: &App, rows: Vec<TiRow>) -> Result<TaskInstanceCollectionResponse, ApiError> {
    Ok(TaskInstanceCollectionResponse {
        total_entries: rows.len() as u64,
        task_instances: responses(app, rows).await?,
        next_cursor: None,
        previous_cursor: None,
    })
}

#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "describes the body in the OpenAPI document; the members are read one by one"
)]
struct TaskInstancesBatchBody {
    dag_ids: Option<Vec<String>>,
    dag_run_ids: Option<Vec<String>>,
    task_ids: Option<Vec<String>>,
    state: Option<Vec<Option<String>>>,
    pool: Option<Vec<String>>,
    queue: Option<Vec<String>>,
    executor: Option<Vec<String>>,
    page_offset: Option<u64>,
    page_limit: Option<u64>,
    order_by: Option<String>,
}

async fn list(
    State(app): State<Arc<App>>,
    path: PathArgs,
    mut query: Query,
) -> Result<Json<TaskInstanceCollectionResponse>, ApiError> {
    let (page, _) = query.page_or_cursor()?;
    let (dag_id, run_id) = (path.any_dag_id()?, path.any_run_id()?);
    let named = dag_id.is_some() && run_id.is_some();
    let selection = TiSelection::from_query(dag_id, run_id, None, &mut query)?;
    if named {
        dag_runs::find(&app, &path).await?;
    }
    collection(&app, selection.rows(&app, page).await?, page).await
}

async fn list_mapped(
    State(app): State<Arc<App>>,
    path: PathArgs,
    mut query: Query,
) -> Result<Json<TaskInstanceCollectionResponse>, ApiError> {
    let (page, _) = query.page_or_cursor()?;
    let row = dag_runs::find(&app, &path).await?;
    let task_id = path.task_id()?;
    let dag = dag_of(&app, &row).await?;
    let task = dag.index_of(task_id.as_str()).ok_or_else(|| {
        ApiError::new(
            Code::TaskNotFound,
            format!("DAG `{}` has no task `{task_id}`", row.dag_id),
        )
    })?;
    if !dag.is_repeated(task) {
        return Err(ApiError::new(
            Code::TaskNotMapped,
            format!("task `{task_id}` is not mapped: it has one instance in a run"),
        ));
    }
    let selection = TiSelection::from_query(
        Some(row.dag_id.clone()),
        Some(row.run_id.clone()),
        Some(task_id),
        &mut query,
    )?;
    collection(&app, selection.mapped().rows(&app, page).await?, page).await
}

/// The DAG as the run knows it.
pub(super) async fn dag_of(app: &App, run: &RunRow) -> Result<Arc<Dag>, ApiError> {
    let version = app.metadata.dag_version(&run.dag_id, run.version_number).await?;
    let version = version.ok_or_else(|| {
        ApiError::new(
            Code::DagVersionNotFound,
            format!("DAG `{}` has no version {}", run.dag_id, run.version_number),
        )
    })?;
    Ok(version.dag)
}

async fn list_batch(
    State(app): State<Arc<App>>,
    path: PathArgs,
    body: JsonObject,
) -> Result<Json<TaskInstanceCollectionResponse>, ApiError> {
    path.literal("task_id", "list")?;
    path.literal("dag_id", "~")?;
    path.literal("dag_run_id", "~")?;
    let (selection, page) = TiSelection::from_body(body)?;
    collection(&app, selection.rows(&app, page).await?, page).await
}

/// The task instance with what memory knows of it, or 404.
pub(super) async fn find(app: &App, path: &PathArgs, map_index: MapIndex) -> Result<TiRow, ApiError> {
    let (dag_id, run_id, task_id) = (path.dag_id()?, path.run_id()?, path.task_id()?);
    let Some(mut row) = app
        .metadata
        .task_instance(&dag_id, &run_id, &task_id, map_index)
        .await?
    else {
        // The error of an unknown DAG or run says so.
        let run = dag_runs::find(app, path).await?;
        let is_repeated = map_index == MapIndex::UNMAPPED && {
            let dag = dag_of(app, &run).await?;
            dag.index_of(task_id.as_str()).is_some_and(|task| dag.is_repeated(task))
        };
        let why = if is_repeated {
            format!("task `{task_id}` is mapped: add a map index to the path; `listMapped` lists its instances")
        } else {
            format!(
                "run `{run_id}` of DAG `{dag_id}` has no task instance `{task_id}` with map index {}",
                map_index.0
            )
        };
        return Err(ApiError::new(Code::TaskInstanceNotFound, why));
    };
    overlay(app, std::slice::from_mut(&mut row));
    Ok(row)
}

async fn get(State(app): State<Arc<App>>, path: PathArgs) -> Result<Json<TaskInstanceResponse>, ApiError> {
    let map_index = path.map_index()?.unwrap_or(MapIndex::UNMAPPED);
    let row = find(&app, &path, map_index).await?;
    Ok(Json(TaskInstanceResponse::new(&app, row).await?))
}

#[derive(Serialize, ToSchema)]
struct ProgressResponse {
    /// From 0 to 1.
    fraction: Option<f64>,
    /// For people.
    note: Option<String>,
}

async fn progress(
    State(app): State<Arc<App>>,
    path: PathArgs,
    mut query: Query,
) -> Result<Json<ProgressResponse>, ApiError> {
    let map_index = query.map_index("map_index").unwrap_or(MapIndex::UNMAPPED);
    query.finish()?;
    let row = find(&app, &path, map_index).await?;
    let all = app.control.progress(&row.dag_id, &row.run_id);
    let found = all
        .into_iter()
        .find(|(task, index, ..)| *task == row.task_id && *index == map_index);
    Ok(Json(match found {
        Some((_, _, fraction, note)) => ProgressResponse {
            fraction,
            note: Some(note),
        },
        None => ProgressResponse {
            fraction: None,
            note: None,
        },
    }))
}
