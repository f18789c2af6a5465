//! Dispatch, cancel and shutdown.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use model::{Cause, Digest};
use ports::executor::{Executor as _, ExecutorEvent, TryId};
use runtime::{EngineConfig, ExecutorConfig, TaskEngine};
use serde_json::json;
use test_artifacts as artifacts;

use crate::support::{World, component_of, died, request, returned, shared_code};

fn small_world(slots: u32, pooling: bool) -> World {
    let config = EngineConfig {
        slots: Some(slots),
        pooling,
        ..EngineConfig::default()
    };
    World::with(TaskEngine::new(&config).expect("an engine"), shared_code())
}

#[tokio::test]
async fn more_dispatches_than_slots_wait_for_their_turn() {
    let world = small_world(2, true);
    let first = world.request(artifacts::ANSWER_KINDS, "echo", json!(1)).await;
    let mut waiting = Vec::new();
    for number in 0..50 {
        let request = request(component_of(&first), "echo", json!(number));
        waiting.push(request.id);
        world.executor.dispatch(request);
    }
    for _ in 0..50 {
        let report = loop {
            if let ExecutorEvent::Finished(report) = world.event().await {
                break report;
            }
        };
        let position = waiting
            .iter()
            .position(|id| *id == report.id)
            .expect("dispatched, and not twice");
        waiting.swap_remove(position);
        returned(&report);
    }
    assert_eq!(world.executor.slots(), 2);
}

#[tokio::test]
async fn a_waiting_dispatch_can_be_cancelled() {
    let world = small_world(1, true);
    let spinning = world.request(artifacts::CAUSE_LIMIT, "spin", json!(null)).await;
    let (busy, component) = (spinning.id, component_of(&spinning));
    world.executor.dispatch(spinning);
    world.logs.wait_for(busy, "spinning").await;
    let waiting = request(component, "spin", json!(null));
    let id = waiting.id;
    world.executor.dispatch(waiting.clone());
    world.executor.dispatch(waiting);
    world.executor.cancel(id);
    died(&world.finished(id).await, Cause::Cancelled);
    world.executor.cancel(busy);
    died(&world.finished(busy).await, Cause::Cancelled);
}

#[tokio::test]
async fn heartbeats_name_what_runs_and_what_waits_for_its_turn() {
    let engine = TaskEngine::new(&EngineConfig {
        slots: Some(1),
        ..EngineConfig::default()
    });
    let config = ExecutorConfig {
        heartbeat: Duration::from_millis(1),
        ..ExecutorConfig::default()
    };
    let world = World::configured(engine.expect("an engine"), shared_code(), &config);
    let spinning = world.request(artifacts::CAUSE_LIMIT, "spin", json!(null)).await;
    let (busy, component) = (spinning.id, component_of(&spinning));
    world.executor.dispatch(spinning);
    let waiting = request(component, "spin", json!(null));
    let waits = waiting.id;
    world.executor.dispatch(waiting);
    let heard = async |expected: &[TryId]| loop {
        if let ExecutorEvent::Heartbeat { mut ids, .. } = world.event().await {
            ids.sort_by_key(|id| id.run_uuid != busy.run_uuid);
            if ids == expected {
                return;
            }
        }
    };
    heard(&[busy, waits]).await;
    world.executor.cancel(busy);
    heard(&[waits]).await;
    world.executor.cancel(waits);
    died(&world.finished(waits).await, Cause::Cancelled);
}

#[tokio::test]
async fn an_unknown_dispatch_is_not_cancelled() {
    let world = World::new();
    world.executor.cancel(request(Digest::of(b"x"), "t", json!(null)).id);
    assert_eq!(
        returned(&world.run(artifacts::ANSWER_KINDS, "echo", json!(1)).await),
        json!(1)
    );
}

