//! Reading the store in memory.

use std::sync::Arc;

use model::run::raised_memory_bytes;
use model::{DagId, DagRunKey, DagRunState, Digest, MapIndex, RunId, TaskId, TaskIndex, Timestamp};
use ports::between::ChildRun;
use ports::deploy::DagVersion;
use ports::payload::XcomValue;
use ports::query::{RunRow, TiRow};
use ports::store::{StoredBefore, StoredDag, StoredRun};

use super::tables::{MemoryRun, Tables};

impl Tables {
    pub(super) fn stored_dags(&self) -> Vec<StoredDag> {
        self.dags
            .iter()
            .filter(|(_, dag)| !dag.deleting)
            .filter_map(|(dag_id, dag)| {
                Some(StoredDag {
                    dag_id: dag_id.clone(),
                    paused: dag.paused,
                    version: Arc::clone(self.versions.get(&dag.current)?),
                })
            })
            .collect()
    }

    pub(super) fn find_version(&self, dag_id: &DagId, digest: Digest) -> (Option<Arc<DagVersion>>, u32) {
        let mut found = None;
        let mut highest = 0;
        for version in self.versions.values().filter(|version| version.dag.id == *dag_id) {
            highest = highest.max(version.number);
            if version.digest == digest {
                found = Some(Arc::clone(version));
            }
        }
        (found, highest)
    }

    pub(super) fn stored_run(&self, key: DagRunKey) -> Option<StoredRun> {
        let run = self.runs.get(&key)?;
        Some(StoredRun {
            row: self.run_row(run)?,
            context: Arc::clone(&run.new.context),
            version: run.new.version,
            task_instances: run.task_instances.values().cloned().collect(),
            callbacks: u32::try_from(run.callbacks.len()).unwrap_or(u32::MAX),
        })
    }

    pub(super) fn find_run(&self, dag_id: &DagId, run_id: &RunId) -> Option<DagRunKey> {
        self.names.get(&(dag_id.clone(), run_id.clone())).copied()
    }

    pub(super) fn find_run_by_logical_date(&self, dag_id: &DagId, date: Timestamp) -> Option<RunId> {
        let key = self.logical_dates.get(&(dag_id.clone(), date))?;
        Some(self.runs.get(key)?.new.context.run_id.clone())
    }

    fn runs_before(&self, dag_id: &DagId, date: Timestamp) -> impl Iterator<Item = (Timestamp, &MemoryRun)> {
        let dated = self
            .runs
            .values()
            .filter_map(|run| Some((run.new.context.logical_date?, run)));
        dated.filter(move |(at, run)| run.new.context.dag_id == *dag_id && *at < date)
    }

    pub(super) fn run_before(&self, dag_id: &DagId, date: Timestamp) -> Option<StoredBefore> {
        let (_, run) = self.runs_before(dag_id, date).max_by_key(|(at, _)| *at)?;
        Some(StoredBefore {
            key: run.new.context.key,
            version: run.new.version,
            state: run.state,
            states: run
                .task_instances
                .values()
                .map(|ti| (ti.key.task, ti.state, 1))
                .collect(),
        })
    }

    pub(super) fn has_task_before(&self, dag_id: &DagId, date: Timestamp, task_id: &TaskId) -> bool {
        let mut versions = self
            .runs_before(dag_id, date)
            .filter_map(|(_, run)| self.versions.get(&run.new.version));
        versions.any(|version| version.dag.index_of(task_id.as_str()).is_some())
    }

    pub(super) fn latest_runs(&self, dag_id: &DagId, limit: u32) -> Vec<(DagRunKey, Timestamp, DagRunState)> {
        let of_dag = self.runs.values().filter(|run| run.new.context.dag_id == *dag_id);
        let mut runs: Vec<_> = of_dag
            .map(|run| (run.new.context.key, run.new.context.run_after, run.state))
            .collect();
        runs.sort_by_key(|(key, run_after, _)| std::cmp::Reverse((*run_after, *key)));
        runs.truncate(limit as usize);
        runs
    }

    pub(super) fn runs_between(
        &self,
        dag_id: &DagId,
        start: Option<Timestamp>,
        end: Option<Timestamp>,
        limit: u32,
    ) -> Vec<DagRunKey> {
        self.runs
            .iter()
            .filter(|(_, run)| {
                let context = &run.new.context;
                let at = context.logical_date.unwrap_or(context.run_after);
                context.dag_id == *dag_id && start.is_none_or(|start| at >= start) && end.is_none_or(|end| at <= end)
            })
            .map(|(key, _)| *key)
            .take(usize::try_from(limit).unwrap_or(usize::MAX))
            .collect()
    }

