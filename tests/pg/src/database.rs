//! One database a test.

use std::io::Write as _;
use std::str::FromStr as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgConnection};

use crate::server::{self, Server};

/// Names a server where databases may be created: `postgres://USER@HOST/postgres`.
const SERVER: &str = "AIRTIGHT_TEST_POSTGRES";

static PRIVATE: OnceLock<Result<Server, String>> = OnceLock::new();
static COUNTER: AtomicUsize = AtomicUsize::new(0);
static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// A database of its own, dropped with this value.
#[derive(Debug)]
pub struct TestDatabase {
    name: String,
    url: String,
    admin: PgConnectOptions,
}

/// How many databases were asked for in vain.
pub fn skipped() -> usize {
    SKIPPED.load(Ordering::Relaxed)
}

/// A fresh, empty database; none, after saying so loudly, where no server can be had. A server that `AIRTIGHT_TEST_POSTGRES` names
/// and that does not answer is a failure.
pub async fn database() -> Option<TestDatabase> {
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let name = format!("airtight_test_{}_{number}", std::process::id());
    let (admin, url) = match std::env::var(SERVER) {
        Ok(server) => {
            let admin = PgConnectOptions::from_str(&server).unwrap_or_else(|error| panic!("{SERVER}: {error}"));
            let mut url = admin.clone().database(&name).to_url_lossy();
            // `to_url_lossy` repeats the host of a socket in the authority, where it is not understood.
            if let Some(socket) = admin.get_socket() {
                url = format!(
                    "postgres://{}@localhost/{name}?host={}",
                    admin.get_username(),
                    socket.display()
                )
                .parse()
                .unwrap_or(url);
            }
            (admin, url.to_string())
        }
        Err(_) => {
            let server = tokio::task::spawn_blocking(|| PRIVATE.get_or_init(server::start)).await;
            match server.expect("starting the server does not panic") {
                Ok(server) => {
                    let directory = server.directory.display();
                    let url = |database: &str| format!("postgres://postgres@localhost/{database}?host={directory}");
                    let admin = PgConnectOptions::from_str(&url("postgres")).expect("the URL is well-formed");
                    (admin, url(&name))
                }
                Err(reason) => {
                    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
                    // Not `eprintln!`: the test harness would swallow it.
                    let line = format!("PostgreSQL ({count} so far): {reason}");
                    let _ = writeln!(std::io::stderr(), "skipped: {line}");
                    note(&line);
                    return None;
                }
            }
        }
    };
    let database = TestDatabase { name, url, admin };
    database.execute(&format!("CREATE DATABASE {}", database.name)).await;
    Some(database)
}

/// Adds a line to the list of skipped tests that the test command counts.
fn note(line: &str) {
    let Some(path) = std::env::var_os("AIRTIGHT_SKIP_LOG") else {
        return;
    };
    let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
    let written = file.and_then(|mut file| writeln!(file, "{line}"));
    written.expect("the list of skipped tests can be written");
}

impl TestDatabase {
    /// Where it is, as `airtight` and `Db::open` take it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its name on the server.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Breaks all connections to it, as a restart of the server would.
    pub async fn break_connections(&self) {
        self.execute(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
            self.name
        ))
        .await;
    }

    /// Runs a statement as the server's administrator, in the administrator's own database.
    async fn execute(&self, sql: &str) {
        execute(&self.admin, sql)
            .await
            .unwrap_or_else(|error| panic!("`{sql}` failed: {error}"));
    }
}

async fn execute(admin: &PgConnectOptions, sql: &str) -> Result<(), sqlx::Error> {
    use sqlx::Connection as _;
    let mut connection: PgConnection = admin.connect().await?;
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
    connection.close().await
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // The private server goes with all its databases.
        if PRIVATE.get().is_some() {
            return;
        }
        let (admin, sql) = (
            self.admin.clone(),
            format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name),
        );
        // The runtime that this is dropped in may be at its end.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(execute(&admin, &sql))
        });
        if !matches!(dropped.join(), Ok(Ok(()))) {
            let _ = writeln!(std::io::stderr(), "cannot drop the test database {}", self.name);
        }
    }
}
