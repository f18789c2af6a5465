//! Small DAGs for tests.

use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;

use crate::callback::{Callback, CallbackAction, CallbackEvent, NotificationLevel, TEXT};
use crate::dag::{DEFAULT_POOL, Dag, DagParts, Queueing, RetryPolicy, Task, TaskKind, TaskRole};
use crate::id::{DagId, Digest, TaskId, TaskIndex};
use crate::limits::Limits;
use crate::trigger_rule::TriggerRule;
use crate::work::Work;

/// The CPU time of this thread: what other programs do on the machine does not count.
pub(crate) fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap()
}

/// A plain task after these positions.
pub(crate) fn task(id: &str, upstream: &[u32]) -> Task {
    Task {
        id: TaskId::new(id).unwrap(),
        work: Work::of_component("c@1", Digest([0; 32]), "t"),
        doc_md: None,
        input: serde_json::Value::Null,
        trigger_rule: TriggerRule::AllSuccess,
        upstream: upstream.iter().copied().map(TaskIndex).collect(),
        downstream: Vec::new(),
        group: None,
        expand: None,
        map_index_template: None,
        when: None,
        measures: Vec::new(),
        kind: TaskKind::Plain,
        role: TaskRole::Work,
        past: crate::past::Past::Ignored,
        retry: RetryPolicy {
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
    }
}

/// A notification.
pub(crate) fn notify(event: CallbackEvent, text: &str) -> Callback {
    Callback {
        event,
        action: CallbackAction::Notify {
            level: NotificationLevel::Info,
        },
        input: serde_json::json!({ TEXT: text }),
    }
}

/// A DAG of these tasks; the downstream lists are filled in.
pub(crate) fn dag(mut tasks: Vec<Task>, edit: impl FnOnce(&mut DagParts)) -> Arc<Dag> {
    for at in 0..tasks.len() {
        for upstream in tasks[at].upstream.clone() {
            tasks[upstream.at()]
                .downstream
                .push(TaskIndex(u32::try_from(at).unwrap()));
        }
    }
    let mut parts = DagParts {
        id: DagId::new("d").unwrap(),
        description: None,
        doc_md: None,
        owner: "airtight".to_owned(),
        tags: Vec::new(),
        params: IndexMap::new(),
        strict_params: false,
        max_active_runs: 16,
        max_active_tasks: 16,
        dagrun_timeout: None,
        callbacks: Vec::new(),
        max_consecutive_failed_dag_runs: 0,
        groups: Vec::new(),
        tasks,
    };
    edit(&mut parts);
    Arc::new(Dag::from(parts))
}
