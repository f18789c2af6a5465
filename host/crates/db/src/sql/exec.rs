//! Connections and transactions. SQLite has one writing connection behind a mutex and a pool of reading ones; PostgreSQL has one
//! pool. This is the only module that hands text to sqlx.

use std::sync::Arc;

use futures::TryStreamExt as _;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqlitePool};
use sqlx::{AssertSqlSafe, Connection as _, PgPool};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{Checkpointer, Dialect, Row, Statement, Value};

type SqliteQuery = sqlx::query::Query<'static, sqlx::Sqlite, SqliteArguments>;
type PostgresQuery = sqlx::query::Query<'static, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// How far a transaction had come when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing was committed.
    Before,
    /// The commit was under way.
    Commit,
}

/// A transaction that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) stage: Stage,
    pub(crate) error: sqlx::Error,
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self {
            stage: Stage::Before,
            error,
        }
    }
}

/// Either database.
#[derive(Clone)]
pub(crate) enum Database {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

#[derive(Clone)]
pub(crate) struct Sqlite {
    pub(crate) writer: Arc<Mutex<Writer>>,
    pub(crate) readers: SqlitePool,
}

#[derive(Clone)]
pub(crate) struct Postgres {
    pub(crate) connections: PgPool,
}

/// The one connection that writes to a SQLite database.
pub(crate) struct Writer {
    /// None once it is closed.
    connection: Option<SqliteConnection>,
    /// None once it is closed.
    checkpointer: Option<Checkpointer>,
    /// A transaction may be open: whoever used the connection last did not get to its end (its future was dropped).
    open: bool,
}

impl Writer {
    pub(crate) fn new(connection: SqliteConnection, checkpointer: Checkpointer) -> Self {
        Self {
            connection: Some(connection),
            checkpointer: Some(checkpointer),
            open: false,
        }
    }

    async fn close(&mut self) {
        if let Some(checkpointer) = self.checkpointer.take() {
            checkpointer.close().await;
        }
        // The last connection to close folds the write-ahead log into the database file.
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "cannot close the database cleanly");
        }
    }

    /// The transaction was committed.
    fn committed(&mut self, bytes: usize) {
        self.open = false;
        if let Some(checkpointer) = &mut self.checkpointer {
            checkpointer.committed(bytes);
        }
    }

    fn connection(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)
    }

    async fn roll_back(&mut self) {
        if let Some(connection) = &mut self.connection {
            // "no transaction is active" is the usual answer after an error that ended it by itself.
            if let Err(error) = sqlx::query("ROLLBACK").execute(connection).await {
                tracing::debug!(%error, "rollback");
            }
        }
        self.open = false;
    }

    /// A clean connection.
    async fn ready(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        if self.open {
            self.roll_back().await;
        }
        self.connection()
    }
}

fn sqlite_arguments(args: Vec<Value>) -> SqliteArguments {
    use sqlx::Arguments as _;
    let mut arguments = SqliteArguments::default();
    for arg in args {
        match arg {
            Value::Int(value) => arguments.add(value),
            Value::Text(value) => arguments.add(value),
            Value::Bytes(value) => arguments.add(value),
            Value::Ints(_) | Value::Texts(_) => unreachable!("arrays are for PostgreSQL"),
        }
        .expect("values of these types always encode");
    }
    arguments
}

/// The text of every statement is made of constants of this crate; see [`Statement`].
fn sqlite_query(statement: Statement) -> SqliteQuery {
    let (text, args) = statement.finish(Dialect::Sqlite);
    sqlx::query_with(AssertSqlSafe(text), sqlite_arguments(args))
}

fn postgres_query(statement: Statement) -> PostgresQuery {
    let (text, args) = statement.finish(Dialect::Postgres);
    let mut query = sqlx::query(AssertSqlSafe(text));
    for arg in args {
        query = match arg {
            Value::Int(value) => query.bind(value),
            Value::Text(value) => query.bind(value),
            Value::Bytes(value) => query.bind(value),
            Value::Ints(value) => query.bind(value),
            Value::Texts(value) => query.bind(value),
        };
    }
    query
}

