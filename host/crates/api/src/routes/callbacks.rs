//! Callbacks of runs and their tasks, and the notifications among them. Ours: Airflow has neither in its API.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use model::callback::{CallbackKind, CallbackState};
use model::{DagId, RunId};
use ports::callback::{CallbackFilter, CallbackId, CallbackRow};
use ports::log::LogKey;
use ports::query::Page;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::logs::{self, IsOver, Reader, TaskInstancesLogResponse, Wanted};
use super::{dag_runs, under};
use crate::error::{ApiError, Code};
use crate::openapi::{Kind, Op, PAGE, Param, Routes};
use crate::order;
use crate::request::{PathArgs, Query};
use crate::shape::Time;
use crate::state::App;

const FILTERS: &[Param] = &[
    ("task_id", Kind::Text),
    ("event", Kind::Texts),
    ("kind", Kind::Texts),
    ("state", Kind::Texts),
    ("level", Kind::Texts),
    ("created_at", Kind::Times),
    ("order_by", Kind::Texts),
];

const NOTIFICATION_FILTERS: &[Param] = &[
    ("dag_id", Kind::Text),
    ("dag_run_id", Kind::Text),
    ("task_id", Kind::Text),
    ("event", Kind::Texts),
    ("level", Kind::Texts),
    ("created_at", Kind::Times),
    ("after", Kind::Int),
    ("order_by", Kind::Texts),
];

/// What is newer has the greater id.
const COLUMNS: &[(&str, Option<()>)] = &[
    ("id", Some(())),
    ("callback_id", Some(())),
    ("notification_id", Some(())),
    ("created_at", Some(())),
];

pub(crate) fn add(routes: Routes) -> Routes {
    let op = |id, summary| Op::new("callback", id, summary);
    routes
        .get(
            under!(run "/callbacks"),
            list,
            op("get_callbacks", "Callbacks of a run; `~` is all DAGs, all runs")
                .query(PAGE)
                .query(FILTERS)
                .ok::<CallbackCollectionResponse>(),
        )
        .get(
            under!(run "/callbacks/{callback_id}"),
            get,
            op("get_callback", "One callback").ok::<CallbackResponse>(),
        )
        .get(
            under!(run "/callbacks/{callback_id}/logs"),
            log,
            op(
                "get_callback_log",
                "The log of a callback; `follow=true` streams it live",
            )
            .query(logs::QUERY)
            .ok::<TaskInstancesLogResponse>()
            .raw(200, "application/x-ndjson")
            .raw(200, "text/plain")
            .raw(200, "text/event-stream"),
        )
        .get(
            "/api/v2/notifications",
            notifications,
            op("get_notifications", "What callbacks tell people, newest first")
                .query(PAGE)
                .query(NOTIFICATION_FILTERS)
                .ok::<NotificationCollectionResponse>(),
        )
}

#[derive(Serialize, ToSchema)]
struct CallbackCollectionResponse {
    callbacks: Vec<CallbackResponse>,
    total_entries: u64,
}

#[derive(Serialize, ToSchema)]
struct CallbackResponse {
    callback_id: i64,
    dag_id: String,
    dag_run_id: String,
    /// Missing for a callback of the DAG.
    task_id: Option<String>,
    map_index: i32,
    /// The try that ended.
    try_number: Option<u32>,
    /// `on_success`, `on_failure`, `on_retry` or `on_skipped`.
    event: &'static str,
    /// `task` or `notification`.
    kind: &'static str,
    /// The component and its task.
    name: String,
    /// `info`, `warning` or `error`, of a notification.
    level: Option<&'static str>,
    /// `queued`, `running`, `success` or `failed`.
    state: &'static str,
    /// How often it was given to an executor.
    attempt: u32,
    created_at: Time,
    next_attempt_at: Option<Time>,
    start_date: Option<Time>,
    end_date: Option<Time>,
    cause: Option<&'static str>,
    code: Option<String>,
    message: Option<String>,
    /// What a notification says, once it is rendered.
    text: Option<String>,
    /// What its templates see as `callback`.
    #[schema(value_type = Value)]
    context: Value,
}

