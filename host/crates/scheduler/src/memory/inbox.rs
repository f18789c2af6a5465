//! The inbox.

use async_trait::async_trait;
use model::Timestamp;
use ports::inbox::{InboxRow, InboxStore, SeenScheduler};
use ports::query::QueryError;
use ports::store::CommitError;
use uuid::Uuid;

use super::MemoryStore;
use super::tables::{MemoryRequest, Tables};

impl Tables {
    pub(super) fn inbox_left(&self, except: &[Uuid], limit: u32) -> Vec<InboxRow> {
        let left = self.inbox.values().filter(|request| request.answer.is_none());
        let left = left.map(|request| &request.row).filter(|row| !except.contains(&row.id));
        left.take(limit as usize).cloned().collect()
    }

    pub(super) fn answer_inbox(&mut self, answers: &[(Uuid, String)], now: Timestamp) {
        for (id, answer) in answers {
            if let Some(request) = self.inbox.get_mut(id) {
                request.answer.get_or_insert_with(|| (now, answer.clone()));
            }
        }
    }

    pub(super) fn sweep_inbox(&mut self, answered_before: Timestamp) {
        let is_old = |request: &MemoryRequest| request.answer.as_ref().is_some_and(|(at, _)| *at < answered_before);
        self.inbox.retain(|_, request| !is_old(request));
    }
}

#[async_trait]
impl InboxStore for MemoryStore {
    async fn ask(&self, id: Uuid, request: &str, now: Timestamp) -> Result<(), CommitError> {
        let row = InboxRow {
            id,
            asked_at: now,
            request: request.to_owned(),
            settled: false,
        };
        self.tables().inbox.insert(id, MemoryRequest { row, answer: None });
        Ok(())
    }

    async fn answers(&self, ids: &[Uuid]) -> Result<Vec<(Uuid, String)>, QueryError> {
        let tables = self.tables();
        let answer = |id: &Uuid| Some((*id, tables.inbox.get(id)?.answer.as_ref()?.1.clone()));
        Ok(ids.iter().filter_map(answer).collect())
    }

    async fn forget(&self, ids: &[Uuid]) -> Result<(), QueryError> {
        let mut tables = self.tables();
        for id in ids {
            tables.inbox.remove(id);
        }
        Ok(())
    }

    async fn scheduler(&self) -> Result<SeenScheduler, QueryError> {
        let tables = self.tables();
        let held = tables.lease.as_ref();
        let active = tables.runs.values().filter(|run| !run.state.is_finished());
        Ok(SeenScheduler {
            scheduler_id: held.map(|held| held.lease.scheduler_id),
            renewed_at: held.map_or(Timestamp(0), |held| held.renewed_at),
            expires_at: held.map_or(Timestamp(0), |held| held.expires_at),
            active_runs: active.clone().count(),
            set_aside_runs: active
                .filter(|run| run.set_aside.is_some())
                .map(|run| format!("{}/{}", run.new.context.dag_id, run.new.context.run_id))
                .collect(),
        })
    }
}
