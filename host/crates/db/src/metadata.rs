//! What the API reads.

use std::sync::Arc;

use async_trait::async_trait;
use model::{DagId, Digest, MapIndex, RunId, TaskId, TiKey};
use ports::callback::{CallbackFilter, CallbackRow};
use ports::deploy::DagVersion;
use ports::query::{
    AuditRow, DagFilter, DagRow, HitlFilter, HitlRow, Listed, Metadata, Page, PoolRow, PoolUse, QueryError, RunFilter,
    RunRow, TiFilter, TiRow, XcomFilter, XcomRow,
};

use crate::Db;
use crate::error::query_error;
use crate::query;
use crate::sql::Statement;
use crate::table::{audit_log, dag, dag_run, dag_version, hitl_detail, slot_pool, task_instance, uploaded_blob, xcom};

impl Db {
    async fn dag_rows(&self, rows: Vec<dag::Stored>) -> Result<Vec<DagRow>, QueryError> {
        let versions = self.load_versions(rows.iter().map(|row| row.version)).await?;
        rows.into_iter()
            .map(|row| {
                let version = versions.get(&row.version).ok_or(sqlx::Error::RowNotFound)?;
                Ok(DagRow {
                    dag_id: row.dag_id,
                    paused: row.paused,
                    paused_reason: row.paused_reason,
                    version: DagVersion::clone(version),
                    created_at: row.created_at,
                    updated_at: row.updated_at,
                })
            })
            .collect::<Result<_, _>>()
            .map_err(query_error)
    }

    /// A question with what its version says can be answered.
    async fn hitl_row(&self, ti: TiRow, detail: hitl_detail::Stored) -> Result<Option<HitlRow>, QueryError> {
        let version = self.one_version(ti.version_uuid).await?;
        let step = version.and_then(|version| Some(version.dag.task(ti.key.task)?.work.human()?.clone()));
        Ok(step.map(|step| HitlRow {
            ti,
            step: Arc::new(step),
            subject: detail.subject,
            body: detail.body,
            created_at: detail.created_at,
            responded_at: detail.responded_at,
            responded_by: detail.responded_by,
            chosen_options: detail.chosen_options,
            params_input: detail.params_input,
        }))
    }
}

#[async_trait]
impl Metadata for Db {
    async fn dags(&self, filter: &DagFilter, page: Page) -> Result<Listed<DagRow>, QueryError> {
        let [count, list] = query::dag::list(filter, page, self.database.dialect());
        Ok(Listed {
            total: self.count(count).await?,
            items: self.dag_rows(self.all(list, dag::read).await?).await?,
        })
    }

    async fn dag(&self, dag_id: &DagId) -> Result<Option<DagRow>, QueryError> {
        let row = self.first(dag::one(dag_id), dag::read).await?;
        Ok(self.dag_rows(row.into_iter().collect()).await?.pop())
    }

    async fn dag_versions(&self, dag_id: &DagId, page: Page) -> Result<Listed<DagVersion>, QueryError> {
        Ok(Listed {
            total: self.count(dag_version::count(dag_id)).await?,
            items: self.all(dag_version::list(dag_id, page), dag_version::read).await?,
        })
    }

    async fn dag_version(&self, dag_id: &DagId, number: u32) -> Result<Option<DagVersion>, QueryError> {
        self.first(dag_version::by_number(dag_id, number), dag_version::read)
            .await
    }

    async fn dag_tags(&self) -> Result<Vec<String>, QueryError> {
        self.all(dag::tags(), |row| row.columns().text()).await
    }

    async fn runs(&self, filter: &RunFilter, page: Page) -> Result<Listed<RunRow>, QueryError> {
        let [count, list] = query::dag_run::list(filter, page, self.database.dialect());
        Ok(Listed {
            total: self.count(count).await?,
            items: self.all(list, dag_run::read).await?,
        })
    }

    async fn run(&self, dag_id: &DagId, run_id: &RunId) -> Result<Option<RunRow>, QueryError> {
        self.first(dag_run::by_name(dag_id, run_id), dag_run::read).await
    }

    async fn task_instances(&self, filter: &TiFilter, page: Page) -> Result<Listed<TiRow>, QueryError> {
        let [count, list] = query::task_instance::list(filter, page, self.database.dialect());
        let total = self.count(count).await?;
        let rows = self.all(list, task_instance::read_shown).await?;
        Ok(Listed {
            total,
            items: self.show(rows).await?,
        })
    }

