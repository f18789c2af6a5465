//! What runs and task instances that could go on wait for: slots of any kind. In words, for people.

use model::capacity::{KeptFor, PoolNow, waits_for_pool, waits_for_run_slot};
use model::dag::Task;
use model::{DagRunState, TaskInstanceState};
use ports::control::KeptSlots;
use ports::query::{DagRow, OrderBy, Page, RunField, RunFilter, RunRow, TiFilter, TiRow, TimeRange};

use crate::error::ApiError;
use crate::state::App;

/// The most runs that are named as holders of the slots which another one waits for.
const NAMED: u32 = 3;

const ONE: Page = Page { limit: 1, offset: 0 };

/// Why a run is not running.
pub(super) async fn run(app: &App, run: &RunRow, dag: &DagRow) -> Result<String, ApiError> {
    let state = format!("the run is `{}`, not `running`", run.state);
    if let Some(reason) = &run.set_aside {
        return Ok(format!("{state}: it was set aside: {reason}"));
    }
    // One of a paused DAG waits for that alone.
    if run.state != DagRunState::Queued || dag.paused {
        return Ok(state);
    }
    if run.run_after > app.clock.now() {
        return Ok(format!("{state}: it starts at {}", run.run_after));
    }
    let of_dag = |states| RunFilter {
        dag_id: Some(run.dag_id.clone()),
        states,
        ..RunFilter::default()
    };
    let page = Page {
        limit: NAMED,
        offset: 0,
    };
    let running = app.metadata.runs(&of_dag(vec![DagRunState::Running]), page).await?;
    let max = dag.version.dag.max_active_runs;
    if running.total < u64::from(max) {
        return Ok(state);
    }
    let names: Vec<&str> = running.items.iter().map(|run| run.run_id.as_str()).collect();
    let slot = waits_for_run_slot(run.dag_id.as_str(), max, &names, running.total);
    // What it looks back at goes first, whoever else waits.
    let before = match run.logical_date {
        Some(date) if !dag.version.dag.looking_back().is_empty() => {
            let earlier = RunFilter {
                logical_date: TimeRange {
                    lt: Some(date),
                    ..TimeRange::default()
                },
                order_by: vec![OrderBy {
                    field: RunField::LogicalDate,
                    descending: true,
                }],
                ..of_dag(Vec::new())
            };
            app.metadata.runs(&earlier, ONE).await?.items.into_iter().next()
        }
        _ => None,
    };
    let before = before.filter(|before| !before.state.is_finished());
    let before = before.map_or_else(String::new, |before| {
        format!(
            "; its tasks look back at the run before, `{}`, which is {} and goes first",
            before.run_id, before.state
        )
    });
    Ok(format!("{state}: {slot}{before}"))
}

/// The wait of a deferred task instance for the run that it triggered.
pub(super) async fn triggered(app: &App, ti: &TiRow) -> Result<Option<String>, ApiError> {
    // Of a mapped task that triggers very many the latest are looked at.
    let latest = Page { limit: 500, offset: 0 };
    let filter = RunFilter {
        parent: Some(ti.key.run),
        order_by: vec![OrderBy {
            field: RunField::Key,
            descending: true,
        }],
        ..RunFilter::default()
    };
    let place = (ti.key.task, ti.key.map_index, ti.dispatch);
    let children = app.metadata.runs(&filter, latest).await?.items;
    let child = children.into_iter().find(|child| {
        let parent = child.parent.as_ref();
        parent.is_some_and(|parent| (parent.task, parent.map_index, parent.dispatch) == place)
    });
    let Some(child) = child else { return Ok(None) };
    let words = format!("it waits for run `{}` of DAG `{}`", child.run_id, child.dag_id);
    let dag = app.metadata.dag(&child.dag_id).await?;
    Ok(Some(match dag.filter(|_| child.state == DagRunState::Queued) {
        None => format!("{words}, which is {}", child.state),
        Some(dag) if dag.paused => format!("{words}: DAG `{}` is paused", child.dag_id),
        Some(dag) => format!("{words}: {}", run(app, &child, &dag).await?),
    }))
}