impl Database {
    pub(crate) fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Reads, outside of any transaction.
    pub(crate) async fn fetch_all(&self, statement: Statement) -> Result<Vec<Row>, sqlx::Error> {
        match self {
            Self::Sqlite(db) => {
                let rows = sqlite_query(statement).fetch_all(&db.readers).await?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
            Self::Postgres(db) => {
                let rows = postgres_query(statement).fetch_all(&db.connections).await?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// Reads all rows, outside of any transaction, each by `read` as it comes: a row of the driver is much larger than what is made of it.
    pub(crate) async fn read_all<T>(
        &self,
        statement: Statement,
        read: impl Fn(&Row) -> Result<T, sqlx::Error>,
    ) -> Result<Vec<T>, sqlx::Error> {
        let mut all = Vec::new();
        match self {
            Self::Sqlite(db) => {
                let mut rows = sqlite_query(statement).fetch(&db.readers);
                while let Some(row) = rows.try_next().await? {
                    all.push(read(&Row::Sqlite(row))?);
                }
            }
            Self::Postgres(db) => {
                let mut rows = postgres_query(statement).fetch(&db.connections);
                while let Some(row) = rows.try_next().await? {
                    all.push(read(&Row::Postgres(row))?);
                }
            }
        }
        Ok(all)
    }

    /// Reads at most one row, outside of any transaction.
    pub(crate) async fn fetch_optional(&self, statement: Statement) -> Result<Option<Row>, sqlx::Error> {
        match self {
            Self::Sqlite(db) => Ok(sqlite_query(statement)
                .fetch_optional(&db.readers)
                .await?
                .map(Row::Sqlite)),
            Self::Postgres(db) => Ok(postgres_query(statement)
                .fetch_optional(&db.connections)
                .await?
                .map(Row::Postgres)),
        }
    }

    /// Reads at most one row once every write of this handle that is still under way has ended, even one whose caller is gone. On
    /// PostgreSQL the statement must wait for the row's lock (`FOR SHARE`).
    pub(crate) async fn fetch_settled(&self, statement: Statement) -> Result<Option<Row>, sqlx::Error> {
        match self {
            Self::Sqlite(db) => {
                let mut writer = db.writer.clone().lock_owned().await;
                let connection = writer.ready().await?;
                Ok(sqlite_query(statement)
                    .fetch_optional(connection)
                    .await?
                    .map(Row::Sqlite))
            }
            Self::Postgres(_) => self.fetch_optional(statement).await,
        }
    }

    /// Starts a transaction that sees one state of the database.
    pub(crate) async fn read(&self) -> Result<ReadTx, sqlx::Error> {
        Ok(match self {
            Self::Sqlite(db) => ReadTx::Sqlite(db.readers.begin().await?),
            Self::Postgres(db) => ReadTx::Postgres(
                db.connections
                    .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    .await?,
            ),
        })
    }

    /// Starts a transaction that writes.
    pub(crate) async fn write(&self) -> Result<WriteTx, sqlx::Error> {
        Ok(match self {
            Self::Sqlite(db) => {
                let mut writer = db.writer.clone().lock_owned().await;
                writer.ready().await?;
                writer.open = true;
                sqlx::query("BEGIN IMMEDIATE").execute(writer.connection()?).await?;
                WriteTx::Sqlite(writer)
            }
            Self::Postgres(db) => WriteTx::Postgres(db.connections.begin().await?),
        })
    }

    /// Runs the statements in one transaction. On SQLite all of them, `BEGIN` and `COMMIT` included, go to the connection's thread
    /// in one message: a thread switch costs as much as a small statement, and this is the path that every tick takes.
    pub(crate) async fn run(&self, statements: Vec<Statement>) -> Result<(), Failure> {
        match self {
            Self::Sqlite(db) => {
                let mut script = Statement::new("BEGIN IMMEDIATE;\n");
                for statement in statements {
                    script.append(statement).push(";\n");
                }
                script.push("COMMIT");
                let bytes = script.bytes();
                let query = sqlite_query(script);
                let mut writer = db.writer.clone().lock_owned().await;
                writer.ready().await?;
                writer.open = true;
                let done = query.execute(writer.connection()?).await;
                match done {
                    Ok(_) => {
                        writer.committed(bytes);
                        Ok(())
                    }
                    Err(error) => {
                        writer.roll_back().await;
                        Err(error.into())
                    }
                }
            }
            Self::Postgres(_) => {
                let mut tx = self.write().await?;
                for statement in statements {
                    tx.execute(statement).await?;
                }
                tx.commit().await
            }
        }
    }

    /// Closes all connections; later calls fail.
    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(db) => {
                db.readers.close().await;
                db.writer.lock().await.close().await;
            }
            Self::Postgres(db) => db.connections.close().await,
        }
    }
}

/// A transaction that reads.
pub(crate) enum ReadTx {
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>),
    Postgres(sqlx::Transaction<'static, sqlx::Postgres>),
}

impl ReadTx {
    /// Reads all rows, each by `read` as it comes.
    pub(crate) async fn read_all<T>(
        &mut self,
        statement: Statement,
        read: impl Fn(&Row) -> Result<T, sqlx::Error>,
    ) -> Result<Vec<T>, sqlx::Error> {
        let mut all = Vec::new();
        match self {
            Self::Sqlite(tx) => {
                let mut rows = sqlite_query(statement).fetch(&mut **tx);
                while let Some(row) = rows.try_next().await? {
                    all.push(read(&Row::Sqlite(row))?);
                }
            }
            Self::Postgres(tx) => {
                let mut rows = postgres_query(statement).fetch(&mut **tx);
                while let Some(row) = rows.try_next().await? {
                    all.push(read(&Row::Postgres(row))?);
                }
            }
        }
        Ok(all)
    }

    pub(crate) async fn fetch_all(&mut self, statement: Statement) -> Result<Vec<Row>, sqlx::Error> {
        match self {
            Self::Sqlite(tx) => {
                let rows = sqlite_query(statement).fetch_all(&mut **tx).await?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
            Self::Postgres(tx) => {
                let rows = postgres_query(statement).fetch_all(&mut **tx).await?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    pub(crate) async fn fetch_optional(&mut self, statement: Statement) -> Result<Option<Row>, sqlx::Error> {
        Ok(self.fetch_all(statement).await?.into_iter().next())
    }
}

/// A transaction that writes. Dropped without `commit` it is rolled back.
pub(crate) enum WriteTx {
    Sqlite(OwnedMutexGuard<Writer>),
    Postgres(sqlx::Transaction<'static, sqlx::Postgres>),
}

impl WriteTx {
    /// Answers how many rows changed.
    pub(crate) async fn execute(&mut self, statement: Statement) -> Result<u64, sqlx::Error> {
        match self {
            Self::Sqlite(writer) => {
                let done = sqlite_query(statement).execute(writer.connection()?).await?;
                Ok(done.rows_affected())
            }
            Self::Postgres(tx) => Ok(postgres_query(statement).execute(&mut **tx).await?.rows_affected()),
        }
    }

    pub(crate) async fn fetch_all(&mut self, statement: Statement) -> Result<Vec<Row>, sqlx::Error> {
        match self {
            Self::Sqlite(writer) => {
                let rows = sqlite_query(statement).fetch_all(writer.connection()?).await?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
            Self::Postgres(tx) => {
                let rows = postgres_query(statement).fetch_all(&mut **tx).await?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    pub(crate) async fn fetch_optional(&mut self, statement: Statement) -> Result<Option<Row>, sqlx::Error> {
        Ok(self.fetch_all(statement).await?.into_iter().next())
    }

    pub(crate) async fn commit(self) -> Result<(), Failure> {
        let commit = |error| Failure {
            stage: Stage::Commit,
            error,
        };
        match self {
            Self::Sqlite(mut writer) => {
                let done = sqlx::query("COMMIT").execute(writer.connection()?).await;
                match done {
                    Ok(_) => {
                        writer.committed(0);
                        Ok(())
                    }
                    Err(error) => {
                        writer.roll_back().await;
                        // A failed commit of SQLite is known to have failed.
                        Err(error.into())
                    }
                }
            }
            Self::Postgres(tx) => tx.commit().await.map_err(commit),
        }
    }
}
