//! Dag runs: trigger, look at, change, delete.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use model::{DagRunState, RunId};
use ports::control::TriggerRequest;
use ports::query::{HiddenFailure, Listed, Page, RunFilter, RunRow};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::run_list::{FILTERS, RunSelection};
use super::{dags, under};
use crate::auth::User;
use crate::error::{ApiError, Code};
use crate::openapi::{Kind, Op, PAGE, Routes};
use crate::page::Cursor;
use crate::request::{JsonObject, PathArgs, Query};
use crate::shape::{DagVersionResponse, Null, RawJson, Time, duration};
use crate::state::App;

/// The longest note, in characters (Airflow's).
pub(super) const MAX_NOTE: usize = 1_000;

pub(crate) fn add(routes: Routes) -> Routes {
    let op = |id, summary| Op::new("dag_run", id, summary);
    routes
        .get(
            under!(dag "/dagRuns"),
            list,
            op("get_dag_runs", "The runs of a DAG; `~` is all DAGs")
                .query(PAGE)
                .query(FILTERS)
                .ok::<DagRunCollectionResponse>(),
        )
        .post(
            under!(dag "/dagRuns"),
            trigger,
            op("trigger_dag_run", "Start a run")
                .body::<TriggerBody>()
                .ok::<DagRunResponse>(),
        )
        .post_word(
            under!(dag "/dagRuns/list"),
            "dag_run_id",
            list_batch,
            op(
                "get_list_dag_runs_batch",
                "Runs by a body of filters; the DAG in the path is `~`",
            )
            .body::<DagRunsBatchBody>()
            .ok::<DagRunCollectionResponse>(),
        )
        .get(
            under!(run "/children"),
            children,
            op("get_dag_run_children", "The runs that the tasks of a run triggered")
                .query(PAGE)
                .ok::<DagRunCollectionResponse>(),
        )
        .get(under!(run ""), get, op("get_dag_run", "One run").ok::<DagRunResponse>())
        .patch(
            under!(run ""),
            patch,
            op("patch_dag_run", "Set the state or the note of a run")
                .query(&[("update_mask", Kind::Texts)])
                .body::<DagRunPatchBody>()
                .ok::<DagRunResponse>(),
        )
        .delete(
            under!(run ""),
            delete,
            op("delete_dag_run", "Remove a run and all that belongs to it").raw(204, ""),
        )
}

#[derive(Serialize, ToSchema)]
pub(super) struct DagRunCollectionResponse {
    dag_runs: Vec<DagRunResponse>,
    total_entries: u64,
    next_cursor: Option<String>,
    previous_cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct DagRunResponse {
    dag_run_id: String,
    dag_id: String,
    logical_date: Option<Time>,
    queued_at: Time,
    start_date: Option<Time>,
    end_date: Option<Time>,
    duration: Option<f64>,
    data_interval_start: Option<Time>,
    data_interval_end: Option<Time>,
    run_after: Time,
    last_scheduling_decision: Null,
    run_type: &'static str,
    state: &'static str,
    triggered_by: &'static str,
    triggering_user_name: Option<String>,
    conf: RawJson,
    note: Option<String>,
    dag_versions: Vec<DagVersionResponse>,
    bundle_version: Null,
    dag_display_name: String,
    partition_key: Null,
    partition_date: Null,
    /// The globally unique id of the run.
    id: String,
    /// The task instance of another run that triggered it.
    parent: Option<ParentResponse>,
    /// Why the run was set aside, if it was: its data cannot be committed.
    set_aside: Option<String>,
    /// Tasks that failed although the run is a success, without any task taking notice of it; with what hides that and what to change.
    #[schema(value_type = Vec<Value>)]
    hidden_failures: Vec<HiddenFailure>,
}

/// Who triggered a run. It may have been deleted since.
#[derive(Serialize, ToSchema)]
struct ParentResponse {
    dag_id: String,
    dag_run_id: String,
    task_id: String,
    map_index: i32,
    /// How many runs led to this one.
    depth: u32,
}

impl DagRunResponse {
    pub(super) async fn new(app: &App, row: &RunRow) -> Result<Self, ApiError> {
        let version = app.version(&row.dag_id, row.version_number, row.version_uuid).await?;
        Ok(Self {
            dag_run_id: row.run_id.to_string(),
            dag_id: row.dag_id.to_string(),
            logical_date: row.logical_date.map(Time),
            queued_at: Time(row.queued_at),
            start_date: row.start_date.map(Time),
            end_date: row.end_date.map(Time),
            duration: duration(row.start_date, row.end_date),
            data_interval_start: row.data_interval_start.map(Time),
            data_interval_end: row.data_interval_end.map(Time),
            run_after: Time(row.run_after),
            last_scheduling_decision: Null,
            run_type: row.run_type.as_str(),
            state: row.state.as_str(),
            triggered_by: match row.parent {
                Some(_) => "operator",
                None => dags::triggered_by(row.run_type),
            },
            triggering_user_name: row.triggering_user.clone(),
            conf: RawJson::new(&row.conf)?,
            note: row.note.clone(),
            dag_versions: version.into_iter().collect(),
            bundle_version: Null,
            dag_display_name: row.dag_id.to_string(),
            partition_key: Null,
            partition_date: Null,
            id: row.uuid.to_string(),
            parent: row.parent.as_deref().map(|parent| ParentResponse {
                dag_id: parent.dag_id.to_string(),
                dag_run_id: parent.run_id.to_string(),
                task_id: parent.task_id.to_string(),
                map_index: parent.map_index.0,
                depth: parent.depth,
            }),
            set_aside: row.set_aside.clone(),
            hidden_failures: row.hidden_failures.clone(),
        })
    }
}

#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "describes the body in the OpenAPI document; the members are read one by one"
)]
struct TriggerBody {
    dag_run_id: Option<String>,
    data_interval_start: Option<Time>,
    data_interval_end: Option<Time>,
    /// Must be there, and may be `null`.
    #[schema(required)]
    logical_date: Option<Time>,
    run_after: Option<Time>,
    #[schema(value_type = Option<Value>)]
    conf: Option<Value>,
    note: Option<String>,
    partition_key: Option<String>,
}

