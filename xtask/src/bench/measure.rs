//! The measurements.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::figure::{Figure, quantile};
use super::floor::Floors;
use super::manifest;
use crate::client::Client;
use crate::server::{Server, free_port};

/// What a measurement needs.
pub(crate) struct Context<'a> {
    pub(crate) binary: &'a Path,
    pub(crate) server: &'a Server,
    pub(crate) client: &'a Client,
    pub(crate) floors: &'a Floors,
    /// The component of the tasks.
    pub(crate) bench: &'a Path,
    /// A component of the size that is usual for programs.
    pub(crate) large: &'a Path,
    pub(crate) dir: &'a Path,
}

type Measurement = fn(&mut Context<'_>) -> Result<Vec<Figure>>;

/// All measurements by name, in their order.
pub(crate) const ALL: &[(&str, Measurement)] = &[
    ("start", start),
    ("task-start", task_start),
    ("trigger", trigger),
    ("api-server", api_server),
    ("chain", chain),
    ("fan-out", fan_out),
    ("mapped", mapped),
    ("waiting", waiting),
    ("clear", clear),
    ("blob", blob),
    ("upload", upload),
    ("busy", busy),
    ("idle", idle),
];

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Triggers a run and waits for its end; answers the time that the client saw.
fn run_once(client: &Client, dag_id: &str) -> Result<f64> {
    let begin = Instant::now();
    let run = client.trigger(dag_id, &json!({}))?;
    let run_id = run["dag_run_id"].as_str().context("the run has no id")?;
    let state = client.wait(dag_id, run_id)?;
    if state != "success" {
        bail!("run {run_id} of {dag_id} ended as `{state}`");
    }
    Ok(milliseconds(begin.elapsed()))
}

fn repeat(client: &Client, dag_id: &str, warm_up: usize, runs: usize) -> Result<Vec<f64>> {
    for _ in 0..warm_up {
        run_once(client, dag_id)?;
    }
    (0..runs).map(|_| run_once(client, dag_id)).collect()
}

/// A server of its own in a fresh data directory, for what others must not disturb.
fn fresh(context: &Context<'_>, name: &str) -> Result<Server> {
    Server::start(context.binary, &context.dir.join(name), free_port(0)?)
}

fn start(context: &mut Context<'_>) -> Result<Vec<Figure>> {
    const STARTS: usize = 5;
    let mut times = Vec::new();
    let mut memory = Vec::new();
    for round in 0..STARTS {
        let server = fresh(context, &format!("start-{round}"))?;
        times.push(milliseconds(server.started_in));
        memory.push(resident_mib(server.pid())?);
    }
    Ok(vec![
        Figure {
            name: "server start, fresh data directory".into(),
            value: quantile(&mut times, 0.5),
            unit: "ms",
            runs: STARTS,
            floor: Some(context.floors.exec_ms),
            floor_is: "the same binary, asked for its `--version`".into(),
            aim: Some(200.0),
        },
        Figure {
            name: "memory after the start".into(),
            value: quantile(&mut memory, 0.5),
            unit: "MiB",
            runs: STARTS,
            floor: None,
            floor_is: String::new(),
            aim: Some(50.0),
        },
    ])
}

fn task_start(context: &mut Context<'_>) -> Result<Vec<Figure>> {
    let floors = context.floors;
    let figure = |name: &str, value: f64, aim: Option<f64>| Figure {
        name: name.into(),
        value,
        unit: "µs",
        runs: 1000,
        floor: Some(floors.instantiate_us),
        floor_is: "raw wasmtime: store, instantiate, call, drop".into(),
        aim,
    };
    let cancel = Figure {
        name: "cancel → endless loop stopped".into(),
        value: floors.cancel_ms,
        unit: "ms",
        runs: 30,
        floor: Some(floors.epoch_ms / 2.0),
        floor_is: "half an epoch tick: a guest lets go at the next one".into(),
        aim: Some(50.0),
    };
    Ok(vec![
        figure(
            "warm task, dispatch → finished",
            floors.warm_start_us,
            Some(50.0 + floors.instantiate_us),
        ),
        figure("cold task (compiled code on disk)", floors.cold_start_us, None),
        cancel,
    ])
}

fn trigger(context: &mut Context<'_>) -> Result<Vec<Figure>> {
    context.client.deploy(&manifest::one())?;
    let mut samples = repeat(context.client, "bench_one", 20, 300)?;
    let commit = context.floors.commit_ms;
    let figure = |name: &str, value: f64, aim: Option<f64>| Figure {
        name: name.into(),
        value,
        unit: "ms",
        runs: 300,
        floor: Some(2.0 * commit),
        floor_is: "2 c".into(),
        aim,
    };
    let median = quantile(&mut samples, 0.5);
    Ok(vec![
        figure("trigger → finished by REST, p50", median, Some(2.0 * commit + 1.0)),
        figure("trigger → finished by REST, p99", quantile(&mut samples, 0.99), None),
    ])
}

/// The same through an API server, which hands what it is asked to the scheduler by the database.
fn api_server(context: &mut Context<'_>) -> Result<Vec<Figure>> {
    let beside = context.server.beside(context.binary)?;
    // It knows the administrator by the same data directory.
    let client = beside.login()?;
    client.deploy(&manifest::one())?;
    let mut samples = repeat(&client, "bench_one", 20, 300)?;
    Ok(vec![Figure {
        name: "trigger → finished through an API server, p50".into(),
        value: quantile(&mut samples, 0.5),
        unit: "ms",
        runs: samples.len(),
        floor: Some(4.0 * context.floors.commit_ms),
        floor_is: "4 c: the request, the run, its end, the answer".into(),
        aim: None,
    }])
}

fn chain(context: &mut Context<'_>) -> Result<Vec<Figure>> {
    context.client.deploy(&manifest::chain(40))?;
    let mut samples = repeat(context.client, "bench_chain_40", 3, 30)?;
    let floor = 41.0 * context.floors.commit_ms;
    Ok(vec![Figure {
        name: "chain of 40 tasks".into(),
        value: quantile(&mut samples, 0.5),
        unit: "ms",
        runs: samples.len(),
        floor: Some(floor),
        floor_is: "41 c".into(),
        aim: Some(floor + 8.0),
    }])
}

fn fan_out(context: &mut Context<'_>) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (count, warm_up, runs) in [(200, 3, 20), (2_000, 1, 10), (10_000, 1, 5)] {
        context.client.deploy(&manifest::fan_out(count))?;
        let before = resident_mib(context.server.pid())?;
        let mut samples = repeat(context.client, &format!("bench_fan_out_{count}"), warm_up, runs)?;
        let commit = context.floors.commit_ms;
        // Two cores run tasks side by side.
        let tasks = count as f64 * context.floors.instantiate_us / 1e3 / 2.0;
        let aim = if count == 200 {
            5.0 * commit + 8.0
        } else {
            0.060 * count as f64
        };
        figures.push(Figure {
            name: format!("fan-out of {count}"),
            value: quantile(&mut samples, 0.5),
            unit: "ms",
            runs,
            floor: Some(3.0 * commit + tasks),
            floor_is: "3 c + raw instantiate + call of all tasks on 2 cores".into(),
            aim: Some(aim),
        });
        if count == 10_000 {
            let growth = (resident_mib(context.server.pid())? - before).max(0.0) * 1024.0 / count as f64;
            figures.push(Figure {
                name: "memory growth of a task, run of 10000".into(),
                value: growth,
                unit: "KiB",
                runs: 1,
                floor: None,
                floor_is: String::new(),
                aim: Some(1.0),
            });
        }
    }
    Ok(figures)
}

