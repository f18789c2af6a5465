//! Guests and requests that mean harm, many at a time and in random order, beside a loop of small runs that mean none.
//!
//! No small run may fail, and the server's memory stays below what the limits of the running tries allow, with 200 MiB on top. The
//! test command does a few rounds of everything; `cargo xtask soak` sets `AIRTIGHT_HARM_SECONDS` and then the delay of the small
//! runs counts too: their p99 stays within twice that of the quiet server.

mod kinds;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::seq::IndexedRandom as _;
use serde_json::json;

use crate::support::{Client, Database, Server, seeded};
use kinds::{ALL, Kind};

/// Doers of harm at a time.
const DOERS: usize = 6;
/// The `memory` limit of every try that does harm, in MiB; their manifests say the same.
const TRY_MIB: u64 = 64;
/// Tries of one doer at a time, at most.
const TRIES_OF_A_DOER: u64 = 2;
/// Memory above the limits of the running tries, in MiB.
const ALLOWANCE_MIB: u64 = 200;
/// Small runs that are measured on the quiet server.
const QUIET_RUNS: usize = 300;

/// A DAG of one task that does nothing.
const SMALL: &str =
    "dag: small\nmax_active_runs: 1000\ntasks:\n  t: {component: workload@1, task: spin, input: {ms: 0, value: 1}}\n";

/// The length of the soak, where one is asked for.
fn soak() -> Option<Duration> {
    let text = std::env::var("AIRTIGHT_HARM_SECONDS").ok()?;
    Some(Duration::from_secs(
        text.parse().expect("AIRTIGHT_HARM_SECONDS is a number"),
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn small_runs_succeed_beside_everything_that_means_harm() {
    let server = Server::start(&Database::Own).await;
    let client = server.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    client.push("harm@1", test_artifacts::E2E_HARM).await;
    client.deploy(SMALL).await.ok();
    for kind in ALL {
        if let Some(manifest) = kind.manifest() {
            client.deploy(&manifest).await.ok();
        }
    }
    let mut quiet = Vec::new();
    for _ in 0..if soak().is_some() { QUIET_RUNS } else { 10 } {
        quiet.push(small_run(&client).await);
    }
    let before = resident_mib(server.pid());

    let doing = Arc::new(AtomicBool::new(true));
    let peak = Arc::new(AtomicU64::new(before));
    let innocent = tokio::spawn(small_runs(
        client.clone(),
        Arc::clone(&doing),
        server.pid(),
        Arc::clone(&peak),
    ));
    do_harm(&server, &client).await;
    doing.store(false, Ordering::Relaxed);
    let mut beside = innocent.await.expect("no small run fails");

    let peak = peak.load(Ordering::Relaxed);
    let bound = before + DOERS as u64 * TRIES_OF_A_DOER * TRY_MIB + ALLOWANCE_MIB;
    let (quiet_p99, p99) = (quantile(&mut quiet, 0.99), quantile(&mut beside, 0.99));
    #[expect(clippy::print_stderr, reason = "a soak shows what it measured")]
    {
        eprintln!(
            "{} small runs beside harm: p50 {:.1} ms, p99 {p99:.1} ms; quiet: p50 {:.1} ms, p99 {quiet_p99:.1} ms; memory {before} MiB before, {peak} MiB at most, bound {bound} MiB",
            beside.len(),
            quantile(&mut beside, 0.5),
            quantile(&mut quiet, 0.5),
        );
    }
    assert!(!beside.is_empty());
    assert!(peak <= bound, "{peak} MiB, where {bound} MiB are allowed");
    if soak().is_some() {
        assert!(
            p99 <= 2.0 * quiet_p99,
            "p99 {p99:.1} ms, on a quiet server {quiet_p99:.1} ms"
        );
    }
    // It is as well afterwards as it was before.
    small_run(&client).await;
    let health = client.get("/monitor/health").await.ok();
    assert_eq!(health["scheduler"]["status"], "healthy", "{health}");
}

/// Each kind once, or any of them until the time is over; some at a time.
async fn do_harm(server: &Server, client: &Client) {
    let end = soak().map(|length| Instant::now() + length);
    let once: Arc<std::sync::Mutex<Vec<&'static Kind>>> = Arc::new(std::sync::Mutex::new(ALL.iter().collect()));
    let mut doers = tokio::task::JoinSet::new();
    for number in 0..DOERS {
        let (client, once, url, port) = (client.clone(), Arc::clone(&once), server.url(), server.port());
        let mut random = seeded();
        doers.spawn(async move {
            loop {
                let kind = match end {
                    Some(end) if Instant::now() >= end => return,
                    Some(_) => ALL.choose(&mut random),
                    None => once.lock().expect("no doer panics with it").pop(),
                };
                let Some(kind) = kind else { return };
                let target = kinds::Target {
                    client: &client,
                    url: &url,
                    port,
                    doer: number,
                };
                kind.act(&target, &mut random).await;
            }
        });
    }
    while let Some(doer) = doers.join_next().await {
        doer.expect("every kind of harm ends as it should");
    }
}

/// Small runs one after the other; answers how long each took, in milliseconds.
async fn small_runs(client: Client, doing: Arc<AtomicBool>, pid: u32, peak: Arc<AtomicU64>) -> Vec<f64> {
    let mut took = Vec::new();
    while doing.load(Ordering::Relaxed) {
        took.push(small_run(&client).await);
        peak.fetch_max(resident_mib(pid), Ordering::Relaxed);
    }
    took
}

async fn small_run(client: &Client) -> f64 {
    let begin = Instant::now();
    let run_id = client.trigger("small", json!({})).await;
    assert_eq!(client.wait("small", &run_id).await, "success", "{run_id}");
    begin.elapsed().as_secs_f64() * 1e3
}

/// Resident memory of a process.
fn resident_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the server runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("it has memory");
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number");
    kib / 1024
}

fn quantile(samples: &mut [f64], share: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let last = samples.len().saturating_sub(1);
    let at = (share * last as f64).round() as usize;
    samples.get(at.min(last)).copied().unwrap_or(f64::NAN)
}
