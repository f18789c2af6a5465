//! Random work on an unreliable executor, with crashes and failing commits, replayable by its seed. Whatever happens: what
//! was acknowledged ends, no result is committed twice, losses spend no retries, and after every commit the pools count what is
//! dispatched (see `FaultyStore`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use model::{Cause, DagRunKey, DagRunState, TaskInstanceState, TiKey};
use ports::control::{Control as _, ControlError, NewPool, PoolPatch};
use ports::executor::{TryOutcome, TryRequest};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use scheduler::{Config, MemoryStore, Scheduler};
use uuid::Uuid;

use crate::support::{DagBuilder, Fault, FaultyStore, TokioClock, UnreliableExecutor, failure, request};

/// Results by what they end, as they were committed.
#[derive(Default)]
struct Ledger {
    ended: HashMap<(TiKey, u32), u32>,
    published: HashMap<TiKey, Vec<String>>,
}

impl Ledger {
    fn of(store: &[Arc<FaultyStore>]) -> Self {
        let mut ledger = Self::default();
        for tick in store.iter().flat_map(|store| store.committed()) {
            for ended in &tick.tries {
                *ledger.ended.entry((ended.key, ended.try_number.0)).or_default() += 1;
            }
            for xcom in &tick.xcoms {
                let values = ledger.published.entry(xcom.ti).or_default();
                values.push(xcom.value.value.to_string());
            }
        }
        ledger
    }
}

/// Tasks named `flaky` fail their first try.
fn flaky(request: &TryRequest) -> TryOutcome {
    if request.task.task_id.as_str() == "flaky" && request.id.try_number.0 == 1 {
        failure(Cause::Failed, false)
    } else {
        TryOutcome::Done { falsy: false }
    }
}