/// Mapped tasks: what a task costs must not depend on how many there are.
fn mapped(context: &mut Context<'_>) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (count, runs) in [(10_000, 5), (100_000, 1)] {
        context.client.deploy(&manifest::mapped("ignore", count))?;
        let mut samples = repeat(context.client, &format!("bench_mapped_ignore_{count}"), 0, runs)?;
        let tasks = count as f64 * context.floors.instantiate_us / 1e3 / 2.0;
        figures.push(Figure {
            name: format!("mapped over {count}"),
            value: quantile(&mut samples, 0.5),
            unit: "ms",
            runs,
            floor: Some(3.0 * context.floors.commit_ms + tasks),
            floor_is: "3 c + raw instantiate + call of all tasks on 2 cores".into(),
            aim: Some(0.060 * count as f64),
        });
    }
    Ok(figures)
}

/// Sensors that wait: they hold nothing but their row and a timer.
fn waiting(context: &mut Context<'_>) -> Result<Vec<Figure>> {
    const COUNT: usize = 10_000;
    let dag_id = format!("bench_mapped_wait_{COUNT}");
    context.client.deploy(&manifest::mapped("wait", COUNT))?;
    let before = resident_mib(context.server.pid())?;
    let run = context.client.trigger(&dag_id, &json!({}))?;
    let run_id = run["dag_run_id"].as_str().context("the run has no id")?.to_owned();
    let path = format!("/dags/{dag_id}/dagRuns/{run_id}");
    let waiting = format!("{path}/taskInstances?state=up_for_reschedule&limit=1");
    let begin = Instant::now();
    while context.client.get(&waiting)?["total_entries"] != json!(COUNT) {
        if begin.elapsed() > Duration::from_secs(120) {
            bail!("the sensors of {dag_id} do not wait");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let busy = cpu_ms(context.server.pid())?;
    std::thread::sleep(Duration::from_secs(20));
    let cpu = cpu_ms(context.server.pid())? - busy;
    let growth = (resident_mib(context.server.pid())? - before).max(0.0) * 1024.0 / COUNT as f64;
    context.client.patch(&path, &json!({"state": "failed"}))?;
    let figure = |name: &str, value: f64, unit: &'static str| Figure {
        name: name.into(),
        value,
        unit,
        runs: 1,
        floor: None,
        floor_is: String::new(),
        aim: None,
    };
    Ok(vec![
        figure("memory of a waiting sensor, of 10000", growth, "KiB"),
        figure("CPU time of 10000 waiting sensors in 20 s", cpu, "ms"),
    ])
}

/// Clearing a large run: answered when it is durable.
fn clear(context: &mut Context<'_>) -> Result<Vec<Figure>> {
    const COUNT: usize = 10_000;
    let dag_id = format!("bench_mapped_ignore_{COUNT}");
    context.client.deploy(&manifest::mapped("ignore", COUNT))?;
    let run = context.client.trigger(&dag_id, &json!({}))?;
    let run_id = run["dag_run_id"].as_str().context("the run has no id")?.to_owned();
    context.client.wait(&dag_id, &run_id)?;
    let body = json!({"dag_run_id": run_id, "dry_run": false, "only_failed": false, "reset_dag_runs": true});
    let begin = Instant::now();
    context
        .client
        .post(&format!("/dags/{dag_id}/clearTaskInstances"), &body)?;
    let answered = milliseconds(begin.elapsed());
    let state = context.client.wait(&dag_id, &run_id)?;
    if state != "success" {
        bail!("the cleared run {run_id} of {dag_id} ended as `{state}`");
    }
    let figure = |name: &str, value: f64, floor: f64, floor_is: &str| Figure {
        name: name.into(),
        value,
        unit: "ms",
        runs: 1,
        floor: Some(floor),
        floor_is: floor_is.into(),
        aim: None,
    };
    let commit = context.floors.commit_ms;
    let tasks = COUNT as f64 * context.floors.instantiate_us / 1e3 / 2.0;
    Ok(vec![
        figure("clear of a run of 10000, durable answer", answered, commit, "c"),
        figure(
            "clear of a run of 10000, until it has run again",
            milliseconds(begin.elapsed()),
            4.0 * commit + tasks,
            "4 c + raw instantiate + call of all tasks on 2 cores",
        ),
    ])
}

fn blob(context: &mut Context<'_>) -> Result<Vec<Figure>> {
    context.client.deploy(&manifest::blob())?;
    let mut samples = repeat(context.client, "bench_blob", 2, 20)?;
    let Floors { blob_ms, commit_ms, .. } = *context.floors;
    Ok(vec![Figure {
        // More than the design's aim speaks of, which is from the first byte written to the last one read.
        name: "10 MB from task to task, trigger → finished of both".into(),
        value: quantile(&mut samples, 0.5),
        unit: "ms",
        runs: samples.len(),
        floor: Some(blob_ms + 3.0 * commit_ms),
        floor_is: "sha256 + write + fdatasync of 10 MB + 3 c".into(),
        aim: Some(1.5 * blob_ms + 2.0 * commit_ms + 3.0),
    }])
}

fn upload(context: &mut Context<'_>) -> Result<Vec<Figure>> {
    let floors = context.floors;
    let mut figures = uploads(context, context.bench, "small", 10, floors.compile_ms)?;
    figures.extend(uploads(context, context.large, "large", 5, floors.large_compile_ms)?);
    Ok(figures)
}

fn uploads(context: &Context<'_>, component: &Path, name: &str, rounds: u8, compile_ms: f64) -> Result<Vec<Figure>> {
    let bytes = std::fs::read(component).context("cannot read the component")?;
    let mut fresh = Vec::new();
    let mut again = Vec::new();
    for round in 0..rounds {
        // A custom section makes it new content: id 0, then the length of the rest, a name of one byte, the payload.
        let mut content = bytes.clone();
        content.extend_from_slice(&[0, 3, 1, b'x', round]);
        let path = context.dir.join(format!("upload-{name}-{round}.wasm"));
        std::fs::write(&path, content).context("cannot write a component")?;
        for samples in [&mut fresh, &mut again] {
            let begin = Instant::now();
            let tag = format!("bench-upload-{name}@{round}");
            context.client.push_component(&tag, &path)?;
            samples.push(milliseconds(begin.elapsed()));
        }
    }
    let size = if bytes.len() < 1_000_000 {
        format!("{} KiB", bytes.len() / 1024)
    } else {
        format!("{:.1} MB", bytes.len() as f64 / 1e6)
    };
    Ok(vec![
        Figure {
            name: format!("upload of {size} → runnable"),
            value: quantile(&mut fresh, 0.5),
            unit: "ms",
            runs: fresh.len(),
            floor: Some(compile_ms),
            floor_is: "raw Cranelift time of the same component".into(),
            aim: Some(1.2 * compile_ms + 100.0),
        },
        Figure {
            name: format!("upload of the same {size} again"),
            value: quantile(&mut again, 0.5),
            unit: "ms",
            runs: again.len(),
            floor: None,
            floor_is: String::new(),
            aim: Some(10.0),
        },
    ])
}

/// Small runs while a large one is active.
fn busy(context: &mut Context<'_>) -> Result<Vec<Figure>> {
    context.client.deploy(&manifest::one())?;
    context.client.deploy(&manifest::fan_out(10_000))?;
    let mut quiet = repeat(context.client, "bench_one", 5, 100)?;
    let median = quantile(&mut quiet, 0.5);
    let mut samples = Vec::new();
    for _ in 0..5 {
        let large = context.client.trigger("bench_fan_out_10000", &json!({}))?;
        let run_id = large["dag_run_id"].as_str().context("the run has no id")?;
        let path = format!("/dags/bench_fan_out_10000/dagRuns/{run_id}");
        loop {
            let state = context.client.get(&path)?["state"].clone();
            if state != "running" && state != "queued" {
                break;
            }
            samples.push(run_once(context.client, "bench_one")?);
        }
    }
    Ok(vec![Figure {
        name: "trigger → finished beside a run of 10000, p99".into(),
        value: quantile(&mut samples, 0.99),
        unit: "ms",
        runs: samples.len(),
        floor: Some(median),
        floor_is: "its p50 on a quiet server".into(),
        aim: Some(4.0 * median),
    }])
}

/// What a server keeps that has done one large run and nothing else.
fn idle(context: &mut Context<'_>) -> Result<Vec<Figure>> {
    let server = fresh(context, "idle")?;
    let client = server.login()?;
    client.push_component("bench@1", context.bench)?;
    client.deploy(&manifest::fan_out(10_000))?;
    run_once(&client, "bench_fan_out_10000")?;
    let busy = cpu_ms(server.pid())?;
    std::thread::sleep(Duration::from_secs(60));
    let idle = cpu_ms(server.pid())? - busy;
    let figure = |name: &str, value: f64, unit: &'static str, aim: Option<f64>| Figure {
        name: name.into(),
        value,
        unit,
        runs: 1,
        floor: None,
        floor_is: String::new(),
        aim,
    };
    Ok(vec![
        figure(
            "memory after a run of 10000 and 60 s of rest",
            resident_mib(server.pid())?,
            "MiB",
            Some(120.0),
        ),
        figure("CPU time of a minute of rest", idle, "ms", None),
    ])
}

fn resident_mib(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("cannot read the server's memory")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("the server has no VmRSS")?;
    let kib: f64 = line
        .trim()
        .trim_end_matches("kB")
        .trim()
        .parse()
        .context("VmRSS is not a number")?;
    Ok(kib / 1024.0)
}

/// User and system time of a process so far, in milliseconds (clock ticks are 10 ms on Linux).
fn cpu_ms(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("cannot read the server's CPU time")?;
    let fields = stat.rsplit_once(')').context("the server's stat is malformed")?.1;
    let ticks = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|text| text.parse::<f64>().ok())
        .sum::<f64>();
    Ok(ticks * 10.0)
}