impl From<CallbackRow> for CallbackResponse {
    fn from(row: CallbackRow) -> Self {
        Self {
            callback_id: row.id.0,
            dag_id: row.dag_id.to_string(),
            dag_run_id: row.run_id.to_string(),
            task_id: row.task_id.map(|task_id| task_id.to_string()),
            map_index: row.map_index.0,
            try_number: row.try_number.map(|number| number.0),
            event: row.event.as_str(),
            kind: row.kind.as_str(),
            name: row.name,
            level: row.level.map(|level| level.as_str()),
            state: row.state.as_str(),
            attempt: row.attempt,
            created_at: Time(row.created_at),
            next_attempt_at: row.next_at.map(Time),
            start_date: row.started_at.map(Time),
            end_date: row.ended_at.map(Time),
            cause: row.cause.map(|cause| cause.as_str()),
            code: row.code,
            message: row.message,
            text: row.text,
            context: serde_json::from_str(&row.facts).unwrap_or_default(),
        }
    }
}

#[derive(Serialize, ToSchema)]
struct NotificationCollectionResponse {
    notifications: Vec<NotificationResponse>,
    total_entries: u64,
}

#[derive(Serialize, ToSchema)]
struct NotificationResponse {
    notification_id: i64,
    created_at: Time,
    level: Option<&'static str>,
    /// Escape its control characters before a terminal sees them.
    text: String,
    dag_id: String,
    dag_run_id: String,
    task_id: Option<String>,
    map_index: i32,
    try_number: Option<u32>,
    event: &'static str,
}

impl From<CallbackRow> for NotificationResponse {
    fn from(row: CallbackRow) -> Self {
        Self {
            notification_id: row.id.0,
            created_at: Time(row.created_at),
            level: row.level.map(|level| level.as_str()),
            text: row.text.unwrap_or_default(),
            dag_id: row.dag_id.to_string(),
            dag_run_id: row.run_id.to_string(),
            task_id: row.task_id.map(|task_id| task_id.to_string()),
            map_index: row.map_index.0,
            try_number: row.try_number.map(|number| number.0),
            event: row.event.as_str(),
        }
    }
}

/// Whether the newest come first.
fn newest_first(query: &Query, default: bool) -> Result<bool, ApiError> {
    let order = order::parse(&query.texts("order_by"), COLUMNS)?;
    Ok(order.first().map_or(default, |by| by.descending))
}

/// An id in a query. What cannot be one belongs to nothing.
fn filtered<T, E>(query: &Query, name: &str, read: impl Fn(&str) -> Result<T, E>) -> Result<Option<T>, E> {
    query.text(name).filter(|text| !text.is_empty()).map(read).transpose()
}

async fn list(
    State(app): State<Arc<App>>,
    path: PathArgs,
    mut query: Query,
) -> Result<Json<CallbackCollectionResponse>, ApiError> {
    let page = query.page();
    let task_id = filtered(&query, "task_id", model::TaskId::new);
    let filter = CallbackFilter {
        dag_id: path.any_dag_id()?,
        run_id: path.any_run_id()?,
        kinds: query.all_named("kind"),
        events: query.all_named("event"),
        states: query.all_named("state"),
        levels: query.all_named("level"),
        created_at: query.times("created_at"),
        ..CallbackFilter::default()
    };
    query.finish()?;
    let newest_first = newest_first(&query, false)?;
    if filter.dag_id.is_some() && filter.run_id.is_some() {
        // A run that does not exist is told from one without callbacks.
        dag_runs::find(&app, &path).await?;
    }
    let Ok(task_id) = task_id else {
        return Ok(Json(CallbackCollectionResponse {
            callbacks: Vec::new(),
            total_entries: 0,
        }));
    };
    let filter = CallbackFilter {
        task_id,
        newest_first,
        ..filter
    };
    let listed = app.metadata.callbacks(&filter, page).await?;
    Ok(Json(CallbackCollectionResponse {
        callbacks: listed.items.into_iter().map(CallbackResponse::from).collect(),
        total_entries: listed.total,
    }))
}

