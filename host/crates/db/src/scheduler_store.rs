//! What the scheduler needs: leases, ticks, recovery.

use std::ops::RangeInclusive;
use std::sync::Arc;

use async_trait::async_trait;
use model::{DagId, DagRunKey, DagRunState, Digest, MapIndex, RunId, TaskId, TaskIndex, TiKey, Timestamp};
use ports::between::ChildRun;
use ports::callback::{CallbackRun, DueCallbacks};
use ports::deploy::DagVersion;
use ports::inbox::InboxRow;
use ports::intent::Intent;
use ports::payload::{Checkpoint, XcomValue};
use ports::query::{PoolRow, QueryError, RunRow, TiRow};
use ports::store::{
    CheckpointSave, CommitError, DagWrite, Lease, LeaseError, SchedulerStore, StoredBefore, StoredDag, StoredRun,
    TickWrite,
};
use uuid::Uuid;

use crate::Db;
use crate::error::{commit_error, query_error, query_failure, write_error};
use crate::table::{
    callback, checkpoint, dag, dag_run, dag_version, inbox, intent, purge, scheduler_lease, slot_pool, task_instance,
    uploaded_blob, xcom,
};
use crate::tick;

#[async_trait]
impl SchedulerStore for Db {
    async fn acquire_lease(
        &self,
        scheduler_id: Uuid,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Lease, LeaseError> {
        scheduler_lease::acquire(&self.database, scheduler_id, now, expires_at).await
    }

    async fn renew_lease(&self, lease: &Lease, now: Timestamp, expires_at: Timestamp) -> Result<(), CommitError> {
        let renew = scheduler_lease::renew(lease, now, expires_at);
        self.database.run(vec![renew]).await.map_err(commit_error)
    }

    async fn release_lease(&self, lease: &Lease) -> Result<(), QueryError> {
        let release = scheduler_lease::release(lease);
        self.database.run(vec![release]).await.map_err(query_failure)
    }

    async fn reserve_run_keys(&self, lease: &Lease, count: u32) -> Result<DagRunKey, CommitError> {
        let mut tx = self.database.write().await.map_err(write_error)?;
        tx.execute(scheduler_lease::check(lease)).await.map_err(write_error)?;
        let row = tx
            .fetch_optional(scheduler_lease::reserve_run_keys(count))
            .await
            .map_err(write_error)?;
        let first = row
            .ok_or(sqlx::Error::RowNotFound)
            .and_then(|row| scheduler_lease::first_key(&row))
            .map_err(write_error)?;
        tx.commit().await.map_err(commit_error)?;
        Ok(first)
    }

    async fn commit_tick(&self, lease: &Lease, tick: &TickWrite) -> Result<(), CommitError> {
        let statements =
            tick::statements(self.database.dialect(), lease, tick).map_err(|error| CommitError::Data(error.into()))?;
        self.database.run(statements).await.map_err(commit_error)?;
        for change in &tick.dags {
            if let DagWrite::Deploy { version, .. } = change {
                // If the DAG had this content before, its version has another UUID and this entry is never asked for.
                self.versions.insert(version.clone());
            }
        }
        Ok(())
    }

    async fn tick_committed(&self, tick_id: Uuid) -> Result<bool, QueryError> {
        let last = scheduler_lease::last_tick(self.database.dialect());
        let row = self.database.fetch_settled(last).await.map_err(query_error)?;
        let row = row.ok_or(sqlx::Error::RowNotFound).map_err(query_error)?;
        let last: Option<Uuid> = row.columns().opt_parse().map_err(query_error)?;
        Ok(last == Some(tick_id))
    }

    async fn load_dags(&self) -> Result<Vec<StoredDag>, QueryError> {
        let rows = self.all(dag::all(), dag::read).await?;
        let versions = self.load_versions(rows.iter().map(|row| row.version)).await?;
        rows.into_iter()
            .map(|row| {
                let version = versions.get(&row.version).cloned().ok_or(sqlx::Error::RowNotFound)?;
                Ok(StoredDag {
                    dag_id: row.dag_id,
                    paused: row.paused,
                    version,
                })
            })
            .collect::<Result<_, _>>()
            .map_err(query_error)
    }

    async fn load_version(&self, version: Uuid) -> Result<Option<Arc<DagVersion>>, QueryError> {
        self.one_version(version).await
    }

    async fn find_version(&self, dag_id: &DagId, digest: Digest) -> Result<(Option<Arc<DagVersion>>, u32), QueryError> {
        let version = self
            .first(dag_version::by_digest(dag_id, digest), dag_version::read)
            .await?;
        let highest = self
            .first(dag_version::highest_number(dag_id), |row| row.columns().number())
            .await?;
        Ok((version.map(Arc::new), highest.unwrap_or_default()))
    }

    async fn active_runs(&self) -> Result<Vec<DagRunKey>, QueryError> {
        self.all(dag_run::active(), |row| row.columns().int().map(DagRunKey))
            .await
    }

    async fn load_run(&self, key: DagRunKey) -> Result<Option<StoredRun>, QueryError> {
        let mut tx = self.database.read().await.map_err(query_error)?;
        let row = tx
            .fetch_optional(dag_run::for_recovery(key))
            .await
            .map_err(query_error)?;
        let Some(row) = row else { return Ok(None) };
        let (row, context) = dag_run::read_for_recovery(&row).map_err(query_error)?;
        let task_instances = tx.read_all(task_instance::of_run(key), task_instance::read).await;
        let task_instances = task_instances.map_err(query_error)?;
        let counted = tx.fetch_optional(callback::count(key)).await.map_err(query_error)?;
        let callbacks = counted.map_or(Ok(0), |row| row.columns().int()).map_err(query_error)?;
        Ok(Some(StoredRun {
            version: row.version_uuid,
            callbacks: u32::try_from(callbacks).unwrap_or(u32::MAX),
            row,
            context,
            task_instances,
        }))
    }

    async fn find_run(&self, dag_id: &DagId, run_id: &RunId) -> Result<Option<DagRunKey>, QueryError> {
        self.first(dag_run::find(dag_id, run_id), |row| row.columns().int().map(DagRunKey))
            .await
    }

    async fn find_run_by_logical_date(
        &self,
        dag_id: &DagId,
        logical_date: Timestamp,
    ) -> Result<Option<RunId>, QueryError> {
        self.first(dag_run::find_by_logical_date(dag_id, logical_date), |row| {
            row.columns().parse()
        })
        .await
    }

    async fn run_before(&self, dag_id: &DagId, logical_date: Timestamp) -> Result<Option<StoredBefore>, QueryError> {
        let mut tx = self.database.read().await.map_err(query_error)?;
        let row = tx.fetch_optional(dag_run::before(dag_id, logical_date)).await;
        let Some(row) = row.map_err(query_error)? else {
            return Ok(None);
        };
        let mut before = dag_run::read_before(&row).map_err(query_error)?;
        let rows = tx
            .fetch_all(task_instance::states(before.key))
            .await
            .map_err(query_error)?;
        let states = rows.iter().map(task_instance::read_states).collect::<Result<_, _>>();
        before.states = states.map_err(query_error)?;
        Ok(Some(before))
    }

    async fn has_task_before(
        &self,
        dag_id: &DagId,
        logical_date: Timestamp,
        task_id: &TaskId,
    ) -> Result<bool, QueryError> {
        let found = self
            .first(dag_run::has_task_before(dag_id, logical_date, task_id), |_| Ok(()))
            .await?;
        Ok(found.is_some())
    }

    async fn latest_runs(
        &self,
        dag_id: &DagId,
        limit: u32,
    ) -> Result<Vec<(DagRunKey, Timestamp, DagRunState)>, QueryError> {
        self.all(dag_run::latest(dag_id, limit), dag_run::read_latest).await
    }

    async fn runs_between(
        &self,
        dag_id: &DagId,
        start: Option<Timestamp>,
        end: Option<Timestamp>,
        limit: u32,
    ) -> Result<Vec<DagRunKey>, QueryError> {
        self.all(dag_run::between(dag_id, start, end, limit), |row| {
            row.columns().int().map(DagRunKey)
        })
        .await
    }

    async fn children(&self, run: DagRunKey) -> Result<Vec<ChildRun>, QueryError> {
        self.all(dag_run::children(run), dag_run::read_child).await
    }

    async fn xcoms(
        &self,
        run: DagRunKey,
        task: TaskIndex,
        indexes: RangeInclusive<MapIndex>,
        key: &str,
    ) -> Result<Vec<(MapIndex, XcomValue)>, QueryError> {
        xcom::values(&self.database, run, task, &indexes, key)
            .await
            .map_err(query_error)
    }

    async fn xcom_sizes(
        &self,
        run: DagRunKey,
        task: TaskIndex,
        indexes: RangeInclusive<MapIndex>,
        key: &str,
        limit: u32,
    ) -> Result<Vec<(MapIndex, u64)>, QueryError> {
        self.all(xcom::sizes(run, task, &indexes, key, limit), |row| {
            let mut columns = row.columns();
            Ok((MapIndex(columns.number()?), columns.number()?))
        })
        .await
    }

    async fn xcom_keys(&self, ti: TiKey) -> Result<Vec<(String, u64)>, QueryError> {
        self.all(xcom::keys(ti), |row| {
            let mut columns = row.columns();
            Ok((columns.text()?, columns.number()?))
        })
        .await
    }

    async fn load_checkpoint(&self, ti: TiKey) -> Result<Option<Vec<u8>>, QueryError> {
        self.first(checkpoint::load(ti), |row| row.columns().bytes()).await
    }

    async fn save_checkpoints(
        &self,
        lease: &Lease,
        saves: &[CheckpointSave],
        now: Timestamp,
    ) -> Result<Vec<bool>, CommitError> {
        let mut tx = self.database.write().await.map_err(write_error)?;
        tx.execute(scheduler_lease::check(lease)).await.map_err(write_error)?;
        let dialect = self.database.dialect();
        let mut answers = Vec::with_capacity(saves.len());
        for CheckpointSave {
            ti,
            dispatch,
            checkpoint,
        } in saves
        {
            let (current, statements) = match checkpoint {
                Some(Checkpoint { bytes, blobs }) => {
                    let saved = tx.execute(checkpoint::save(*ti, *dispatch, bytes, now)).await;
                    let saved = saved.map_err(write_error)?;
                    (saved > 0, checkpoint::refer(dialect, *ti, blobs))
                }
                None => {
                    let row = tx.fetch_optional(checkpoint::is_current(*ti, *dispatch)).await;
                    let row = row.map_err(write_error)?;
                    (row.is_some(), checkpoint::delete(dialect, &[*ti]).into())
                }
            };
            answers.push(current);
            if current {
                for statement in statements {
                    tx.execute(statement).await.map_err(write_error)?;
                }
            }
        }
        // Where nothing was current there is nothing to make durable.
        if answers.contains(&true) {
            tx.commit().await.map_err(commit_error)?;
        }
        Ok(answers)
    }

    async fn intents(&self) -> Result<Vec<Intent>, QueryError> {
        let mut tx = self.database.read().await.map_err(query_error)?;
        let rows = tx.fetch_all(intent::all()).await.map_err(query_error)?;
        let intents = rows.iter().map(intent::read).collect::<Result<_, _>>();
        let runs = tx.fetch_all(intent::all_runs()).await.map_err(query_error)?;
        intents
            .and_then(|intents| intent::with_runs(intents, &runs))
            .map_err(query_error)
    }

    async fn readable_blobs(&self, digests: &[Digest]) -> Result<Vec<(Digest, u64)>, QueryError> {
        self.all(uploaded_blob::readable(digests), uploaded_blob::read).await
    }

    async fn inbox(&self, except: &[Uuid], limit: u32) -> Result<Vec<InboxRow>, QueryError> {
        self.all(inbox::left(except, limit), inbox::read).await
    }

    async fn answer_inbox(&self, lease: &Lease, answers: &[(Uuid, String)], now: Timestamp) -> Result<(), CommitError> {
        let mut statements = vec![scheduler_lease::check(lease)];
        statements.extend(answers.iter().map(|(id, answer)| inbox::answer(*id, answer, now)));
        self.database.run(statements).await.map_err(commit_error)
    }

    async fn sweep_inbox(&self, lease: &Lease, answered_before: Timestamp) -> Result<(), CommitError> {
        let statements = vec![scheduler_lease::check(lease), inbox::sweep(answered_before)];
        self.database.run(statements).await.map_err(commit_error)
    }

    async fn due_callbacks(&self, now: Timestamp, limit: u32) -> Result<DueCallbacks, QueryError> {
        let due = self.all(callback::due(now, limit), callback::read_due).await?;
        let next_at = self
            .first(callback::next_due(now), |row| row.columns().opt_time())
            .await?;
        Ok(DueCallbacks {
            due,
            next_at: next_at.flatten(),
        })
    }

    async fn callback_run(&self, run: DagRunKey) -> Result<Option<CallbackRun>, QueryError> {
        let found = self
            .first(dag_run::for_recovery(run), dag_run::read_for_recovery)
            .await?;
        Ok(found.map(|(row, context)| CallbackRun {
            context,
            version: row.version_uuid,
        }))
    }

    async fn has_rows(&self, runs: &[DagRunKey]) -> Result<bool, QueryError> {
        Ok(self.first(purge::left(runs), |_| Ok(())).await?.is_some())
    }

    async fn old_versions(&self, dag_id: &DagId) -> Result<u64, QueryError> {
        self.count(dag_version::count_old(dag_id)).await
    }

    async fn ti_rows(&self, run: DagRunKey) -> Result<Vec<TiRow>, QueryError> {
        let rows = self
            .all(task_instance::shown_of_run(run), task_instance::read_shown)
            .await?;
        self.show(rows).await
    }

    async fn run_row(&self, key: DagRunKey) -> Result<Option<RunRow>, QueryError> {
        self.first(dag_run::by_key(key), dag_run::read).await
    }

    async fn pools(&self) -> Result<Vec<PoolRow>, QueryError> {
        self.all(slot_pool::list(), slot_pool::read).await
    }

    async fn recount_slots(&self, lease: &Lease) -> Result<Vec<PoolRow>, CommitError> {
        let mut tx = self.database.write().await.map_err(write_error)?;
        tx.execute(scheduler_lease::check(lease)).await.map_err(write_error)?;
        tx.execute(slot_pool::recount()).await.map_err(write_error)?;
        let rows = tx.fetch_all(slot_pool::list()).await.map_err(write_error)?;
        let pools = rows.iter().map(slot_pool::read).collect::<Result<_, _>>();
        let pools = pools.map_err(write_error)?;
        tx.commit().await.map_err(commit_error)?;
        Ok(pools)
    }
}
