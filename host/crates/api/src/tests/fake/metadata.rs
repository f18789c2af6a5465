//! What the fake answers to queries.

use std::sync::Arc;

use async_trait::async_trait;
use model::callback::{CallbackEvent, CallbackKind, CallbackState, NotificationLevel};
use model::dag::{DEFAULT_POOL, Param};
use model::human::{HumanStep, OnTimeout};
use model::{Cause, DagId, Digest, MapIndex, RunId, TaskId, TaskInstanceState, TiKey, TryNumber};
use ports::callback::{CallbackFilter, CallbackId, CallbackRow};
use ports::deploy::DagVersion;
use ports::payload::XcomValue;
use ports::query::{
    AuditRow, DagFilter, DagRow, HitlFilter, HitlRow, Listed, Metadata, Page, PoolRow, PoolUse, QueryError, RunFilter,
    RunRow, TiFilter, TiRow, XcomFilter, XcomRow,
};
use serde_json::json;

use super::*;

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

/// What every task instance is made to have asked.
pub(super) fn question(ti: TiRow) -> HitlRow {
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

    async fn blob_is_readable(&self, digest: Digest) -> Result<bool, QueryError> {
        Ok(self.data().uploads.contains(&digest))
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
