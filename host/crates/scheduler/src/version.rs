//! DAG versions in memory: what every dispatch of a version shares, and a bounded cache of versions that are not in use.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use model::run::Ti;
use model::{Dag, TaskIndex};
use ports::deploy::DagVersion;
use ports::executor::TaskSpec;
use uuid::Uuid;

use crate::repeats::Repeats;

/// A DAG version and what is derived from it once.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) stored: Arc<DagVersion>,
    /// By task index.
    specs: Vec<Arc<TaskSpec>>,
    pub(crate) repeats: Repeats,
}

impl Version {
    pub(crate) fn new(stored: Arc<DagVersion>) -> Arc<Self> {
        let specs = stored
            .dag
            .tasks
            .iter()
            .map(|task| {
                Arc::new(TaskSpec {
                    task_id: task.id.clone(),
                    work: task.work.clone(),
                    input: task.input.clone(),
                    limits: task.limits.clone(),
                    max_tries: task.retry.retries.saturating_add(1),
                    measures: task.measures.clone(),
                    map_index_template: task.map_index_template.clone(),
                    when: task.when.clone(),
                })
            })
            .collect();
        let repeats = Repeats::of(&stored.dag);
        Arc::new(Self { stored, specs, repeats })
    }

    pub(crate) fn dag(&self) -> &Arc<Dag> {
        &self.stored.dag
    }

    pub(crate) fn uuid(&self) -> Uuid {
        self.stored.uuid
    }

    /// What the executor needs to know of a try. A cleared task instance may have more tries than its task says, and a retry
    /// policy may have raised its memory limit.
    pub(crate) fn spec(&self, task: TaskIndex, ti: &Ti) -> Option<Arc<TaskSpec>> {
        let spec = self.specs.get(task.at())?;
        let memory_bytes = ti.memory_bytes(self.dag().task(task)?);
        if spec.max_tries == ti.max_tries && spec.limits.memory_bytes == memory_bytes {
            return Some(Arc::clone(spec));
        }
        let mut spec = TaskSpec::clone(spec);
        spec.max_tries = ti.max_tries;
        spec.limits.memory_bytes = memory_bytes;
        Some(Arc::new(spec))
    }

    /// Whether `upstream` is a direct or transitive upstream of `task`.
    pub(crate) fn is_upstream(&self, upstream: TaskIndex, task: TaskIndex) -> bool {
        let dag = self.dag();
        let Some(start) = dag.task(task) else { return false };
        if start.upstream.binary_search(&upstream).is_ok() {
            return true;
        }
        let mut seen = vec![false; dag.tasks.len()];
        let mut open: Vec<TaskIndex> = start.upstream.clone();
        while let Some(next) = open.pop() {
            if next == upstream {
                return true;
            }
            if let Some(seen) = seen.get_mut(next.at())
                && !std::mem::replace(seen, true)
                && let Some(next) = dag.task(next)
            {
                open.extend_from_slice(&next.upstream);
            }
        }
        false
    }
}

/// How many versions are kept that no run and no DAG refers to.
const KEPT: usize = 32;

/// Versions by UUID. One that a run uses is found as long as the run lives; beyond that the last few are kept.
#[derive(Debug, Default)]
pub(crate) struct VersionCache {
    by_uuid: HashMap<Uuid, Weak<Version>>,
    recent: VecDeque<Arc<Version>>,
}

impl VersionCache {
    pub(crate) fn get(&self, uuid: Uuid) -> Option<Arc<Version>> {
        self.by_uuid.get(&uuid)?.upgrade()
    }

    /// Adds a version, or answers the one that is there already.
    pub(crate) fn insert(&mut self, stored: Arc<DagVersion>) -> Arc<Version> {
        if let Some(known) = self.get(stored.uuid) {
            return known;
        }
        let version = Version::new(stored);
        if self.by_uuid.len() > 4 * KEPT {
            self.by_uuid.retain(|_, version| version.strong_count() > 0);
        }
        self.by_uuid.insert(version.uuid(), Arc::downgrade(&version));
        if self.recent.len() == KEPT {
            self.recent.pop_front();
        }
        self.recent.push_back(Arc::clone(&version));
        version
    }
}
