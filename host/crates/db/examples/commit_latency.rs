//! Prints what a commit costs: the median of small ticks beside a bare `fdatasync` on the same disk, and large ticks by row. The CPU
//! time of this process is printed too: on a busy machine it is the number to trust.
//!
//! `cargo run -p db --example commit_latency [-- postgres://…]`

#![expect(clippy::print_stdout, reason = "it prints a table")]

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use db::{Db, Options};
use model::dag::{DagParts, Queueing, RetryPolicy, Task, TaskKind, TaskRole};
use model::{
    Dag, DagId, DagRunKey, DagRunState, DagRunType, Digest, DispatchNumber, Limits, MapIndex, RunId, RunUuid, TaskId,
    TaskIndex, TaskInstanceState, TiKey, Timestamp, TriggerRule, TryNumber, Work,
};
use ports::deploy::DagVersion;
use ports::executor::{RunContext, TryUsage};
use ports::payload::XcomValue;
use ports::store::{DagWrite, Lease, NewRun, RunWrite, SchedulerStore, TiWrite, TickWrite, XcomWrite};
use uuid::Uuid;

const SMALL: usize = 1_000;
const LARGE: u32 = 5_000;
const LARGE_REPEATS: usize = 10;
const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure())
}

async fn measure() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir_in(std::env::current_dir()?)?;
    let url = std::env::args()
        .nth(1)
        .unwrap_or_else(|| format!("sqlite:{}", directory.path().join("bench.db").display()));
    let db = Db::open(&url, &Options::default()).await?;
    let lease = db
        .acquire_lease(Uuid::from_u128(1), NOW, NOW.plus(Duration::from_secs(3_600)))
        .await?;
    let version = version();
    let deploy = DagWrite::Deploy {
        version: version.clone(),
        paused: None,
    };
    db.commit_tick(
        &lease,
        &TickWrite {
            dags: vec![deploy],
            ..tick()
        },
    )
    .await?;

    report("fdatasync of 4 KiB, appended", fdatasync(directory.path(), false)?);
    report("fdatasync of 4 KiB, in place", fdatasync(directory.path(), true)?);
    let mut next = 1;
    let mut steps: [Vec<Duration>; 4] = Default::default();
    let before = cpu_time();
    for _ in 0..SMALL {
        let run = next;
        next += 1;
        let row = |state, try_number| ti(run, 0, state, try_number);
        let ticks = [
            TickWrite {
                new_runs: vec![new_run(&version, run)],
                runs: vec![run_write(run, DagRunState::Running)],
                task_instances: vec![row(TaskInstanceState::Queued, 1)],
                xcom_deletes: vec![row(TaskInstanceState::Queued, 1).key],
                ..tick()
            },
            TickWrite {
                task_instances: vec![row(TaskInstanceState::Running, 1)],
                ..tick()
            },
            TickWrite {
                runs: vec![run_write(run, DagRunState::Success)],
                task_instances: vec![row(TaskInstanceState::Success, 1)],
                tries: vec![row(TaskInstanceState::Success, 1)],
                xcoms: vec![xcom(run, 0)],
                ..tick()
            },
            tick(),
        ];
        for (times, tick) in steps.iter_mut().zip(ticks) {
            times.push(commit(&db, &lease, &tick).await?);
        }
    }
    let small_cpu = cpu_time().saturating_sub(before);
    let names = [
        "tick: new run, 1 task instance queued",
        "tick: 1 task instance running",
        "tick: run and task instance end, 1 xcom",
        "tick: nothing but the lease check",
    ];
    for (name, times) in names.into_iter().zip(steps) {
        report(name, times);
    }

    println!(
        "{:45} {:.0} µs",
        "CPU of a small tick, mean",
        small_cpu.as_secs_f64() * 1e6 / (4 * SMALL) as f64
    );

    let mut large: [Vec<(Duration, Duration)>; 3] = Default::default();
    for _ in 0..LARGE_REPEATS {
        let run = next;
        next += 1;
        let rows = |state, try_number| {
            (0..LARGE)
                .map(|task| ti(run, task, state, try_number))
                .collect::<Vec<_>>()
        };
        let keys: Vec<_> = rows(TaskInstanceState::NoStatus, 0).iter().map(|row| row.key).collect();
        let ticks = [
            TickWrite {
                new_runs: vec![new_run(&version, run)],
                task_instances: rows(TaskInstanceState::NoStatus, 0),
                ..tick()
            },
            TickWrite {
                task_instances: rows(TaskInstanceState::Queued, 1),
                xcom_deletes: keys,
                ..tick()
            },
            TickWrite {
                task_instances: rows(TaskInstanceState::Success, 1),
                tries: rows(TaskInstanceState::Success, 1),
                xcoms: (0..LARGE).map(|task| xcom(run, task)).collect(),
                ..tick()
            },
        ];
        for (times, tick) in large.iter_mut().zip(ticks) {
            let cpu = cpu_time();
            let wall = commit(&db, &lease, &tick).await?;
            times.push((wall, cpu_time().saturating_sub(cpu)));
        }
    }
    let names = ["created", "queued, xcoms deleted", "ended, tries and xcoms"];
    for (name, mut times) in names.into_iter().zip(large) {
        times.sort();
        let wall = times[times.len() / 2].0;
        times.sort_by_key(|(_, cpu)| *cpu);
        let cpu = times[times.len() / 2].1;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(LARGE);
        println!(
            "{:45} median {:>7.1} ms = {:.2} µs a task instance; CPU {:.2} µs a task instance",
            format!("tick: {LARGE} task instances {name}"),
            wall.as_secs_f64() * 1e3,
            each(wall),
            each(cpu),
        );
    }
    db.close().await;
    Ok(())
}

