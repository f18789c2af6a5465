//! `airtight logs`: the log of one try, once or as it grows.

use clap::Args as ClapArgs;
use reqwest::Method;
use reqwest::header::ACCEPT;
use serde_json::Value;

use super::common::{Context, api, instance, or_say_mapped};
use crate::failure::{Exit, OrFail, Result};
use crate::ui::output::Output;
use crate::ui::run_view::log_line;
use crate::ui::term::{self, Paint};

/// Arguments of `logs`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The DAG
    dag_id: String,
    /// The run
    run_id: String,
    /// The task, or of a mapped task one instance as `task[3]`
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

pub(super) async fn run(context: &Context, args: Args) -> Result<()> {
    let client = context.client()?;
    let (task_id, index) = instance(&args.task_id, args.map_index);
    let instance = api(&["dags", &args.dag_id, "dagRuns", &args.run_id, "taskInstances", &task_id]);
    let map_index = index.map(|index| index.to_string());
    let wanted = match args.try_number {
        Some(wanted) => wanted.to_string(),
        None => {
            let mut path = instance.clone();
            path.extend(map_index.as_deref());
            let ti = client.get(&path, &[]).await;
            let ti = or_say_mapped(client, &instance, index, ti).await?;
            ti.get("try_number")
                .and_then(Value::as_u64)
                .unwrap_or(0)
                .max(1)
                .to_string()
        }
    };
    let mut path = instance;
    path.extend(["logs", &wanted]);
    let mut query = vec![("map_index", map_index.unwrap_or_else(|| "-1".to_owned()))];
    if args.follow {
        query.push(("follow", "true".to_owned()));
    }
    stream(context, &path, &query).await
}

/// Prints a log, as it is or as it grows.
pub(super) async fn stream(context: &Context, path: &[&str], query: &[(&str, String)]) -> Result<()> {
    let client = context.client()?;
    let url = client.url(path, query);
    let mut response = client
        .stream(Method::GET, &url, |request| {
            request.header(ACCEPT, "application/x-ndjson")
        })
        .await?;
    let mut lines = Lines::default();
    loop {
        let chunk = response.chunk().await.or_fail(Exit::Unreachable, || {
            "the connection ended before the log did".to_owned()
        })?;
        let Some(chunk) = chunk else { break };
        lines.push(&chunk, |line| print(context.output(), line));
    }
    lines.end(|line| print(context.output(), line));
    Ok(())
}

/// Puts lines of JSON together again that arrive in pieces.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    fn push(&mut self, chunk: &[u8], mut take: impl FnMut(&Value)) {
        for byte in chunk {
            if *byte == b'\n' {
                self.end(&mut take);
            } else {
                self.rest.push(*byte);
            }
        }
    }

    fn end(&mut self, mut take: impl FnMut(&Value)) {
        if let Ok(line) = serde_json::from_slice(&self.rest) {
            take(&line);
        }
        self.rest.clear();
    }
}

fn print(output: Output, line: &Value) {
    if output == Output::Table {
        term::outln(&log_line(line, Paint::stdout()));
    } else {
        term::outln(&crate::ui::escape::json(&line.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_survive_being_cut_anywhere() {
        let text = "{\"event\":\"ä\"}\n{\"event\":\"b\"}\n\n{\"event\":\"c\"}".as_bytes();
        for cut in 0..text.len() {
            let mut seen = Vec::new();
            let mut lines = Lines::default();
            lines.push(&text[..cut], |line| seen.push(line.clone()));
            lines.push(&text[cut..], |line| seen.push(line.clone()));
            lines.end(|line| seen.push(line.clone()));
            assert_eq!(
                seen,
                [json!({"event": "ä"}), json!({"event": "b"}), json!({"event": "c"})],
                "{cut}"
            );
        }
    }
}
