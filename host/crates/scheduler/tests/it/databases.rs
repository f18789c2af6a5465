//! Intents on the databases that servers use.

use std::sync::Arc;
use std::time::Duration;

use db::{Db, Options};
use model::{Clock, DagId, DagRunState};
use ports::control::{ClearRequest, Control as _};
use ports::query::{Metadata as _, Page, RunFilter, TiFilter};
use ports::store::SchedulerStore;
use scheduler::{Config, Handle, Running, Scheduler};
use uuid::Uuid;

use crate::support::{DagBuilder, Reply, TestExecutor, TokioClock, request};

async fn start(db: &Db, clock: &Arc<TokioClock>) -> (Handle, Running) {
    let mut config = Config::new(Uuid::from_u128(1));
    config.intent_patience = Duration::ZERO;
    config.purge_rows = 16;
    let executor = TestExecutor::new(64, |_| Reply::done());
    let scheduler = Scheduler::new(config, Arc::new(db.clone()), Arc::clone(clock) as _);
    let handle = scheduler.handle();
    executor.attach(Arc::new(handle.clone()), Arc::clone(clock) as Arc<dyn Clock>);
    let running = scheduler.start(executor).await.unwrap();
    (handle, running)
}

async fn settled(db: &Db) {
    while !(db.intents().await.unwrap().is_empty() && db.active_runs().await.unwrap().is_empty()) {
        tokio::task::yield_now().await;
    }
}

/// Clears and deletes many runs, with a crash in the middle of each.
async fn many_runs(db: Db) {
    let clock = Arc::new(TokioClock::new());
    let d = DagId::new("d").unwrap();
    let (handle, running) = start(&db, &clock).await;
    handle
        .deploy(DagBuilder::chain("d", 2).manifest("1"), true, "tester")
        .await
        .unwrap();
    for _ in 0..40 {
        let run = handle.trigger(request("d")).await.unwrap();
        let state = handle.wait(&d, &run.run_id, Duration::from_secs(60)).await;
        assert_eq!(state.unwrap(), DagRunState::Success);
    }
    let cleared = handle.clear(&d, ClearRequest::default()).await.unwrap();
    assert_eq!(cleared.len(), 80);
    running.abort();
    let _ = running.await;

    let (handle, running) = start(&db, &clock).await;
    settled(&db).await;
    let page = Page {
        limit: 1_000,
        offset: 0,
    };
    let rows = db.task_instances(&TiFilter::default(), page).await.unwrap();
    assert_eq!(rows.total, 80);
    for row in rows.items {
        assert_eq!((row.try_number.0, row.state.as_str()), (2, "success"));
    }
    handle.delete_dag(&d, "tester").await.unwrap();
    assert_eq!(db.runs(&RunFilter::default(), page).await.unwrap().total, 0);
    running.abort();
    let _ = running.await;

    let (handle, running) = start(&db, &clock).await;
    settled(&db).await;
    assert!(db.runs_between(&d, None, None, 1).await.unwrap().is_empty());
    let again = handle
        .deploy(DagBuilder::chain("d", 2).manifest("1"), false, "tester")
        .await;
    assert_eq!(again.unwrap().version_number, 1);
    handle.shutdown(Duration::ZERO).await;
    running.await.unwrap();
    db.close().await;
}

#[tokio::test]
async fn many_runs_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("airtight.db").display());
    many_runs(Db::open(&url, &Options::default()).await.unwrap()).await;
}

#[tokio::test]
async fn many_runs_on_postgres() {
    let Some(database) = test_postgres::database().await else {
        return;
    };
    many_runs(Db::open(database.url(), &Options::default()).await.unwrap()).await;
}
