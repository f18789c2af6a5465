//! `cargo xtask demo`: the real server, the example pipeline on real data, everything over REST.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::client::Client;
use crate::escape;
use crate::server::{Server, free_port};
use crate::setup;

/// The pipeline's directory and its DAG.
const PIPELINE: &str = "tasks/model_training";
const DAG_ID: &str = "model_training";

/// Options of `cargo xtask demo`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Leave the server running until Ctrl-C.
    #[arg(long)]
    keep: bool,
}

/// Runs the pipeline on the clean data, which must pass the gate, and on the dirty data, which must be caught.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::wasm_target()?;
    let components = setup::build_components()?;
    let binary = setup::build_host(setup::Build::Run)?;

    let data_dir = crate::target_dir().join("demo").join("data");
    if data_dir.exists() {
        std::fs::remove_dir_all(&data_dir).with_context(|| format!("cannot empty {}", data_dir.display()))?;
    }
    std::fs::create_dir_all(crate::target_dir().join("demo")).context("cannot create the demo's directory")?;
    let server = Server::start(&binary, &data_dir, free_port(8080)?)?;
    println!(
        "\n● server ready in {} ms at {}",
        server.started_in.as_millis(),
        server.url
    );
    let client = server.login()?;

    let manifest = crate::root().join(PIPELINE).join("dag.yaml");
    let manifest = std::fs::read_to_string(&manifest).with_context(|| format!("cannot read {}", manifest.display()))?;
    upload(&client, &manifest, &components)?;
    let deployed = client.deploy(&manifest)?;
    println!("● deployed DAG {DAG_ID}, version {}", deployed["version_number"]);

    println!("\n━━ the weekly training, on clean data");
    let clean = follow(&client, &json!({"source": "clean"}))?;
    show_run(&client, &clean)?;
    let state_clean = clean.state.clone();

    println!("\n━━ the same pipeline on dirty data: the quality check has to stop it");
    let dirty = follow(&client, &json!({"source": "dirty"}))?;
    show_run(&client, &dirty)?;
    show_failure(&client, &dirty)?;
    show_notifications(&client, &dirty)?;

    next_steps(&server, &binary, &clean);
    if state_clean != "success" {
        bail!("the run on clean data ended as `{state_clean}`");
    }
    if dirty.state != "failed" {
        bail!(
            "the run on dirty data ended as `{}`: nobody noticed the dirt",
            dirty.state
        );
    }
    if options.keep {
        println!("\nThe server is up; stop it with Ctrl-C.");
        server.wait()?;
    }
    Ok(())
}

/// Uploads every component that the manifest names; the tag's name is the name of the package.
fn upload(client: &Client, manifest: &str, components: &[(String, PathBuf)]) -> Result<()> {
    let mut tags = BTreeMap::new();
    for line in manifest.lines() {
        let Some((_, rest)) = line.split_once("component:") else {
            continue;
        };
        let tag = rest.trim_start().split([',', '}', ' ', '#']).next().unwrap_or_default();
        if let Some((name, _)) = tag.split_once('@') {
            let found = components.iter().find(|(package, _)| package == name);
            tags.insert(
                tag.to_owned(),
                &found
                    .with_context(|| format!("no package under tasks/ is named {name}"))?
                    .1,
            );
        }
    }
    for (tag, path) in tags {
        let begin = Instant::now();
        let component = client.push_component(&tag, path)?;
        println!(
            "● uploaded {tag:<24} {:>5} KiB  runnable after {:>5} ms  may use: {}",
            component["size"].as_u64().unwrap_or(0) / 1024,
            begin.elapsed().as_millis(),
            strings(&component["capabilities"]),
        );
    }
    Ok(())
}

fn strings(list: &Value) -> String {
    let words: Vec<&str> = list
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if words.is_empty() {
        "nothing".to_owned()
    } else {
        words.join(", ")
    }
}

struct Run {
    run_id: String,
    state: String,
    task_instances: Vec<Value>,
    seen_in: Duration,
}

