//! Questions to people (Airflow: human in the loop).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use model::{MapIndex, TaskId};
use ports::control::RespondRequest;
use ports::query::{HitlField, HitlFilter, HitlRow, Listed, TiFilter, TiRow};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::task_instances::{TaskInstanceResponse, find};
use super::ti_list::overlay;
use super::tries::{TaskInstanceHistoryResponse, one_try};
use super::{dag_runs, under};
use crate::auth::User;
use crate::error::{ApiError, Code};
use crate::openapi::{Kind, Op, PAGE, Param, Routes};
use crate::pattern::Pattern;
use crate::request::{JsonObject, PathArgs, Query};
use crate::shape::Time;
use crate::state::App;
use crate::{order, page};

const FILTERS: &[Param] = &[
    ("dag_id", Kind::Patterns),
    ("task_id", Kind::Text),
    ("task_id", Kind::Patterns),
    ("map_index", Kind::Int),
    ("state", Kind::Texts),
    ("response_received", Kind::Flag),
    ("responded_by_user_id", Kind::Texts),
    ("responded_by_user_name", Kind::Texts),
    ("subject_search", Kind::Text),
    ("body_search", Kind::Text),
    ("created_at", Kind::Times),
    ("order_by", Kind::Texts),
];

const COLUMNS: &[(&str, Option<HitlField>)] = &[
    ("ti_id", Some(HitlField::Key)),
    ("subject", Some(HitlField::Subject)),
    ("responded_at", Some(HitlField::RespondedAt)),
    ("created_at", Some(HitlField::CreatedAt)),
    ("responded_by_user_id", Some(HitlField::RespondedBy)),
    ("responded_by_user_name", Some(HitlField::RespondedBy)),
    ("dag_id", Some(HitlField::DagId)),
    ("run_id", Some(HitlField::RunId)),
    ("task_display_name", Some(HitlField::TaskId)),
    ("run_after", Some(HitlField::RunAfter)),
    ("task_instance_state", Some(HitlField::State)),
    ("rendered_map_index", None),
    ("task_instance_operator", None),
];

pub(crate) fn add(routes: Routes) -> Routes {
    let op = |id, summary| Op::new("task_instance", id, summary);
    routes
        .get(
            under!(run "/hitlDetails"),
            list,
            op("get_hitl_details", "Questions to people; `~` is all DAGs, all runs")
                .query(PAGE)
                .query(FILTERS)
                .ok::<HITLDetailCollection>(),
        )
        .get(
            under!(ti "/{map_index}/hitlDetails"),
            get,
            op("get_hitl_detail", "What a task instance asks").ok::<HITLDetail>(),
        )
        .patch(
            under!(ti "/{map_index}/hitlDetails"),
            respond,
            op("update_hitl_detail", "Answer a task instance that waits for it")
                .body::<UpdateHITLDetailPayload>()
                .ok::<HITLDetailResponse>(),
        )
        .get(
            under!(ti "/{map_index}/hitlDetails/tries/{try_number}"),
            get_try,
            op("get_hitl_detail_try_detail", "What a try asked").ok::<HITLDetailHistory>(),
        )
}

#[derive(Serialize, ToSchema)]
struct HITLUser {
    id: String,
    name: String,
}

impl HITLUser {
    fn new(name: String) -> Self {
        Self { id: name.clone(), name }
    }
}

/// What Airflow's `HITLDetail` and `HITLDetailHistory` share.
#[derive(Serialize, ToSchema)]
struct Detail {
    options: Vec<String>,
    subject: String,
    body: Option<String>,
    defaults: Option<Vec<String>>,
    multiple: bool,
    /// Each with its schema, its default and whether that is given.
    #[schema(value_type = Value)]
    params: Map<String, Value>,
    assigned_users: Vec<HITLUser>,
    created_at: Time,
    responded_by_user: Option<HITLUser>,
    responded_at: Option<Time>,
    chosen_options: Option<Vec<String>>,
    #[schema(value_type = Value)]
    params_input: Value,
    response_received: bool,
}

