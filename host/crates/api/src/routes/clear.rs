//! Clearing: task instances run again, their runs go on.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use model::{MapIndex, TaskId, TaskInstanceState, Timestamp};
use ports::control::ClearRequest;
use ports::query::TiRow;
use serde_json::Value;
use utoipa::ToSchema;

use super::dag_runs::{DagRunResponse, MAX_NOTE, find};
use super::task_instances::{TaskInstanceCollectionResponse, whole};
use super::{dags, under};
use crate::auth::User;
use crate::error::{ApiError, Code};
use crate::openapi::{Op, Routes};
use crate::request::{JsonObject, PathArgs, text};
use crate::state::App;

pub(crate) fn add(routes: Routes) -> Routes {
    routes
        .post(
            under!(dag "/clearTaskInstances"),
            clear_task_instances,
            Op::new("task_instance", "post_clear_task_instances", "Run task instances again")
                .body::<ClearTaskInstancesBody>()
                .ok::<TaskInstanceCollectionResponse>(),
        )
        .post(
            under!(run "/clear"),
            clear_run,
            Op::new("dag_run", "clear_dag_run", "Run the tasks of a run again")
                .body::<DagRunClearBody>()
                .ok::<DagRunResponse>(),
        )
}

#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "describes the body in the OpenAPI document; the members are read one by one"
)]
struct ClearTaskInstancesBody {
    /// Change nothing, answer what would be cleared; the default.
    dry_run: Option<bool>,
    start_date: Option<String>,
    end_date: Option<String>,
    /// The default.
    only_failed: Option<bool>,
    only_running: Option<bool>,
    reset_dag_runs: Option<bool>,
    /// Task ids, or pairs of a task id and a map index.
    #[schema(value_type = Option<Vec<Value>>)]
    task_ids: Option<Vec<Value>>,
    /// Ids of task groups: all their tasks.
    task_group_ids: Option<Vec<String>>,
    dag_run_id: Option<String>,
    include_upstream: Option<bool>,
    include_downstream: Option<bool>,
    include_future: Option<bool>,
    include_past: Option<bool>,
    run_on_latest_version: Option<bool>,
    prevent_running_task: Option<bool>,
    note: Option<String>,
}

#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "describes the body in the OpenAPI document; the members are read one by one"
)]
struct DagRunClearBody {
    /// Change nothing, answer what would be cleared; the default.
    dry_run: Option<bool>,
    only_failed: Option<bool>,
    only_new: Option<bool>,
    run_on_latest_version: Option<bool>,
    note: Option<String>,
}

/// A task id, or a pair of a task id and a map index.
fn task(value: &Value) -> Result<(TaskId, Option<MapIndex>), (&'static str, String)> {
    let id = |value: &Value| TaskId::new(text(value)?).map_err(|error| ("value_error", error.to_string()));
    match value.as_array().map(Vec::as_slice) {
        None => Ok((id(value)?, None)),
        Some([task, index]) => {
            let index = index.as_i64().and_then(|index| i32::try_from(index).ok());
            let index = index.filter(|index| *index >= -1);
            let index = index.ok_or_else(|| ("int_type", "the second element is a map index".to_owned()))?;
            Ok((id(task)?, Some(MapIndex(index))))
        }
        Some(_) => Err((
            "value_error",
            "this is a task id, or a pair of a task id and a map index".to_owned(),
        )),
    }
}

fn refuse_latest_version(asked: Option<bool>) -> Result<(), ApiError> {
    if asked == Some(true) {
        return Err(ApiError::new(
            Code::NotSupported,
            "a run keeps the version that it started with; trigger a new run for the latest one",
        ));
    }
    Ok(())
}

