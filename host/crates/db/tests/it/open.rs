//! Opening: what is not there is made, what is not ours is left alone, and every error says what to do.

use std::time::Duration;

use db::{Db, OpenError};
use model::{DagRunKey, DagRunState};
use ports::query::{Metadata, QueryError};
use ports::store::{CommitError, SchedulerStore, TickWrite};
use rstest::rstest;
use sqlx::Connection as _;

use crate::support::{Backend, Home, TestDb, key, new_run, options, run_write, tick, version, xcom};

async fn sqlite(path: &std::path::Path, sql: &'static str) {
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true);
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

async fn open_error(url: &str) -> OpenError {
    let options = db::Options {
        acquire_timeout: Duration::from_secs(2),
        ..options()
    };
    Db::open(url, &options).await.unwrap_err()
}

#[tokio::test]
async fn sqlite_is_durable_and_leaves_one_file() {
    let test = TestDb::open(Backend::Sqlite).await.unwrap();
    let file = test.file();
    let version = version("etl", 1, &["load"]);
    let lease = test.with_dag(&version).await;
    let run = TickWrite {
        new_runs: vec![new_run(&version, 1)],
        ..tick()
    };
    test.commit(&lease, run).await;
    assert!(file.with_extension("db-wal").exists());
    test.db.close().await;
    assert!(!file.with_extension("db-wal").exists());
    assert!(matches!(test.db.ping().await, Err(QueryError::Unavailable(_))));
    assert!(matches!(
        test.db.commit_tick(&lease, &tick()).await,
        Err(CommitError::Passing(_))
    ));
    let again = test.again().await;
    assert_eq!(again.active_runs().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_file_of_something_else_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("text");
    std::fs::write(&text, "dag: etl\n".repeat(1_000)).unwrap();
    let error = open_error(&format!("sqlite:{}", text.display())).await;
    assert!(matches!(error, OpenError::NotOurs { .. }), "{error:?}");
    assert_eq!(std::fs::read_to_string(&text).unwrap(), "dag: etl\n".repeat(1_000));

    let foreign = directory.path().join("foreign.db");
    sqlite(&foreign, "CREATE TABLE bookmarks (id INTEGER)").await;
    let error = open_error(&format!("sqlite:{}", foreign.display())).await;
    assert!(matches!(error, OpenError::NotOurs { .. }), "{error:?}");

    let missing = format!("sqlite:{}", directory.path().join("no/such/directory/x.db").display());
    let error = open_error(&missing).await;
    assert!(matches!(error, OpenError::Other { .. }), "{error:?}");
}

#[rstest]
#[case("")]
#[case("airtight.db")]
#[case("mysql://root@localhost/x")]
#[case("sqlite:")]
#[case("postgres://host:not-a-port/x")]
#[tokio::test]
async fn a_text_that_names_no_database_is_refused(#[case] url: &str) {
    let error = open_error(url).await;
    assert!(matches!(error, OpenError::InvalidUrl { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_is_away_is_named_without_the_password() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let error = open_error(&format!("postgres://me:secret@127.0.0.1:{port}/airtight")).await;
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        format!("cannot reach the database server at 127.0.0.1:{port}/airtight")
    );
}

#[rstest]
#[tokio::test]
async fn a_newer_database_is_refused(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    const NEXT: &str = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
        SELECT 9999, 'from the future', success, checksum, execution_time FROM _sqlx_migrations LIMIT 1";
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    test.db.close().await;
    match &test.home {
        Home::Directory(_) => sqlite(&test.file(), NEXT).await,
        Home::Server(database) => {
            let mut connection = sqlx::PgConnection::connect(database.url()).await.unwrap();
            sqlx::raw_sql(NEXT).execute(&mut connection).await.unwrap();
        }
    }
    let error = open_error(&test.url).await;
    assert!(matches!(error, OpenError::Newer { version: 9999, .. }), "{error:?}");
}

#[tokio::test]
async fn a_missing_database_of_a_server_is_named() {
    let Some(test) = TestDb::open(Backend::Postgres).await else {
        return;
    };
    let Home::Server(database) = &test.home else {
        panic!("not a server")
    };
    let url = test.url.replace(database.name(), "no_such_database");
    let error = open_error(&url).await;
    assert!(matches!(error, OpenError::Missing { .. }), "{error:?}");
}

#[tokio::test]
async fn a_busy_sqlite_file_delays_a_tick_and_loses_nothing() {
    let test = TestDb::open(Backend::Sqlite).await.unwrap();
    let version = version("etl", 1, &["load"]);
    let lease = test.with_dag(&version).await;
    let run = TickWrite {
        new_runs: vec![new_run(&version, 1)],
        ..tick()
    };
    // Another process holds the file.
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(test.file());
    let mut other = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let error = test.db.commit_tick(&lease, &run).await.unwrap_err();
    assert!(matches!(error, CommitError::Passing(_)), "{error:?}");
    assert!(!test.db.tick_committed(run.tick_id).await.unwrap());
    // Reads go on meanwhile.
    test.db.ping().await.unwrap();
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    test.db.commit_tick(&lease, &run).await.unwrap();
    assert!(test.db.tick_committed(run.tick_id).await.unwrap());
}

#[tokio::test]
async fn a_tick_whose_caller_went_away_is_whole_or_nothing() {
    let test = TestDb::open(Backend::Sqlite).await.unwrap();
    let version = version("etl", 1, &["load"]);
    let lease = test.with_dag(&version).await;
    for key in 1..100 {
        let run = TickWrite {
            new_runs: vec![new_run(&version, key)],
            ..tick()
        };
        // Polled once, which sends the statements off, and dropped.
        let commit = test.db.commit_tick(&lease, &run);
        futures::FutureExt::now_or_never(commit);
        let committed = test.db.tick_committed(run.tick_id).await.unwrap();
        let found = test.db.load_run(DagRunKey(key)).await.unwrap().is_some();
        assert_eq!(committed, found);
    }
    // And the next one finds nothing in its way.
    let last = TickWrite {
        new_runs: vec![new_run(&version, 1_000)],
        ..tick()
    };
    test.commit(&lease, last).await;
}

#[tokio::test]
async fn broken_connections_are_a_passing_reason() {
    let Some(test) = TestDb::open(Backend::Postgres).await else {
        return;
    };
    let Home::Server(database) = &test.home else {
        panic!("not a server")
    };
    let version = version("etl", 1, &["load"]);
    let lease = test.with_dag(&version).await;
    database.break_connections().await;
    let run = TickWrite {
        new_runs: vec![new_run(&version, 1)],
        runs: vec![run_write(1, DagRunState::Running)],
        ..tick()
    };
    // As the scheduler does: a passing failure is tried again, and nothing else may come.
    let mut tries = 0;
    while let Err(error) = test.db.commit_tick(&lease, &run).await {
        assert!(matches!(error, CommitError::Passing(_)), "{error:?}");
        tries += 1;
        assert!(tries < 10, "{error:?}");
    }
    assert!(test.db.tick_committed(run.tick_id).await.unwrap());
    assert_eq!(test.db.active_runs().await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_write_ahead_log_is_moved_into_the_database_file_beside_the_commits() {
    let test = TestDb::open(Backend::Sqlite).await.unwrap();
    let version = version("etl", 1, &["load"]);
    let lease = test.with_dag(&version).await;
    let size = || std::fs::metadata(test.file()).unwrap().len();
    let before = size();
    let value = format!("\"{}\"", "x".repeat(1 << 20));
    // Without checkpoints the file would not grow before 16,000 pages lie in the log, and this loop would not end in time.
    let mut written = 0;
    while size() == before {
        written += 1;
        assert!(written < 50, "no checkpoint after {written} MiB");
        let tick = TickWrite {
            xcoms: vec![xcom(key(1, 0), &format!("key {written}"), &value)],
            ..tick()
        };
        test.commit(&lease, tick).await;
    }
    assert!(written > 1);
}
