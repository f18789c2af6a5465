//! A connection that is lost while a commit is under way: whether the tick was committed is not known, and is read back.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use db::Db;
use ports::store::{CommitError, SchedulerStore, TickWrite};
use rstest::rstest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::support::{Backend, TestDb, new_run, options, tick, version};

/// When the connection breaks.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// The server never hears of the commit.
    BeforeTheServer,
    /// The server has committed, and its answer is lost.
    AfterTheServer,
}

/// Passes everything on, until it is armed and sees a `COMMIT`.
async fn pass_on(
    mut client: UnixStream,
    mut server: UnixStream,
    cut: Cut,
    armed: Arc<AtomicBool>,
) -> std::io::Result<()> {
    let (mut from_client, mut from_server) = ([0; 8192], [0; 8192]);
    loop {
        tokio::select! {
            count = client.read(&mut from_client) => {
                let bytes = &from_client[..count?];
                let commit = bytes.windows(6).any(|window| window == b"COMMIT");
                if bytes.is_empty() || (commit && armed.load(Ordering::SeqCst) && matches!(cut, Cut::BeforeTheServer)) {
                    return Ok(());
                }
                server.write_all(bytes).await?;
                if commit && armed.load(Ordering::SeqCst) {
                    // The answer says that the commit took place; nobody gets it.
                    server.read_u8().await?;
                    return Ok(());
                }
            }
            count = server.read(&mut from_server) => {
                let bytes = &from_server[..count?];
                if bytes.is_empty() {
                    return Ok(());
                }
                client.write_all(bytes).await?;
            }
        }
    }
}

#[rstest]
#[tokio::test]
async fn a_lost_answer_is_not_taken_for_a_failure(#[values(Cut::BeforeTheServer, Cut::AfterTheServer)] cut: Cut) {
    const SOCKET: &str = ".s.PGSQL.5432";
    let Some(test) = TestDb::open(Backend::Postgres).await else {
        return;
    };
    let Some((rest, directory)) = test.url.split_once("?host=") else {
        // A server given by its address: the other backend tests cover it, and this one needs a socket to stand before.
        eprintln!("skipped: the server has no socket");
        return;
    };
    let server = PathBuf::from(directory).join(SOCKET);
    let between = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(between.path().join(SOCKET)).unwrap();
    let armed = Arc::new(AtomicBool::new(false));
    let proxy = tokio::spawn({
        let armed = armed.clone();
        async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = UnixStream::connect(&server).await.unwrap();
                tokio::spawn(pass_on(client, server, cut, armed.clone()));
            }
        }
    });

    let db = Db::open(&format!("{rest}?host={}", between.path().display()), &options())
        .await
        .unwrap();
    let version = version("etl", 1, &["load"]);
    let lease = test.with_dag(&version).await;
    let run = TickWrite {
        new_runs: vec![new_run(&version, 1)],
        ..tick()
    };
    armed.store(true, Ordering::SeqCst);
    let error = db.commit_tick(&lease, &run).await.unwrap_err();
    assert!(matches!(error, CommitError::Unknown(_)), "{error:?}");
    armed.store(false, Ordering::SeqCst);
    let committed = db.tick_committed(run.tick_id).await.unwrap();
    assert_eq!(committed, matches!(cut, Cut::AfterTheServer));
    assert_eq!(test.db.active_runs().await.unwrap().len(), usize::from(committed));
    proxy.abort();
}