#[tokio::test]
async fn shutdown_lets_tries_end_and_hands_back_the_rest() {
    let world = Arc::new(small_world(2, true));
    let spinning = world.request(artifacts::CAUSE_LIMIT, "spin", json!(null)).await;
    let component = component_of(&spinning);
    let (spin, short) = (spinning.id, request(component, "compute", json!({"bytes": 1_000_000})));
    let compute = short.id;
    world.executor.dispatch(spinning);
    world.executor.dispatch(short);
    world.logs.wait_for(spin, "spinning").await;
    let late = request(component, "spin", json!(null));
    let waiting = late.id;
    world.executor.dispatch(late);

    world.executor.shutdown(Duration::from_secs(3)).await;
    let refused = request(component, "spin", json!(null));
    let after = refused.id;
    world.executor.dispatch(refused);

    let (mut handed_back, mut finished) = (Vec::new(), Vec::new());
    while handed_back.len() + finished.len() < 4 {
        match world.event().await {
            ExecutorEvent::HandedBack { id } => handed_back.push(id),
            ExecutorEvent::Finished(report) => finished.push(report.id),
            _ => {}
        }
    }
    assert_eq!(finished, [compute]);
    handed_back.sort_by_key(|id| id.ti);
    handed_back.sort_by_key(|id| id.ti);
    assert_eq!(handed_back, [spin, waiting, after], "in the order of their runs");
}

#[tokio::test]
async fn without_a_pool_everything_still_runs() {
    let world = small_world(4, false);
    assert_eq!(
        returned(&world.run(artifacts::ANSWER_KINDS, "echo", json!(1)).await),
        json!(1)
    );
}

#[tokio::test]
async fn a_busy_guest_does_not_keep_others_from_running() {
    let world = World::new();
    let mut busy = Vec::new();
    for _ in 0..8 {
        let spinning = world.request(artifacts::CAUSE_LIMIT, "spin", json!(null)).await;
        busy.push(spinning.id);
        world.executor.dispatch(spinning);
    }
    for id in &busy {
        world.logs.wait_for(*id, "spinning").await;
    }
    assert_eq!(
        returned(&world.run(artifacts::ANSWER_KINDS, "echo", json!(1)).await),
        json!(1)
    );
    for id in busy {
        world.executor.cancel(id);
        died(&world.finished(id).await, Cause::Cancelled);
    }
}

#[tokio::test]
async fn one_try_runs_without_a_scheduler() {
    let world = World::new();
    let request = world.request(artifacts::ANSWER_KINDS, "echo", json!({"a": 1})).await;
    let report = world.executor.run(request).await.expect("it is not shutting down");
    assert_eq!(returned(&report), json!({"a": 1}));
}

#[tokio::test]
async fn a_panic_of_host_code_ends_one_try_and_no_other() {
    let world = World::new();
    world.blobs.panics.store(true, Ordering::Relaxed);
    let report = world.run(artifacts::BLOB_ACCESS, "abandon", json!(null)).await;
    let lost = died(&report, Cause::InfrastructureLost);
    assert!(lost.message.contains("a bug in the blob store"), "{}", lost.message);
    let log = world.log(report.id);
    assert!(
        log.contains("infrastructure_lost") && log.contains("a bug in the blob store"),
        "{log}"
    );
    world.blobs.panics.store(false, Ordering::Relaxed);
    world.run(artifacts::BLOB_ACCESS, "abandon", json!(null)).await;
    assert_eq!(
        returned(&world.run(artifacts::ANSWER_KINDS, "echo", json!(1)).await),
        json!(1)
    );
}

#[tokio::test]
async fn a_cancel_is_quick_even_when_every_slot_is_busy() {
    let world = small_world(16, true);
    let mut busy = Vec::new();
    for _ in 0..16 {
        let spinning = world.request(artifacts::CAUSE_LIMIT, "spin", json!(null)).await;
        busy.push(spinning.id);
        world.executor.dispatch(spinning);
    }
    for id in &busy {
        world.logs.wait_for(*id, "spinning").await;
    }
    for id in busy {
        let begin = Instant::now();
        world.executor.cancel(id);
        died(&world.finished(id).await, Cause::Cancelled);
        let took = begin.elapsed();
        eprintln!("cancel among busy guests: {took:?}");
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
}
