//! Leases: one scheduler at a time, and what the other one sees.

use std::sync::Arc;
use std::time::Duration;

use model::DagRunState;
use ports::control::{Control as _, ControlError};
use ports::store::LeaseError;
use scheduler::{StartError, Stopped};

use crate::support::{DagBuilder, Fault, FaultyStore, Reply, RigBuilder};

#[tokio::test(start_paused = true)]
async fn a_second_scheduler_on_the_same_database_does_not_start() {
    let rig = RigBuilder::new(|_| Reply::done()).start().await;
    // Renewals keep the lease for as long as the first one lives.
    tokio::time::sleep(Duration::from_secs(100)).await;
    let second = RigBuilder::new(|_| Reply::done())
        .store(Arc::clone(&rig.store))
        .clock(Arc::clone(&rig.clock))
        .try_start()
        .await;
    let error = second.err().unwrap();
    assert!(matches!(&error, StartError::Lease(LeaseError::InUse { .. })), "{error}");
    assert!(error.to_string().starts_with("database is in use by scheduler "));
    assert_eq!(error.code(), "database_in_use");
    rig.handle.shutdown(Duration::ZERO).await;
    rig.running.await.unwrap();
    RigBuilder::new(|_| Reply::done())
        .store(rig.store)
        .clock(rig.clock)
        .start()
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_scheduler_that_lost_its_lease_writes_and_releases_nothing() {
    // The first one's lease runs out because it never renews in time: its commits hang as a stopped process would.
    let first = RigBuilder::new(|_| Reply::Start)
        .config(|config| config.lease_ttl = Duration::from_secs(1_000_000))
        .start()
        .await;
    first.deploy(DagBuilder::chain("d", 2)).await;
    let run = first.trigger("d").await;
    let stale = first.executor.next().await;
    let store = FaultyStore::new(Arc::clone(&first.store.inner), |_, _| Fault::None);
    tokio::time::advance(Duration::from_secs(1_000_001)).await;
    let second = RigBuilder::new(|_| Reply::done())
        .store(store)
        .clock(Arc::clone(&first.clock))
        .start()
        .await;
    // The first one's result comes too late.
    let commits = first.store.committed().len();
    first.executor.done(stale.id);
    let ended = first.running.await;
    assert!(matches!(ended, Err(Stopped::Fenced)), "{ended:?}");
    assert_eq!(first.store.committed().len(), commits);
    assert_eq!(first.executor.count(), 1, "the next task was not dispatched");
    assert!(matches!(
        first.handle.trigger(crate::support::request("d")).await,
        Err(ControlError::Stopping)
    ));
    assert!(!first.handle.health().healthy);
    assert_eq!(second.finished(&run).await, DagRunState::Success);
    assert_eq!(second.executor.tasks(), ["t0", "t1"]);
    assert_eq!(second.ti(run.key, "t0").try_number.0, 1);
    assert_eq!(second.ti(run.key, "t0").dispatch.0, 2);
}

#[tokio::test(start_paused = true)]
async fn an_idle_scheduler_notices_when_it_renews() {
    let first = RigBuilder::new(|_| Reply::done()).start().await;
    let now = first.now();
    let other = uuid::Uuid::new_v4();
    let far = now.plus(Duration::from_secs(1_000_000));
    ports::store::SchedulerStore::release_lease(&*first.store, &first.store.inner.lease().unwrap())
        .await
        .unwrap();
    ports::store::SchedulerStore::acquire_lease(&*first.store, other, now, far)
        .await
        .unwrap();
    assert!(matches!(first.running.await, Err(Stopped::Fenced)));
}
