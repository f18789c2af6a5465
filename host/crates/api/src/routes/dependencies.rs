//! Why a task instance does not run yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use model::{DagRunState, MapIndex, TaskInstanceState};
use ports::query::{TiFilter, TiRow};
use serde::Serialize;
use utoipa::ToSchema;

use super::task_instances::{dag_of, find};
use super::ti_list::overlay;
use super::{dag_runs, dags, under};
use crate::error::ApiError;
use crate::openapi::{Op, Routes};
use crate::page;
use crate::request::PathArgs;
use crate::state::App;

pub(crate) fn add(routes: Routes) -> Routes {
    let op = |id, summary| Op::new("task_instance", id, summary).ok::<TaskDependencyCollectionResponse>();
    routes
        .get(
            under!(ti "/dependencies"),
            list,
            op(
                "get_task_instance_dependencies",
                "Why a task instance does not run yet; empty once it has been queued",
            ),
        )
        .get(
            under!(ti "/{map_index}/dependencies"),
            list,
            op(
                "get_task_instance_dependencies_by_map_index",
                "Why an instance of a mapped task does not run yet; empty once it has been queued",
            ),
        )
}

#[derive(Serialize, ToSchema)]
struct TaskDependencyCollectionResponse {
    dependencies: Vec<TaskDependencyResponse>,
}

#[derive(Serialize, ToSchema)]
struct TaskDependencyResponse {
    /// Under Airflow's names.
    name: &'static str,
    reason: String,
}

async fn list(State(app): State<Arc<App>>, path: PathArgs) -> Result<Json<TaskDependencyCollectionResponse>, ApiError> {
    let ti = find(&app, &path, path.map_index()?.unwrap_or(MapIndex::UNMAPPED)).await?;
    let mut dependencies = Vec::new();
    let mut add = |name, reason| dependencies.push(TaskDependencyResponse { name, reason });
    let waits = matches!(ti.state, TaskInstanceState::NoStatus | TaskInstanceState::Scheduled);
    if waits {
        let run = dag_runs::find(&app, &path).await?;
        if run.state != DagRunState::Running {
            add("Dagrun Running", format!("the run is `{}`, not `running`", run.state));
        }
        if dags::find(&app, &path).await?.paused {
            add("Dag Not Paused", format!("DAG `{}` is paused", run.dag_id));
        }
    }
    match ti.state {
        TaskInstanceState::NoStatus => {
            if let Some(reason) = rule(&app, &path, &ti).await? {
                add("Trigger Rule", reason);
            }
        }
        TaskInstanceState::Scheduled => {
            let pools = app.metadata.pools().await?;
            let pool = pools.iter().find(|pool| pool.name == ti.pool);
            if let Some(pool) = pool.filter(|pool| pool.slots >= 0)
                && pool.used + i64::from(ti.pool_slots) > i64::from(pool.slots)
            {
                let reason = format!(
                    "it needs {} slots of pool `{}`, of which {} of {} are in use",
                    ti.pool_slots, pool.name, pool.used, pool.slots
                );
                add("Pool Slots Available", reason);
            }
        }
        _ => {}
    }
    Ok(Json(TaskDependencyCollectionResponse { dependencies }))
}

/// What the trigger rule waits for: the states of upstream task instances that have not succeeded.
async fn rule(app: &App, path: &PathArgs, ti: &TiRow) -> Result<Option<String>, ApiError> {
    let run = dag_runs::find(app, path).await?;
    let dag = dag_of(app, &run).await?;
    let Some(task) = dag.task(ti.key.task) else {
        return Ok(None);
    };
    let upstream: Vec<_> = task.upstream.iter().filter_map(|index| dag.task(*index)).collect();
    if upstream.is_empty() {
        return Ok(None);
    }
    let filter = TiFilter {
        dag_id: Some(run.dag_id.clone()),
        run_id: Some(run.run_id.clone()),
        task_ids: upstream.iter().map(|task| task.id.clone()).collect(),
        ..TiFilter::default()
    };
    let mut rows = page::scan("this question", |page| app.metadata.task_instances(&filter, page)).await?;
    overlay(app, &mut rows);
    let mut open: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.state != TaskInstanceState::Success) {
        *open.entry((row.task_id.as_str(), row.state.as_str())).or_default() += 1;
    }
    let found: Vec<String> = open
        .into_iter()
        .map(|((task, state), count)| match count {
            1 => format!("`{task}` is {state}"),
            count => format!("{count} instances of `{task}` are {state}"),
        })
        .collect();
    if found.is_empty() {
        return Ok(None);
    }
    Ok(Some(format!(
        "the trigger rule `{}` is not met yet: {}",
        task.trigger_rule.as_str(),
        found.join(", ")
    )))
}