    async fn task_instance(
        &self,
        dag_id: &DagId,
        run_id: &RunId,
        task_id: &TaskId,
        map_index: MapIndex,
    ) -> Result<Option<TiRow>, QueryError> {
        let filter = TiFilter {
            dag_id: Some(dag_id.clone()),
            run_id: Some(run_id.clone()),
            task_ids: vec![task_id.clone()],
            map_index: Some(map_index),
            ..TiFilter::default()
        };
        let page = Page { limit: 1, offset: 0 };
        let [_, list] = query::task_instance::list(&filter, page, self.database.dialect());
        let rows = self.all(list, task_instance::read_shown).await?;
        Ok(self.show(rows).await?.pop())
    }

    async fn tries(&self, ti: TiKey) -> Result<Vec<TiRow>, QueryError> {
        let [current, ended] = task_instance::shown_tries(ti);
        let current = self.first(current, task_instance::read_shown).await?;
        let mut rows = self.all(ended, task_instance::read_shown).await?;
        if let Some(current) = current {
            // Once its last try has ended, the task instance itself tells it best (its state may have been set since).
            rows.retain(|(ended, _)| ended.try_number != current.0.try_number);
            rows.push(current);
        }
        self.show(rows).await
    }

    async fn hitl_details(&self, filter: &HitlFilter, page: Page) -> Result<Listed<HitlRow>, QueryError> {
        let [count, list] = query::hitl_detail::list(filter, page, self.database.dialect());
        let total = self.count(count).await?;
        let rows = self.all(list, query::hitl_detail::read).await?;
        let (rows, details): (Vec<_>, Vec<_>) = rows.into_iter().map(|(ti, run, detail)| ((ti, run), detail)).unzip();
        let mut items = Vec::with_capacity(details.len());
        for (ti, detail) in self.show(rows).await?.into_iter().zip(details) {
            items.extend(self.hitl_row(ti, detail).await?);
        }
        Ok(Listed { items, total })
    }

    async fn hitl_detail(&self, ti: TiRow) -> Result<Option<HitlRow>, QueryError> {
        let detail = self
            .first(hitl_detail::one(ti.key, ti.try_number), hitl_detail::read)
            .await?;
        match detail {
            Some(detail) => self.hitl_row(ti, detail).await,
            None => Ok(None),
        }
    }

    async fn callbacks(&self, filter: &CallbackFilter, page: Page) -> Result<Listed<CallbackRow>, QueryError> {
        let [count, list] = query::callback::list(filter, page, self.database.dialect());
        Ok(Listed {
            total: self.count(count).await?,
            items: self.all(list, query::callback::read).await?,
        })
    }

    async fn xcoms(&self, filter: &XcomFilter, page: Page) -> Result<Listed<XcomRow>, QueryError> {
        let [count, list] = query::xcom::list(filter, page, self.database.dialect());
        Ok(Listed {
            total: self.count(count).await?,
            items: self.all(list, query::xcom::read).await?,
        })
    }

    async fn xcom(
        &self,
        dag_id: &DagId,
        run_id: &RunId,
        task_id: &TaskId,
        map_index: MapIndex,
        key: &str,
    ) -> Result<Option<XcomRow>, QueryError> {
        let filter = XcomFilter {
            dag_id: Some(dag_id.clone()),
            run_id: Some(run_id.clone()),
            task_id: Some(task_id.clone()),
            key: Some(key.to_owned()),
            map_index: Some(map_index),
        };
        let one = query::xcom::one(&filter, self.database.dialect());
        let Some(mut row) = self.first(one, query::xcom::read).await? else {
            return Ok(None);
        };
        let index = row.ti.map_index..=row.ti.map_index;
        let values = xcom::values(&self.database, row.ti.run, row.ti.task, &index, key);
        let values = values.await.map_err(query_error)?;
        row.value = values.into_iter().next().map(|(_, value)| value);
        // It may have been deleted since the first statement.
        Ok(row.value.is_some().then_some(row))
    }

    async fn blob_is_readable(&self, digest: Digest) -> Result<bool, QueryError> {
        let found = self.first(uploaded_blob::readable(&[digest]), |_| Ok(())).await?;
        Ok(found.is_some())
    }

    async fn audit_log(&self, dag_id: Option<&DagId>, page: Page) -> Result<Listed<AuditRow>, QueryError> {
        Ok(Listed {
            total: self.count(audit_log::count(dag_id)).await?,
            items: self.all(audit_log::list(dag_id, page), audit_log::read).await?,
        })
    }

    async fn pools(&self) -> Result<Vec<PoolRow>, QueryError> {
        self.all(slot_pool::list(), slot_pool::read).await
    }

    async fn pool_use(&self) -> Result<Vec<PoolUse>, QueryError> {
        self.all(slot_pool::in_use(), slot_pool::read_use).await
    }

    async fn ping(&self) -> Result<(), QueryError> {
        self.first(Statement::new("SELECT 1 FROM meta WHERE key = 'application'"), |_| {
            Ok(())
        })
        .await?;
        Ok(())
    }
}
