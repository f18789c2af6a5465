//! `airtight dags test`: a whole DAG from local files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use blobs::FileBlobStore;
use clap::Args;
use logs::FileLogStore;
use model::manifest::{self, ComponentRef, Diagnostic};
use model::{DagId, DagRunState, Timestamp};
use ports::deploy::{CheckedManifest, Severity};

use super::find::Overrides;
use super::report;
use super::session::{RunRequest, Session};
use super::workshop::Workshop;
use crate::cli::{conf_argument, warn_of_undeclared};
use crate::failure::{Exit, Failure, OrFail, Result};
use crate::ui::diagnostics;
use crate::ui::output::Output;
use crate::ui::run_view::LiveView;
use crate::ui::term::{self, Paint};

/// Arguments of `dags test`.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// The manifest
    file: PathBuf,
    /// The run's configuration: a JSON object, or @FILE. Members that name a parameter replace its default
    #[arg(long, short)]
    conf: Option<String>,
    /// One parameter: `name=value`, where the value is JSON or text; may be repeated
    #[arg(long, short, value_name = "NAME=VALUE")]
    param: Vec<String>,
    /// Where a component is that the manifest names by a tag [default: what cargo built under that name]; may be repeated
    #[arg(long, value_name = "NAME@VERSION=FILE")]
    component: Vec<String>,
    /// The manifest of another DAG, which this one triggers or waits for; may be repeated
    #[arg(long, value_name = "FILE")]
    with: Vec<PathBuf>,
    /// The logical date, RFC 3339
    #[arg(long, value_name = "TIME")]
    logical_date: Option<Timestamp>,
    /// Show the logs of all tasks, not only of those that failed
    #[arg(long)]
    logs: bool,
}

/// Runs the DAG; a failed run is a failure.
pub(crate) async fn dags_test(output: Output, args: TestArgs) -> Result<()> {
    let conf = conf_argument(args.conf.as_deref(), &args.param)?;
    let overrides = Overrides::parse(&args.component)?;
    let workshop = Workshop::open()?;
    let mut others = Vec::with_capacity(args.with.len());
    for file in &args.with {
        others.push(check(&workshop, file, &overrides, |_| true).await?);
    }
    let known = |dag: &DagId| others.iter().any(|other: &CheckedManifest| other.dag.id == *dag);
    let checked = check(&workshop, &args.file, &overrides, known).await?;
    warn_of_undeclared(&manifest::read(&checked.source), &conf);

    let temporary = tempfile::tempdir().or_fail(Exit::Broken, || "cannot create a temporary directory".to_owned())?;
    let open = || {
        std::io::Result::Ok((
            FileBlobStore::open(&temporary.path().join("blobs"))?,
            FileLogStore::open(&temporary.path().join("logs"))?,
        ))
    };
    let (blobs, logs) = open().or_fail(Exit::Broken, || "cannot open the temporary directory".to_owned())?;
    let names: Vec<String> = checked.dag.tasks.iter().map(|task| task.id.to_string()).collect();
    let session = Session::start(&workshop, blobs, Arc::new(logs.clone())).await?;
    let mut view = LiveView::new(&names);
    let request = RunRequest {
        checked,
        others,
        conf,
        logical_date: args.logical_date,
    };
    let ended = tokio::select! {
        ended = session.run(request, Some(&mut view)) => ended,
        _ = tokio::signal::ctrl_c() => Err(Failure::new(Exit::Interrupted, "stopped before the run had ended")),
    };
    view.clear();
    let finished = match ended {
        Ok(finished) => finished,
        Err(failure) => {
            session.stop().await;
            return Err(failure);
        }
    };
    logs.flush().await;
    report::print(output, &finished, &logs, args.logs).await;
    session.stop().await;
    if finished.run.state == DagRunState::Success {
        Ok(())
    } else {
        Err(Failure::said(Exit::Failed))
    }
}

/// Reads and checks a manifest, and shows what is wrong with it.
async fn check(
    workshop: &Workshop,
    file: &Path,
    overrides: &Overrides,
    is_known: impl Fn(&DagId) -> bool,
) -> Result<CheckedManifest> {
    let shown = file.display().to_string();
    let source = std::fs::read_to_string(file).or_fail(Exit::Invalid, || format!("cannot read `{shown}`"))?;
    let manifest = manifest::read(&source);
    let (components, files) = workshop.resolve(file, &manifest, overrides).await;
    for (reference, path) in &files {
        if matches!(reference, ComponentRef::Tag(..)) {
            term::errln(&Paint::stderr().dim(&format!("using {} as {reference}", path.display())));
        }
    }
    let checked = match manifest::compile(&manifest, &components) {
        Ok(checked) => checked,
        Err(found) => {
            term::errln(diagnostics::render(&shown, &source, &found, Paint::stderr()).trim_end());
            return Err(Failure::said(Exit::Invalid));
        }
    };
    let mut warnings = checked.diagnostics;
    warnings.retain(|found| found.severity > Severity::Note);
    let unknown = manifest.unknown_dags(is_known).into_iter();
    warnings.extend(unknown.map(|found| Diagnostic {
        hint: Some("name its manifest with `--with FILE`".to_owned()),
        ..found
    }));
    if !warnings.is_empty() {
        term::errln(&diagnostics::render(&shown, &source, &warnings, Paint::stderr()));
    }
    Ok(CheckedManifest {
        digest: checked.digest,
        source: source.as_str().into(),
        dag: Arc::new(checked.dag),
        paused: Some(false),
        diagnostics: Vec::new(),
    })
}
