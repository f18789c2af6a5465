//! The traits in memory: a DAG of two tasks, runs that end when they are told to, one component.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use indexmap::IndexMap;
use model::callback::{CallbackEvent, CallbackKind, CallbackState, NotificationLevel};
use model::dag::{DEFAULT_POOL, DagParts, Param, Queueing, RetryPolicy, Task, TaskKind, TaskRole};
use model::human::{HumanStep, OnTimeout};
use model::{
    Cause, Clock, Dag, DagId, DagRunKey, DagRunState, DagRunType, Digest, DispatchNumber, Limits, MapIndex, RunId,
    RunUuid, TaskId, TaskIndex, TaskInstanceState, TiKey, Timestamp, TriggerRule, TryNumber, Work,
};
use ports::callback::{CallbackFilter, CallbackId, CallbackRow};
use ports::component::{Component, ComponentError, ComponentState, Components, Tag, UploadStream};
use ports::control::{
    ClearRequest, Control, ControlError, NewPool, PoolPatch, RespondRequest, Responded, RunEvent, SchedulerHealth,
    SetNoteRequest, SetStateRequest, TriggerRequest,
};
use ports::deploy::{CheckedManifest, DagVersion, DeployError, Deployed, Deployer, Diagnostic, Severity};
use ports::log::{LogKey, LogLevel, LogLine, LogPart, LogReader, LogSource};
use ports::payload::{BlobError, BlobReader, BlobStore, BlobWriter, XcomValue};
use ports::query::{
    AuditRow, DagFilter, DagRow, HitlFilter, HitlRow, Listed, Metadata, Page, PoolRow, PoolUse, QueryError, RunFilter,
    RunRow, TiFilter, TiRow, XcomFilter, XcomRow,
};
use serde_json::json;
use tokio::sync::{broadcast, watch};
use uuid::Uuid;

pub(crate) const NOW: Timestamp = Timestamp(1_767_225_600_000_000);

pub(crate) struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        NOW
    }
}

struct Data {
    paused: bool,
    runs: Vec<RunRow>,
    tis: Vec<TiRow>,
    blobs: HashMap<Digest, Bytes>,
    component: Option<Component>,
    pools: Vec<PoolRow>,
}

pub(crate) struct Fake {
    data: Arc<Mutex<Data>>,
    /// The number of changes to runs.
    changed: watch::Sender<u64>,
    pub(crate) events: broadcast::Sender<RunEvent>,
    version: DagVersion,
}