async fn simulate(seed: u64) -> Seen {
    let mut seen = Seen::default();
    let mut random = StdRng::seed_from_u64(seed);
    let memory = Arc::new(MemoryStore::new());
    let clock = Arc::new(TokioClock::new());
    let id = Uuid::from_u128(1);
    let mut stores = Vec::new();
    let mut acknowledged: Vec<DagRunKey> = Vec::new();
    let lives = random.random_range(1..4_u32);
    for life in 0..=lives {
        let last = life == lives;
        let mut plan = StdRng::seed_from_u64(seed ^ u64::from(life) << 32);
        let crash_at = plan.random_range(1..25_u64);
        let store = FaultyStore::new(Arc::clone(&memory), move |attempt, _| {
            if !last && attempt == crash_at {
                return if plan.random_range(0..2) == 0 {
                    Fault::CrashBefore
                } else {
                    Fault::CrashAfter
                };
            }
            match plan.random_range(0..100) {
                0..5 => Fault::Passing,
                5..8 => Fault::UnknownLost,
                8..11 => Fault::UnknownWritten,
                _ => Fault::None,
            }
        });
        stores.push(Arc::clone(&store));
        let mut config = Config::new(id);
        config.heartbeat_timeout = None;
        config.run_key_block = 4;
        let scheduler = Scheduler::new(config, Arc::clone(&store) as _, Arc::clone(&clock) as _);
        let handle = scheduler.handle();
        let executor = UnreliableExecutor::new(
            seed + u64::from(life),
            Arc::clone(&clock),
            Arc::clone(&memory),
            !last,
            |request, _| (flaky(request), Vec::new()),
        );
        executor.attach(Arc::new(handle.clone()));
        let running = scheduler.start(executor).await.unwrap();
        let mut crashed = store.crashed.subscribe();

        let dag = DagBuilder::chain("d", 3)
            .task_with("flaky", &["t0"], |task| {
                task.retry.retries = 1;
                task.pool = "narrow".to_owned();
            })
            .task_with("side", &[], |task| {
                task.pool = "narrow".to_owned();
                task.pool_slots = 2;
            })
            .task("join", &["t2", "flaky", "side"])
            .with(|dag| dag.max_active_runs = 2);
        let memory_store = Arc::clone(&memory);
        let mut outside = StdRng::seed_from_u64(seed ^ 0x51_07 ^ u64::from(life));
        let work = async {
            let narrow = NewPool {
                name: "narrow".to_owned(),
                slots: 3,
                description: None,
                include_deferred: false,
            };
            match handle.create_pool(narrow, "tester").await {
                Ok(_) | Err(ControlError::PoolExists(_) | ControlError::Unavailable | ControlError::Stopping) => {}
                Err(error) => panic!("seed {seed}: {error:?}"),
            }
            if let Err(error) = handle.deploy(dag.manifest("1"), true, "tester").await {
                assert!(
                    matches!(
                        error,
                        ControlError::Unavailable | ControlError::Stopping | ControlError::PoolNotFound(_)
                    ),
                    "{error:?}"
                );
            }
            for _ in 0..3 {
                match handle.trigger(request("d")).await {
                    Ok(run) => acknowledged.push(run.key),
                    Err(ControlError::Unavailable | ControlError::Stopping | ControlError::DagNotFound(_)) => {}
                    Err(error) => panic!("seed {seed}: {error:?}"),
                }
            }
            // Operators change the pool, some by the server, some behind its back.
            for _ in 0..6 {
                tokio::time::sleep(Duration::from_millis(outside.random_range(0..60))).await;
                let slots = outside.random_range(2..5);
                if outside.random_range(0..2) == 0 {
                    memory_store.set_slots("narrow", slots);
                    continue;
                }
                let patch = PoolPatch {
                    slots: Some(slots),
                    ..PoolPatch::default()
                };
                match handle.change_pool("narrow", patch, "tester").await {
                    Ok(pool) => assert_eq!(pool.slots, slots),
                    Err(ControlError::Unavailable | ControlError::Stopping | ControlError::PoolNotFound(_)) => {}
                    Err(error) => panic!("seed {seed}: {error:?}"),
                }
            }
            // Runs whose messages were lost never end: only the crash goes on from there.
            tokio::time::sleep(Duration::from_secs(300)).await;
        };
        tokio::select! {
            () = work => {}
            _ = crashed.wait_for(|crashed| *crashed) => seen.crashes += 1,
        }
        let metrics = handle.metrics();
        seen.stale += metrics.stale_events;
        seen.losses += metrics.infrastructure_losses;
        seen.recounts += store.recounts();
        seen.failed_commits += metrics.commits_failed_passing + metrics.commits_unknown;
        running.abort();
        let _ = running.await;
    }

    let runs = memory.runs();
    for key in &acknowledged {
        assert!(runs.iter().any(|run| run.key == *key), "seed {seed}: run {key} is gone");
    }
    for run in &runs {
        assert_eq!(run.state, DagRunState::Success, "seed {seed}: run {}", run.key);
        for ti in memory.task_instances(run.key) {
            assert_eq!(ti.state, TaskInstanceState::Success, "seed {seed}: {}", ti.task_id);
            let tries = if ti.task_id.as_str() == "flaky" { 2 } else { 1 };
            assert_eq!(ti.try_number.0, tries, "seed {seed}: {} spent a retry", ti.task_id);
        }
        assert_eq!(memory.tries(run.key).len(), 7, "seed {seed}");
    }
    for pool in memory.all_pools() {
        assert_eq!(pool.used, 0, "seed {seed}: pool `{}`", pool.name);
    }
    let ledger = Ledger::of(&stores);
    for ((ti, try_number), times) in &ledger.ended {
        assert_eq!(
            *times, 1,
            "seed {seed}: try {try_number} of {ti:?} was committed {times} times"
        );
    }
    for (ti, values) in &ledger.published {
        let tries = ledger.ended.keys().filter(|(key, _)| key == ti).count();
        assert_eq!(values.len(), tries, "seed {seed}: {ti:?} published {values:?}");
    }
    seen.runs = runs.len() as u64;
    seen
}

/// What happened, to be sure that enough did.
#[derive(Debug, Default)]
struct Seen {
    runs: u64,
    crashes: u64,
    losses: u64,
    stale: u64,
    failed_commits: u64,
    recounts: u64,
}

#[tokio::test(start_paused = true)]
async fn five_hundred_seeds_end_well() {
    let mut all = Seen::default();
    for seed in 0..500 {
        let seen = simulate(seed).await;
        all.runs += seen.runs;
        all.crashes += seen.crashes;
        all.losses += seen.losses;
        all.stale += seen.stale;
        all.failed_commits += seen.failed_commits;
        all.recounts += seen.recounts;
    }
    eprintln!("{all:?}");
    assert!(all.runs > 2_000 && all.crashes > 500 && all.losses > 500, "{all:?}");
    assert!(all.stale > 500 && all.failed_commits > 500, "{all:?}");
    assert!(
        all.recounts > 20,
        "the slots were never taken by somebody else: {all:?}"
    );
}