impl Detail {
    fn new(row: HitlRow) -> (Self, TiRow) {
        let step = &row.step;
        // Airflow: `SerializedParam.dump`.
        let params = step.params.iter().map(|(name, param)| {
            let value = param.default.clone().unwrap_or(Value::Null);
            let description = param.schema.get("description").cloned().unwrap_or(Value::Null);
            let shown = serde_json::json!({ "value": value, "schema": param.schema, "description": description });
            (name.clone(), shown)
        });
        let detail = Self {
            options: step.options.clone(),
            subject: row.subject,
            body: row.body,
            defaults: step.defaults.clone(),
            multiple: step.multiple,
            params: params.collect(),
            assigned_users: step.assigned_users.iter().cloned().map(HITLUser::new).collect(),
            created_at: Time(row.created_at),
            response_received: row.responded_at.is_some(),
            responded_by_user: row.responded_by.map(HITLUser::new),
            responded_at: row.responded_at.map(Time),
            chosen_options: row.chosen_options,
            params_input: row.params_input.unwrap_or_else(|| Value::Object(Map::new())),
        };
        (detail, row.ti)
    }
}

#[derive(Serialize, ToSchema)]
struct HITLDetail {
    #[serde(flatten)]
    detail: Detail,
    task_instance: TaskInstanceResponse,
}

#[derive(Serialize, ToSchema)]
struct HITLDetailHistory {
    #[serde(flatten)]
    detail: Detail,
    task_instance: TaskInstanceHistoryResponse,
}

#[derive(Serialize, ToSchema)]
struct HITLDetailCollection {
    hitl_details: Vec<HITLDetail>,
    total_entries: u64,
}

#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "describes the body in the OpenAPI document; the members are read one by one"
)]
struct UpdateHITLDetailPayload {
    chosen_options: Vec<String>,
    #[schema(value_type = Option<Value>)]
    params_input: Option<Map<String, Value>>,
}

#[derive(Serialize, ToSchema)]
struct HITLDetailResponse {
    responded_by: HITLUser,
    responded_at: Time,
    chosen_options: Vec<String>,
    #[schema(value_type = Value)]
    params_input: Value,
}

async fn detail(app: &App, mut row: HitlRow) -> Result<HITLDetail, ApiError> {
    overlay(app, std::slice::from_mut(&mut row.ti));
    let (detail, ti) = Detail::new(row);
    Ok(HITLDetail {
        detail,
        task_instance: TaskInstanceResponse::new(app, ti).await?,
    })
}

