//! `cargo xtask bench`: figures of the real server in its release build, each beside its floor, measured in the same run.

mod enlarge;
mod figure;
mod floor;
mod manifest;
mod measure;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::server::{Server, free_port};
use crate::setup;
use figure::Report;

/// How large the larger one of the components is that are uploaded.
const LARGE_BYTES: usize = 5_000_000;

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Also write the table as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Only this measurement.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
}

/// Measures and prints one table.
pub(crate) fn run(options: &Options) -> Result<()> {
    if let Some(only) = &options.only
        && !measure::ALL.iter().any(|(name, _)| name == only)
    {
        let names: Vec<&str> = measure::ALL.iter().map(|(name, _)| *name).collect();
        bail!("there is no measurement `{only}`; there are: {}", names.join(", "));
    }
    setup::wasm_target()?;
    let components = setup::build_components()?;
    let binary = setup::build_host(setup::Build::Measure)?;
    let bench = component(&components, "bench-tasks")?;

    let dir = tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(crate::target_dir());
    let dir = dir.context("cannot create a directory for the data")?;
    let large = dir.path().join("large.wasm");
    enlarge::enlarge(&component(&components, "radio-cube")?, LARGE_BYTES, &large)?;
    let floors = floor::measure(dir.path(), &binary, &bench, &large)?;

    let server = Server::start(&binary, &dir.path().join("data"), free_port(0)?)?;
    let client = server.login()?;
    client.push_component("bench@1", &bench)?;
    let mut report = Report::new(floors.clone());
    let mut context = measure::Context {
        binary: &binary,
        large: &large,
        server: &server,
        client: &client,
        floors: &floors,
        bench: &bench,
        dir: dir.path(),
    };
    for (name, measurement) in measure::ALL {
        if options.only.as_deref().is_some_and(|only| only != *name) {
            continue;
        }
        eprintln!("measuring {name} …");
        report
            .figures
            .extend(measurement(&mut context).with_context(|| format!("cannot measure {name}"))?);
    }
    drop(server);
    println!("{}", report.table());
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&json!(report)).context("cannot write JSON")?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn component(components: &[(String, PathBuf)], name: &str) -> Result<PathBuf> {
    let found = components
        .iter()
        .find(|(package, _)| package == name || package.ends_with(&format!("-{name}")));
    Ok(found
        .with_context(|| format!("there is no component package `{name}` under tasks/"))?
        .1
        .clone())
}
