//! Changing several task instances by one request, each by itself.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use model::{DagId, MapIndex, RunId, TaskId, TaskInstanceState};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::dag_runs::MAX_NOTE;
use super::set_state::Change;
use super::under;
use crate::auth::User;
use crate::error::{ApiError, Code};
use crate::openapi::{Op, Routes};
use crate::request::{JsonObject, PathArgs};
use crate::state::App;

/// The most task instances of one request.
const MAX_ENTITIES: usize = 1_000;

pub(crate) fn add(routes: Routes) -> Routes {
    routes.patch(
        under!(run "/taskInstances"),
        bulk,
        Op::new(
            "task_instance",
            "bulk_task_instances",
            "Set the states and notes of several task instances, each by itself",
        )
        .body::<BulkTaskInstancesBody>()
        .ok::<BulkResponse>(),
    )
}

#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "describes the body in the OpenAPI document; the members are read one by one"
)]
struct BulkTaskInstancesBody {
    /// `{"action": "update", "entities": [{"task_id": …, "map_index": …, "new_state": …, "note": …, "include_…": …}]}`; `create` and
    /// `delete` are refused.
    #[schema(value_type = Vec<Value>)]
    actions: Vec<Value>,
}

#[derive(Default, Serialize, ToSchema)]
struct BulkResponse {
    create: Option<BulkActionResponse>,
    update: Option<BulkActionResponse>,
    delete: Option<BulkActionResponse>,
}

#[derive(Default, Serialize, ToSchema)]
struct BulkActionResponse {
    /// `<dag_id>.<dag_run_id>.<task_id>[<map_index>]`.
    success: Vec<String>,
    #[schema(value_type = Vec<Value>)]
    errors: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Action {
    action: Kind,
    #[serde(default)]
    entities: Vec<Value>,
    #[serde(default)]
    action_on_non_existence: OnNonExistence,
    #[serde(default)]
    #[expect(dead_code, reason = "what exists is the point of an update")]
    action_on_existence: Option<String>,
    #[serde(default)]
    update_mask: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Create,
    Update,
    Delete,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnNonExistence {
    #[default]
    Fail,
    Skip,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entity {
    task_id: TaskId,
    #[serde(default)]
    map_index: Option<i32>,
    #[serde(default)]
    dag_id: Option<DagId>,
    #[serde(default)]
    dag_run_id: Option<RunId>,
    #[serde(default)]
    new_state: Option<TaskInstanceState>,
    #[serde(default)]
    note: Option<String>,
    #[serde(default)]
    include_upstream: bool,
    #[serde(default)]
    include_downstream: bool,
    #[serde(default)]
    include_future: bool,
    #[serde(default)]
    include_past: bool,
}

async fn bulk(
    State(app): State<Arc<App>>,
    user: User,
    path: PathArgs,
    mut body: JsonObject,
) -> Result<Json<BulkResponse>, ApiError> {
    body.require("actions");
    let actions = body.list("actions", |value| {
        Action::deserialize(value).map_err(|error| ("value_error", error.to_string()))
    });
    let actions = actions.unwrap_or_default();
    if actions.iter().map(|action| action.entities.len()).sum::<usize>() > MAX_ENTITIES {
        body.violate("actions", "too_long", "there are more than 1000 entities");
    }
    body.finish()?;
    let of_path = (path.any_dag_id()?, path.any_run_id()?);
    let mut answer = BulkResponse::default();
    for action in actions {
        let slot = match action.action {
            Kind::Create => &mut answer.create,
            Kind::Update => &mut answer.update,
            Kind::Delete => &mut answer.delete,
        };
        let done = slot.get_or_insert_default();
        if !matches!(action.action, Kind::Update) {
            let error = "task instances are not made or deleted by hand; `update` sets their states and notes";
            done.errors.push(json!({"error": error, "status_code": 405}));
            continue;
        }
        for entity in &action.entities {
            match update(&app, &user, &of_path, entity, &action).await {
                Ok(Some(name)) => done.success.push(name),
                Ok(None) => {}
                Err(error) => done
                    .errors
                    .push(json!({"error": error.detail(), "status_code": error.code().status().as_u16()})),
            }
        }
    }
    Ok(Json(answer))
}

/// Changes one; nothing where there is none and that does not matter.
async fn update(
    app: &App,
    user: &User,
    (dag_id, run_id): &(Option<DagId>, Option<RunId>),
    entity: &Value,
    action: &Action,
) -> Result<Option<String>, ApiError> {
    let invalid = |message: String| ApiError::new(Code::NotSupported, message);
    let entity = Entity::deserialize(entity).map_err(|error| invalid(format!("an entity is not valid: {error}")))?;
    let masked = |name: &str| {
        let mask = action.update_mask.as_ref();
        mask.is_none_or(|mask| mask.iter().any(|given| given == name))
    };
    let state = entity.new_state.filter(|_| masked("new_state"));
    let note = entity.note.filter(|_| masked("note"));
    if note.as_ref().is_some_and(|note| note.chars().count() > MAX_NOTE) {
        return Err(invalid(format!("a note has at most {MAX_NOTE} characters")));
    }
    if state.is_none() && note.is_none() {
        return Err(invalid("there is nothing to change".to_owned()));
    }
    // What the path names is meant, whatever the entity says.
    let (Some(dag_id), Some(run_id)) = (dag_id.clone().or(entity.dag_id), run_id.clone().or(entity.dag_run_id)) else {
        return Err(invalid(
            "an entity needs a `dag_id` and a `dag_run_id` where the path has `~`".to_owned(),
        ));
    };
    let map_index = entity.map_index.map(MapIndex);
    let name = format!(
        "{dag_id}.{run_id}.{}[{}]",
        entity.task_id,
        map_index.unwrap_or(MapIndex::UNMAPPED).0
    );
    let change = Change {
        dag_id,
        run_id,
        tasks: vec![(entity.task_id, map_index)],
        groups: Vec::new(),
        state,
        note,
        include_upstream: entity.include_upstream,
        include_downstream: entity.include_downstream,
        include_past: entity.include_past,
        include_future: entity.include_future,
    };
    match change.carry_out(app, user, false).await {
        Ok(_) => Ok(Some(name)),
        Err(error)
            if error.code().status().as_u16() == 404 && action.action_on_non_existence == OnNonExistence::Skip =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
