//! Asking a scheduler of another process while what is known of it changes all the time.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use db::{Db, Options};
use model::{Clock as _, DagId, Timestamp};
use ports::control::{Control as _, ControlError};
use ports::inbox::{InboxStore, SeenScheduler};
use ports::query::QueryError;
use ports::store::CommitError;
use scheduler::{Remote, RemoteConfig};
use uuid::Uuid;

use crate::support::TokioClock;

const SCHEDULER: Uuid = Uuid::from_u128(1);
const REMOTES: usize = 200;
const ASKED: usize = 3_000;

/// A scheduler that is always there and never answers.
struct Silent(Timestamp);

#[async_trait]
impl InboxStore for Silent {
    async fn ask(&self, _: Uuid, _: &str, _: Timestamp) -> Result<(), CommitError> {
        Ok(())
    }

    async fn answers(&self, _: &[Uuid]) -> Result<Vec<(Uuid, String)>, QueryError> {
        Ok(Vec::new())
    }

    async fn forget(&self, _: &[Uuid]) -> Result<(), QueryError> {
        Ok(())
    }

    async fn scheduler(&self) -> Result<SeenScheduler, QueryError> {
        Ok(SeenScheduler {
            scheduler_id: Some(SCHEDULER),
            renewed_at: self.0,
            expires_at: self.0.plus(Duration::from_secs(3600)),
            active_runs: 0,
            set_aside_runs: Vec::new(),
        })
    }
}

async fn ask_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open_sqlite(&dir.path().join("db"), &Options::default())
        .await
        .unwrap();
    let (db, clock) = (Arc::new(db), Arc::new(TokioClock::new()));
    let mut config = RemoteConfig::new(SCHEDULER);
    config.watch_every = Duration::ZERO;
    config.answer_patience = Duration::ZERO;
    // Many, so that there are many looks and changes: both are a millisecond apart at best.
    let asking = (0..REMOTES).map(|_| {
        let inbox = Arc::new(Silent(clock.now()));
        let (remote, service) = Remote::new(config.clone(), inbox, db.clone(), clock.clone(), || {});
        tokio::spawn(service.run());
        tokio::spawn(async move {
            for _ in 0..ASKED {
                let answer = remote.delete_dag(&DagId::new("d").unwrap(), "tester").await;
                assert!(matches!(answer, Err(ControlError::Pending(_))), "{answer:?}");
                assert!(remote.health().healthy);
            }
        })
    });
    for asking in asking.collect::<Vec<_>>() {
        asking.await.unwrap();
    }
}

/// Threads that wait for each other cannot be told to stop: they are left behind.
#[test]
fn a_look_at_the_scheduler_never_waits_for_itself() {
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(ask_again_and_again());
        runtime.shutdown_background();
        done.send(()).unwrap();
    });
    let ended = ended.recv_timeout(Duration::from_secs(60));
    assert!(ended.is_ok(), "somebody waits for ever, or has failed");
}