    pub(super) fn children(&self, run: DagRunKey) -> Vec<ChildRun> {
        let child = |(key, child): (&DagRunKey, &MemoryRun)| {
            let parent = child.new.parent.as_deref().filter(|parent| parent.run == run)?;
            Some(ChildRun {
                key: *key,
                dag_id: child.new.context.dag_id.clone(),
                run_id: child.new.context.run_id.clone(),
                version: child.new.version,
                state: child.state,
                task: parent.task,
                map_index: parent.map_index,
                dispatch: parent.dispatch,
            })
        };
        self.runs.iter().filter_map(child).collect()
    }

    pub(super) fn xcoms(&self, run: DagRunKey, task: TaskIndex, key: &str) -> Vec<(MapIndex, XcomValue)> {
        let Some(run) = self.runs.get(&run) else {
            return Vec::new();
        };
        run.xcoms
            .range((task, MapIndex(i32::MIN), String::new())..)
            .take_while(|((at, ..), _)| *at == task)
            .filter(|((_, _, name), _)| name == key)
            .map(|((_, map_index, _), value)| (*map_index, value.clone()))
            .collect()
    }

    pub(super) fn run_row(&self, run: &MemoryRun) -> Option<RunRow> {
        let version = self.versions.get(&run.new.version)?;
        let context = &run.new.context;
        Some(RunRow {
            key: context.key,
            uuid: context.uuid,
            dag_id: context.dag_id.clone(),
            run_id: context.run_id.clone(),
            version_uuid: version.uuid,
            version_number: version.number,
            state: run.state,
            run_type: run.new.run_type,
            logical_date: context.logical_date,
            data_interval_start: context.data_interval_start,
            data_interval_end: context.data_interval_end,
            run_after: context.run_after,
            queued_at: run.queued_at,
            start_date: run.start_date,
            end_date: run.end_date,
            conf: Arc::clone(&run.new.conf),
            note: run.note.clone(),
            triggering_user: run.new.triggering_user.clone(),
            parent: run.new.parent.clone(),
            set_aside: run.set_aside.clone(),
            hidden_failures: run.hidden_failures.clone(),
        })
    }

    /// Of these blobs, those that an XCom refers to. Nobody uploads anything here.
    pub(super) fn readable_blobs(&self, digests: &[Digest]) -> Vec<(Digest, u64)> {
        let xcoms = self.runs.values().flat_map(|run| run.xcoms.values());
        let blobs = xcoms.flat_map(|xcom| &xcom.blobs);
        let named = blobs.filter(|blob| digests.contains(&blob.digest));
        named.map(|blob| (blob.digest, blob.size)).collect()
    }

    pub(super) fn ti_rows(&self, key: DagRunKey) -> Vec<TiRow> {
        let Some(run) = self.runs.get(&key) else {
            return Vec::new();
        };
        let Some(version) = self.versions.get(&run.new.version) else {
            return Vec::new();
        };
        let context = &run.new.context;
        run.task_instances
            .values()
            .filter_map(|ti| {
                let task = version.dag.task(ti.key.task)?;
                Some(TiRow {
                    key: ti.key,
                    run_uuid: context.uuid,
                    dag_id: context.dag_id.clone(),
                    run_id: context.run_id.clone(),
                    logical_date: context.logical_date,
                    run_after: context.run_after,
                    version_uuid: version.uuid,
                    version_number: version.number,
                    task_id: ti.task_id.clone(),
                    state: ti.state,
                    try_number: ti.try_number,
                    max_tries: ti.max_tries,
                    dispatch: ti.dispatch,
                    cause: ti.cause,
                    message: ti.message.clone(),
                    code: ti.code.clone(),
                    details: ti.details.clone(),
                    scheduled_at: ti.scheduled_at,
                    queued_at: ti.queued_at,
                    start_date: ti.start_date,
                    end_date: ti.end_date,
                    next_at: ti.next_at,
                    retry_reason: ti.retry_rule.and_then(|rule| task.retry.reason(rule)),
                    memory_limit_bytes: raised_memory_bytes(ti.raised_memory_kib).unwrap_or(task.limits.memory_bytes),
                    usage: ti.usage,
                    rendered_map_index: ti.rendered_map_index.clone(),
                    pool: task.pool.clone(),
                    pool_slots: task.pool_slots,
                    priority_weight: task.queueing.weight,
                    queue: task.queueing.queue.clone(),
                    operator: task.work.operator().to_owned(),
                    operator_name: task.work.operator_name().to_owned(),
                    component_digest: task.work.component().map(|component| component.digest),
                    note: run
                        .notes
                        .get(&(ti.key.task, ti.key.map_index))
                        .filter(|note| !note.is_empty())
                        .cloned(),
                    last_heartbeat_at: run
                        .heartbeats
                        .get(&(ti.key.task, ti.key.map_index))
                        .filter(|heartbeat| heartbeat.dispatch == ti.dispatch)
                        .map(|heartbeat| heartbeat.at),
                })
            })
            .collect()
    }
}
