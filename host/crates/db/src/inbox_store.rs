//! The inbox, for those who ask.

use async_trait::async_trait;
use model::Timestamp;
use ports::inbox::{InboxStore, SeenScheduler};
use ports::query::QueryError;
use ports::store::CommitError;
use uuid::Uuid;

use crate::Db;
use crate::error::{commit_error, query_error, query_failure};
use crate::table::{dag_run, inbox, scheduler_lease};

#[async_trait]
impl InboxStore for Db {
    async fn ask(&self, id: Uuid, request: &str, now: Timestamp) -> Result<(), CommitError> {
        let ask = inbox::ask(id, request, now);
        self.database.run(vec![ask]).await.map_err(commit_error)
    }

    async fn answers(&self, ids: &[Uuid]) -> Result<Vec<(Uuid, String)>, QueryError> {
        self.all(inbox::answers(ids), inbox::read_answer).await
    }

    async fn forget(&self, ids: &[Uuid]) -> Result<(), QueryError> {
        let forget = inbox::forget(ids);
        self.database.run(vec![forget]).await.map_err(query_failure)
    }

    async fn scheduler(&self) -> Result<SeenScheduler, QueryError> {
        let mut tx = self.database.read().await.map_err(query_error)?;
        let row = tx.fetch_optional(scheduler_lease::seen()).await.map_err(query_error)?;
        let row = row.ok_or(sqlx::Error::RowNotFound).map_err(query_error)?;
        let mut seen = scheduler_lease::read_seen(&row).map_err(query_error)?;
        let active = tx.fetch_optional(dag_run::count_owned()).await.map_err(query_error)?;
        if let Some(row) = active {
            seen.active_runs = row.columns().number().map_err(query_error)?;
        }
        let aside = tx.fetch_all(dag_run::set_aside()).await.map_err(query_error)?;
        let names = aside.iter().map(|row| {
            let mut columns = row.columns();
            Ok(format!("{}/{}", columns.text()?, columns.text()?))
        });
        seen.set_aside_runs = names.collect::<Result<_, sqlx::Error>>().map_err(query_error)?;
        Ok(seen)
    }
}
