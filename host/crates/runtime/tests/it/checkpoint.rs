//! Checkpoints: they survive the try, and belong to the current dispatch.

use model::{Cause, DispatchNumber};
use ports::executor::Executor as _;
use serde_json::json;
use test_artifacts as artifacts;

use crate::support::{World, died, failure, limited, returned};

#[tokio::test]
pub(crate) async fn checkpoint_access() {
    let world = World::new();
    let mut request = world.request(artifacts::CHECKPOINT_ACCESS, "count", json!(null)).await;
    for expected in 1..=3 {
        request.id.dispatch = DispatchNumber(expected);
        assert_eq!(returned(&world.report(request.clone()).await), json!(expected));
    }
    assert_eq!(
        returned(&world.run(artifacts::CHECKPOINT_ACCESS, "clear", json!(null)).await),
        json!(true)
    );

    let save = world
        .request(artifacts::CHECKPOINT_ACCESS, "save_code", json!({"bytes": 1000}))
        .await;
    let limited = limited(save.clone(), |limits| limits.checkpoint_bytes = 999);
    assert_eq!(returned(&world.report(save).await), json!("ok"));
    assert_eq!(returned(&world.report(limited).await), json!("too_large"));
}

#[tokio::test]
async fn a_stale_dispatch_cannot_save() {
    let world = World::new();
    let request = world.request(artifacts::CHECKPOINT_ACCESS, "count", json!(null)).await;
    world
        .checkpoints
        .current
        .lock()
        .unwrap()
        .insert(request.id.ti, DispatchNumber(2));
    let report = world.report(request).await;
    assert_eq!(failure(&report).code.as_deref(), Some("stale"));
}

#[tokio::test]
async fn a_host_call_after_the_cancel_is_refused() {
    let world = World::new();
    let request = world
        .request(artifacts::CHECKPOINT_ACCESS, "save_spin_save", json!(null))
        .await;
    let id = request.id;
    world.executor.dispatch(request);
    world.logs.wait_for(id, "saved").await;
    world.executor.cancel(id);
    died(&world.finished(id).await, Cause::Cancelled);
    // The guest saves without pause: whatever it does after its end would be seen here.
    let at_end = *world.checkpoints.saves.borrow();
    let more = world.checkpoints.saves.subscribe();
    let other = world.run(artifacts::CHECKPOINT_ACCESS, "clear", json!(null)).await;
    assert_eq!(returned(&other), json!(true));
    assert!(
        *more.borrow() <= at_end + 2,
        "at most the call in flight and the other task's own"
    );
}