async fn clear_task_instances(
    State(app): State<Arc<App>>,
    user: User,
    path: PathArgs,
    mut body: JsonObject,
) -> Result<Json<TaskInstanceCollectionResponse>, ApiError> {
    let mut request = ClearRequest {
        dry_run: body.flag("dry_run").unwrap_or(true),
        start_date: body.time("start_date"),
        end_date: body.time("end_date"),
        only_failed: body.flag("only_failed").unwrap_or(true),
        only_running: body.flag("only_running").unwrap_or(false),
        tasks: body.list("task_ids", task),
        groups: body.texts("task_group_ids").unwrap_or_default(),
        run_id: body.id("dag_run_id"),
        include_upstream: body.flag("include_upstream").unwrap_or(false),
        include_downstream: body.flag("include_downstream").unwrap_or(false),
        user: user.name().to_owned(),
    };
    let future = body.flag("include_future").unwrap_or(false);
    let past = body.flag("include_past").unwrap_or(false);
    let prevent_running = body.flag("prevent_running_task").unwrap_or(false);
    let latest = body.flag("run_on_latest_version");
    let note = body.short_text("note", MAX_NOTE);
    // A cleared run always goes on: a run whose tasks have work but which has ended would never run them.
    body.flag("reset_dag_runs");
    if request
        .start_date
        .zip(request.end_date)
        .is_some_and(|(start, end)| end < start)
    {
        body.violate("end_date", "value_error", "the range ends before it starts");
    }
    if request.run_id.is_none() && (future || past) {
        let name = if future { "include_future" } else { "include_past" };
        body.violate(name, "value_error", "this needs a `dag_run_id`");
    }
    if request.run_id.is_some() && (request.start_date.is_some() || request.end_date.is_some()) {
        body.violate("dag_run_id", "value_error", "this excludes `start_date` and `end_date`");
    }
    body.finish()?;
    refuse_latest_version(latest)?;
    if note.is_some_and(|note| !note.is_empty()) {
        return Err(ApiError::new(
            Code::NotSupported,
            "a note is set by `PATCH` of the task instances",
        ));
    }
    let dag_id = dags::find(&app, &path).await?.dag_id;
    if let Some(run_id) = request.run_id.clone().filter(|_| future || past) {
        let row = app
            .metadata
            .run(&dag_id, &run_id)
            .await?
            .ok_or_else(|| ApiError::new(Code::DagRunNotFound, format!("DAG `{dag_id}` has no run `{run_id}`")))?;
        let at: Timestamp = row.logical_date.unwrap_or(row.run_after);
        request.run_id = None;
        request.start_date = (!past).then_some(at);
        request.end_date = (!future).then_some(at);
    }
    if prevent_running && !request.dry_run {
        let would = ClearRequest {
            dry_run: true,
            ..request.clone()
        };
        let rows = app.control.clear(&dag_id, would).await?;
        let running = |row: &&TiRow| row.state == TaskInstanceState::Running;
        if let Some(row) = rows.iter().find(running) {
            return Err(ApiError::new(
                Code::TaskInstanceRunning,
                format!("task instance `{}` of run `{}` is running", row.task_id, row.run_id),
            ));
        }
    }
    let rows = app.control.clear(&dag_id, request).await?;
    Ok(Json(whole(&app, rows).await?))
}

async fn clear_run(
    State(app): State<Arc<App>>,
    user: User,
    path: PathArgs,
    mut body: JsonObject,
) -> Result<Response, ApiError> {
    let dry_run = body.flag("dry_run").unwrap_or(true);
    let only_failed = body.flag("only_failed").unwrap_or(false);
    let only_new = body.flag("only_new").unwrap_or(false);
    let latest = body.flag("run_on_latest_version");
    let note = body.short_text("note", MAX_NOTE);
    if only_failed && only_new {
        body.violate("only_new", "value_error", "this excludes `only_failed`");
    }
    body.finish()?;
    refuse_latest_version(latest)?;
    let row = find(&app, &path).await?;
    // A run keeps its version, so it never has new tasks.
    let rows = if only_new {
        Vec::new()
    } else {
        let request = ClearRequest {
            run_id: Some(row.run_id.clone()),
            only_failed,
            dry_run,
            user: user.name().to_owned(),
            ..ClearRequest::default()
        };
        app.control.clear(&row.dag_id, request).await?
    };
    if dry_run {
        return Ok(Json(whole(&app, rows).await?).into_response());
    }
    let row = match note {
        Some(note) => {
            app.control
                .set_run_note(&row.dag_id, &row.run_id, &note, user.name())
                .await?
        }
        None => find(&app, &path).await?,
    };
    Ok(Json(DagRunResponse::new(&app, &row).await?).into_response())
}
