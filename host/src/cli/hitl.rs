//! `airtight hitl …`: questions to people.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::json;

use super::common::{Context, api, conf_argument, list};
use crate::failure::Result;
use crate::ui::output::{Column, Show};

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
    /// The task
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
    ("body", "/body", Show::Text),
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
            let index = question.index();
            let answer = client.get(&question.path(&index), &[]).await?;
            context.output().record(&answer, FIELDS);
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
            let index = question.index();
            let answer = client
                .send_json(Method::PATCH, &question.path(&index), &[], &body)
                .await?;
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

impl Question {
    fn index(&self) -> String {
        self.map_index.map_or(-1, i64::from).to_string()
    }

    fn path<'a>(&'a self, index: &'a str) -> Vec<&'a str> {
        api(&[
            "dags",
            &self.dag_id,
            "dagRuns",
            &self.run_id,
            "taskInstances",
            &self.task_id,
            index,
            "hitlDetails",
        ])
    }
}
