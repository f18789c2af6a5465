//! `airtight notifications`: what callbacks tell people, once or as it comes.

use std::collections::HashSet;
use std::time::Duration;

use clap::Args as ClapArgs;
use reqwest::Method;
use reqwest::header::ACCEPT;
use serde_json::Value;

use super::common::{Context, api, list};
use crate::client::Client;
use crate::failure::Result;
use crate::ui::events::EventStream;
use crate::ui::output::{Column, Output, Show};
use crate::ui::term::{self, Paint};
use crate::ui::{escape, format};

/// How many of the newest are looked at when something has come.
const RECENT: usize = 500;
/// The wait before a stream that ended is opened again.
const RECONNECT: Duration = Duration::from_secs(1);

/// Arguments of `notifications`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Only of this DAG
    dag_id: Option<String>,
    /// Only of this run
    run_id: Option<String>,
    /// Only of this level: info, warning or error; may be repeated
    #[arg(long)]
    level: Vec<String>,
    /// At most this many
    #[arg(long, default_value_t = 25)]
    limit: usize,
    /// Go on and print what comes
    #[arg(long, short)]
    follow: bool,
}

const COLUMNS: &[Column] = &[
    ("id", "/notification_id", Show::Text),
    ("when", "/created_at", Show::Time),
    ("level", "/level", Show::Text),
    ("dag", "/dag_id", Show::Text),
    ("run", "/dag_run_id", Show::Text),
    ("task", "/task_id", Show::Text),
    ("text", "/text", Show::Line),
];

pub(super) async fn run(context: &Context, args: Args) -> Result<()> {
    let client = context.client()?;
    let mut query: Vec<(&str, String)> = args.level.into_iter().map(|level| ("level", level)).collect();
    query.extend(args.dag_id.clone().map(|dag_id| ("dag_id", dag_id)));
    query.extend(args.run_id.clone().map(|run_id| ("dag_run_id", run_id)));
    let path = api(&["notifications"]);
    if !args.follow {
        let (items, _) = list(client, &path, "notifications", &query, args.limit).await?;
        context.output().list(&items, COLUMNS);
        return Ok(());
    }
    let mut seen = HashSet::new();
    let mut first = true;
    loop {
        let events = api(&["events"]);
        let filter: Vec<_> = args
            .dag_id
            .clone()
            .map(|dag_id| ("dag_id", dag_id))
            .into_iter()
            .collect();
        let url = client.url(&events, &filter);
        let mut response = client
            .stream(Method::GET, &url, |request| request.header(ACCEPT, "text/event-stream"))
            .await?;
        // The stream is open: what comes from here on is told, what was before is read now.
        let limit = if first { args.limit } else { RECENT };
        print_new(context.output(), client, &query, limit, &mut seen).await?;
        first = false;
        let mut stream = EventStream::default();
        while let Ok(Some(chunk)) = response.chunk().await {
            let news = stream.push(&chunk).iter().any(is_news);
            if news {
                print_new(context.output(), client, &query, RECENT, &mut seen).await?;
            }
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

/// Whether a notification has come, or events were missed.
fn is_news(event: &Value) -> bool {
    let text = |key: &str| event.get(key).and_then(Value::as_str);
    event.get("missed").is_some() || (text("kind") == Some("notification") && text("state") == Some("success"))
}

/// Prints those that were not printed before, oldest first.
async fn print_new(
    output: Output,
    client: &Client,
    query: &[(&str, String)],
    limit: usize,
    seen: &mut HashSet<i64>,
) -> Result<()> {
    let path = api(&["notifications"]);
    let (items, _) = list(client, &path, "notifications", query, limit).await?;
    let oldest = seen.iter().min().copied();
    for item in items.iter().rev() {
        let Some(id) = item.get("notification_id").and_then(Value::as_i64) else {
            continue;
        };
        // What is older than all that was ever printed was left out on purpose.
        if oldest.is_none_or(|oldest| id > oldest) && seen.insert(id) {
            term::outln(&line(output, item));
        }
    }
    Ok(())
}

fn line(output: Output, item: &Value) -> String {
    if output != Output::Table {
        return escape::json(&item.to_string()).into_owned();
    }
    let text = |key: &str| item.get(key).and_then(Value::as_str).unwrap_or_default();
    let paint = Paint::stdout();
    let level = match text("level") {
        "error" => paint.red("error"),
        "warning" => paint.yellow("warning"),
        level => level.to_owned(),
    };
    let task = match text("task_id") {
        "" => String::new(),
        task => format!(" {}", escape::line(task)),
    };
    format!(
        "{} {level} {} {}{task}: {}",
        paint.dim(&format::time(text("created_at"))),
        escape::line(text("dag_id")),
        escape::line(text("dag_run_id")),
        escape::line(text("text"))
    )
}