/// Triggers a run and shows its events as they happen.
fn follow(client: &Client, conf: &Value) -> Result<Run> {
    let begin = Instant::now();
    let run = client.trigger(DAG_ID, conf)?;
    let run_id = run["dag_run_id"].as_str().context("the run has no id")?.to_owned();
    let bars = MultiProgress::new();
    let style = ProgressStyle::with_template("  {spinner:.cyan} {prefix:<18} {msg}").context("a valid template")?;
    let ended = style.clone().tick_strings(&["·", "·"]);
    let mut tasks: BTreeMap<String, ProgressBar> = BTreeMap::new();
    client.events(
        &format!("/dags/{DAG_ID}/dagRuns/{}/events", encode(&run_id)),
        |event| match event["event"].as_str() {
            Some("task_instance" | "progress") => {
                let task_id = event["task_id"].as_str().unwrap_or("?").to_owned();
                let bar = tasks.entry(task_id.clone()).or_insert_with(|| {
                    let bar = bars.add(
                        ProgressBar::new_spinner()
                            .with_style(style.clone())
                            .with_prefix(task_id),
                    );
                    bar.enable_steady_tick(Duration::from_millis(80));
                    bar
                });
                if event["event"] == "progress" {
                    let percent = event["fraction"]
                        .as_f64()
                        .map_or_else(String::new, |part| format!("{:3.0} % ", part * 100.0));
                    bar.set_message(format!(
                        "{percent}{}",
                        escape::line(event["note"].as_str().unwrap_or(""))
                    ));
                } else if let Some(state @ ("success" | "failed" | "skipped" | "upstream_failed")) =
                    event["state"].as_str()
                {
                    bar.set_style(ended.clone());
                    bar.finish_with_message(state.to_owned());
                } else {
                    bar.set_message(event["state"].as_str().unwrap_or("").to_owned());
                }
                true
            }
            Some("dag_run") => !matches!(event["state"].as_str(), Some("success" | "failed")),
            _ => true,
        },
    )?;
    let state = client.wait(DAG_ID, &run_id)?;
    let seen_in = begin.elapsed();
    bars.clear().context("cannot clear the screen")?;
    let path = format!("/dags/{DAG_ID}/dagRuns/{}/taskInstances?limit=100", encode(&run_id));
    let task_instances = client.get(&path)?["task_instances"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    Ok(Run {
        run_id,
        state,
        task_instances,
        seen_in,
    })
}

/// Percent-encodes what a run id may hold beyond unreserved characters.
fn encode(run_id: &str) -> String {
    run_id.replace('+', "%2B").replace(':', "%3A")
}

fn show_run(client: &Client, run: &Run) -> Result<()> {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["task instance", "state", "tries", "duration", "cause"]);
    for ti in &run.task_instances {
        let duration = ti["duration"]
            .as_f64()
            .map_or_else(|| "–".to_owned(), |seconds| format!("{:.1} ms", seconds * 1e3));
        table.add_row([
            ti["task_id"].as_str().unwrap_or("?").to_owned(),
            ti["state"].as_str().unwrap_or("none").to_owned(),
            ti["try_number"].to_string(),
            duration,
            ti["cause"].as_str().unwrap_or("–").to_owned(),
        ]);
    }
    for column in [2, 3] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    println!("{table}");
    println!(
        "run {} ended as {} in {} ms",
        run.run_id,
        run.state,
        run.seen_in.as_millis()
    );

    println!("\nXComs:");
    let run_path = format!("/dags/{DAG_ID}/dagRuns/{}", encode(&run.run_id));
    let entries = client.get(&format!("{run_path}/taskInstances/~/xcomEntries?limit=100"))?;
    let mut sealed = Vec::new();
    for entry in entries["xcom_entries"].as_array().into_iter().flatten() {
        let (Some(task_id), Some(key)) = (entry["task_id"].as_str(), entry["key"].as_str()) else {
            continue;
        };
        let entry = client.get(&format!("{run_path}/taskInstances/{task_id}/xcomEntries/{key}"))?;
        let value = entry["value"].to_string();
        let short: String = value.chars().take(150).collect();
        let shown = escape::line(&format!("{task_id}.{key} = {short}"));
        println!("  {shown}{}", if short.len() < value.len() { "…" } else { "" });
        if let Some(library) = entry["value"]["shuffled_by"].as_str() {
            sealed.push(escape::line(&format!("`{task_id}` carries {library}")));
        }
    }
    if !sealed.is_empty() {
        println!("\ndependencies are sealed: {}", sealed.join(", "));
    }
    Ok(())
}

/// What the task that failed says about it.
fn show_failure(client: &Client, run: &Run) -> Result<()> {
    for ti in run.task_instances.iter().filter(|ti| ti["state"] == "failed") {
        let task_id = ti["task_id"].as_str().unwrap_or("?");
        println!(
            "\n{task_id} failed: {}",
            escape::line(ti["cause_message"].as_str().unwrap_or(""))
        );
        let path = format!(
            "/dags/{DAG_ID}/dagRuns/{}/taskInstances/{task_id}/logs/{}",
            encode(&run.run_id),
            ti["try_number"]
        );
        let log = client.get(&path)?;
        println!("the end of its log:");
        let lines: Vec<String> = log["content"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(log_line)
            .collect();
        for line in lines.iter().skip(lines.len().saturating_sub(15)) {
            println!("  {}", escape::line(line));
        }
    }
    Ok(())
}

/// What the run told people. It is complete soon after the run.
fn show_notifications(client: &Client, run: &Run) -> Result<()> {
    let callbacks = format!(
        "/dags/{DAG_ID}/dagRuns/{}/callbacks?state=queued&state=running",
        encode(&run.run_id)
    );
    let patience = Instant::now() + Duration::from_secs(10);
    while client.get(&callbacks)?["total_entries"] != 0 && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(20));
    }
    let path = format!("/notifications?dag_id={DAG_ID}&dag_run_id={}", encode(&run.run_id));
    let told = client.get(&path)?;
    for notification in told["notifications"].as_array().into_iter().flatten() {
        println!(
            "\nnotification ({}): {}",
            notification["level"].as_str().unwrap_or("?"),
            escape::line(notification["text"].as_str().unwrap_or_default())
        );
    }
    Ok(())
}

/// One record of a log, with its fields.
fn log_line(record: &Value) -> Option<String> {
    let mut text = record["event"].as_str()?.to_owned();
    for (name, value) in record["fields"].as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text.push_str(&format!("  {name}={value}"));
    }
    Some(text)
}

fn next_steps(server: &Server, binary: &Path, run: &Run) {
    let (url, data_dir, binary) = (&server.url, server.data_dir.display(), binary.display());
    println!(
        "\nartifacts: {data_dir}/blobs (models and data sets by digest), {data_dir}/logs (task logs)\n\
         \nto go on (the server stays up with `cargo xtask demo --keep`):\n  \
         export AIRTIGHT_SERVER={url} AIRTIGHT_DATA_DIR={data_dir}\n  \
         {binary} dags list\n  \
         {binary} runs show {DAG_ID} {run_id}\n  \
         {binary} logs {DAG_ID} {run_id} train\n  \
         {binary} dags trigger {DAG_ID} --conf '{{\"threshold\": 0.999}}' --watch\n  \
         {url}/openapi.json describes the REST API; log in as `admin` with the password in {data_dir}/admin-password",
        run_id = run.run_id,
    );
}
