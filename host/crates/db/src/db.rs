//! The handle to a database, and what its traits share.

use std::collections::HashMap;
use std::sync::Arc;

use ports::deploy::DagVersion;
use ports::query::{QueryError, TiRow};
use ports::store::TiWrite;
use uuid::Uuid;

use crate::error::query_error;
use crate::sql::{Database, Row, Statement};
use crate::table::dag_version;
use crate::table::task_instance::{self, RunPart};
use crate::version_cache::VersionCache;

/// An open metadata database. Clones share its connections.
#[derive(Clone)]
pub struct Db {
    pub(crate) database: Database,
    pub(crate) versions: Arc<VersionCache>,
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db")
            .field("dialect", &self.database.dialect())
            .finish_non_exhaustive()
    }
}

impl Db {
    pub(crate) fn new(database: Database) -> Self {
        Self {
            database,
            versions: Arc::default(),
        }
    }

    /// Closes all connections. SQLite folds its write-ahead log into the database file. Later calls fail.
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// All rows, each read by `read`.
    pub(crate) async fn all<T>(
        &self,
        statement: Statement,
        read: impl Fn(&Row) -> Result<T, sqlx::Error>,
    ) -> Result<Vec<T>, QueryError> {
        self.database.read_all(statement, read).await.map_err(query_error)
    }

    /// The first row, if any, read by `read`.
    pub(crate) async fn first<T>(
        &self,
        statement: Statement,
        read: impl Fn(&Row) -> Result<T, sqlx::Error>,
    ) -> Result<Option<T>, QueryError> {
        let row = self.database.fetch_optional(statement).await.map_err(query_error)?;
        row.as_ref().map(read).transpose().map_err(query_error)
    }

    /// The one number that a `SELECT COUNT(*)` answers.
    pub(crate) async fn count(&self, statement: Statement) -> Result<u64, QueryError> {
        let count = self.first(statement, |row| row.columns().number()).await?;
        Ok(count.unwrap_or_default())
    }

    /// Versions by their UUIDs; unknown ones are missing in the answer.
    pub(crate) async fn load_versions(
        &self,
        uuids: impl IntoIterator<Item = Uuid>,
    ) -> Result<HashMap<Uuid, Arc<DagVersion>>, QueryError> {
        let mut found = HashMap::new();
        let mut missing = Vec::new();
        for uuid in uuids {
            if found.contains_key(&uuid) || missing.contains(&uuid) {
                continue;
            }
            match self.versions.get(uuid) {
                Some(version) => {
                    found.insert(uuid, version);
                }
                None => missing.push(uuid),
            }
        }
        if !missing.is_empty() {
            for version in self.all(dag_version::by_uuids(missing), dag_version::read).await? {
                let version = Arc::new(version);
                self.versions.insert(version.clone());
                found.insert(version.uuid, version);
            }
        }
        Ok(found)
    }

    /// One version.
    pub(crate) async fn one_version(&self, uuid: Uuid) -> Result<Option<Arc<DagVersion>>, QueryError> {
        Ok(self.load_versions([uuid]).await?.remove(&uuid))
    }

    /// Task instances as the API shows them.
    pub(crate) async fn show(&self, rows: Vec<(TiWrite, RunPart)>) -> Result<Vec<TiRow>, QueryError> {
        let versions = self.load_versions(rows.iter().map(|(_, run)| run.version)).await?;
        rows.into_iter()
            .map(|(ti, run)| {
                let version = versions.get(&run.version).ok_or(sqlx::Error::RowNotFound)?;
                task_instance::show(ti, &run, version)
            })
            .collect::<Result<_, _>>()
            .map_err(query_error)
    }
}
