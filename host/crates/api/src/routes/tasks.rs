//! The tasks of a DAG's current version.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use model::dag::{Task, TaskKind};
use model::past::Past;
use model::{Dag, TaskIndex};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{dags, under};
use crate::error::{ApiError, Code};
use crate::openapi::{Kind, Op, Routes};
use crate::order;
use crate::request::{PathArgs, Query};
use crate::shape::Null;
use crate::state::App;

pub(crate) fn add(routes: Routes) -> Routes {
    routes
        .get(
            under!(dag "/tasks"),
            list,
            Op::new("task", "get_tasks", "The tasks of a DAG")
                .query(&[("order_by", Kind::Text)])
                .ok::<TaskCollectionResponse>(),
        )
        .get(
            under!(dag "/tasks/{task_id}"),
            get,
            Op::new("task", "get_task", "One task of a DAG").ok::<TaskResponse>(),
        )
}

#[derive(Serialize, ToSchema)]
struct TaskCollectionResponse {
    tasks: Vec<TaskResponse>,
    total_entries: u64,
}

#[derive(Serialize, ToSchema)]
struct TimeDelta {
    #[serde(rename = "__type")]
    kind: &'static str,
    days: u64,
    seconds: u64,
    microseconds: u32,
}

impl From<Duration> for TimeDelta {
    fn from(duration: Duration) -> Self {
        const DAY: u64 = 24 * 3600;
        Self {
            kind: "TimeDelta",
            days: duration.as_secs() / DAY,
            seconds: duration.as_secs() % DAY,
            microseconds: duration.subsec_micros(),
        }
    }
}

#[derive(Serialize, ToSchema)]
struct TaskResponse {
    task_id: String,
    task_display_name: String,
    owner: String,
    start_date: Null,
    end_date: Null,
    trigger_rule: &'static str,
    depends_on_past: bool,
    wait_for_downstream: bool,
    retries: u32,
    queue: String,
    pool: String,
    pool_slots: u32,
    execution_timeout: TimeDelta,
    retry_delay: TimeDelta,
    /// The factor of the wait with each try; 0 is none.
    retry_exponential_backoff: f64,
    priority_weight: i32,
    weight_rule: &'static str,
    ui_color: &'static str,
    ui_fgcolor: &'static str,
    template_fields: Vec<&'static str>,
    downstream_task_ids: Vec<String>,
    doc_md: Option<String>,
    operator_name: String,
    #[schema(value_type = Value)]
    params: Value,
    #[schema(value_type = Value)]
    class_ref: Value,
    is_mapped: bool,
    /// The task group that it lies in.
    task_group_id: Option<String>,
    extra_links: Vec<String>,
    /// The component as the manifest names it; `null` for a built-in step.
    component: Option<String>,
    /// The component's content.
    component_digest: Option<String>,
    /// Which task of the component.
    entry: Option<String>,
    /// The input, with its templates.
    #[schema(value_type = Value)]
    input: Value,
    /// A template of true or false; where it is false, the task is skipped.
    when: Option<String>,
    /// Of a step that triggers a DAG: which, or which of several, and what happens where the run is there already.
    #[schema(value_type = Option<Value>)]
    trigger_dag: Option<Value>,
    upstream_task_ids: Vec<String>,
    /// Of a branch: which tasks each label chooses.
    #[schema(value_type = Option<Value>)]
    branches: Option<Value>,
    /// The rules of its `retry_policy`, for people.
    retry_policy: Vec<String>,
    max_retry_delay: Option<TimeDelta>,
    #[schema(value_type = Value)]
    limits: Value,
}

