//! `airtight runs …`, and watching a run.

use clap::{Args, Subcommand};
use reqwest::Method;
use reqwest::header::ACCEPT;
use serde_json::{Value, json};

use super::common::{Context, api, confirm, instance, list};
use super::run_remarks;
use crate::client::Client;
use crate::failure::{Exit, Failure, Result};
use crate::ui::events::{EventStream, Lines};
use crate::ui::output::{Column, Output, Show};
use crate::ui::run_view::{LiveView, TaskLine};
use crate::ui::term::{self, Paint};
use crate::ui::{escape, mapped};

/// Commands about dag runs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List dag runs, newest first
    List {
        /// Only of this DAG
        dag_id: Option<String>,
        /// Only in this state; may be repeated
        #[arg(long)]
        state: Vec<String>,
        /// At most this many
        #[arg(long, default_value_t = 25)]
        limit: usize,
    },
    /// Show a dag run and its task instances; those of a mapped task on one line
    Show(ShowArgs),
    /// Follow a dag run until it ends; exits with 1 if it failed
    Watch(Run),
    /// Stop a dag run: what runs is stopped, the run ends as failed
    Cancel(Run),
    /// Clear task instances of a dag run, so that they run again
    Clear(ClearArgs),
    /// List the callbacks of a dag run, or print the log of one
    Callbacks(CallbacksArgs),
}

/// Names a run.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The DAG
    dag_id: String,
    /// The run
    run_id: String,
}

/// Arguments of `runs show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    run: Run,
    /// Only this task, each of its instances on a line of its own; or one of them as `task[3]`
    #[arg(long, value_name = "TASK_ID")]
    task: Option<String>,
    /// Only the instance of the task with this index
    #[arg(long, value_name = "N", requires = "task")]
    map_index: Option<u32>,
}

/// Arguments of `runs callbacks`.
#[derive(Debug, Args)]
pub(crate) struct CallbacksArgs {
    #[command(flatten)]
    run: Run,
    /// Only in this state; may be repeated
    #[arg(long)]
    state: Vec<String>,
    /// Print the log of this callback
    #[arg(long, value_name = "ID", conflicts_with = "state")]
    log: Option<i64>,
    /// With --log: go on until the callback has ended
    #[arg(long, short, requires = "log")]
    follow: bool,
    /// At most this many
    #[arg(long, default_value_t = 100)]
    limit: usize,
}

