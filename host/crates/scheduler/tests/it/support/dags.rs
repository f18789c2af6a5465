//! DAGs without manifests.

use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use model::dag::{DEFAULT_POOL, DagParts, Param, Queueing, RetryPolicy, Task, TaskKind, TaskRole};
use model::{Dag, DagId, Digest, Limits, TaskId, TaskIndex, TriggerRule, Work};
use ports::deploy::CheckedManifest;

/// Builds a DAG task by task; upstream tasks are named before they are used.
pub(crate) struct DagBuilder {
    parts: DagParts,
}

impl DagBuilder {
    pub(crate) fn new(id: &str) -> Self {
        Self {
            parts: DagParts {
                id: DagId::new(id).unwrap(),
                description: None,
                doc_md: None,
                owner: "airtight".to_owned(),
                tags: Vec::new(),
                params: IndexMap::new(),
                strict_params: false,
                max_active_runs: 16,
                max_active_tasks: 1_000,
                dagrun_timeout: None,
                callbacks: Vec::new(),
                max_consecutive_failed_dag_runs: 0,
                groups: Vec::new(),
                tasks: Vec::new(),
            },
        }
    }

    /// `n` tasks `t0`, `t1`, …, each after the one before.
    pub(crate) fn chain(id: &str, n: usize) -> Self {
        let mut dag = Self::new(id);
        for at in 0..n {
            let before = format!("t{}", at.saturating_sub(1));
            let upstream = [before.as_str()];
            dag = dag.task(&format!("t{at}"), if at == 0 { &[] } else { &upstream });
        }
        dag
    }

    /// `n` tasks that do not depend on each other.
    pub(crate) fn fan_out(id: &str, n: usize) -> Self {
        (0..n).fold(Self::new(id), |dag, at| dag.task(&format!("t{at}"), &[]))
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut DagParts)) -> Self {
        change(&mut self.parts);
        self
    }

    pub(crate) fn param(self, name: &str, default: Option<serde_json::Value>) -> Self {
        self.with(|parts| {
            let param = Param {
                schema: serde_json::json!({}),
                default,
            };
            parts.params.insert(name.to_owned(), param);
        })
    }

    pub(crate) fn task(self, id: &str, upstream: &[&str]) -> Self {
        self.task_with(id, upstream, |_| {})
    }

    pub(crate) fn task_with(mut self, id: &str, upstream: &[&str], change: impl FnOnce(&mut Task)) -> Self {
        let index = TaskIndex(u32::try_from(self.parts.tasks.len()).unwrap());
        let mut upstream: Vec<TaskIndex> = upstream.iter().map(|name| self.index(name)).collect();
        upstream.sort_unstable();
        for at in &upstream {
            self.parts.tasks[at.at()].downstream.push(index);
        }
        let mut task = Task {
            id: TaskId::new(id).unwrap(),
            work: Work::of_component("noop@1", Digest::of(b"noop"), "noop"),
            doc_md: None,
            input: serde_json::json!({}),
            trigger_rule: TriggerRule::AllSuccess,
            upstream,
            downstream: Vec::new(),
            group: None,
            expand: None,
            map_index_template: None,
            when: None,
            measures: Vec::new(),
            kind: TaskKind::Plain,
            role: TaskRole::Work,
            past: model::past::Past::Ignored,
            retry: RetryPolicy {
                retries: 0,
                delay: Duration::from_secs(10),
                exponential_backoff: false,
                max_delay: None,
                rules: Vec::new(),
            },
            sensor: None,
            limits: Limits::default(),
            rerun_on_loss: true,
            max_infra_retries: 1_000,
            pool: DEFAULT_POOL.to_owned(),
            pool_slots: 1,
            priority_weight: 1,
            queueing: Queueing::default(),
            callbacks: Vec::new(),
        };
        change(&mut task);
        self.parts.tasks.push(task);
        self
    }

    /// The id of a task.
    pub(crate) fn name(&self, task: TaskIndex) -> String {
        self.parts.tasks[task.at()].id.to_string()
    }

    fn index(&self, name: &str) -> TaskIndex {
        let at = self.parts.tasks.iter().position(|task| task.id.as_str() == name);
        TaskIndex(u32::try_from(at.unwrap()).unwrap())
    }

    /// A checked manifest; `content` tells versions apart.
    pub(crate) fn manifest(self, content: &str) -> CheckedManifest {
        CheckedManifest {
            digest: Digest::of(format!("{}:{content}", self.parts.id).as_bytes()),
            source: content.into(),
            dag: Arc::new(Dag::from(self.parts)),
            paused: None,
            diagnostics: Vec::new(),
        }
    }
}
