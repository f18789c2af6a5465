//! DAGs: list, look at, pause, delete.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use model::{DagRunState, DagRunType};
use ports::query::{DagField, DagFilter, DagRow, Listed, Page, RunFilter};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::under;
use crate::auth::User;
use crate::error::{ApiError, Code};
use crate::openapi::{Kind, Op, PAGE, Param, Routes};
use crate::request::{JsonObject, PathArgs, Query};
use crate::shape::{DagVersionResponse, Null, Time};
use crate::state::App;
use crate::{order, page};

const FILTERS: &[Param] = &[
    ("tags", Kind::Texts),
    ("tags_match_mode", Kind::Text),
    ("owners", Kind::Texts),
    ("dag_id", Kind::Patterns),
    ("dag_display_name", Kind::Patterns),
    ("exclude_stale", Kind::Flag),
    ("paused", Kind::Flag),
    ("has_import_errors", Kind::Flag),
    ("last_dag_run_state", Kind::Text),
    ("bundle_name", Kind::Text),
    ("bundle_version", Kind::Text),
    ("has_asset_schedule", Kind::Flag),
    ("asset_dependency", Kind::Text),
    ("is_favorite", Kind::Flag),
    ("timetable_type", Kind::Texts),
    ("dag_run_start_date", Kind::Times),
    ("dag_run_end_date", Kind::Times),
    ("dag_run_state", Kind::Texts),
    ("order_by", Kind::Texts),
];

pub(crate) fn add(routes: Routes) -> Routes {
    routes
        .get(
            "/api/v2/dags",
            list,
            Op::new("dag", "get_dags", "List DAGs")
                .query(PAGE)
                .query(FILTERS)
                .ok::<DagCollectionResponse>(),
        )
        .patch(
            "/api/v2/dags",
            patch_all,
            Op::new("dag", "patch_dags", "Pause or unpause several DAGs")
                .query(PAGE)
                .query(FILTERS)
                .query(&[("update_mask", Kind::Texts)])
                .body::<DagPatchBody>()
                .ok::<DagCollectionResponse>(),
        )
        .get(
            under!(dag ""),
            get,
            Op::new("dag", "get_dag", "One DAG").ok::<DagResponse>(),
        )
        .get(
            under!(dag "/details"),
            details,
            Op::new("dag", "get_dag_details", "One DAG with its details").ok::<DagDetailsResponse>(),
        )
        .patch(
            under!(dag ""),
            patch,
            Op::new("dag", "patch_dag", "Pause or unpause a DAG")
                .query(&[("update_mask", Kind::Texts)])
                .body::<DagPatchBody>()
                .ok::<DagResponse>(),
        )
        .delete(
            under!(dag ""),
            delete,
            Op::new("dag", "delete_dag", "Remove a DAG with its versions and runs").raw(200, "application/json"),
        )
}

#[derive(Serialize, ToSchema)]
struct DagCollectionResponse {
    dags: Vec<DagResponse>,
    total_entries: u64,
}

#[derive(Serialize, ToSchema)]
struct DagTagResponse {
    name: String,
    dag_id: String,
    dag_display_name: String,
}

