//! `airtight dags simulate`: what a DAG does when things go wrong, without running any of it.

mod arguments;
mod json;
mod text;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use model::manifest::{self, Components, Pools};
use model::simulate::{Outcome, Report, Scenario, Simulator, Sweep, sweep};
use model::{Dag, DagRunState};
use ports::deploy::Severity;
use serde_json::Value;

use super::common::{Context, api};
use super::deploy::{Lookup, Source};
use crate::failure::{Exit, Failure, OrFail, Result};
use crate::local::{Overrides, Workshop};
use crate::ui::output::Output;
use crate::ui::term::{self, Paint};
use crate::ui::{diagnostics, progress};

/// Arguments of `dags simulate`.
#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    /// A manifest, or the id of a DAG of the server
    dag: String,
    /// The same seed gives the same scenarios
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many random scenarios with several failures
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    scenarios: u32,
    /// How long a try takes [default: 1s]; `task=2m` for one task; may be repeated
    #[arg(long, value_name = "[TASK=]DURATION")]
    task_time: Vec<String>,
    /// How long lists are that tasks are mapped over [default: 3]; `task=100` for the list of one task; may be repeated
    #[arg(long, value_name = "[TASK=]N")]
    map_length: Vec<String>,
    /// In which iteration the condition of a loop holds
    #[arg(long, value_name = "N", default_value_t = 2)]
    iterations: u32,
    /// How many tasks run at a time
    #[arg(long, value_name = "N", default_value_t = 32)]
    parallelism: u32,
    /// The slots of a pool [default: the server's for a DAG of the server, else without bound]; may be repeated
    #[arg(long, value_name = "NAME=SLOTS")]
    pool: Vec<String>,
    /// Play one more scenario in which this goes wrong: once, always, fatal, timeout, lost, lost_always, skip, or a number of
    /// failed tries; `task[3]=…` in one mapped instance, `task[*]=…` in all; may be repeated
    #[arg(long, value_name = "TASK=FAILURE")]
    fail: Vec<String>,
    /// In that scenario, what a branch or a person chooses; `false` for a short-circuit; may be repeated
    #[arg(long, value_name = "TASK=LABEL")]
    choose: Vec<String>,
    /// Exit with 1 if there are failures that nobody would notice
    #[arg(long)]
    strict: bool,
    /// Where a component is that a local manifest names by a tag [default: what cargo built under that name]; may be repeated
    #[arg(long, value_name = "NAME@VERSION=FILE")]
    component: Vec<String>,
}

/// All that is shown.
struct Simulated {
    dag: Arc<Dag>,
    simulator: Simulator,
    seed: u64,
    report: Report,
    /// The scenario of `--fail` and `--choose`.
    requested: Option<(Scenario, Outcome)>,
    took: Duration,
}

pub(super) async fn run(context: &Context, args: SimulateArgs) -> Result<()> {
    let output = context.output();
    let (dag, pools) = find(context, &args).await?;
    let dag = Arc::new(dag);
    let assumptions = args.assumptions(&dag, pools)?;
    let requested = args.requested(&dag)?;
    let options = Sweep {
        seed: args.seed,
        random: args.scenarios,
        ..Sweep::default()
    };
    let spinner = progress::spinner("simulating");
    let of = Arc::clone(&dag);
    let simulated = tokio::task::spawn_blocking(move || {
        let begin = Instant::now();
        let simulator = Simulator::new(of, assumptions);
        let report = sweep(&simulator, &options);
        let took = begin.elapsed();
        let requested = requested.map(|scenario| {
            let outcome = simulator.run(&scenario);
            (scenario, outcome)
        });
        (simulator, report, requested, took)
    })
    .await;
    spinner.finish_and_clear();
    let (simulator, report, requested, took) =
        simulated.or_fail(Exit::Broken, || "the simulation broke off".to_owned())?;
    let simulated = Simulated {
        dag,
        simulator,
        seed: args.seed,
        report,
        requested,
        took,
    };
    match output {
        Output::Table => term::outln(&text::render(&simulated, Paint::stdout())),
        _ => output.value(&json::value(&simulated)),
    }
    let unnoticed = simulated.unnoticed();
    if args.strict && unnoticed > 0 {
        let what = if unnoticed == 1 { "task" } else { "tasks" };
        return Err(Failure::new(
            Exit::Failed,
            format!("{unnoticed} {what} can fail without anybody noticing"),
        ));
    }
    Ok(())
}

impl Simulated {
    /// How many tasks can fail unnoticed.
    fn unnoticed(&self) -> usize {
        self.report.hidden.iter().filter(|hidden| hidden.unnoticed()).count()
    }

    fn name(&self, task: model::TaskIndex) -> String {
        self.dag.task(task).map_or_else(String::new, |task| task.id.to_string())
    }
}

/// The state of a run for people: a run that hangs is not just running.
fn state(state: DagRunState, hangs: bool) -> &'static str {
    if hangs { "never ends" } else { state.as_str() }
}

/// The DAG, and the pools of its server.
async fn find(context: &Context, args: &SimulateArgs) -> Result<(Dag, Pools)> {
    let path = Path::new(&args.dag);
    let looks_like_a_file = args.dag.contains(std::path::MAIN_SEPARATOR)
        || path
            .extension()
            .is_some_and(|ending| ending == "yaml" || ending == "yml");
    if looks_like_a_file || path.is_file() {
        return Ok((of_file(context.output(), path, args).await?, Pools::new()));
    }
    let client = context.client()?;
    let answer = client.get(&api(&["dagSources", &args.dag]), &[]).await?;
    let content = answer.get("content").and_then(Value::as_str).unwrap_or_default();
    let source = Source::of(args.dag.clone(), content.to_owned());
    let file = PathBuf::new();
    let mut lookup = Lookup::new(&file, Some(client));
    let components = lookup.components(&source.manifest).await?;
    let pools = lookup.pools().await?.unwrap_or_default();
    let checked =
        manifest::compile(&source.manifest, &components).map_err(|found| source.refuse(&found, context.output()))?;
    Ok((checked.dag, pools))
}

/// A local manifest. Its components are found as for `dags test`.
async fn of_file(output: Output, file: &Path, args: &SimulateArgs) -> Result<Dag> {
    let source = Source::read(file)?;
    let overrides = Overrides::parse(&args.component)?;
    let components = if source.manifest.has_errors() || source.manifest.components().is_empty() {
        Components::new()
    } else {
        let workshop = Workshop::open()?;
        workshop.resolve(file, &source.manifest, &overrides).await.0
    };
    let checked = manifest::compile(&source.manifest, &components).map_err(|found| source.refuse(&found, output))?;
    let warnings: Vec<_> = checked
        .diagnostics
        .into_iter()
        .filter(|found| found.severity > Severity::Note)
        .collect();
    if !warnings.is_empty() {
        term::errln(&diagnostics::render(
            &source.shown,
            &source.text,
            &warnings,
            Paint::stderr(),
        ));
    }
    Ok(checked.dag)
}
