//! Opening a database: where it is, what it is, and bringing its schema up to date.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::Mutex;

use crate::Db;
use crate::sql::{Checkpointer, Database, Postgres, Sqlite, Writer};

static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");

/// Marks a SQLite file as ours (`PRAGMA application_id`): "Artg" in ASCII.
const APPLICATION_ID: i64 = 0x4172_7467;

/// How a database is used.
#[derive(Clone, Debug)]
pub struct Options {
    /// Connections that read (SQLite), or all connections (PostgreSQL).
    pub connections: u32,
    /// How long a write waits for another process that writes to the same SQLite file.
    pub busy_timeout: Duration,
    /// How long a call waits for a free connection, and for the server when the database is opened.
    pub acquire_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections: 8,
            busy_timeout: Duration::from_secs(2),
            acquire_timeout: Duration::from_secs(10),
        }
    }
}

/// Why a database could not be opened. `place` names it without any password.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The text names no database.
    #[error("`{text}` names no database: give `sqlite:PATH` or `postgres://USER@HOST/NAME`")]
    InvalidUrl {
        /// The text, up to the first `@`, so that it holds no password.
        text: String,
        /// What is wrong with it, if more is known.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The server does not answer.
    #[error("cannot reach the database server at {place}")]
    Unreachable {
        /// Where.
        place: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// User, password or rights.
    #[error("the database {place} refuses access")]
    Denied {
        /// Where.
        place: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server has no such database.
    #[error("the database {place} does not exist; create it first (`createdb`)")]
    Missing {
        /// Where.
        place: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file is something else.
    #[error("{place} is not a database of this program")]
    NotOurs {
        /// Where.
        place: String,
    },
    /// It was written by a later release.
    #[error("the database {place} is newer than this program (it has migration {version}); use the newer program")]
    Newer {
        /// Where.
        place: String,
        /// The migration that this program does not know.
        version: i64,
    },
    /// Its schema is not what this program would have made.
    #[error("the schema of the database {place} was changed by something else")]
    Changed {
        /// Where.
        place: String,
        /// How.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file cannot be opened: its directory is missing, the disk is full, …
    #[error("cannot open the database {place}")]
    Other {
        /// Where.
        place: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Db {
    /// Opens a database, creates it where it is a SQLite file that does not exist, and brings its schema up to date.
    ///
    /// `url` is `sqlite:PATH` or `postgres://USER:PASSWORD@HOST/NAME?options`.
    pub async fn open(url: &str, options: &Options) -> Result<Self, OpenError> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(invalid(url, None));
            }
            return Self::open_sqlite(Path::new(path), options).await;
        }
        if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            let connect = PgConnectOptions::from_str(url).map_err(|error| invalid(url, Some(error.into())))?;
            return Self::open_postgres(connect, options).await;
        }
        Err(invalid(url, None))
    }

    /// Opens a SQLite file; creates it where it does not exist.
    pub async fn open_sqlite(path: &Path, options: &Options) -> Result<Self, OpenError> {
        let place = Place(path.display().to_string());
        let connect = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(options.busy_timeout)
            .foreign_keys(true)
            .statement_cache_capacity(500);
        let write = connect
            .clone()
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // Only where the checkpointer falls behind.
            .pragma("wal_autocheckpoint", "16000");
        let failed = |error| place.sqlite(error);
        let mut writer = SqliteConnection::connect_with(&write).await.map_err(failed)?;
        claim(&mut writer, &place).await?;
        SQLITE.run(&mut writer).await.map_err(|error| place.migrate(error))?;
        let checkpointer = SqliteConnection::connect_with(&connect).await.map_err(failed)?;
        let readers = SqlitePoolOptions::new()
            .max_connections(options.connections)
            .acquire_timeout(options.acquire_timeout)
            .idle_timeout(Duration::from_secs(60))
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(connect.pragma("query_only", "ON"))
            .await
            .map_err(failed)?;
        Ok(Self::new(Database::Sqlite(Sqlite {
            writer: Arc::new(Mutex::new(Writer::new(writer, Checkpointer::start(checkpointer)))),
            readers,
        })))
    }

    /// Opens a database on a PostgreSQL server.
    async fn open_postgres(connect: PgConnectOptions, options: &Options) -> Result<Self, OpenError> {
        let place = Place(format!(
            "{}:{}/{}",
            connect.get_host(),
            connect.get_port(),
            connect.get_database().unwrap_or_else(|| connect.get_username())
        ));
        let connect = connect
            .application_name("airtight")
            .options([
                ("synchronous_commit", "on"),
                ("client_min_messages", "warning"),
                // A transaction whose client vanished without a word must not hold the lease's row for ever.
                ("lock_timeout", "10s"),
                // Shorter than the lock timeout: a paused process in the middle of a tick must not keep its successor out.
                ("idle_in_transaction_session_timeout", "5s"),
            ])
            .statement_cache_capacity(500);
        let connections = PgPoolOptions::new()
            .max_connections(options.connections)
            .acquire_timeout(options.acquire_timeout)
            .connect_with(connect)
            .await
            .map_err(|error| place.postgres(error))?;
        POSTGRES.run(&connections).await.map_err(|error| place.migrate(error))?;
        Ok(Self::new(Database::Postgres(Postgres { connections })))
    }
}

fn invalid(url: &str, source: Option<Box<dyn std::error::Error + Send + Sync>>) -> OpenError {
    // A password stands between the first colon of the authority and the last `@`.
    let text = match url.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}"),
        None => url.to_owned(),
    };
    OpenError::InvalidUrl { text, source }
}

