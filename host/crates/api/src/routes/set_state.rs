//! Setting the state of task instances by hand.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use model::{DagId, MapIndex, RunId, TaskId, TaskInstanceState};
use ports::control::{SetNoteRequest, SetStateRequest};
use ports::query::TiRow;
use utoipa::ToSchema;

use super::dag_runs::MAX_NOTE;
use super::task_instances::{TaskInstanceCollectionResponse, find, whole};
use super::{dag_runs, under};
use crate::auth::User;
use crate::error::ApiError;
use crate::openapi::{Kind, Op, Routes};
use crate::request::{JsonObject, PathArgs, Query};
use crate::state::App;

pub(crate) fn add(routes: Routes) -> Routes {
    let op = |id, summary| {
        Op::new("task_instance", id, summary)
            .query(&[("update_mask", Kind::Texts)])
            .body::<PatchTaskInstanceBody>()
            .ok::<TaskInstanceCollectionResponse>()
    };
    let map_index = &[("map_index", Kind::Int)];
    routes
        .patch(
            under!(ti ""),
            patch,
            op(
                "patch_task_instance",
                "Set the state of a task instance, or of all instances of a mapped task",
            )
            .query(map_index),
        )
        .patch(
            under!(ti "/{map_index}"),
            patch,
            op(
                "patch_task_instance_by_map_index",
                "Set the state of one instance of a mapped task",
            ),
        )
        .patch(
            under!(ti "/dry_run"),
            dry_run,
            op("patch_task_instance_dry_run", "What setting the state would change").query(map_index),
        )
        .patch(
            under!(ti "/{map_index}/dry_run"),
            dry_run,
            op(
                "patch_task_instance_dry_run_by_map_index",
                "What setting the state of one instance of a mapped task would change",
            ),
        )
        .patch(
            under!(run "/taskGroupInstances/{group_id}"),
            patch_group,
            op(
                "patch_task_group_instances",
                "Set the state of all task instances of a task group",
            ),
        )
        .patch(
            under!(run "/taskGroupInstances/{group_id}/dry_run"),
            group_dry_run,
            op(
                "patch_task_group_instances_dry_run",
                "What setting the state of a task group's instances would change",
            ),
        )
}

#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "describes the body in the OpenAPI document; the members are read one by one"
)]
struct PatchTaskInstanceBody {
    /// `success`, `failed` or `skipped`.
    new_state: Option<String>,
    note: Option<String>,
    include_upstream: Option<bool>,
    include_downstream: Option<bool>,
    include_future: Option<bool>,
    include_past: Option<bool>,
}

/// What the path names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Task,
    Group,
}

/// The handler of one path: they differ in what the path names, and in whether anything is done.
macro_rules! handler {
    ($name:ident, $of:expr, dry_run: $dry_run:expr) => {
        async fn $name(
            State(app): State<Arc<App>>,
            user: User,
            path: PathArgs,
            query: Query,
            body: JsonObject,
        ) -> Result<Json<TaskInstanceCollectionResponse>, ApiError> {
            set(&app, &user, &path, query, body, $of, $dry_run).await
        }
    };
}

handler!(patch, Of::Task, dry_run: false);
handler!(dry_run, Of::Task, dry_run: true);
handler!(patch_group, Of::Group, dry_run: false);
handler!(group_dry_run, Of::Group, dry_run: true);

async fn set(
    app: &App,
    user: &User,
    path: &PathArgs,
    mut query: Query,
    mut body: JsonObject,
    of: Of,
    dry_run: bool,
) -> Result<Json<TaskInstanceCollectionResponse>, ApiError> {
    let state = body.named::<TaskInstanceState>("new_state");
    let settable = [
        TaskInstanceState::Success,
        TaskInstanceState::Failed,
        TaskInstanceState::Skipped,
    ];
    if state.is_some_and(|state| !settable.contains(&state)) {
        body.violate(
            "new_state",
            "enum",
            "a task instance can be set to `success`, `failed` or `skipped`",
        );
    }
    let note = body.short_text("note", MAX_NOTE);
    let include_upstream = body.flag("include_upstream").unwrap_or(false);
    let include_downstream = body.flag("include_downstream").unwrap_or(false);
    let include_future = body.flag("include_future").unwrap_or(false);
    let include_past = body.flag("include_past").unwrap_or(false);
    let mask = query.texts("update_mask");
    let unmasked = |name: &str| mask.is_empty() || mask.iter().any(|given| given == name);
    let state = state.filter(|_| unmasked("new_state"));
    let note = note.filter(|_| unmasked("note"));
    if state.is_none() && note.is_none() {
        body.violate("new_state", "missing", "there is nothing to change");
    }
    let in_query = query.map_index("map_index");
    query.finish()?;
    body.finish()?;
    let row = dag_runs::find(app, path).await?;
    let (tasks, groups) = match of {
        Of::Group => (Vec::new(), vec![path.text("group_id").to_owned()]),
        Of::Task => {
            let map_index = path.map_index()?.or(in_query);
            if let Some(map_index) = map_index.filter(|index| *index != MapIndex::UNMAPPED) {
                find(app, path, map_index).await?;
            }
            (vec![(path.task_id()?, map_index)], Vec::new())
        }
    };
    let change = Change {
        dag_id: row.dag_id,
        run_id: row.run_id,
        tasks,
        groups,
        state,
        note,
        include_upstream,
        include_downstream,
        include_past,
        include_future,
    };
    let rows = change.carry_out(app, user, dry_run).await?;
    Ok(Json(whole(app, rows).await?))
}

/// What is to change about task instances.
pub(super) struct Change {
    pub(super) dag_id: DagId,
    pub(super) run_id: RunId,
    pub(super) tasks: Vec<(TaskId, Option<MapIndex>)>,
    pub(super) groups: Vec<String>,
    pub(super) state: Option<TaskInstanceState>,
    pub(super) note: Option<String>,
    pub(super) include_upstream: bool,
    pub(super) include_downstream: bool,
    pub(super) include_past: bool,
    pub(super) include_future: bool,
}

impl Change {
    /// Sets the state, then the note of what is named itself. Answers what got the state, or else the note.
    pub(super) async fn carry_out(self, app: &App, user: &User, dry_run: bool) -> Result<Vec<TiRow>, ApiError> {
        let Self {
            dag_id,
            run_id,
            tasks,
            groups,
            state,
            note,
            ..
        } = self;
        let mut rows = Vec::new();
        if let Some(state) = state {
            let request = SetStateRequest {
                dag_id: dag_id.clone(),
                run_id: run_id.clone(),
                include_past: self.include_past,
                include_future: self.include_future,
                tasks: tasks.clone(),
                groups: groups.clone(),
                include_upstream: self.include_upstream,
                include_downstream: self.include_downstream,
                state,
                dry_run,
                user: user.name().to_owned(),
            };
            rows = app.control.set_task_instance_state(request).await?;
        }
        if let Some(note) = note.filter(|_| !dry_run) {
            let request = SetNoteRequest {
                dag_id,
                run_id,
                tasks,
                groups,
                note,
                user: user.name().to_owned(),
            };
            let noted = app.control.set_task_instance_note(request).await?;
            if state.is_none() {
                return Ok(noted);
            }
            for row in &mut rows {
                if let Some(noted) = noted.iter().find(|noted| noted.key == row.key) {
                    row.note.clone_from(&noted.note);
                }
            }
        }
        Ok(rows)
    }
}