/// Arguments of `runs clear`.
#[derive(Debug, Args)]
pub(crate) struct ClearArgs {
    #[command(flatten)]
    run: Run,
    /// Only these tasks, or of a mapped task one instance as `task[3]` [default: all]
    tasks: Vec<String>,
    /// Only the tasks of this task group; may be repeated
    #[arg(long, value_name = "GROUP_ID")]
    group: Vec<String>,
    /// Only the instances of these tasks with this index
    #[arg(long, value_name = "N", requires = "tasks")]
    map_index: Option<u32>,
    /// Also everything upstream of them
    #[arg(long)]
    upstream: bool,
    /// Also everything downstream of them
    #[arg(long)]
    downstream: bool,
    /// Also in all earlier runs of the DAG
    #[arg(long)]
    past: bool,
    /// Also in all later runs of the DAG
    #[arg(long)]
    future: bool,
    /// Only those that failed
    #[arg(long)]
    only_failed: bool,
    /// Show what would be cleared, and clear nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// The columns of a run that another one triggered.
const CHILDREN: &[Column] = &[
    ("triggered by task", "/parent/task_id", Show::Text),
    ("dag", "/dag_id", Show::Text),
    ("run", "/dag_run_id", Show::Text),
    ("state", "/state", Show::State),
    ("duration", "/duration", Show::Seconds),
];

const RUNS: &[Column] = &[
    ("dag", "/dag_id", Show::Text),
    ("run", "/dag_run_id", Show::Text),
    ("state", "/state", Show::State),
    ("type", "/run_type", Show::Text),
    ("start", "/start_date", Show::Time),
    ("duration", "/duration", Show::Seconds),
];

/// The columns of a task instance.
pub(super) const TASK_INSTANCES: &[Column] = &[
    ("task", "/task_id", Show::Text),
    ("state", "/state", Show::State),
    ("try", "/try_number", Show::Text),
    ("start", "/start_date", Show::Time),
    ("duration", "/duration", Show::Seconds),
    ("cause", "/cause", Show::Text),
    ("message", "/cause_message", Show::Line),
];

/// The columns of a callback.
pub(crate) const CALLBACKS: &[Column] = &[
    ("id", "/callback_id", Show::Text),
    ("task", "/name_of_task", Show::Text),
    ("event", "/event", Show::Text),
    ("does", "/does", Show::Text),
    ("state", "/state", Show::State),
    ("attempt", "/attempt", Show::Text),
    ("cause", "/cause", Show::Text),
    ("message", "/says", Show::Line),
];

/// Callbacks with what the columns show: the name of the task instance, what is done, and what came of it.
pub(crate) fn with_callback_columns(callbacks: Vec<Value>) -> Vec<Value> {
    let mut callbacks = callbacks;
    for callback in &mut callbacks {
        let text = |key: &str| callback.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let index = callback.get("map_index").and_then(Value::as_i64).unwrap_or(-1);
        let task = match (text("task_id"), index) {
            (task, _) if task.is_empty() => "(the run)".to_owned(),
            (task, ..0) => task,
            (task, index) => format!("{task}[{index}]"),
        };
        let does = if text("kind") == "notification" {
            "notify".to_owned()
        } else {
            text("name")
        };
        let says = if text("message").is_empty() {
            text("text")
        } else {
            text("message")
        };
        callback["name_of_task"] = task.into();
        callback["does"] = does.into();
        callback["says"] = says.into();
    }
    callbacks
}

pub(super) async fn run(context: &Context, command: Command) -> Result<()> {
    let client = context.client()?;
    match command {
        Command::List { dag_id, state, limit } => {
            let mut query: Vec<_> = state.into_iter().map(|state| ("state", state)).collect();
            query.push(("order_by", "-run_after".to_owned()));
            let path = api(&["dags", dag_id.as_deref().unwrap_or("~"), "dagRuns"]);
            let (items, _) = list(client, &path, "dag_runs", &query, limit).await?;
            context.output().list(&items, RUNS);
            Ok(())
        }
        Command::Show(args) => {
            let Run { dag_id, run_id } = args.run;
            let run = client.get(&api(&["dags", &dag_id, "dagRuns", &run_id]), &[]).await?;
            if let Some(task) = args.task {
                let (task, index) = instance(&task, args.map_index);
                let mut query = vec![("task_id", task)];
                query.extend(index.map(|index| ("map_index", index.to_string())));
                let path = api(&["dags", &dag_id, "dagRuns", &run_id, "taskInstances"]);
                let (instances, _) = list(client, &path, "task_instances", &query, 20_000).await?;
                if context.output() != Output::Table {
                    context.output().list(&instances, TASK_INSTANCES);
                    return Ok(());
                }
                print_table(context.output(), mapped::named(instances));
                return Ok(());
            }
            let instances = task_instances(client, &dag_id, &run_id).await?;
            let callbacks = failed_callbacks(client, &dag_id, &run_id).await?;
            let children = children(client, &dag_id, &run_id).await?;
            if context.output() != Output::Table {
                show(context.output(), run, instances, callbacks, &children);
                return Ok(());
            }
            show(context.output(), run.clone(), instances.clone(), callbacks, &children);
            run_remarks::waits(client, &dag_id, &run_id, &run, &instances).await
        }
        Command::Watch(Run { dag_id, run_id }) => watch(context, &dag_id, &run_id).await,
        Command::Cancel(Run { dag_id, run_id }) => {
            let path = api(&["dags", &dag_id, "dagRuns", &run_id]);
            let run = client
                .send_json(Method::PATCH, &path, &[], &json!({"state": "failed"}))
                .await?;
            match context.output() {
                Output::Table => term::errln(&format!(
                    "cancelled {} of {}",
                    escape::line(&run_id),
                    escape::line(&dag_id)
                )),
                output => output.value(&run),
            }
            Ok(())
        }
        Command::Clear(args) => clear(context, args).await,
        Command::Callbacks(args) => callbacks(context, args).await,
    }
}

async fn callbacks(context: &Context, args: CallbacksArgs) -> Result<()> {
    let Run { dag_id, run_id } = args.run;
    let path = api(&["dags", &dag_id, "dagRuns", &run_id, "callbacks"]);
    if let Some(id) = args.log {
        let id = id.to_string();
        let mut path = path;
        path.extend([id.as_str(), "logs"]);
        let follow: Vec<_> = args.follow.then(|| ("follow", "true".to_owned())).into_iter().collect();
        return super::logs::stream(context, &path, &follow).await;
    }
    let query: Vec<_> = args.state.into_iter().map(|state| ("state", state)).collect();
    let (callbacks, _) = list(context.client()?, &path, "callbacks", &query, args.limit).await?;
    if context.output() == Output::Table {
        context.output().list(&with_callback_columns(callbacks), CALLBACKS);
    } else {
        context.output().list(&callbacks, CALLBACKS);
    }
    Ok(())
}

/// Callbacks of a run that failed: nothing else shows them.
async fn failed_callbacks(client: &Client, dag_id: &str, run_id: &str) -> Result<Vec<Value>> {
    let path = api(&["dags", dag_id, "dagRuns", run_id, "callbacks"]);
    let query = [("state", "failed".to_owned())];
    Ok(list(client, &path, "callbacks", &query, 100).await?.0)
}

async fn clear(context: &Context, args: ClearArgs) -> Result<()> {
    let Run { dag_id, run_id } = args.run;
    if !args.dry_run {
        let named: Vec<&str> = args.tasks.iter().chain(&args.group).map(String::as_str).collect();
        let what = if named.is_empty() {
            "all tasks".to_owned()
        } else {
            named.join(", ")
        };
        let others = match (args.past, args.future) {
            (false, false) => "",
            (true, false) => " and of all earlier runs",
            (false, true) => " and of all later runs",
            (true, true) => " and of all other runs",
        };
        confirm(
            args.yes,
            &format!(
                "clear {} of run {}{others}?",
                escape::line(&what),
                escape::line(&run_id)
            ),
        )?;
    }
    let body = json!({
        "dag_run_id": run_id,
        "task_ids": if args.tasks.is_empty() { Value::Null } else { tasks(&args.tasks, args.map_index) },
        "task_group_ids": args.group,
        "include_past": args.past,
        "include_future": args.future,
        "include_upstream": args.upstream,
        "include_downstream": args.downstream,
        "only_failed": args.only_failed,
        "dry_run": args.dry_run,
        "reset_dag_runs": true,
    });
    let path = api(&["dags", &dag_id, "clearTaskInstances"]);
    let answer = context.client()?.send_json(Method::POST, &path, &[], &body).await?;
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
    let what = if args.dry_run { "would be cleared" } else { "cleared" };
    let runs: std::collections::BTreeSet<_> = instances
        .iter()
        .filter_map(|ti| ti.get("dag_run_id")?.as_str())
        .collect();
    let of_runs = match runs.len() {
        0 | 1 => String::new(),
        count => format!(" of {count} runs"),
    };
    term::errln(&format!("{} task instance(s){of_runs} {what}", instances.len()));
    Ok(())
}

/// Tasks as the API names them: by their ids, or by pairs of an id and a map index, which `--map-index` or the name gives.
fn tasks(tasks: &[String], map_index: Option<u32>) -> Value {
    let named = |name: &String| match instance(name, map_index) {
        (task_id, None) => json!(task_id),
        (task_id, Some(index)) => json!([task_id, index]),
    };
    tasks.iter().map(named).collect()
}

async fn task_instances(client: &Client, dag_id: &str, run_id: &str) -> Result<Vec<Value>> {
    let path = api(&["dags", dag_id, "dagRuns", run_id, "taskInstances"]);
    Ok(list(client, &path, "task_instances", &[], 20_000).await?.0)
}

/// The runs that its tasks triggered.
async fn children(client: &Client, dag_id: &str, run_id: &str) -> Result<Vec<Value>> {
    let path = api(&["dags", dag_id, "dagRuns", run_id, "children"]);
    Ok(list(client, &path, "dag_runs", &[], MAX_ROWS).await?.0)
}

/// Prints a run with its task instances, who triggered it, and what it triggered.
fn show(output: Output, mut run: Value, instances: Vec<Value>, failed_callbacks: Vec<Value>, children: &[Value]) {
    if output != Output::Table {
        return output.value(&json!({
            "dag_run": run,
            "task_instances": instances,
            "failed_callbacks": failed_callbacks,
            "children": children,
        }));
    }
    let text = |pointer: &str| run.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    if run.pointer("/parent/dag_run_id").is_some() {
        let parent = format!(
            "task {} of {} {}",
            text("/parent/task_id"),
            text("/parent/dag_id"),
            text("/parent/dag_run_id")
        );
        if let Some(members) = run.as_object_mut() {
            members.insert("triggered_by_task".to_owned(), parent.into());
        }
    }
    output.record(
        &run,
        &[
            ("dag", "/dag_id", Show::Text),
            ("run", "/dag_run_id", Show::Text),
            ("state", "/state", Show::State),
            ("type", "/run_type", Show::Text),
            ("triggered by", "/triggering_user_name", Show::Text),
            ("parent", "/triggered_by_task", Show::Text),
            ("logical date", "/logical_date", Show::Time),
            ("queued", "/queued_at", Show::Time),
            ("start", "/start_date", Show::Time),
            ("end", "/end_date", Show::Time),
            ("duration", "/duration", Show::Seconds),
            ("conf", "/conf", Show::Json),
            ("note", "/note", Show::Text),
            ("set aside", "/set_aside", Show::Text),
        ],
    );
    term::outln("");
    print_table(output, mapped::collapse(instances));
    run_remarks::hidden(&run);
    if !failed_callbacks.is_empty() {
        term::outln(&format!("\n{}", Paint::stdout().bold("callbacks that failed")));
        output.list(&with_callback_columns(failed_callbacks), CALLBACKS);
    }
    if !children.is_empty() {
        term::outln("");
        output.list(children, CHILDREN);
    }
}

fn print_table(output: Output, rows: Vec<Value>) {
    let (rows, left_out) = worth_showing(rows);
    output.list(&rows, TASK_INSTANCES);
    if left_out > 0 {
        term::errln(&format!(
            "{left_out} more, which succeeded or were skipped; --output json shows all"
        ));
    }
}

/// A table has room for this many rows.
const MAX_ROWS: usize = 500;

/// Of very many task instances, those that did not simply succeed; and how many were left out.
fn worth_showing(mut instances: Vec<Value>) -> (Vec<Value>, usize) {
    let all = instances.len();
    if all > MAX_ROWS {
        instances.retain(|instance| !matches!(state(instance), "success" | "skipped"));
        instances.truncate(MAX_ROWS);
    }
    let left_out = all - instances.len();
    (instances, left_out)
}

/// Follows a run until it ends, live; then prints it. A run that failed is a failure with exit code 1.
pub(crate) async fn watch(context: &Context, dag_id: &str, run_id: &str) -> Result<()> {
    let client = context.client()?;
    let path = api(&["dags", dag_id, "dagRuns", run_id]);
    let tasks = client.get(&api(&["dags", dag_id, "tasks"]), &[]).await?;
    let names: Vec<String> = tasks
        .get("tasks")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|task| task.get("task_id").and_then(Value::as_str))
        .map(str::to_owned)
        .collect();
    let mut view = LiveView::new(&names);
    while !follow(client, dag_id, run_id, &mut view).await? {}
    let run = client.get(&path, &[]).await?;
    view.clear();
    let failed = state(&run) == "failed";
    let instances = task_instances(client, dag_id, run_id).await?;
    let callbacks = failed_callbacks(client, dag_id, run_id).await?;
    let children = children(client, dag_id, run_id).await?;
    show(context.output(), run, instances, callbacks, &children);
    if failed {
        let paint = Paint::stderr();
        term::errln(&format!(
            "\n{} run {} of {} failed; read a log with `airtight logs {} '{}' TASK`",
            paint.red("✗"),
            escape::line(run_id),
            escape::line(dag_id),
            escape::line(dag_id),
            escape::line(run_id)
        ));
        run_remarks::paused(client, dag_id).await?;
        return Err(Failure::said(Exit::Failed));
    }
    Ok(())
}

