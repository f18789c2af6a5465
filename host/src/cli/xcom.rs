//! `airtight xcom …`

use clap::{Args, Subcommand};
use model::template::{Segment, follow};
use serde_json::Value;

use super::common::{Context, api, instance, list, or_say_mapped};
use crate::failure::Result;
use crate::ui::output::{Output, Show};
use crate::ui::{escape, term};

/// Commands about XComs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the value that a task published
    Get(GetArgs),
    /// List what the tasks of a run published
    List {
        /// The DAG
        dag_id: String,
        /// The run
        run_id: String,
        /// Only this task, or of a mapped task one instance as `task[3]`
        task_id: Option<String>,
        /// Only instances of mapped tasks with this index
        #[arg(long, value_name = "N")]
        map_index: Option<u32>,
    },
}

/// Arguments of `xcom get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// The DAG
    dag_id: String,
    /// The run
    run_id: String,
    /// The task, or of a mapped task one instance as `task[3]`
    task_id: String,
    /// The key
    #[arg(long, default_value = "return_value")]
    key: String,
    /// The index of a mapped task instance
    #[arg(long)]
    map_index: Option<u32>,
}

pub(super) async fn run(context: &Context, command: Command) -> Result<()> {
    let client = context.client()?;
    match command {
        Command::Get(args) => {
            let GetArgs {
                dag_id,
                run_id,
                task_id,
                key,
                map_index,
            } = args;
            let (task_id, map_index) = instance(&task_id, map_index);
            let instances = api(&["dags", &dag_id, "dagRuns", &run_id, "taskInstances", &task_id]);
            let mut path = instances.clone();
            path.extend(["xcomEntries", key.as_str()]);
            let query = [
                ("map_index", map_index.map_or(-1, i64::from).to_string()),
                ("deserialize", "true".to_owned()),
            ];
            let answer = client.get_text(&path, &query).await;
            let answer = or_say_mapped(client, &instances, map_index, answer).await?;
            // The text, not a tree of it: numbers keep all their digits.
            let value = follow(&answer, &[Segment::Key("value".to_owned())]);
            match (context.output(), value) {
                (Output::Table, Some(value)) => match serde_json::from_str(value) {
                    // Text is printed as it is, so that a shell can use it.
                    Ok(Value::String(text)) => term::outln(&escape::block(&text)),
                    _ => Output::Json.json_text(value),
                },
                (output, _) => output.json_text(&answer),
            }
        }
        Command::List {
            dag_id,
            run_id,
            task_id,
            map_index,
        } => {
            let named = task_id.map(|task_id| instance(&task_id, map_index));
            let (task_id, map_index) = match named {
                Some((task_id, map_index)) => (Some(task_id), map_index),
                None => (None, map_index),
            };
            let query: Vec<_> = map_index
                .map(|index| ("map_index", index.to_string()))
                .into_iter()
                .collect();
            let task = task_id.as_deref().unwrap_or("~");
            let path = api(&[
                "dags",
                &dag_id,
                "dagRuns",
                &run_id,
                "taskInstances",
                task,
                "xcomEntries",
            ]);
            let (items, _) = list(client, &path, "xcom_entries", &query, 10_000).await?;
            context.output().list(
                &items,
                &[
                    ("task", "/task_id", Show::Text),
                    ("map index", "/map_index", Show::Text),
                    ("key", "/key", Show::Text),
                    ("published", "/timestamp", Show::Time),
                ],
            );
        }
    }
    Ok(())
}
