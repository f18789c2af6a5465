//! `airtight hitl …`: questions to people.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::common::{Context, api, conf_argument, instance, list, or_say_mapped};
use crate::failure::Result;
use crate::ui::output::{Column, Output, Show};
use crate::ui::{escape, term};

/// Commands about questions to people.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List what waits for an answer, the oldest question first
    List {
        /// Only of this DAG
        dag_id: Option<String>,
        /// Only of this run
        run_id: Option<String>,
        /// Also what was answered
        #[arg(long)]
        all: bool,
        /// At most this many
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show what a task instance asks, and the answer
    Show(Question),
    /// Answer a task instance that waits for it
    Respond(RespondArgs),
}

/// Names a question.
#[derive(Debug, Args)]
pub(crate) struct Question {
    /// The DAG
    dag_id: String,
    /// The run
    run_id: String,
    /// The task, or of a mapped task one instance as `task[3]`
    task_id: String,
    /// The index of a mapped task instance
    #[arg(long)]
    map_index: Option<u32>,
}

/// Arguments of `hitl respond`.
#[derive(Debug, Args)]
pub(crate) struct RespondArgs {
    #[command(flatten)]
    question: Question,
    /// The options that are chosen
    #[arg(required = true)]
    options: Vec<String>,
    /// One value to enter: `name=value`, where the value is JSON or text; may be repeated
    #[arg(long, short, value_name = "NAME=VALUE")]
    param: Vec<String>,
}

const COLUMNS: &[Column] = &[
    ("dag", "/task_instance/dag_id", Show::Text),
    ("run", "/task_instance/dag_run_id", Show::Text),
    ("task", "/task_instance/task_id", Show::Text),
    ("map index", "/task_instance/map_index", Show::Text),
    ("asked", "/created_at", Show::Time),
    ("subject", "/subject", Show::Line),
    ("answered by", "/responded_by_user/name", Show::Text),
];

const FIELDS: &[Column] = &[
    ("subject", "/subject", Show::Line),
    ("state", "/task_instance/state", Show::State),
    ("options", "/options", Show::Text),
    ("defaults", "/defaults", Show::Text),
    ("several", "/multiple", Show::Text),
    ("asked", "/created_at", Show::Time),
    ("answered", "/responded_at", Show::Time),
    ("answered by", "/responded_by_user/name", Show::Text),
    ("chosen", "/chosen_options", Show::Text),
    ("entered", "/params_input", Show::Text),
];

pub(super) async fn run(context: &Context, command: Command) -> Result<()> {
    let client = context.client()?;
    match command {
        Command::List {
            dag_id,
            run_id,
            all,
            limit,
        } => {
            let any = |id: &Option<String>| id.clone().unwrap_or_else(|| "~".to_owned());
            let (dag_id, run_id) = (any(&dag_id), any(&run_id));
            let path = api(&["dags", &dag_id, "dagRuns", &run_id, "hitlDetails"]);
            let mut query = Vec::new();
            if !all {
                query.push(("response_received", "false".to_owned()));
                query.push(("state", "awaiting_input".to_owned()));
            }
            let (items, _) = list(client, &path, "hitl_details", &query, limit).await?;
            context.output().list(&items, COLUMNS);
        }
        Command::Show(question) => {
            let (task_id, map_index) = instance(&question.task_id, question.map_index);
            let index = text_of(map_index);
            let answer = client.get(&question.path(&task_id, &index), &[]).await;
            let answer = or_say_mapped(client, &question.instances(&task_id), map_index, answer).await?;
            context.output().record(&answer, FIELDS);
            // Markdown has lines.
            let body = answer
                .get("body")
                .and_then(Value::as_str)
                .filter(|body| !body.is_empty());
            if let (Output::Table, Some(body)) = (context.output(), body) {
                term::outln(&format!("\n{}", escape::block(body)));
            }
        }
        Command::Respond(args) => {
            let RespondArgs {
                question,
                options,
                param,
            } = args;
            let body = json!({
                "chosen_options": options,
                "params_input": conf_argument(None, &param)?,
            });
            let (task_id, map_index) = instance(&question.task_id, question.map_index);
            let index = text_of(map_index);
            let path = question.path(&task_id, &index);
            let answer = client.send_json(Method::PATCH, &path, &[], &body).await;
            let answer = or_say_mapped(client, &question.instances(&task_id), map_index, answer).await?;
            context.output().record(
                &answer,
                &[
                    ("chosen", "/chosen_options", Show::Text),
                    ("entered", "/params_input", Show::Text),
                    ("answered by", "/responded_by/name", Show::Text),
                    ("answered", "/responded_at", Show::Time),
                ],
            );
        }
    }
    Ok(())
}

fn text_of(map_index: Option<u32>) -> String {
    map_index.map_or(-1, i64::from).to_string()
}

impl Question {
    fn instances<'a>(&'a self, task_id: &'a str) -> Vec<&'a str> {
        api(&["dags", &self.dag_id, "dagRuns", &self.run_id, "taskInstances", task_id])
    }

    fn path<'a>(&'a self, task_id: &'a str, index: &'a str) -> Vec<&'a str> {
        let mut path = self.instances(task_id);
        path.extend([index, "hitlDetails"]);
        path
    }
}