/// Shows events until the run has ended. False where the stream ended before: then it is to be followed anew.
async fn follow(client: &Client, dag_id: &str, run_id: &str, view: &mut LiveView) -> Result<bool> {
    let path = api(&["dags", dag_id, "dagRuns", run_id, "events"]);
    let url = client.url(&path, &[]);
    let mut response = client
        .stream(Method::GET, &url, |request| request.header(ACCEPT, "text/event-stream"))
        .await?;
    // The stream is open: what changes from here on comes as events, what was before is read once.
    for instance in &task_instances(client, dag_id, run_id).await? {
        let line = TaskLine::of(instance);
        if !line.state.is_empty() {
            view.update(line);
        }
    }
    let mut stream = EventStream::default();
    let mut lines = Lines::default();
    while let Ok(Some(chunk)) = response.chunk().await {
        for event in stream.push(&chunk) {
            if event.get("event").and_then(Value::as_str) == Some("dag_run") && ended(&event) {
                return Ok(true);
            }
            if event.get("missed").is_some() {
                return Ok(false);
            }
            view.take_expanded(&event);
            if let Some(line) = lines.take(&event) {
                view.update(line);
            }
        }
    }
    // The server stops, or the connection broke: the next request tells which.
    let run = client.get(&api(&["dags", dag_id, "dagRuns", run_id]), &[]).await?;
    Ok(ended(&run))
}

fn ended(run: &Value) -> bool {
    matches!(state(run), "success" | "failed")
}

fn state(run: &Value) -> &str {
    run.get("state").and_then(Value::as_str).unwrap_or_default()
}