/// What a task instance that its rule lets run waits for, each under Airflow's name for it.
pub(super) async fn task_instance(
    app: &App,
    ti: &TiRow,
    task: &Task,
    dag: &DagRow,
) -> Result<Vec<(&'static str, String)>, ApiError> {
    let mut found = Vec::new();
    let room = app.control.room();
    let kept = room.kept.iter().find(|kept| kept.pool == ti.pool);
    if let Some(reason) = pool(app, ti, kept).await? {
        found.push(("Pool Slots Available", reason));
    }
    let dispatched = [
        TaskInstanceState::Queued,
        TaskInstanceState::Running,
        TaskInstanceState::Restarting,
    ];
    let count = async |filter: TiFilter, states: &[TaskInstanceState]| {
        let filter = TiFilter {
            states: states.to_vec(),
            ..filter
        };
        app.metadata.task_instances(&filter, ONE).await.map(|found| found.total)
    };
    let in_dag = TiFilter {
        dag_id: Some(ti.dag_id.clone()),
        ..TiFilter::default()
    };
    let max = dag.version.dag.max_active_tasks;
    if count(in_dag.clone(), &dispatched).await? >= u64::from(max) {
        let reason = format!(
            "DAG `{}` has `max_active_tasks: {max}`, and so many are at work",
            ti.dag_id
        );
        found.push(("Task Instance Slots Available", reason));
    }
    let mut at_work = dispatched.to_vec();
    if task.work.trigger_dag().is_some() {
        at_work.push(TaskInstanceState::Deferred);
    }
    let of_task = TiFilter {
        task_ids: vec![ti.task_id.clone()],
        ..in_dag
    };
    let limits = [
        ("max_active_tis_per_dag", task.queueing.max_active_tis_per_dag, None),
        (
            "max_active_tis_per_dagrun",
            task.queueing.max_active_tis_per_dagrun,
            Some(ti.run_id.clone()),
        ),
    ];
    for (name, limit, run_id) in limits {
        let Some(limit) = limit else { continue };
        let filter = TiFilter {
            run_id,
            ..of_task.clone()
        };
        if count(filter, &at_work).await? >= u64::from(limit) {
            let waiting = if at_work.len() > dispatched.len() {
                " or wait for the runs that they triggered"
            } else {
                ""
            };
            let reason = format!(
                "`{}` has `{name}: {limit}`, and so many are at work{waiting}",
                ti.task_id
            );
            found.push(("Task Concurrency", reason));
        }
    }
    if let Some(parallelism) = room.parallelism
        && count(TiFilter::default(), &dispatched).await? >= u64::from(parallelism)
    {
        let reason = format!(
            "the server runs {parallelism} task instances at a time (`--parallelism`), and so many are at work"
        );
        found.push(("Parallelism", reason));
    }
    Ok(found)
}

async fn pool(app: &App, ti: &TiRow, kept: Option<&KeptSlots>) -> Result<Option<String>, ApiError> {
    let pools = app.metadata.pools().await?;
    let pool = pools.iter().find(|pool| pool.name == ti.pool);
    let deferred = match pool {
        Some(pool) if pool.include_deferred => {
            let usage = app.metadata.pool_use().await?;
            let held = usage
                .iter()
                .filter(|usage| usage.pool == pool.name && usage.state == TaskInstanceState::Deferred);
            held.map(|usage| usage.slots).sum()
        }
        _ => 0,
    };
    let pool = pool.map(|pool| PoolNow {
        name: &pool.name,
        slots: i64::from(pool.slots),
        used: pool.used,
        deferred: i64::try_from(deferred).unwrap_or(i64::MAX),
    });
    let who = kept.map(|kept| {
        let instance = match kept.map_index.0 {
            ..0 => kept.task_id.to_string(),
            index => format!("{}[{index}]", kept.task_id),
        };
        format!("`{instance}` of run `{}` of DAG `{}`", kept.run_id, kept.dag_id)
    });
    let kept = match (kept, &who) {
        (Some(kept), _)
            if (&kept.dag_id, &kept.run_id, &kept.task_id, kept.map_index)
                == (&ti.dag_id, &ti.run_id, &ti.task_id, ti.key.map_index) =>
        {
            KeptFor::Itself
        }
        (Some(kept), Some(who)) => KeptFor::Another(who, kept.slots),
        _ => KeptFor::Nobody,
    };
    Ok(waits_for_pool(&ti.pool, pool, ti.pool_slots, kept))
}