#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "describes the body in the OpenAPI document; the members are read one by one"
)]
struct DagRunPatchBody {
    /// `queued`, `success` or `failed`.
    state: Option<String>,
    note: Option<String>,
}

#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "describes the body in the OpenAPI document; the members are read one by one"
)]
struct DagRunsBatchBody {
    order_by: Option<String>,
    page_offset: Option<u64>,
    page_limit: Option<u64>,
    dag_ids: Option<Vec<String>>,
    states: Option<Vec<String>>,
    conf_contains: Option<String>,
}

pub(super) async fn collection(
    app: &App,
    listed: Listed<RunRow>,
    page: Page,
) -> Result<Json<DagRunCollectionResponse>, ApiError> {
    let mut dag_runs = Vec::with_capacity(listed.items.len());
    for row in &listed.items {
        dag_runs.push(DagRunResponse::new(app, row).await?);
    }
    let (next_cursor, previous_cursor) = Cursor::around(page, listed.total);
    Ok(Json(DagRunCollectionResponse {
        dag_runs,
        total_entries: listed.total,
        next_cursor,
        previous_cursor,
    }))
}

async fn list(
    State(app): State<Arc<App>>,
    path: PathArgs,
    mut query: Query,
) -> Result<Json<DagRunCollectionResponse>, ApiError> {
    let (page, _) = query.page_or_cursor()?;
    let dag_id = path.any_dag_id()?;
    let selection = RunSelection::from_query(dag_id.clone(), &mut query)?;
    if dag_id.is_some() {
        dags::find(&app, &path).await?;
    }
    collection(&app, selection.rows(&app, page).await?, page).await
}

async fn list_batch(
    State(app): State<Arc<App>>,
    path: PathArgs,
    body: JsonObject,
) -> Result<Json<DagRunCollectionResponse>, ApiError> {
    path.literal("dag_run_id", "list")?;
    path.literal("dag_id", "~")?;
    let (selection, page) = RunSelection::from_body(body)?;
    collection(&app, selection.rows(&app, page).await?, page).await
}

/// The run, or 404.
pub(super) async fn find(app: &App, path: &PathArgs) -> Result<RunRow, ApiError> {
    let (dag_id, run_id) = (path.dag_id()?, path.run_id()?);
    if let Some(row) = app.metadata.run(&dag_id, &run_id).await? {
        return Ok(row);
    }
    if app.metadata.dag(&dag_id).await?.is_none() {
        return Err(ApiError::new(
            Code::DagNotFound,
            format!("DAG `{dag_id}` does not exist"),
        ));
    }
    Err(ApiError::new(
        Code::DagRunNotFound,
        format!("DAG `{dag_id}` has no run `{run_id}`"),
    ))
}

