//! How long one small tick takes to commit on SQLite, in the given directory: what a step of a chain writes, two task instances
//! and an ended try. Prints the median as JSON; it is `c` in `docs/performance.md`.

#[path = "../tests/it/support.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod support;

use std::path::Path;
use std::time::Instant;

use db::{Db, Options};
use model::{DagRunState, TaskInstanceState};
use ports::store::{SchedulerStore as _, TickWrite};
use uuid::Uuid;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "its output is its result")]
async fn main() {
    let dir = std::env::args_os().nth(1).expect("usage: commit_time DIRECTORY");
    let path = Path::new(&dir).join("commit-time.db");
    let db = Db::open_sqlite(&path, &Options::default())
        .await
        .expect("the directory can be written");
    let lease = db
        .acquire_lease(Uuid::now_v7(), support::NOW, support::seconds(3600))
        .await
        .expect("it is new");
    let version = support::version("d", 1, &["a", "b"]);
    db.commit_tick(&lease, &support::deploy(&version))
        .await
        .expect("a DAG can be stored");
    let run = TickWrite {
        new_runs: vec![support::new_run(&version, 1)],
        runs: vec![support::run_write(1, DagRunState::Running)],
        ..support::tick()
    };
    db.commit_tick(&lease, &run).await.expect("a run can be stored");

    let mut samples = Vec::new();
    for _ in 0..1_000 {
        let ended = support::ti(support::key(1, 0), "a", TaskInstanceState::Success);
        let next = support::ti(support::key(1, 1), "b", TaskInstanceState::Queued);
        let step = TickWrite {
            tries: vec![ended.clone()],
            task_instances: vec![ended, next],
            ..support::tick()
        };
        let begin = Instant::now();
        db.commit_tick(&lease, &step).await.expect("a tick can be stored");
        samples.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    samples.sort_by(f64::total_cmp);
    println!("{{\"commit_ms\": {}}}", samples[samples.len() / 2]);
}