#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "describes the body in the OpenAPI document; the members are read one by one"
)]
struct DagPatchBody {
    is_paused: bool,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct DagResponse {
    dag_id: String,
    dag_display_name: String,
    is_paused: bool,
    is_stale: bool,
    last_parsed_time: Time,
    last_parse_duration: Null,
    last_expired: Null,
    bundle_name: Null,
    bundle_version: Null,
    relative_fileloc: String,
    fileloc: String,
    description: Option<String>,
    timetable_summary: Null,
    timetable_description: Null,
    timetable_partitioned: bool,
    timetable_periodic: bool,
    tags: Vec<DagTagResponse>,
    max_active_tasks: u32,
    max_active_runs: u32,
    max_consecutive_failed_dag_runs: u32,
    has_task_concurrency_limits: bool,
    has_import_errors: bool,
    next_dagrun_logical_date: Null,
    next_dagrun_data_interval_start: Null,
    next_dagrun_data_interval_end: Null,
    next_dagrun_run_after: Null,
    allowed_run_types: Null,
    owners: Vec<String>,
    is_backfillable: bool,
    file_token: String,
    /// Why the scheduler paused the DAG, if it did.
    paused_reason: Option<String>,
}

impl DagResponse {
    fn new(row: &DagRow) -> Self {
        let dag = &row.version.dag;
        let id = row.dag_id.to_string();
        let tag = |name: &String| DagTagResponse {
            name: name.clone(),
            dag_id: id.clone(),
            dag_display_name: id.clone(),
        };
        Self {
            dag_display_name: id.clone(),
            is_paused: row.paused,
            is_stale: false,
            last_parsed_time: Time(row.updated_at),
            last_parse_duration: Null,
            last_expired: Null,
            bundle_name: Null,
            bundle_version: Null,
            relative_fileloc: format!("{id}.yaml"),
            fileloc: format!("{id}.yaml"),
            description: dag.description.clone(),
            timetable_summary: Null,
            timetable_description: Null,
            timetable_partitioned: false,
            timetable_periodic: false,
            tags: dag.tags.iter().map(tag).collect(),
            max_active_tasks: dag.max_active_tasks,
            max_active_runs: dag.max_active_runs,
            max_consecutive_failed_dag_runs: dag.max_consecutive_failed_dag_runs,
            has_task_concurrency_limits: dag.tasks.iter().any(|task| {
                let queueing = &task.queueing;
                queueing.max_active_tis_per_dag.is_some() || queueing.max_active_tis_per_dagrun.is_some()
            }),
            has_import_errors: false,
            next_dagrun_logical_date: Null,
            next_dagrun_data_interval_start: Null,
            next_dagrun_data_interval_end: Null,
            next_dagrun_run_after: Null,
            allowed_run_types: Null,
            owners: vec![dag.owner.clone()],
            is_backfillable: false,
            file_token: row.version.digest.to_string(),
            paused_reason: row.paused_reason.clone(),
            dag_id: id,
        }
    }
}

#[derive(Serialize, ToSchema)]
struct DagDetailsResponse {
    #[serde(flatten)]
    dag: DagResponse,
    catchup: bool,
    /// ISO 8601.
    dag_run_timeout: Option<String>,
    asset_expression: Null,
    doc_md: Option<String>,
    start_date: Null,
    end_date: Null,
    is_paused_upon_creation: Null,
    #[schema(value_type = Value)]
    params: Map<String, Value>,
    render_template_as_native_obj: bool,
    template_search_path: Null,
    timezone: &'static str,
    last_parsed: Time,
    default_args: Null,
    rerun_with_latest_version: Null,
    owner_links: Null,
    is_favorite: bool,
    active_runs_count: u64,
    concurrency: u32,
    latest_dag_version: DagVersionResponse,
}

fn filter(query: &mut Query) -> Result<DagSelection, ApiError> {
    let mut ids = query.patterns("dag_id");
    let names = query.patterns("dag_display_name");
    let tags_match_all = match query.text("tags_match_mode") {
        None | Some("any") => false,
        Some("all") => true,
        Some(_) => {
            query.violate("tags_match_mode", "literal_error", "this is `any` or `all`");
            false
        }
    };
    // What no DAG here has: nothing can match.
    let impossible = query.flag("has_import_errors") == Some(true)
        || query.flag("has_asset_schedule") == Some(true)
        || query.flag("is_favorite") == Some(true)
        || ["bundle_name", "bundle_version", "asset_dependency", "timetable_type"]
            .iter()
            .any(|name| query.text(name).is_some_and(|text| !text.is_empty()));
    query.flag("exclude_stale");
    let filter = DagFilter {
        dag_id_pattern: ids.take_like(),
        paused: query.flag("paused"),
        tags: query.texts("tags"),
        tags_match_all,
        owners: query.texts("owners"),
        last_run_state: query.named::<DagRunState>("last_dag_run_state"),
        order_by: Vec::new(),
    };
    let runs = RunFilter {
        states: query.all_named("dag_run_state"),
        start_date: query.times("dag_run_start_date"),
        end_date: query.times("dag_run_end_date"),
        ..RunFilter::default()
    };
    let by_runs = ["start_date", "end_date"]
        .iter()
        .flat_map(|name| ["gte", "gt", "lte", "lt"].map(|end| format!("dag_run_{name}_{end}")))
        .any(|name| query.text(&name).is_some())
        || !runs.states.is_empty();
    query.finish()?;
    let allowed = [
        ("dag_id", Some(DagField::DagId)),
        ("dag_display_name", Some(DagField::DagId)),
        ("is_paused", Some(DagField::Paused)),
        ("last_run_state", Some(DagField::LastRunState)),
        ("state", Some(DagField::LastRunState)),
        ("last_run_start_date", Some(DagField::LastRunStartDate)),
        ("start_date", Some(DagField::LastRunStartDate)),
        ("last_parsed_time", Some(DagField::UpdatedAt)),
        ("next_dagrun", None),
    ];
    let order_by = order::parse(&query.texts("order_by"), &allowed)?;
    Ok(DagSelection {
        filter: DagFilter { order_by, ..filter },
        runs: by_runs.then_some(runs),
        ids,
        names,
        impossible,
    })
}

/// Which DAGs: what the database filters by, and the rest.
struct DagSelection {
    filter: DagFilter,
    runs: Option<RunFilter>,
    ids: crate::request::Patterns,
    names: crate::request::Patterns,
    impossible: bool,
}

async fn select(app: &App, selection: DagSelection, page: Page) -> Result<Listed<DagRow>, ApiError> {
    if selection.impossible {
        return Ok(Listed {
            items: Vec::new(),
            total: 0,
        });
    }
    if selection.ids.is_empty() && selection.names.is_empty() && selection.runs.is_none() {
        return Ok(app.metadata.dags(&selection.filter, page).await?);
    }
    let mut rows = page::scan("this filter", |page| app.metadata.dags(&selection.filter, page)).await?;
    rows.retain(|row| selection.ids.matches(row.dag_id.as_str()) && selection.names.matches(row.dag_id.as_str()));
    if let Some(runs) = selection.runs {
        let mut with_runs = Vec::new();
        for row in rows {
            let filter = RunFilter {
                dag_id: Some(row.dag_id.clone()),
                ..runs.clone()
            };
            if app.metadata.runs(&filter, Page { limit: 1, offset: 0 }).await?.total > 0 {
                with_runs.push(row);
            }
        }
        rows = with_runs;
    }
    Ok(page::cut(rows, page))
}

async fn list(State(app): State<Arc<App>>, mut query: Query) -> Result<Json<DagCollectionResponse>, ApiError> {
    let page = query.page();
    let selection = filter(&mut query)?;
    let listed = select(&app, selection, page).await?;
    Ok(Json(DagCollectionResponse {
        dags: listed.items.iter().map(DagResponse::new).collect(),
        total_entries: listed.total,
    }))
}

/// The DAG, or 404.
pub(super) async fn find(app: &App, path: &PathArgs) -> Result<DagRow, ApiError> {
    let dag_id = path.dag_id()?;
    let row = app.metadata.dag(&dag_id).await?;
    row.ok_or_else(|| ApiError::new(Code::DagNotFound, format!("DAG `{dag_id}` does not exist")))
}

async fn get(State(app): State<Arc<App>>, path: PathArgs) -> Result<Json<DagResponse>, ApiError> {
    Ok(Json(DagResponse::new(&find(&app, &path).await?)))
}

async fn details(State(app): State<Arc<App>>, path: PathArgs) -> Result<Json<DagDetailsResponse>, ApiError> {
    let row = find(&app, &path).await?;
    let active = RunFilter {
        dag_id: Some(row.dag_id.clone()),
        states: vec![DagRunState::Queued, DagRunState::Running],
        ..RunFilter::default()
    };
    let active_runs_count = app.metadata.runs(&active, Page { limit: 1, offset: 0 }).await?.total;
    let dag = &row.version.dag;
    let params = dag.params.iter().map(|(name, param)| {
        let description = param.schema.get("description").cloned().unwrap_or(Value::Null);
        let shape = json!({ "value": param.default, "schema": param.schema, "description": description });
        (name.clone(), shape)
    });
    Ok(Json(DagDetailsResponse {
        dag: DagResponse::new(&row),
        catchup: false,
        dag_run_timeout: dag
            .dagrun_timeout
            .map(|timeout| format!("PT{}S", timeout.as_secs_f64())),
        asset_expression: Null,
        doc_md: dag.doc_md.clone(),
        start_date: Null,
        end_date: Null,
        is_paused_upon_creation: Null,
        params: params.collect(),
        render_template_as_native_obj: true,
        template_search_path: Null,
        timezone: "UTC",
        last_parsed: Time(row.updated_at),
        default_args: Null,
        rerun_with_latest_version: Null,
        owner_links: Null,
        is_favorite: false,
        active_runs_count,
        concurrency: dag.max_active_tasks,
        latest_dag_version: DagVersionResponse::new(&row.dag_id, &row.version),
    }))
}

/// The body of a patch; `is_paused` is the only thing that can change, so a mask can name nothing else.
fn paused(query: &Query, mut body: JsonObject) -> Result<bool, ApiError> {
    body.require("is_paused");
    let paused = body.flag("is_paused");
    if paused.is_none() {
        body.violate("is_paused", "bool_type", "this is not a boolean");
    }
    body.finish()?;
    if let Some(other) = query.texts("update_mask").iter().find(|name| *name != "is_paused") {
        return Err(ApiError::new(
            Code::NotSupported,
            format!("`{other}` cannot be changed; `is_paused` can"),
        ));
    }
    Ok(paused.unwrap_or_default())
}

async fn patch(
    State(app): State<Arc<App>>,
    user: User,
    path: PathArgs,
    query: Query,
    body: JsonObject,
) -> Result<Json<DagResponse>, ApiError> {
    let paused = paused(&query, body)?;
    let dag_id = path.dag_id()?;
    app.control.set_paused(&dag_id, paused, user.name()).await?;
    let mut row = find(&app, &path).await?;
    row.paused = paused;
    row.paused_reason = None;
    Ok(Json(DagResponse::new(&row)))
}

async fn patch_all(
    State(app): State<Arc<App>>,
    user: User,
    mut query: Query,
    body: JsonObject,
) -> Result<Json<DagCollectionResponse>, ApiError> {
    let paused = paused(&query, body)?;
    let page = query.page();
    let selection = filter(&mut query)?;
    let mut listed = select(&app, selection, page).await?;
    for row in &mut listed.items {
        app.control.set_paused(&row.dag_id, paused, user.name()).await?;
        row.paused = paused;
        row.paused_reason = None;
    }
    Ok(Json(DagCollectionResponse {
        dags: listed.items.iter().map(DagResponse::new).collect(),
        total_entries: listed.total,
    }))
}

async fn delete(State(app): State<Arc<App>>, user: User, path: PathArgs) -> Result<Json<()>, ApiError> {
    app.control.delete_dag(&path.dag_id()?, user.name()).await?;
    Ok(Json(()))
}

/// How Airflow names who triggered a run.
pub(super) const fn triggered_by(run_type: DagRunType) -> &'static str {
    match run_type {
        DagRunType::Manual => "rest_api",
        DagRunType::Scheduled => "timetable",
        DagRunType::Backfill => "backfill",
        DagRunType::AssetTriggered => "asset",
    }
}