async fn get(State(app): State<Arc<App>>, path: PathArgs) -> Result<Json<DagRunResponse>, ApiError> {
    let row = find(&app, &path).await?;
    Ok(Json(DagRunResponse::new(&app, &row).await?))
}

async fn children(
    State(app): State<Arc<App>>,
    path: PathArgs,
    mut query: Query,
) -> Result<Json<DagRunCollectionResponse>, ApiError> {
    let (page, _) = query.page_or_cursor()?;
    query.finish()?;
    let filter = RunFilter {
        parent: Some(find(&app, &path).await?.key),
        ..RunFilter::default()
    };
    collection(&app, app.metadata.runs(&filter, page).await?, page).await
}

async fn trigger(
    State(app): State<Arc<App>>,
    user: User,
    path: PathArgs,
    mut body: JsonObject,
) -> Result<Json<DagRunResponse>, ApiError> {
    body.require("logical_date");
    let run_id = body.id::<RunId>("dag_run_id");
    let logical_date = body.time("logical_date");
    let (start, end) = (body.time("data_interval_start"), body.time("data_interval_end"));
    if start.is_some() != end.is_some() {
        let missing = if start.is_some() {
            "data_interval_end"
        } else {
            "data_interval_start"
        };
        body.violate(missing, "value_error", "a data interval has both a start and an end");
    }
    let data_interval = start.zip(end);
    if data_interval.is_some_and(|(start, end)| end < start) {
        body.violate(
            "data_interval_end",
            "value_error",
            "the data interval ends before it starts",
        );
    }
    let run_after = body.time("run_after");
    let conf = body.object("conf").unwrap_or_default();
    let note = body.short_text("note", MAX_NOTE);
    let partition_key = body.text("partition_key");
    body.finish()?;
    if partition_key.is_some() {
        return Err(ApiError::new(Code::NotSupported, "`partition_key` is not supported"));
    }
    let request = TriggerRequest {
        dag_id: path.dag_id()?,
        run_id,
        logical_date,
        data_interval,
        run_after,
        conf: Value::Object(conf),
        note,
        user: user.name().to_owned(),
    };
    let row = app.control.trigger(request).await?;
    Ok(Json(DagRunResponse::new(&app, &row).await?))
}

async fn patch(
    State(app): State<Arc<App>>,
    user: User,
    path: PathArgs,
    query: Query,
    mut body: JsonObject,
) -> Result<Json<DagRunResponse>, ApiError> {
    let state = body.named::<DagRunState>("state");
    if state == Some(DagRunState::Running) {
        body.violate("state", "enum", "a run can be set to `queued`, `success` or `failed`");
    }
    let note = body.short_text("note", MAX_NOTE);
    body.finish()?;
    let mask = query.texts("update_mask");
    if let Some(other) = mask.iter().find(|name| !["state", "note"].contains(&name.as_str())) {
        return Err(ApiError::new(
            Code::NotSupported,
            format!("`{other}` cannot be changed; `state` and `note` can"),
        ));
    }
    let masked = |name: &str| mask.is_empty() || mask.iter().any(|given| given == name);
    let (dag_id, run_id) = (path.dag_id()?, path.run_id()?);
    let mut row = None;
    if let Some(state) = state.filter(|_| masked("state")) {
        row = Some(app.control.set_run_state(&dag_id, &run_id, state, user.name()).await?);
    }
    if let Some(note) = note.filter(|_| masked("note")) {
        row = Some(app.control.set_run_note(&dag_id, &run_id, &note, user.name()).await?);
    }
    let row = match row {
        Some(row) => row,
        None => find(&app, &path).await?,
    };
    Ok(Json(DagRunResponse::new(&app, &row).await?))
}

async fn delete(State(app): State<Arc<App>>, user: User, path: PathArgs) -> Result<StatusCode, ApiError> {
    let row = find(&app, &path).await?;
    app.control.delete_run(&row.dag_id, &row.run_id, user.name()).await?;
    app.logs.delete_run(row.uuid).await.map_err(ApiError::internal)?;
    Ok(StatusCode::NO_CONTENT)
}