/// Refuses a SQLite file of some other program, and marks a new one as ours.
async fn claim(connection: &mut SqliteConnection, place: &Place) -> Result<(), OpenError> {
    let failed = |error| place.sqlite(error);
    let id: i64 = sqlx::query_scalar("PRAGMA application_id")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    if id == APPLICATION_ID {
        return Ok(());
    }
    let objects: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM sqlite_schema")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    if id != 0 || objects != 0 {
        return Err(OpenError::NotOurs { place: place.0.clone() });
    }
    sqlx::query("PRAGMA application_id = 0x41727467")
        .execute(connection)
        .await
        .map_err(failed)?;
    Ok(())
}

/// Names a database in errors.
struct Place(String);

impl Place {
    fn sqlite(&self, error: sqlx::Error) -> OpenError {
        const NOT_A_DATABASE: &str = "26";
        const PERMISSION: [&str; 3] = ["3", "8", "23"];
        let place = self.0.clone();
        let code = error
            .as_database_error()
            .and_then(|error| error.code())
            .unwrap_or_default();
        if code == NOT_A_DATABASE {
            return OpenError::NotOurs { place };
        }
        if PERMISSION.contains(&&*code) || permission_denied(Path::new(&place)) {
            return OpenError::Denied {
                place,
                source: error.into(),
            };
        }
        OpenError::Other {
            place,
            source: error.into(),
        }
    }

    fn postgres(&self, error: sqlx::Error) -> OpenError {
        const INVALID_AUTHORIZATION: &str = "28";
        const INSUFFICIENT_PRIVILEGE: &str = "42501";
        const INVALID_CATALOG_NAME: &str = "3D000";
        const NOT_ACCEPTING: [&str; 2] = ["53", "57"];
        let place = self.0.clone();
        let source = match &error {
            sqlx::Error::Database(database) => {
                let code = database.code().unwrap_or_default().into_owned();
                let class = code.get(..2).unwrap_or_default().to_owned();
                if code == INVALID_CATALOG_NAME {
                    return OpenError::Missing {
                        place,
                        source: error.into(),
                    };
                }
                if code == INSUFFICIENT_PRIVILEGE || class == INVALID_AUTHORIZATION {
                    return OpenError::Denied {
                        place,
                        source: error.into(),
                    };
                }
                if NOT_ACCEPTING.contains(&&*class) {
                    return OpenError::Unreachable {
                        place,
                        source: error.into(),
                    };
                }
                error.into()
            }
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::PoolTimedOut => {
                return OpenError::Unreachable {
                    place,
                    source: error.into(),
                };
            }
            _ => error.into(),
        };
        OpenError::Other { place, source }
    }

    fn migrate(&self, error: MigrateError) -> OpenError {
        let place = self.0.clone();
        match error {
            MigrateError::VersionMissing(version) | MigrateError::VersionTooNew(version, _) => {
                OpenError::Newer { place, version }
            }
            MigrateError::VersionMismatch(_) | MigrateError::VersionTooOld(..) | MigrateError::Dirty(_) => {
                OpenError::Changed {
                    place,
                    source: error.into(),
                }
            }
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                let sqlite = error
                    .as_database_error()
                    .is_some_and(|error| error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some());
                if sqlite {
                    self.sqlite(error)
                } else {
                    self.postgres(error)
                }
            }
            error => OpenError::Other {
                place,
                source: error.into(),
            },
        }
    }
}

/// SQLite answers "cannot open" for a missing directory and for a missing right alike.
fn permission_denied(path: &Path) -> bool {
    let denied = |result: std::io::Result<()>| matches!(result, Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied);
    let file = std::fs::OpenOptions::new().write(true).open(path).map(drop);
    let directory: PathBuf = path.parent().map(Path::to_owned).unwrap_or_default();
    denied(file) || denied(std::fs::read_dir(directory).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A release must find the same steps on both databases.
    #[test]
    fn both_databases_have_the_same_migrations() {
        let names = |migrator: &Migrator| -> Vec<(i64, String)> {
            migrator
                .iter()
                .map(|migration| (migration.version, migration.description.to_string()))
                .collect()
        };
        assert_eq!(names(&SQLITE), names(&POSTGRES));
        assert!(!names(&SQLITE).is_empty());
    }

    #[test]
    fn an_invalid_url_never_shows_a_password() {
        let error = invalid("mysql://me:secret@host/db", None);
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
