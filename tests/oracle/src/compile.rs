//! From a case to a DAG and the behaviour of its tasks.

use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use model::dag::{
    Combine, DEFAULT_MAP_LIMIT, DEFAULT_POOL, DagParts, Expansion, MapSource, MapValues, Queueing, RetryPolicy, Task,
    TaskKind, TaskRole,
};
use model::{Dag, DagId, Digest, Limits, TaskId, TaskIndex, TriggerRule, Work};

use crate::case::{Case, Outcome};

/// Why a case cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// It does not make sense.
    #[error("the case is not well formed: {0}")]
    Malformed(String),
}

/// A case, ready to be driven.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The graph.
    pub dag: Arc<Dag>,
    /// What the body of each task does, for each element that it may be mapped over.
    pub outcomes: Vec<Vec<Outcome>>,
}

fn mapped(values: MapValues) -> Expansion {
    Expansion {
        how: Combine::Product,
        sources: vec![MapSource {
            name: "element".to_owned(),
            values,
        }],
        limit: DEFAULT_MAP_LIMIT,
    }
}

/// Builds the DAG of a case.
pub fn compile(case: &Case) -> Result<Plan, Unsupported> {
    let malformed = |problem: String| Unsupported::Malformed(problem);
    let index_of = |id: &str| {
        let at = case.tasks.iter().position(|task| task.id == id);
        at.and_then(|at| u32::try_from(at).ok())
            .map(TaskIndex)
            .ok_or_else(|| malformed(format!("no task `{id}`")))
    };
    let mut tasks = Vec::new();
    let mut outcomes = Vec::new();
    for task in &case.tasks {
        let mut upstream = task
            .upstream
            .iter()
            .map(|id| index_of(id))
            .collect::<Result<Vec<_>, _>>()?;
        upstream.sort_unstable();
        upstream.dedup();
        let bodies = match (&task.map, &task.outcome) {
            (Some(map), _) => map.outcomes.clone(),
            (None, Some(outcome)) => vec![outcome.clone()],
            (None, None) => return Err(malformed(format!("`{}` has no outcome", task.id))),
        };
        let expand = match &task.map {
            None => None,
            Some(map) if map.over == "literal" => Some(mapped(MapValues::Literal {
                value: map.outcomes.iter().map(|_| 0).collect(),
            })),
            Some(map) => Some(mapped(MapValues::Xcom {
                task: index_of(&map.over)?,
                key: "return_value".to_owned(),
                path: Vec::new(),
                measure: 0,
            })),
        };
        let kind = match task.kind.as_str() {
            "task" => TaskKind::Plain,
            "branch" => TaskKind::Branch {
                labels: IndexMap::new(),
            },
            "short_circuit" => TaskKind::ShortCircuit {
                ignore_downstream_trigger_rules: task.ignore_downstream_trigger_rules,
            },
            other => return Err(malformed(format!("unknown type `{other}`"))),
        };
        let role = match &task.teardown {
            Some(teardown) => TaskRole::Teardown {
                on_failure_fail_dagrun: teardown.on_failure_fail_dagrun,
            },
            None if task.setup => TaskRole::Setup,
            None => TaskRole::Work,
        };
        outcomes.push(bodies);
        tasks.push(Task {
            id: TaskId::new(&task.id).map_err(|error| malformed(error.to_string()))?,
            work: Work::of_component("case@1", Digest([0; 32]), task.id.clone()),
            doc_md: None,
            input: serde_json::Value::Null,
            trigger_rule: task
                .trigger_rule
                .parse::<TriggerRule>()
                .map_err(|error| malformed(error.to_string()))?,
            upstream,
            downstream: Vec::new(),
            group: None,
            expand,
            map_index_template: None,
            when: None,
            // Its length; of a mapped task whether it published.
            measures: Vec::new(),
            kind,
            role,
            past: model::past::Past::Ignored,
            retry: RetryPolicy {
                retries: task.retries,
                delay: Duration::ZERO,
                ..RetryPolicy::default()
            },
            sensor: None,
            limits: Limits::default(),
            rerun_on_loss: true,
            max_infra_retries: 3,
            pool: DEFAULT_POOL.to_owned(),
            pool_slots: 1,
            priority_weight: 1,
            queueing: Queueing::default(),
            callbacks: Vec::new(),
        });
    }
    for (at, task) in case.tasks.iter().enumerate() {
        for upstream in &task.upstream {
            let downstream = &mut tasks[index_of(upstream)?.at()].downstream;
            downstream.extend(u32::try_from(at).map(TaskIndex));
        }
    }
    Ok(Plan {
        dag: Arc::new(Dag::from(DagParts {
            id: DagId::new(&case.id).map_err(|error| malformed(error.to_string()))?,
            description: None,
            doc_md: None,
            owner: String::new(),
            tags: Vec::new(),
            params: IndexMap::new(),
            strict_params: false,
            max_active_runs: 1,
            max_active_tasks: u32::MAX,
            dagrun_timeout: None,
            callbacks: Vec::new(),
            max_consecutive_failed_dag_runs: 0,
            groups: Vec::new(),
            tasks,
        })),
        outcomes,
    })
}