async fn list(
    State(app): State<Arc<App>>,
    path: PathArgs,
    mut query: Query,
) -> Result<Json<HITLDetailCollection>, ApiError> {
    let page = query.page();
    let (dag_id, run_id) = (path.any_dag_id()?, path.any_run_id()?);
    let named = dag_id.is_some() && run_id.is_some();
    let (mut dags, mut tasks) = (query.patterns("dag_id"), query.patterns("task_id"));
    let task_id = query.text("task_id").filter(|text| !text.is_empty()).map(TaskId::new);
    // A text that cannot be an id matches nothing.
    let impossible = matches!(task_id, Some(Err(_)));
    let search = |name: &str| {
        let pattern = query.text(name).and_then(Pattern::part);
        let like = pattern.as_ref().and_then(Pattern::as_like).map(str::to_owned);
        (pattern.filter(|_| like.is_none()), like)
    };
    let (subject, subject_pattern) = search("subject_search");
    let (body, body_pattern) = search("body_search");
    let mut responded_by = query.texts("responded_by_user_id");
    responded_by.extend(query.texts("responded_by_user_name"));
    let mut filter = HitlFilter {
        ti: TiFilter {
            dag_id,
            run_id,
            task_ids: task_id.and_then(Result::ok).into_iter().collect(),
            task_id_pattern: tasks.take_like(),
            map_index: query.map_index("map_index"),
            states: query.states("state"),
            ..TiFilter::default()
        },
        dag_id_pattern: dags.take_like(),
        response_received: query.flag("response_received"),
        responded_by,
        subject_pattern,
        body_pattern,
        created_at: query.times("created_at"),
        order_by: Vec::new(),
    };
    query.finish()?;
    filter.order_by = order::parse(&query.texts("order_by"), COLUMNS)?;
    if named {
        dag_runs::find(&app, &path).await?;
    }
    let keeps = |row: &HitlRow| {
        dags.matches(row.ti.dag_id.as_str())
            && tasks.matches(row.ti.task_id.as_str())
            && subject.as_ref().is_none_or(|pattern| pattern.matches(&row.subject))
            && body
                .as_ref()
                .is_none_or(|pattern| row.body.as_deref().is_some_and(|body| pattern.matches(body)))
    };
    let listed = if impossible {
        Listed {
            items: Vec::new(),
            total: 0,
        }
    } else if dags.is_empty() && tasks.is_empty() && subject.is_none() && body.is_none() {
        app.metadata.hitl_details(&filter, page).await?
    } else {
        let mut rows = page::scan("this filter", |page| app.metadata.hitl_details(&filter, page)).await?;
        rows.retain(keeps);
        page::cut(rows, page)
    };
    let mut hitl_details = Vec::with_capacity(listed.items.len());
    for row in listed.items {
        hitl_details.push(detail(&app, row).await?);
    }
    Ok(Json(HITLDetailCollection {
        hitl_details,
        total_entries: listed.total,
    }))
}

async fn question(app: &App, ti: TiRow) -> Result<HitlRow, ApiError> {
    let missing = format!("task instance `{}` has asked nobody in this try", ti.task_id);
    let row = app.metadata.hitl_detail(ti).await?;
    row.ok_or_else(|| ApiError::new(Code::HitlDetailNotFound, missing))
}

async fn get(State(app): State<Arc<App>>, path: PathArgs) -> Result<Json<HITLDetail>, ApiError> {
    let map_index = path.map_index()?.unwrap_or(MapIndex::UNMAPPED);
    let ti = find(&app, &path, map_index).await?;
    let row = question(&app, ti).await?;
    Ok(Json(detail(&app, row).await?))
}

async fn get_try(
    State(app): State<Arc<App>>,
    path: PathArgs,
    mut query: Query,
) -> Result<Json<HITLDetailHistory>, ApiError> {
    let ti = one_try(&app, &path, &mut query, "try_number").await?;
    let (detail, ti) = Detail::new(question(&app, ti).await?);
    Ok(Json(HITLDetailHistory {
        detail,
        task_instance: TaskInstanceHistoryResponse::new(&app, ti).await?,
    }))
}

async fn respond(
    State(app): State<Arc<App>>,
    user: User,
    path: PathArgs,
    mut body: JsonObject,
) -> Result<Json<HITLDetailResponse>, ApiError> {
    body.require("chosen_options");
    let chosen_options = body.texts("chosen_options");
    if chosen_options.as_ref().is_some_and(Vec::is_empty) {
        body.violate("chosen_options", "too_short", "List should have at least 1 item");
    }
    let params_input = body.object("params_input").unwrap_or_default();
    body.finish()?;
    let map_index = path.map_index()?.unwrap_or(MapIndex::UNMAPPED);
    let request = RespondRequest {
        dag_id: path.dag_id()?,
        run_id: path.run_id()?,
        task_id: path.task_id()?,
        map_index,
        chosen_options: chosen_options.unwrap_or_default(),
        params_input,
        user: user.name().to_owned(),
    };
    let responded = app.control.respond(request).await?;
    Ok(Json(HITLDetailResponse {
        responded_by: HITLUser::new(user.name().to_owned()),
        responded_at: Time(responded.at),
        chosen_options: responded.answer.chosen_options,
        params_input: responded.answer.params_input,
    }))
}