async fn find(app: &App, path: &PathArgs) -> Result<CallbackRow, ApiError> {
    let run = dag_runs::find(app, path).await?;
    let id = path.number("callback_id", path.text("callback_id"))?;
    let filter = CallbackFilter {
        dag_id: Some(run.dag_id),
        run_id: Some(run.run_id),
        id: Some(CallbackId(id)),
        ..CallbackFilter::default()
    };
    let listed = app.metadata.callbacks(&filter, Page { limit: 1, offset: 0 }).await?;
    let found = listed.items.into_iter().next();
    found.ok_or_else(|| ApiError::new(Code::CallbackNotFound, format!("the run has no callback {id}")))
}

async fn get(State(app): State<Arc<App>>, path: PathArgs) -> Result<Json<CallbackResponse>, ApiError> {
    Ok(Json(find(&app, &path).await?.into()))
}

async fn log(
    State(app): State<Arc<App>>,
    path: PathArgs,
    mut query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wanted = Wanted::read(&mut query, &headers)?;
    query.finish()?;
    let row = find(&app, &path).await?;
    let key = LogKey::of_callback(row.run_uuid, row.id);
    let over = (row.state != CallbackState::Running, row.ended_at);
    let filter = CallbackFilter {
        dag_id: Some(row.dag_id),
        run_id: Some(row.run_id),
        id: Some(row.id),
        ..CallbackFilter::default()
    };
    let ask = Arc::clone(&app);
    let is_over: IsOver = Box::new(move || {
        let (app, filter) = (Arc::clone(&ask), filter.clone());
        Box::pin(async move {
            let listed = app.metadata.callbacks(&filter, Page { limit: 1, offset: 0 }).await?;
            let row = listed.items.first();
            Ok(row.is_none_or(|row| row.run_uuid != key.run_uuid || row.state != CallbackState::Running))
        })
    });
    let reader = Reader::new(&app, key, &wanted, over, is_over);
    logs::answer(&app, reader, &wanted).await
}

async fn notifications(
    State(app): State<Arc<App>>,
    mut query: Query,
) -> Result<Json<NotificationCollectionResponse>, ApiError> {
    let page = query.page();
    let dag_id = filtered(&query, "dag_id", DagId::new);
    let run_id = filtered(&query, "dag_run_id", RunId::new);
    let task_id = filtered(&query, "task_id", model::TaskId::new);
    let filter = CallbackFilter {
        kinds: vec![CallbackKind::Notification],
        // One that is not rendered yet, or cannot be, says nothing: it is among the callbacks.
        states: vec![CallbackState::Success],
        events: query.all_named("event"),
        levels: query.all_named("level"),
        created_at: query.times("created_at"),
        after: query.int("after").map(CallbackId),
        ..CallbackFilter::default()
    };
    query.finish()?;
    let newest_first = newest_first(&query, true)?;
    let (Ok(dag_id), Ok(run_id), Ok(task_id)) = (dag_id, run_id, task_id) else {
        return Ok(Json(NotificationCollectionResponse {
            notifications: Vec::new(),
            total_entries: 0,
        }));
    };
    let filter = CallbackFilter {
        dag_id,
        run_id,
        task_id,
        newest_first,
        ..filter
    };
    let listed = app.metadata.callbacks(&filter, page).await?;
    Ok(Json(NotificationCollectionResponse {
        notifications: listed.items.into_iter().map(NotificationResponse::from).collect(),
        total_entries: listed.total,
    }))
}