async fn commit(db: &Db, lease: &Lease, tick: &TickWrite) -> Result<Duration, ports::store::CommitError> {
    let start = Instant::now();
    db.commit_tick(lease, tick).await?;
    Ok(start.elapsed())
}

/// What this process used so far, in all its threads.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.try_into().unwrap_or_default(),
        time.tv_nsec.try_into().unwrap_or_default(),
    )
}

fn fdatasync(directory: &std::path::Path, in_place: bool) -> std::io::Result<Vec<Duration>> {
    use std::io::Seek as _;
    let mut file = std::fs::File::create(directory.join("plain"))?;
    file.write_all(&[0; 4096])?;
    file.sync_all()?;
    (0..SMALL)
        .map(|_| {
            let start = Instant::now();
            if in_place {
                file.rewind()?;
            }
            file.write_all(&[1; 4096])?;
            file.sync_data()?;
            Ok(start.elapsed())
        })
        .collect()
}

fn report(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e6;
    println!(
        "{name:45} median {:>7.0} µs   p90 {:>7.0} µs   p99 {:>7.0} µs",
        at(50),
        at(90),
        at(99)
    );
}

fn tick() -> TickWrite {
    TickWrite {
        tick_id: Uuid::now_v7(),
        now: Some(NOW),
        ..TickWrite::default()
    }
}

fn version() -> Arc<DagVersion> {
    let tasks = (0..LARGE).map(|index| Task {
        id: TaskId::new(&format!("task_{index}")).expect("a valid id"),
        work: Work::of_component("bench@1", Digest::of(b"bench"), "noop"),
        doc_md: None,
        input: serde_json::json!({}),
        trigger_rule: TriggerRule::AllSuccess,
        upstream: Vec::new(),
        downstream: Vec::new(),
        group: None,
        expand: None,
        map_index_template: None,
        when: None,
        measures: Vec::new(),
        kind: TaskKind::Plain,
        role: TaskRole::Work,
        past: model::past::Past::Ignored,
        retry: RetryPolicy::default(),
        sensor: None,
        limits: Limits::default(),
        rerun_on_loss: true,
        max_infra_retries: 3,
        pool: "default_pool".into(),
        pool_slots: 1,
        priority_weight: 1,
        queueing: Queueing::default(),
        callbacks: Vec::new(),
    });
    Arc::new(DagVersion {
        digest: Digest::of(b"version"),
        uuid: Uuid::now_v7(),
        number: 1,
        source: "dag: bench\n".into(),
        dag: Arc::new(Dag::from(DagParts {
            id: DagId::new("bench").expect("a valid id"),
            description: None,
            doc_md: None,
            owner: "bench".into(),
            tags: Vec::new(),
            params: Default::default(),
            strict_params: false,
            max_active_runs: 16,
            max_active_tasks: 16,
            dagrun_timeout: None,
            callbacks: Vec::new(),
            max_consecutive_failed_dag_runs: 0,
            groups: Vec::new(),
            tasks: tasks.collect(),
        })),
        created_at: NOW,
    })
}

fn new_run(version: &DagVersion, key: i64) -> NewRun {
    NewRun {
        context: Arc::new(RunContext {
            key: DagRunKey(key),
            uuid: RunUuid(Uuid::now_v7()),
            dag_id: version.dag.id.clone(),
            run_id: RunId::new(&format!("manual__{key}")).expect("a valid id"),
            run_type: model::DagRunType::Manual,
            logical_date: None,
            data_interval_start: None,
            data_interval_end: None,
            run_after: NOW,
            params: serde_json::json!({}),
            conf: serde_json::json!({}),
        }),
        version: version.uuid,
        run_type: DagRunType::Manual,
        conf: "{}".into(),
        params: "{}".into(),
        note: None,
        triggering_user: Some("bench".into()),
        parent: None,
        queued_at: NOW,
    }
}

fn run_write(key: i64, state: DagRunState) -> RunWrite {
    RunWrite {
        key: DagRunKey(key),
        state,
        queued_at: NOW,
        start_date: Some(NOW),
        end_date: state.is_finished().then_some(NOW),
        note: None,
        set_aside: None,
        hidden_failures: Vec::new(),
    }
}

fn ti(run: i64, task: u32, state: TaskInstanceState, try_number: u32) -> TiWrite {
    let started = (try_number > 0).then_some(NOW);
    TiWrite {
        key: TiKey {
            run: DagRunKey(run),
            task: TaskIndex(task),
            map_index: MapIndex::UNMAPPED,
        },
        task_id: TaskId::new(&format!("task_{task}")).expect("a valid id"),
        state,
        try_number: TryNumber(try_number),
        max_tries: 1,
        dispatch: DispatchNumber(try_number),
        infra_losses: 0,
        acknowledged: false,
        cause: state.is_finished().then_some(model::Cause::Returned),
        message: None,
        code: None,
        details: None,
        scheduled_at: started,
        queued_at: started,
        start_date: started,
        end_date: state.is_finished().then_some(NOW),
        next_at: None,
        retry_rule: None,
        raised_memory_kib: None,
        usage: state.is_finished().then_some(TryUsage::default()),
        rendered_map_index: None,
        facts: None,
    }
}

fn xcom(run: i64, task: u32) -> XcomWrite {
    XcomWrite {
        ti: ti(run, task, TaskInstanceState::Success, 1).key,
        key: "return_value".into(),
        value: XcomValue {
            value: r#"{"rows": 12345}"#.into(),
            blobs: Vec::new(),
        },
    }
}
