//! Why a task instance does not run yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use model::dag::Task;
use model::past::{Past, RunBefore, is_successful, judge};
use model::{Dag, DagRunState, MapIndex, TaskIndex, TaskInstanceState};
use ports::query::{OrderBy, Page, RunField, RunFilter, TiFilter, TiRow, TimeRange};
use serde::Serialize;
use utoipa::ToSchema;

use super::task_instances::{dag_of, find};
use super::ti_list::overlay;
use super::{dag_runs, dags, under, waits};
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
                "Why a task instance does not run yet; empty while an executor has it",
            ),
        )
        .get(
            under!(ti "/{map_index}/dependencies"),
            list,
            op(
                "get_task_instance_dependencies_by_map_index",
                "Why an instance of a mapped task does not run yet; empty while an executor has it",
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
        let dag = dags::find(&app, &path).await?;
        if run.state != DagRunState::Running {
            add("Dagrun Running", waits::run(&app, &run, &dag).await?);
        }
        if dag.paused {
            add("Dag Not Paused", format!("DAG `{}` is paused", run.dag_id));
        }
    }
    // A retry or a poke that is due waits for its rule and for the past again.
    let is_due = |ti: &TiRow| ti.next_at.is_none();
    match ti.state {
        TaskInstanceState::UpForRetry | TaskInstanceState::UpForReschedule if is_due(&ti) => {
            if let Some(reason) = past(&app, &path, &ti).await? {
                add("Previous Dagrun State", reason);
            }
        }
        TaskInstanceState::NoStatus => {
            if let Some(reason) = rule(&app, &path, &ti).await? {
                add("Trigger Rule", reason);
            }
            if let Some(reason) = past(&app, &path, &ti).await? {
                add("Previous Dagrun State", reason);
            }
        }
        TaskInstanceState::Deferred => {
            if let Some(reason) = waits::triggered(&app, &ti).await? {
                add("Triggered Dagrun", reason);
            }
        }
        TaskInstanceState::Scheduled => {
            let run = dag_runs::find(&app, &path).await?;
            let of_run = dag_of(&app, &run).await?;
            let dag = dags::find(&app, &path).await?;
            if let Some(task) = of_run.task(ti.key.task) {
                for (name, reason) in waits::task_instance(&app, &ti, task, &dag).await? {
                    add(name, reason);
                }
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
    // A teardown waits for all between its setups and itself.
    let awaited = dag.awaited(ti.key.task);
    let upstream: Vec<_> = awaited.iter().filter_map(|index| dag.task(*index)).collect();
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

/// The run before, as its rows and what memory knows of them say.
struct Before {
    dag: Arc<Dag>,
    rows: Vec<TiRow>,
    /// Whether an older run had the task, if this one has not.
    older: bool,
}

impl RunBefore for Before {
    fn dag(&self) -> &Dag {
        &self.dag
    }

    fn unsuccessful(&self, task: TaskIndex) -> u64 {
        let of_task = || self.rows.iter().filter(|row| row.key.task == task);
        let waiting = of_task().filter(|row| !is_successful(row.state)).count();
        let never_stored = of_task().next().is_none();
        u64::try_from(waiting).unwrap_or(u64::MAX).max(u64::from(never_stored))
    }

    fn was_there_before(&self, _: &Task) -> bool {
        self.older
    }
}

/// What the run before has still to come to, where the task looks back.
async fn past(app: &App, path: &PathArgs, ti: &TiRow) -> Result<Option<String>, ApiError> {
    let run = dag_runs::find(app, path).await?;
    let dag = dag_of(app, &run).await?;
    let (Some(task), Some(date)) = (dag.task(ti.key.task), run.logical_date) else {
        return Ok(None);
    };
    if task.past.is_ignored() {
        return Ok(None);
    }
    let earlier = TimeRange {
        lt: Some(date),
        ..TimeRange::default()
    };
    let filter = RunFilter {
        dag_id: Some(run.dag_id.clone()),
        logical_date: earlier,
        order_by: vec![OrderBy {
            field: RunField::LogicalDate,
            descending: true,
        }],
        ..RunFilter::default()
    };
    let one = Page { limit: 1, offset: 0 };
    let Some(before) = app.metadata.runs(&filter, one).await?.items.into_iter().next() else {
        return Ok(None);
    };
    let mut names = vec![task.id.clone()];
    if task.past == Past::WaitForDownstream {
        let followers = task.downstream.iter().filter_map(|task| dag.task(*task));
        names.extend(followers.map(|task| task.id.clone()));
    }
    let filter = TiFilter {
        dag_id: Some(run.dag_id.clone()),
        run_id: Some(before.run_id.clone()),
        task_ids: names,
        ..TiFilter::default()
    };
    let mut rows = page::scan("this question", |page| app.metadata.task_instances(&filter, page)).await?;
    overlay(app, &mut rows);
    let of_before = dag_of(app, &before).await?;
    let older = of_before.index_of(task.id.as_str()).is_none() && {
        let filter = TiFilter {
            dag_id: Some(run.dag_id.clone()),
            task_ids: vec![task.id.clone()],
            logical_date: earlier,
            ..TiFilter::default()
        };
        app.metadata.task_instances(&filter, one).await?.total > 0
    };
    let before_run = Before {
        dag: of_before,
        rows,
        older,
    };
    let unmet = judge(&dag, task, &before_run).err();
    Ok(unmet.map(|unmet| unmet.reason(&dag, task, before.run_id.as_str())))
}
