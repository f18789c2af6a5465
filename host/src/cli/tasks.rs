//! `airtight tasks …`

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::common::{Context, api, confirm, instance};
use super::runs::TASK_INSTANCES;
use crate::failure::{Exit, Failure, Result};
use crate::local;
use crate::ui::output::Output;
use crate::ui::{escape, mapped, term};

/// Commands about single tasks.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one task of a local `.wasm` in this process, without server or manifest
    Test(local::TaskTestArgs),
    /// Set the state of a task instance: what follows goes on from there
    SetState(SetStateArgs),
}

/// Arguments of `tasks set-state`.
#[derive(Debug, Args)]
pub(crate) struct SetStateArgs {
    /// The DAG
    dag_id: String,
    /// The run
    run_id: String,
    /// The task, or of a mapped task one instance as `task[3]`
    task_id: String,
    /// The state
    #[arg(value_parser = ["success", "failed", "skipped"])]
    state: String,
    /// Only the instance of a mapped task with this index [default: all]
    #[arg(long, value_name = "N")]
    map_index: Option<u32>,
    /// Also everything upstream of it
    #[arg(long)]
    upstream: bool,
    /// Also everything downstream of it
    #[arg(long)]
    downstream: bool,
    /// Also in all earlier runs of the DAG
    #[arg(long)]
    past: bool,
    /// Also in all later runs of the DAG
    #[arg(long)]
    future: bool,
    /// Show what would be changed, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub(super) async fn run(context: &Context, command: Command) -> Result<()> {
    match command {
        Command::Test(args) => local::tasks_test(context.output(), args).await,
        Command::SetState(args) => set_state(context, args).await,
    }
}

async fn set_state(context: &Context, args: SetStateArgs) -> Result<()> {
    let (task_id, index) = instance(&args.task_id, args.map_index);
    if !args.dry_run {
        let index = index.map(|index| format!("[{index}]")).unwrap_or_default();
        let question = format!(
            "set task {}{index} of run {} to {}?",
            escape::line(&task_id),
            escape::line(&args.run_id),
            args.state
        );
        confirm(args.yes, &question)?;
    }
    let map_index = index.map(|index| index.to_string());
    let mut path = api(&["dags", &args.dag_id, "dagRuns", &args.run_id, "taskInstances", &task_id]);
    path.extend(map_index.as_deref());
    path.extend(args.dry_run.then_some("dry_run"));
    let body = json!({
        "new_state": args.state,
        "include_upstream": args.upstream,
        "include_downstream": args.downstream,
        "include_past": args.past,
        "include_future": args.future,
    });
    let answer = context.client()?.send_json(Method::PATCH, &path, &[], &body).await?;
    let Some(instances) = answer.get("task_instances").and_then(Value::as_array) else {
        return Err(Failure::new(
            Exit::Broken,
            "the server's answer holds no `task_instances`",
        ));
    };
    if context.output() != Output::Table {
        context.output().value(&answer);
        return Ok(());
    }
    context
        .output()
        .list(&mapped::collapse(instances.clone()), TASK_INSTANCES);
    let what = if args.dry_run { "would be changed" } else { "changed" };
    term::errln(&format!("{} task instance(s) {what}", instances.len()));
    Ok(())
}