fn task(id: &str, upstream: &[u32], downstream: &[u32]) -> Task {
    let indices = |indices: &[u32]| indices.iter().map(|index| TaskIndex(*index)).collect();
    Task {
        id: TaskId::new(id).unwrap(),
        doc_md: None,
        role: TaskRole::Work,
        work: Work::of_component("ml@1.2", Digest::of(b"ml"), id),
        input: json!({ "rows": "{{ xcom.load.rows }}" }),
        trigger_rule: TriggerRule::AllSuccess,
        upstream: indices(upstream),
        downstream: indices(downstream),
        group: None,
        expand: None,
        map_index_template: None,
        measures: Vec::new(),
        kind: TaskKind::Plain,
        past: model::past::Past::Ignored,
        retry: RetryPolicy::default(),
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

fn page<T>(rows: Vec<T>, page: Page) -> Listed<T> {
    let total = rows.len() as u64;
    let offset = usize::try_from(page.offset).unwrap_or(usize::MAX);
    Listed {
        items: rows.into_iter().skip(offset).take(page.limit as usize).collect(),
        total,
    }
}

impl Fake {
    pub(crate) fn new() -> Arc<Self> {
        let dag = Dag::from(DagParts {
            id: DagId::new("etl").unwrap(),
            description: Some("Loads and trains".to_owned()),
            doc_md: None,
            owner: "ada".to_owned(),
            tags: vec!["ml".to_owned()],
            params: IndexMap::new(),
            max_active_runs: 16,
            max_active_tasks: 64,
            dagrun_timeout: Some(Duration::from_secs(90)),
            callbacks: Vec::new(),
            max_consecutive_failed_dag_runs: 3,
            groups: Vec::new(),
            tasks: vec![task("load", &[], &[1]), task("train", &[0], &[])],
        });
        Arc::new(Self {
            data: Arc::new(Mutex::new(Data {
                paused: false,
                runs: Vec::new(),
                tis: Vec::new(),
                blobs: HashMap::new(),
                component: None,
                pools: vec![PoolRow {
                    name: DEFAULT_POOL.to_owned(),
                    slots: 128,
                    description: None,
                    include_deferred: false,
                    used: 0,
                }],
            })),
            changed: watch::Sender::new(0),
            events: broadcast::Sender::new(16),
            version: DagVersion {
                digest: Digest::of(b"etl"),
                uuid: Uuid::from_u128(7),
                number: 1,
                source: "dag: etl\n".into(),
                dag: Arc::new(dag),
                created_at: NOW,
            },
        })
    }

    fn data(&self) -> std::sync::MutexGuard<'_, Data> {
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dag_row(&self) -> DagRow {
        DagRow {
            dag_id: self.version.dag.id.clone(),
            paused: self.data().paused,
            paused_reason: None,
            version: self.version.clone(),
            created_at: NOW,
            updated_at: NOW,
        }
    }

    /// Ends a run: its tasks have succeeded, `load` after a failed try.
    /// Makes a run the child of another one's task `load`.
    pub(crate) fn adopt(&self, run_id: &str, parent: &str) {
        let mut data = self.data();
        let of = data
            .runs
            .iter()
            .find(|run| run.run_id.as_str() == parent)
            .unwrap()
            .clone();
        let child = data.runs.iter_mut().find(|run| run.run_id.as_str() == run_id).unwrap();
        child.parent = Some(Arc::new(ports::between::RunParent {
            run: of.key,
            dag_id: of.dag_id,
            run_id: of.run_id,
            task: TaskIndex(0),
            task_id: "load".parse().unwrap(),
            map_index: MapIndex(3),
            dispatch: model::DispatchNumber(1),
            depth: 1,
        }));
    }

    pub(crate) fn finish(&self, run_id: &str) {
        let mut data = self.data();
        let Data { runs, tis, .. } = &mut *data;
        for run in runs.iter_mut().filter(|run| run.run_id.as_str() == run_id) {
            run.state = DagRunState::Success;
            run.end_date = Some(NOW.plus(Duration::from_millis(1_500)));
            for ti in tis.iter_mut().filter(|ti| ti.key.run == run.key) {
                ti.state = TaskInstanceState::Success;
                ti.try_number = TryNumber(2);
                ti.cause = Some(Cause::Returned);
                ti.start_date = Some(NOW);
                ti.end_date = Some(NOW.plus(Duration::from_millis(250)));
            }
        }
        drop(data);
        self.changed.send_modify(|count| *count += 1);
    }

    fn find(&self, dag_id: &DagId, run_id: &RunId) -> Result<RunRow, ControlError> {
        if *dag_id != self.version.dag.id {
            return Err(ControlError::DagNotFound(dag_id.clone()));
        }
        let found = self.data().runs.iter().find(|run| run.run_id == *run_id).cloned();
        found.ok_or_else(|| ControlError::RunNotFound {
            dag_id: dag_id.clone(),
            run_id: run_id.clone(),
        })
    }
}

#[async_trait]
impl Control for Fake {
    async fn trigger(&self, request: TriggerRequest) -> Result<RunRow, ControlError> {
        if request.dag_id != self.version.dag.id {
            return Err(ControlError::DagNotFound(request.dag_id));
        }
        let run_after = request.run_after.unwrap_or(NOW);
        let run_id = request
            .run_id
            .unwrap_or_else(|| RunId::new(&format!("manual__{run_after}")).unwrap());
        let mut data = self.data();
        let taken = |run: &RunRow| {
            run.run_id == run_id || (run.logical_date.is_some() && run.logical_date == request.logical_date)
        };
        if data.runs.iter().any(taken) {
            return Err(ControlError::RunExists(format!("run `{run_id}` exists")));
        }
        let number = i64::try_from(data.runs.len()).unwrap() + 1;
        let run = RunRow {
            key: DagRunKey(number),
            uuid: RunUuid(Uuid::from_u128(100 + number.unsigned_abs() as u128)),
            dag_id: request.dag_id,
            run_id,
            version_uuid: self.version.uuid,
            version_number: 1,
            state: DagRunState::Running,
            run_type: DagRunType::Manual,
            logical_date: request.logical_date,
            data_interval_start: request.data_interval.map(|interval| interval.0),
            data_interval_end: request.data_interval.map(|interval| interval.1),
            run_after,
            queued_at: NOW,
            start_date: Some(NOW),
            end_date: None,
            conf: request.conf.to_string().into(),
            note: request.note,
            triggering_user: Some(request.user),
            parent: None,
            set_aside: None,
            hidden_failures: Vec::new(),
        };
        for (index, task) in self.version.dag.tasks.iter().enumerate() {
            data.tis.push(TiRow {
                key: TiKey {
                    run: run.key,
                    task: TaskIndex(u32::try_from(index).unwrap()),
                    map_index: MapIndex::UNMAPPED,
                },
                run_uuid: run.uuid,
                dag_id: run.dag_id.clone(),
                run_id: run.run_id.clone(),
                logical_date: run.logical_date,
                run_after,
                version_uuid: self.version.uuid,
                version_number: 1,
                task_id: task.id.clone(),
                state: TaskInstanceState::NoStatus,
                try_number: TryNumber(0),
                max_tries: 3,
                dispatch: DispatchNumber(0),
                cause: None,
                message: None,
                code: None,
                details: None,
                scheduled_at: None,
                queued_at: None,
                start_date: None,
                end_date: None,
                next_at: None,
                retry_reason: None,
                memory_limit_bytes: task.limits.memory_bytes,
                usage: None,
                rendered_map_index: None,
                pool: task.pool.clone(),
                pool_slots: 1,
                priority_weight: 1,
                queue: task.queueing.queue.clone(),
                operator: task.work.operator().to_owned(),
                operator_name: task.work.operator_name().to_owned(),
                component_digest: task.work.component().map(|component| component.digest),
                note: None,
            });
        }
        data.runs.push(run.clone());
        Ok(run)
    }

    async fn wait(&self, dag_id: &DagId, run_id: &RunId, timeout: Duration) -> Result<DagRunState, ControlError> {
        let mut changed = self.changed.subscribe();
        let ended = async {
            while self.find(dag_id, run_id).is_ok_and(|run| !run.state.is_finished()) {
                if changed.changed().await.is_err() {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(timeout, ended).await;
        Ok(self.find(dag_id, run_id)?.state)
    }

    async fn clear(&self, _: &DagId, request: ClearRequest) -> Result<Vec<TiRow>, ControlError> {
        let mut data = self.data();
        let mut cleared = Vec::new();
        for ti in &mut data.tis {
            let of_run = request.run_id.as_ref().is_none_or(|run_id| *run_id == ti.run_id);
            let of_task = request
                .tasks
                .as_ref()
                .is_none_or(|tasks| tasks.iter().any(|(task, _)| *task == ti.task_id));
            if of_run && of_task && (!request.only_failed || ti.state == TaskInstanceState::Failed) {
                if !request.dry_run {
                    ti.state = TaskInstanceState::NoStatus;
                }
                cleared.push(ti.clone());
            }
        }
        Ok(cleared)
    }

    async fn set_run_state(
        &self,
        dag_id: &DagId,
        run_id: &RunId,
        state: DagRunState,
        _: &str,
    ) -> Result<RunRow, ControlError> {
        self.find(dag_id, run_id)?;
        for run in self.data().runs.iter_mut().filter(|run| run.run_id == *run_id) {
            run.state = state;
        }
        self.find(dag_id, run_id)
    }

    async fn set_task_instance_state(&self, request: SetStateRequest) -> Result<Vec<TiRow>, ControlError> {
        let mut changed = Vec::new();
        for ti in &mut self.data().tis {
            let named = request.tasks.iter().any(|(task, _)| *task == ti.task_id);
            if named && ti.run_id == request.run_id && ti.state != request.state {
                if !request.dry_run {
                    ti.state = request.state;
                }
                changed.push(ti.clone());
            }
        }
        if changed.is_empty() && !request.dry_run {
            return Err(ControlError::Conflict("there is nothing to change".to_owned()));
        }
        Ok(changed)
    }

    async fn set_task_instance_note(&self, request: SetNoteRequest) -> Result<Vec<TiRow>, ControlError> {
        let mut changed = Vec::new();
        for ti in &mut self.data().tis {
            let named = request.tasks.iter().any(|(task, _)| *task == ti.task_id);
            if named && ti.run_id == request.run_id {
                ti.note = Some(request.note.clone()).filter(|note| !note.is_empty());
                changed.push(ti.clone());
            }
        }
        Ok(changed)
    }

    async fn respond(&self, request: RespondRequest) -> Result<Responded, ControlError> {
        if request.task_id.as_str() != "load" {
            return Err(ControlError::Conflict("the task instance is `success`".to_owned()));
        }
        let answer = question(self.data().tis[0].clone())
            .step
            .check(&request.chosen_options, &request.params_input)
            .map_err(|problems| ControlError::InvalidAnswer { problems })?;
        Ok(Responded { at: NOW, answer })
    }

    async fn set_run_note(&self, dag_id: &DagId, run_id: &RunId, note: &str, _: &str) -> Result<RunRow, ControlError> {
        self.find(dag_id, run_id)?;
        for run in self.data().runs.iter_mut().filter(|run| run.run_id == *run_id) {
            run.note = Some(note.to_owned());
        }
        self.find(dag_id, run_id)
    }

    async fn delete_run(&self, dag_id: &DagId, run_id: &RunId, _: &str) -> Result<(), ControlError> {
        let run = self.find(dag_id, run_id)?;
        self.data().runs.retain(|other| other.key != run.key);
        Ok(())
    }

    async fn deploy(&self, _: CheckedManifest, _: bool, _: &str) -> Result<Deployed, ControlError> {
        Err(ControlError::Unavailable)
    }

    async fn set_paused(&self, dag_id: &DagId, paused: bool, _: &str) -> Result<(), ControlError> {
        if *dag_id != self.version.dag.id {
            return Err(ControlError::DagNotFound(dag_id.clone()));
        }
        self.data().paused = paused;
        Ok(())
    }

    async fn delete_dag(&self, dag_id: &DagId, _: &str) -> Result<(), ControlError> {
        Err(ControlError::Conflict(format!("DAG `{dag_id}` has active runs")))
    }

    fn knows_dag(&self, dag_id: &DagId) -> bool {
        *dag_id == self.version.dag.id
    }

    async fn pools(&self) -> Result<Vec<PoolRow>, ControlError> {
        Ok(self.data().pools.clone())
    }

    async fn create_pool(&self, pool: NewPool, _: &str) -> Result<PoolRow, ControlError> {
        let mut data = self.data();
        if data.pools.iter().any(|known| known.name == pool.name) {
            return Err(ControlError::PoolExists(pool.name));
        }
        let row = PoolRow {
            name: pool.name,
            slots: pool.slots,
            description: pool.description,
            include_deferred: pool.include_deferred,
            used: 0,
        };
        data.pools.push(row.clone());
        Ok(row)
    }

    async fn change_pool(&self, name: &str, patch: PoolPatch, _: &str) -> Result<PoolRow, ControlError> {
        let mut data = self.data();
        let Some(row) = data.pools.iter_mut().find(|pool| pool.name == name) else {
            return Err(ControlError::PoolNotFound(name.to_owned()));
        };
        if name == DEFAULT_POOL && patch.name.is_some() {
            return Err(ControlError::DefaultPool);
        }
        row.name = patch.name.unwrap_or(row.name.clone());
        row.slots = patch.slots.unwrap_or(row.slots);
        row.description = patch.description.unwrap_or(row.description.clone());
        row.include_deferred = patch.include_deferred.unwrap_or(row.include_deferred);
        Ok(row.clone())
    }

    async fn delete_pool(&self, name: &str, _: &str) -> Result<(), ControlError> {
        match name {
            DEFAULT_POOL => Err(ControlError::DefaultPool),
            "used" => Err(ControlError::PoolInUse {
                pool: name.to_owned(),
                dags: vec![self.version.dag.id.clone(), "other".parse().unwrap()],
            }),
            name => {
                let mut data = self.data();
                let before = data.pools.len();
                data.pools.retain(|pool| pool.name != name);
                if data.pools.len() == before {
                    return Err(ControlError::PoolNotFound(name.to_owned()));
                }
                Ok(())
            }
        }
    }

    fn subscribe(&self) -> broadcast::Receiver<RunEvent> {
        self.events.subscribe()
    }

    fn overlay(&self, _: DagRunKey, _: &mut [TiRow]) {}

    fn health(&self) -> SchedulerHealth {
        SchedulerHealth {
            healthy: true,
            problem: None,
            latest_heartbeat: NOW,
            active_runs: self.data().runs.len(),
            set_aside_runs: Vec::new(),
        }
    }

    fn progress(&self, _: DagRunKey) -> Vec<(TaskId, MapIndex, Option<f64>, String)> {
        vec![(
            TaskId::new("load").unwrap(),
            MapIndex::UNMAPPED,
            Some(0.5),
            "half".to_owned(),
        )]
    }

    fn is_active(&self, _: RunUuid) -> bool {
        true
    }
}

/// What every task instance is made to have asked.
/// A callback of each kind.
fn called_back((at, ti): (usize, &TiRow)) -> CallbackRow {
    let kind = CallbackKind::ALL[at % 2];
    let notification = kind == CallbackKind::Notification;
    CallbackRow {
        id: CallbackId(i64::try_from(at).unwrap() + 1),
        dag_id: ti.dag_id.clone(),
        run_id: ti.run_id.clone(),
        run_uuid: ti.run_uuid,
        task_id: Some(ti.task_id.clone()),
        map_index: ti.key.map_index,
        try_number: Some(ti.try_number),
        event: CallbackEvent::Failure,
        kind,
        name: if notification {
            String::new()
        } else {
            "alerts@1 send".to_owned()
        },
        level: notification.then_some(NotificationLevel::Error),
        state: if notification {
            CallbackState::Success
        } else {
            CallbackState::Failed
        },
        attempt: 3,
        created_at: ti.run_after,
        next_at: None,
        started_at: None,
        ended_at: None,
        cause: (!notification).then_some(model::Cause::Trapped),
        code: None,
        message: None,
        text: notification.then(|| "it failed".to_owned()),
        facts: "{\"event\":\"on_failure\"}".to_owned(),
    }
}

fn question(ti: TiRow) -> HitlRow {
    let amount = Param {
        schema: json!({"type": "integer", "minimum": 1}),
        default: Some(json!(10)),
    };
    HitlRow {
        ti,
        step: Arc::new(HumanStep {
            options: vec!["yes".to_owned(), "no".to_owned()],
            defaults: Some(vec!["no".to_owned()]),
            multiple: false,
            params: [("amount".to_owned(), amount)].into_iter().collect(),
            assigned_users: vec!["ann".to_owned()],
            timeout: None,
            on_timeout: OnTimeout::Default,
            approval: None,
            branches: false,
        }),
        subject: "Go on?".to_owned(),
        body: None,
        created_at: NOW,
        responded_at: Some(NOW),
        responded_by: Some("ann".to_owned()),
        chosen_options: Some(vec!["yes".to_owned()]),
        params_input: Some(json!({"amount": 3})),
    }
}

#[async_trait]
impl Metadata for Fake {
    async fn dags(&self, filter: &DagFilter, part: Page) -> Result<Listed<DagRow>, QueryError> {
        let row = self.dag_row();
        let kept = filter.paused.is_none_or(|paused| paused == row.paused)
            && (filter.tags.is_empty() || filter.tags.iter().any(|tag| row.version.dag.tags.contains(tag)));
        Ok(page(kept.then_some(row).into_iter().collect(), part))
    }

    async fn dag(&self, dag_id: &DagId) -> Result<Option<DagRow>, QueryError> {
        Ok((*dag_id == self.version.dag.id).then(|| self.dag_row()))
    }

    async fn dag_versions(&self, _: &DagId, part: Page) -> Result<Listed<DagVersion>, QueryError> {
        Ok(page(vec![self.version.clone()], part))
    }

    async fn dag_version(&self, _: &DagId, number: u32) -> Result<Option<DagVersion>, QueryError> {
        Ok((number == 1).then(|| self.version.clone()))
    }

    async fn dag_tags(&self) -> Result<Vec<String>, QueryError> {
        Ok(self.version.dag.tags.clone())
    }

    async fn runs(&self, filter: &RunFilter, part: Page) -> Result<Listed<RunRow>, QueryError> {
        let mut runs = self.data().runs.clone();
        runs.retain(|run| filter.states.is_empty() || filter.states.contains(&run.state));
        if let Some(of) = filter.parent {
            runs.retain(|run| run.parent.as_ref().is_some_and(|parent| parent.run == of));
        }
        Ok(page(runs, part))
    }

    async fn run(&self, dag_id: &DagId, run_id: &RunId) -> Result<Option<RunRow>, QueryError> {
        Ok(self.find(dag_id, run_id).ok())
    }

    async fn task_instances(&self, filter: &TiFilter, part: Page) -> Result<Listed<TiRow>, QueryError> {
        let mut tis = self.data().tis.clone();
        tis.retain(|ti| {
            (filter.states.is_empty() || filter.states.contains(&ti.state))
                && (filter.task_ids.is_empty() || filter.task_ids.contains(&ti.task_id))
                && filter.run_id.as_ref().is_none_or(|run_id| *run_id == ti.run_id)
        });
        Ok(page(tis, part))
    }

    async fn task_instance(
        &self,
        _: &DagId,
        run_id: &RunId,
        task_id: &TaskId,
        map_index: MapIndex,
    ) -> Result<Option<TiRow>, QueryError> {
        let data = self.data();
        let mut tis = data.tis.iter();
        Ok(tis
            .find(|ti| ti.run_id == *run_id && ti.task_id == *task_id && ti.key.map_index == map_index)
            .cloned())
    }

    async fn hitl_details(&self, filter: &HitlFilter, part: Page) -> Result<Listed<HitlRow>, QueryError> {
        let mut rows: Vec<HitlRow> = self.data().tis.iter().cloned().map(question).collect();
        rows.retain(|row| {
            filter
                .response_received
                .is_none_or(|received| received == row.responded_at.is_some())
        });
        Ok(page(rows, part))
    }

    async fn callbacks(&self, filter: &CallbackFilter, part: Page) -> Result<Listed<CallbackRow>, QueryError> {
        let mut rows: Vec<CallbackRow> = self.data().tis.iter().take(3).enumerate().map(called_back).collect();
        rows.retain(|row| {
            filter.id.is_none_or(|id| id == row.id)
                && filter.after.is_none_or(|after| row.id > after)
                && (filter.kinds.is_empty() || filter.kinds.contains(&row.kind))
                && (filter.states.is_empty() || filter.states.contains(&row.state))
        });
        if filter.newest_first {
            rows.reverse();
        }
        Ok(page(rows, part))
    }

    async fn hitl_detail(&self, ti: TiRow) -> Result<Option<HitlRow>, QueryError> {
        Ok((ti.task_id.as_str() == "load").then(|| question(ti)))
    }

    async fn tries(&self, key: TiKey) -> Result<Vec<TiRow>, QueryError> {
        let current = self.data().tis.iter().find(|ti| ti.key == key).cloned();
        let Some(current) = current else {
            return Ok(Vec::new());
        };
        let mut first = current.clone();
        first.state = TaskInstanceState::UpForRetry;
        first.try_number = TryNumber(1);
        first.cause = Some(Cause::Trapped);
        first.message = Some("wasm trap: unreachable".to_owned());
        // The end of the last try is in the history and in the current row, as databases may have it.
        Ok(vec![first, current.clone(), current])
    }

    async fn xcoms(&self, filter: &XcomFilter, part: Page) -> Result<Listed<XcomRow>, QueryError> {
        let data = self.data();
        let rows = data.tis.iter().filter(|ti| {
            filter.run_id.as_ref().is_none_or(|run_id| *run_id == ti.run_id)
                && filter.task_id.as_ref().is_none_or(|task_id| *task_id == ti.task_id)
                && filter.key.as_ref().is_none_or(|key| key == "return_value")
        });
        let rows = rows.map(|ti| XcomRow {
            ti: ti.key,
            dag_id: ti.dag_id.clone(),
            run_id: ti.run_id.clone(),
            logical_date: ti.logical_date,
            run_after: ti.run_after,
            task_id: ti.task_id.clone(),
            key: "return_value".to_owned(),
            timestamp: NOW,
            value: None,
        });
        Ok(page(rows.collect(), part))
    }

    async fn xcom(
        &self,
        dag_id: &DagId,
        run_id: &RunId,
        task_id: &TaskId,
        map_index: MapIndex,
        key: &str,
    ) -> Result<Option<XcomRow>, QueryError> {
        let ti = self.task_instance(dag_id, run_id, task_id, map_index).await?;
        Ok(ti.filter(|_| key == "return_value").map(|ti| XcomRow {
            ti: ti.key,
            dag_id: ti.dag_id,
            run_id: ti.run_id,
            logical_date: ti.logical_date,
            run_after: ti.run_after,
            task_id: ti.task_id,
            key: key.to_owned(),
            timestamp: NOW,
            value: Some(XcomValue {
                value: r#"{"rows":90071992547409931234,"accuracy":0.9}"#.into(),
                blobs: Vec::new(),
            }),
        }))
    }

    async fn blob_is_referenced(&self, _: Digest) -> Result<bool, QueryError> {
        Ok(false)
    }

    async fn audit_log(&self, dag_id: Option<&DagId>, part: Page) -> Result<Listed<AuditRow>, QueryError> {
        let row = |id: i64, event: &str| AuditRow {
            id,
            at: NOW,
            event: event.to_owned(),
            user: "admin".to_owned(),
            dag_id: Some("etl".to_owned()),
            run_id: None,
            task_id: None,
            extra: None,
        };
        let mut rows = vec![row(2, "trigger_dag_run"), row(1, "deploy_dag")];
        rows.retain(|row| dag_id.is_none_or(|dag_id| row.dag_id.as_deref() == Some(dag_id.as_str())));
        Ok(page(rows, part))
    }

    async fn pools(&self) -> Result<Vec<PoolRow>, QueryError> {
        Ok(self.data().pools.clone())
    }

    async fn pool_use(&self) -> Result<Vec<PoolUse>, QueryError> {
        Ok(vec![PoolUse {
            pool: DEFAULT_POOL.to_owned(),
            state: TaskInstanceState::Deferred,
            slots: 3,
        }])
    }

    async fn ping(&self) -> Result<(), QueryError> {
        Ok(())
    }
}

#[async_trait]
impl Components for Fake {
    async fn upload(&self, tag: Option<Tag>, mut body: UploadStream) -> Result<(Component, bool), ComponentError> {
        let mut bytes = Vec::new();
        while let Some(part) = body.next().await {
            bytes.extend_from_slice(&part.map_err(ComponentError::Body)?);
        }
        let component = Component {
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
            state: ComponentState::Compiling,
            refusal: None,
            tags: tag.into_iter().collect(),
            capabilities: vec!["blobs".to_owned()],
            imports: vec!["wasi:cli/stdout@0.2.6".to_owned()],
            descriptor: None,
            created_at: NOW,
        };
        let mut data = self.data();
        let new = data
            .component
            .as_ref()
            .is_none_or(|known| known.digest != component.digest);
        data.component = Some(component.clone());
        Ok((component, new))
    }

    async fn get(&self, reference: &str) -> Result<Component, ComponentError> {
        let component = self.data().component.clone();
        let names = |component: &Component| {
            component.digest.to_string() == reference || component.tags.iter().any(|tag| tag.to_string() == reference)
        };
        component
            .filter(names)
            .ok_or_else(|| ComponentError::NotFound(reference.to_owned()))
    }

    async fn list(&self, part: Page) -> Result<Listed<Component>, ComponentError> {
        Ok(page(self.data().component.clone().into_iter().collect(), part))
    }

    async fn wait_ready(&self, digest: Digest) -> Result<Component, ComponentError> {
        let mut component = self.get(&digest.to_string()).await?;
        component.state = ComponentState::Ready;
        Ok(component)
    }

    async fn delete(&self, reference: &str) -> Result<(), ComponentError> {
        let component = self.get(reference).await?;
        Err(ComponentError::InUse {
            digest: component.digest,
            users: vec!["version 1 of DAG `etl`".to_owned()],
        })
    }
}

#[async_trait]
impl Deployer for Fake {
    async fn check(&self, source: &str) -> Result<CheckedManifest, DeployError> {
        let diagnostic = |severity, message: &str| Diagnostic {
            severity,
            code: "unknown_task".to_owned(),
            message: message.to_owned(),
            line: 3,
            column: 7,
            hint: Some("there is `load`".to_owned()),
        };
        if source.contains("compiling") {
            return Err(DeployError::Compiling("ml@1.3".to_owned()));
        }
        if !source.starts_with("dag:") {
            return Err(DeployError::Invalid(vec![
                diagnostic(Severity::Error, "there is no task `lod`"),
                diagnostic(Severity::Error, "there is no task `laod`"),
            ]));
        }
        Ok(CheckedManifest {
            digest: self.version.digest,
            source: source.into(),
            dag: self.version.dag.clone(),
            paused: None,
            diagnostics: vec![diagnostic(Severity::Warning, "this is odd")],
        })
    }

    async fn deploy(
        &self,
        source: &str,
        expected: Option<&DagId>,
        replace: bool,
        _: &str,
    ) -> Result<Deployed, DeployError> {
        let checked = self.check(source).await?;
        let dag_id = checked.dag.id.clone();
        if let Some(expected) = expected.filter(|expected| **expected != dag_id) {
            return Err(DeployError::OtherDag {
                expected: expected.clone(),
                found: dag_id,
            });
        }
        if !replace {
            return Err(DeployError::Exists(dag_id));
        }
        Ok(Deployed {
            dag_id,
            version: self.version.uuid,
            version_number: 1,
            digest: checked.digest,
            new_dag: false,
            new_version: true,
            diagnostics: checked.diagnostics,
        })
    }
}

#[async_trait]
impl LogReader for Fake {
    async fn read(&self, _: LogKey, from: u64, max_lines: usize) -> std::io::Result<LogPart> {
        let line = |text: &str| LogLine {
            timestamp: NOW,
            level: LogLevel::Info,
            source: LogSource::Stdout,
            event: text.to_owned(),
            fields: None,
        };
        let all = [line("first"), line("second\u{1b}[0m")];
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(all.len());
        let lines: Vec<LogLine> = all.iter().skip(from).take(max_lines).cloned().collect();
        let next = from + lines.len();
        Ok(LogPart {
            lines,
            next: next as u64,
            ended: next == all.len(),
        })
    }

    async fn wait(&self, _: LogKey, _: u64) {}

    async fn delete_run(&self, _: RunUuid) -> std::io::Result<()> {
        Ok(())
    }
}

struct Writer {
    data: Arc<Mutex<Data>>,
    bytes: Vec<u8>,
}

#[async_trait]
impl BlobWriter for Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<(Digest, u64), BlobError> {
        let digest = Digest::of(&self.bytes);
        let size = self.bytes.len() as u64;
        let mut data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        data.blobs.insert(digest, self.bytes.into());
        Ok((digest, size))
    }
}

struct Reader {
    bytes: Bytes,
    size: u64,
}

#[async_trait]
impl BlobReader for Reader {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read(&mut self, max: usize) -> Result<Bytes, BlobError> {
        Ok(self.bytes.split_to(max.min(self.bytes.len())))
    }
}

#[async_trait]
impl BlobStore for Fake {
    async fn create(&self) -> Result<Box<dyn BlobWriter>, BlobError> {
        Ok(Box::new(Writer {
            data: self.data.clone(),
            bytes: Vec::new(),
        }))
    }

    async fn open(&self, digest: Digest) -> Result<Box<dyn BlobReader>, BlobError> {
        let bytes = self.data().blobs.get(&digest).cloned();
        let bytes = bytes.ok_or(BlobError::NotFound(digest))?;
        Ok(Box::new(Reader {
            size: bytes.len() as u64,
            bytes,
        }))
    }

    async fn size(&self, digest: Digest) -> Result<Option<u64>, BlobError> {
        Ok(self.data().blobs.get(&digest).map(|bytes| bytes.len() as u64))
    }

    async fn delete(&self, digest: Digest) -> Result<(), BlobError> {
        self.data().blobs.remove(&digest);
        Ok(())
    }
}