impl TaskResponse {
    fn new(dag: &Dag, index: TaskIndex, task: &Task) -> Self {
        let ids = |indices: &[TaskIndex]| -> Vec<String> {
            let ids = indices.iter().filter_map(|index| dag.task(*index));
            let mut ids: Vec<String> = ids.map(|task| task.id.to_string()).collect();
            ids.sort();
            ids
        };
        let branches = match &task.kind {
            TaskKind::Branch { labels } => {
                let labels = labels.iter().map(|(label, tasks)| (label.clone(), json!(ids(tasks))));
                Some(Value::Object(labels.collect()))
            }
            TaskKind::Plain | TaskKind::ShortCircuit { .. } => None,
        };
        let limits = &task.limits;
        let component = task.work.component();
        Self {
            task_id: task.id.to_string(),
            task_display_name: task.id.to_string(),
            owner: dag.owner.clone(),
            start_date: Null,
            end_date: Null,
            trigger_rule: task.trigger_rule.as_str(),
            depends_on_past: task.past.matters(),
            wait_for_downstream: task.past == Past::WaitForDownstream,
            retries: task.retry.retries,
            queue: task.queueing.queue.clone(),
            pool: task.pool.clone(),
            pool_slots: task.pool_slots,
            execution_timeout: limits.timeout.into(),
            retry_delay: task.retry.delay.into(),
            retry_exponential_backoff: if task.retry.exponential_backoff { 2.0 } else { 0.0 },
            priority_weight: task.priority_weight,
            weight_rule: task.queueing.weight_rule.as_str(),
            ui_color: "#fff",
            ui_fgcolor: "#000",
            template_fields: vec!["input"],
            downstream_task_ids: ids(&task.downstream),
            doc_md: task.doc_md.clone(),
            operator_name: task.work.operator_name().to_owned(),
            params: json!({}),
            class_ref: json!({ "module_path": task.work.operator(), "class_name": task.work.operator_name() }),
            is_mapped: dag.is_mapped(index),
            task_group_id: task
                .group
                .and_then(|group| dag.groups.get(group.at()))
                .map(|group| group.id.to_string()),
            extra_links: Vec::new(),
            component: component.map(|component| component.reference.clone()),
            component_digest: component.map(|component| component.digest.to_string()),
            entry: component.map(|component| component.entry.clone()),
            input: task.input.clone(),
            when: task.when.clone(),
            trigger_dag: task.work.trigger_dag().map(|step| {
                json!({
                    "dag_id": step.dag,
                    "allowed": step.allowed,
                    "if_exists": step.if_exists,
                    "wait": step.wait,
                })
            }),
            upstream_task_ids: ids(&task.upstream),
            branches,
            retry_policy: task.retry.rules.iter().map(ToString::to_string).collect(),
            max_retry_delay: task.retry.max_delay.map(TimeDelta::from),
            limits: json!({
                "memory_bytes": limits.memory_bytes,
                "timeout_seconds": limits.timeout.as_secs_f64(),
                "cpu_time_seconds": limits.cpu_time.as_secs_f64(),
                "log_bytes": limits.log_bytes,
                "on_log_limit": limits.on_log_limit.as_str(),
                "xcom_value_bytes": limits.xcom_value_bytes,
                "xcom_total_bytes": limits.xcom_total_bytes,
                "xcom_keys": limits.xcom_keys,
                "blob_bytes": limits.blob_bytes,
                "checkpoint_bytes": limits.checkpoint_bytes,
            }),
        }
    }
}

#[derive(Clone, Copy)]
enum Column {
    Id,
    TriggerRule,
    Pool,
    PriorityWeight,
    Operator,
    Retries,
}

async fn list(
    State(app): State<Arc<App>>,
    path: PathArgs,
    query: Query,
) -> Result<Json<TaskCollectionResponse>, ApiError> {
    let allowed = [
        ("task_id", Some(Column::Id)),
        ("task_display_name", Some(Column::Id)),
        ("trigger_rule", Some(Column::TriggerRule)),
        ("pool", Some(Column::Pool)),
        ("priority_weight", Some(Column::PriorityWeight)),
        ("operator_name", Some(Column::Operator)),
        ("retries", Some(Column::Retries)),
        ("owner", None),
    ];
    let order = order::parse(&query.texts("order_by"), &allowed)?;
    let row = dags::find(&app, &path).await?;
    let dag = &row.version.dag;
    let mut tasks: Vec<(TaskIndex, &Task)> = (0..).map(TaskIndex).zip(&dag.tasks).collect();
    tasks.sort_by(|(_, left), (_, right)| left.id.cmp(&right.id));
    order::sort(&mut tasks, &order, |column, (_, left), (_, right)| match column {
        Column::Id => left.id.cmp(&right.id),
        Column::TriggerRule => left.trigger_rule.as_str().cmp(right.trigger_rule.as_str()),
        Column::Pool => left.pool.cmp(&right.pool),
        Column::PriorityWeight => left.priority_weight.cmp(&right.priority_weight),
        Column::Operator => left.work.operator_name().cmp(right.work.operator_name()),
        Column::Retries => left.retry.retries.cmp(&right.retry.retries),
    });
    Ok(Json(TaskCollectionResponse {
        total_entries: tasks.len() as u64,
        tasks: tasks
            .into_iter()
            .map(|(index, task)| TaskResponse::new(dag, index, task))
            .collect(),
    }))
}

async fn get(State(app): State<Arc<App>>, path: PathArgs) -> Result<Json<TaskResponse>, ApiError> {
    let row = dags::find(&app, &path).await?;
    let task_id = path.task_id()?;
    let dag = &row.version.dag;
    let found = dag
        .index_of(task_id.as_str())
        .and_then(|index| Some((index, dag.task(index)?)));
    let (index, task) = found.ok_or_else(|| {
        ApiError::new(
            Code::TaskNotFound,
            format!("DAG `{}` has no task `{task_id}`", row.dag_id),
        )
    })?;
    Ok(Json(TaskResponse::new(dag, index, task)))
}
