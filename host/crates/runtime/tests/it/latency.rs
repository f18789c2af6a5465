//! How long things take. The bounds are generous, for a busy machine; the numbers are printed: run with `--nocapture`.

use std::time::{Duration, Instant};

use ports::executor::Executor as _;
use serde_json::json;
use test_artifacts as artifacts;

use crate::support::{World, request};
use crate::wat::Wat;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_warm_task_starts_quickly() {
    let world = World::new();
    let (digest, _) = world.compile_bytes(&Wat::default().wasm()).await.unwrap();
    let mut times = Vec::new();
    for _ in 0..500 {
        let request = request(digest, "t", json!(null));
        let begin = Instant::now();
        world.report(request).await;
        times.push(begin.elapsed());
    }
    let whole = median(times.split_off(100));
    eprintln!("warm dispatch -> finished: {whole:?}");
    assert!(whole < Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_cancel_is_quick() {
    let world = World::new();
    let mut times = Vec::new();
    for _ in 0..50 {
        let request = world.request(artifacts::CAUSE_LIMIT, "spin", json!(null)).await;
        let id = request.id;
        world.executor.dispatch(request);
        world.logs.wait_for(id, "spinning").await;
        let begin = Instant::now();
        world.executor.cancel(id);
        world.finished(id).await;
        times.push(begin.elapsed());
    }
    let middle = median(times.clone());
    eprintln!(
        "cancel -> guest stopped: median {middle:?}, longest {:?}",
        times.iter().max()
    );
    assert!(middle < Duration::from_secs(10));
}
