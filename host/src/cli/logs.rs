//! `airtight logs`: the log of one try, once or as it grows.

use std::time::Duration;

use clap::Args as ClapArgs;
use serde_json::Value;

use super::common::{Context, api};
use crate::failure::Result;
use crate::ui::output::Output;
use crate::ui::run_view::log_line;
use crate::ui::term::{self, Paint};

/// Arguments of `logs`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The DAG
    dag_id: String,
    /// The run
    run_id: String,
    /// The task
    task_id: String,
    /// The try [default: the latest]
    #[arg(long = "try", value_name = "N")]
    try_number: Option<u32>,
    /// The index of a mapped task instance
    #[arg(long)]
    map_index: Option<u32>,
    /// Go on until the try has ended
    #[arg(long, short)]
    follow: bool,
}

const POLL: Duration = Duration::from_millis(300);

pub(super) async fn run(context: &Context, args: Args) -> Result<()> {
    let client = context.client()?;
    let instance = api(&[
        "dags",
        &args.dag_id,
        "dagRuns",
        &args.run_id,
        "taskInstances",
        &args.task_id,
    ]);
    let map_index = args.map_index.map_or(-1, i64::from);
    let mut token: Option<String> = None;
    loop {
        // The state before the log: what was written before the state was final is then in this part.
        let index = map_index.to_string();
        let mut state_path = instance.clone();
        if map_index >= 0 {
            state_path.push(&index);
        }
        let ti = client.get(&state_path, &[]).await?;
        let current = ti.get("try_number").and_then(Value::as_u64).unwrap_or(0);
        let wanted = args.try_number.map_or(current, u64::from).max(1);
        let state = ti.get("state").and_then(Value::as_str);
        let ended =
            wanted < current || !matches!(state, Some("running" | "queued" | "restarting" | "scheduled") | None);
        let wanted = wanted.to_string();
        let mut path = instance.clone();
        path.extend(["logs", &wanted]);
        loop {
            let mut query = vec![("map_index", map_index.to_string())];
            if let Some(token) = &token {
                query.push(("token", token.clone()));
            }
            let part = client.get(&path, &query).await?;
            let lines = part.get("content").and_then(Value::as_array);
            let empty = lines.is_none_or(Vec::is_empty);
            for line in lines.into_iter().flatten() {
                print(context.output(), line);
            }
            let next = part
                .get("continuation_token")
                .and_then(Value::as_str)
                .map(str::to_owned);
            let same = next == token;
            token = next.or(token);
            if empty || same || part.get("continuation_token").is_none_or(Value::is_null) {
                break;
            }
        }
        if ended || !args.follow {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}

fn print(output: Output, line: &Value) {
    if output == Output::Table {
        term::outln(&log_line(line, Paint::stdout()));
    } else {
        term::outln(&crate::ui::escape::json(&line.to_string()));
    }
}
