//! `airtight dags …`

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::common::{Context, api, conf_argument, confirm, list, warn_of_undeclared};
use super::run_remarks;
use super::{deploy, runs, simulate};
use crate::failure::{Exit, Failure, Result};
use crate::local;
use crate::ui::output::{Column, Output, Show};
use crate::ui::{escape, term};

/// Commands about DAGs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check a manifest and make it the current version of its DAG; uploads the `./path.wasm` that the server lacks
    Deploy(deploy::DeployArgs),
    /// Check a manifest without deploying it
    Check(deploy::CheckArgs),
    /// List the DAGs of the server
    List {
        /// Only ids that contain this
        #[arg(long)]
        pattern: Option<String>,
        /// Only with this tag; may be repeated
        #[arg(long)]
        tag: Vec<String>,
        /// At most this many
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show a DAG, its tasks and its parameters
    Show {
        /// The DAG
        dag_id: String,
        /// Print the manifest as it was deployed
        #[arg(long)]
        source: bool,
    },
    /// Start a dag run
    Trigger(TriggerArgs),
    /// Let no run of a DAG start; triggered runs wait
    Pause {
        /// The DAG
        dag_id: String,
    },
    /// Let the runs of a DAG start again
    Unpause {
        /// The DAG
        dag_id: String,
    },
    /// Delete a DAG with its versions and runs
    Delete {
        /// The DAG
        dag_id: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Run a whole DAG from local files in this process, without server or database
    Test(local::TestArgs),
    /// Simulate a DAG with injected failures, without running any of it, and tell which failures nobody would notice
    Simulate(simulate::SimulateArgs),
    /// Print the JSON Schema of manifests, for editors; needs no server
    Schema,
}

/// Arguments of `dags trigger`.
#[derive(Debug, Args)]
pub(crate) struct TriggerArgs {
    /// The DAG
    dag_id: String,
    /// The run's configuration: a JSON object, or @FILE. Members that name a parameter replace its default
    #[arg(long, short)]
    conf: Option<String>,
    /// One parameter: `name=value`, where the value is JSON or text; may be repeated
    #[arg(long, short, value_name = "NAME=VALUE")]
    param: Vec<String>,
    /// The name of the run [default: manual__ and the time]
    #[arg(long)]
    run_id: Option<String>,
    /// The logical date, RFC 3339; two runs of a DAG cannot share one
    #[arg(long, value_name = "TIME")]
    logical_date: Option<String>,
    /// A note for people
    #[arg(long)]
    note: Option<String>,
    /// Wait for the end of the run; exits with 1 if it failed
    #[arg(long, conflicts_with = "watch")]
    wait: bool,
    /// Follow the run on the screen until it ends; exits with 1 if it failed
    #[arg(long, short)]
    watch: bool,
}

const LIST: &[Column] = &[
    ("dag", "/dag_id", Show::Text),
    ("paused", "/is_paused", Show::Text),
    ("tags", "/tags", Show::List),
    ("owners", "/owners", Show::List),
    ("deployed", "/last_parsed_time", Show::Time),
    ("description", "/description", Show::Text),
];

pub(super) async fn run(context: &Context, command: Command) -> Result<()> {
    match command {
        Command::Deploy(args) => deploy::deploy(context, args).await,
        Command::Check(args) => deploy::check(context, args).await,
        Command::Test(args) => local::dags_test(context.output(), args).await,
        Command::Simulate(args) => simulate::run(context, args).await,
        Command::Schema => {
            context.output().value(&model::manifest::json_schema());
            Ok(())
        }
        Command::List { pattern, tag, limit } => {
            let mut query: Vec<_> = tag.into_iter().map(|tag| ("tags", tag)).collect();
            if let Some(pattern) = pattern {
                query.push(("dag_id_pattern", format!("%{pattern}%")));
            }
            let (items, _) = list(context.client()?, &api(&["dags"]), "dags", &query, limit).await?;
            context.output().list(&items, LIST);
            Ok(())
        }
        Command::Show { dag_id, source } => show(context, &dag_id, source).await,
        Command::Trigger(args) => trigger(context, args).await,
        Command::Pause { dag_id } => set_paused(context, &dag_id, true).await,
        Command::Unpause { dag_id } => set_paused(context, &dag_id, false).await,
        Command::Delete { dag_id, yes } => {
            confirm(yes, &format!("delete {} with all its runs?", escape::line(&dag_id)))?;
            context.client()?.delete(&api(&["dags", &dag_id])).await?;
            term::errln(&format!("deleted {}", escape::line(&dag_id)));
            Ok(())
        }
    }
}

async fn show(context: &Context, dag_id: &str, source: bool) -> Result<()> {
    let client = context.client()?;
    if source {
        let answer = client.get(&api(&["dagSources", dag_id]), &[]).await?;
        match (context.output(), answer.get("content").and_then(Value::as_str)) {
            (Output::Table, Some(text)) => term::out(&escape::block(text)),
            (output, _) => output.value(&answer),
        }
        return Ok(());
    }
    let dag = client.get(&api(&["dags", dag_id, "details"]), &[]).await?;
    let mut tasks = client.get(&api(&["dags", dag_id, "tasks"]), &[]).await?;
    let tasks = tasks.get_mut("tasks").map(Value::take).unwrap_or_default();
    let output = context.output();
    if output != Output::Table {
        output.value(&json!({"dag": dag, "tasks": tasks}));
        return Ok(());
    }
    output.record(
        &dag,
        &[
            ("dag", "/dag_id", Show::Text),
            ("description", "/description", Show::Text),
            ("paused", "/is_paused", Show::Text),
            ("because", "/paused_reason", Show::Text),
            ("version", "/latest_dag_version/version_number", Show::Text),
            ("owners", "/owners", Show::List),
            ("tags", "/tags", Show::List),
            ("deployed", "/last_parsed_time", Show::Time),
            ("max runs", "/max_active_runs", Show::Text),
            ("params", "/params", Show::Json),
        ],
    );
    term::outln("");
    let columns: &[Column] = &[
        ("task", "/task_id", Show::Text),
        ("component", "/component", Show::Text),
        ("entry", "/entry", Show::Text),
        ("trigger rule", "/trigger_rule", Show::Text),
        ("retries", "/retries", Show::Text),
        ("downstream", "/downstream_task_ids", Show::List),
    ];
    output.list(tasks.as_array().map_or(&[], Vec::as_slice), columns);
    Ok(())
}

async fn trigger(context: &Context, args: TriggerArgs) -> Result<()> {
    let client = context.client()?;
    let conf = conf_argument(args.conf.as_deref(), &args.param)?;
    let body = json!({
        "dag_run_id": args.run_id,
        "logical_date": args.logical_date,
        "conf": conf,
        "note": args.note,
    });
    let dag_id = &args.dag_id;
    if conf.as_object().is_some_and(|members| !members.is_empty())
        && let Ok(Some(source)) = client.find(&api(&["dagSources", dag_id]), &[]).await
        && let Some(text) = source.get("content").and_then(Value::as_str)
    {
        warn_of_undeclared(&model::manifest::read(text), &conf);
    }
    let run = client
        .send_json(Method::POST, &api(&["dags", dag_id, "dagRuns"]), &[], &body)
        .await?;
    let run_id = run
        .get("dag_run_id")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    if args.watch {
        term::errln(&format!(
            "triggered {} of {}",
            escape::line(&run_id),
            escape::line(dag_id)
        ));
        return runs::watch(context, dag_id, &run_id).await;
    }
    if !args.wait {
        return print_run(context.output(), &run, &run_id);
    }
    let path = api(&["dags", dag_id, "dagRuns", &run_id]);
    let mut waiting = path.clone();
    waiting.push("wait");
    // One line of JSON an interval while the run goes on; the end of the stream is the end of the run.
    let url = client.url(&waiting, &[("interval", "1".to_owned())]);
    let mut response = client.stream(Method::GET, &url, |request| request).await?;
    while let Ok(Some(_)) = response.chunk().await {}
    let run = client.get(&path, &[]).await?;
    print_run(context.output(), &run, &run_id)?;
    match run.get("state").and_then(Value::as_str) {
        Some("success") => Ok(()),
        Some("failed") => {
            run_remarks::paused(client, dag_id).await?;
            Err(Failure::new(Exit::Failed, format!("run {run_id} of {dag_id} failed"))
                .hint(format!("see `airtight runs show {dag_id} '{run_id}'`")))
        }
        _ => Err(Failure::new(
            Exit::Unreachable,
            format!("the connection ended before run {run_id} did"),
        )),
    }
}

/// For a shell: the run's id alone on standard output.
fn print_run(output: Output, run: &Value, run_id: &str) -> Result<()> {
    if output == Output::Table {
        term::outln(&escape::line(run_id));
    } else {
        output.value(run);
    }
    Ok(())
}

async fn set_paused(context: &Context, dag_id: &str, paused: bool) -> Result<()> {
    let body = json!({"is_paused": paused});
    let answer = context
        .client()?
        .send_json(Method::PATCH, &api(&["dags", dag_id]), &[], &body)
        .await?;
    match context.output() {
        Output::Table => {
            let what = if paused { "paused" } else { "unpaused" };
            term::errln(&format!("{} is {what}", escape::line(dag_id)));
        }
        output => output.value(&answer),
    }
    Ok(())
}
