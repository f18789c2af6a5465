//! The floors: what the disk and wasmtime take by themselves, on this machine, now.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use serde_json::Value;

use super::figure::quantile;

/// What no figure can be below.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Floors {
    /// A 4 KiB write and fdatasync in the data directory.
    pub(crate) fdatasync_ms: f64,
    /// The median commit of one small tick on SQLite.
    pub(crate) commit_ms: f64,
    /// Raw wasmtime: store, instantiate, call, drop, of the bench component.
    pub(crate) instantiate_us: f64,
    /// From a dispatch to the end of a no-op task in the executor, component in memory.
    pub(crate) warm_start_us: f64,
    /// The same with the compiled code on disk only.
    pub(crate) cold_start_us: f64,
    /// From a cancel to the end of an endless loop.
    pub(crate) cancel_ms: f64,
    /// How often a guest is asked to let go.
    pub(crate) epoch_ms: f64,
    /// Cranelift's time for the smaller component that the upload is measured with.
    pub(crate) compile_ms: f64,
    /// Cranelift's time for the larger one.
    pub(crate) large_compile_ms: f64,
    /// The server's binary, asked for its `--version`.
    pub(crate) exec_ms: f64,
    /// sha256 + write + fdatasync of 10 MB.
    pub(crate) blob_ms: f64,
}

/// Measures all floors.
pub(crate) fn measure(dir: &Path, binary: &Path, component: &Path, large: &Path) -> Result<Floors> {
    let commit = example("commit_time", dir)?;
    let runtime = bench("task_start", &[component, large])?;
    let blob = example("write_floor", dir)?;
    let number = |value: &Value, name: &str| {
        value[name]
            .as_f64()
            .with_context(|| format!("an example printed no `{name}`: {value}"))
    };
    Ok(Floors {
        fdatasync_ms: fdatasync(dir)?,
        commit_ms: number(&commit, "commit_ms")?,
        instantiate_us: number(&runtime, "instantiate_us")?,
        warm_start_us: number(&runtime, "warm_start_us")?,
        cold_start_us: number(&runtime, "cold_start_us")?,
        cancel_ms: number(&runtime, "cancel_ms")?,
        epoch_ms: number(&runtime, "epoch_ms")?,
        compile_ms: number(&runtime, "compile_ms")?,
        large_compile_ms: number(&runtime, "large_compile_ms")?,
        exec_ms: exec(binary)?,
        blob_ms: number(&blob, "write_ms")?,
    })
}

/// Runs an example program out of the release build; it prints one JSON object.
fn example(name: &str, argument: &Path) -> Result<Value> {
    let program = crate::target_dir().join("release/examples").join(name);
    json_of(name, std::process::Command::new(program).arg(argument))
}

/// Runs a bench target out of the release build; it prints one JSON object. (`cargo bench` would build it with a profile of its own.)
fn bench(name: &str, arguments: &[&Path]) -> Result<Value> {
    let dir = crate::target_dir().join("release/deps");
    let prefix = format!("{name}-");
    let programs = std::fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let newest = programs
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with(&prefix) && !name.contains('.')
        })
        .max_by_key(|entry| entry.metadata().and_then(|metadata| metadata.modified()).ok());
    let program = newest
        .with_context(|| format!("the bench {name} was not built"))?
        .path();
    json_of(name, std::process::Command::new(program).args(arguments))
}

fn json_of(name: &str, command: &mut std::process::Command) -> Result<Value> {
    let output = command.stderr(std::process::Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        bail!("{name} failed ({})", output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.trim()).with_context(|| format!("{name} printed no JSON: {text}"))
}

/// To start a process of the binary, and nothing more.
fn exec(binary: &Path) -> Result<f64> {
    let mut samples = Vec::new();
    for _ in 0..20 {
        let begin = Instant::now();
        let output = std::process::Command::new(binary).arg("--version").output();
        let output = output.with_context(|| format!("cannot run {}", binary.display()))?;
        samples.push(begin.elapsed().as_secs_f64() * 1e3);
        if !output.status.success() {
            bail!("{} --version failed ({})", binary.display(), output.status);
        }
    }
    Ok(quantile(&mut samples, 0.5))
}

fn fdatasync(dir: &Path) -> Result<f64> {
    let mut file = File::create(dir.join("fdatasync")).context("cannot create a file in the data directory")?;
    let mut samples = Vec::new();
    for _ in 0..300 {
        let begin = Instant::now();
        file.write_all(&[7; 4096]).context("cannot write")?;
        file.sync_data().context("cannot sync")?;
        samples.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    Ok(quantile(&mut samples, 0.5))
}
