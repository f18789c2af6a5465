//! `airtight pools …`

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::common::{Context, api, confirm, list};
use crate::failure::Result;
use crate::ui::escape;
use crate::ui::output::{Column, Show};
use crate::ui::term;

/// Commands about pools.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the pools and how they are used
    List {
        /// At most this many
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show one pool
    Get {
        /// Its name
        pool: String,
    },
    /// Make a pool, or change it
    Set(SetArgs),
    /// Delete a pool that no DAG uses
    Delete {
        /// Its name
        pool: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Arguments of `pools set`.
#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// Its name
    pool: String,
    /// How many slots it has; -1 is without bound
    #[arg(allow_negative_numbers = true)]
    slots: i32,
    /// What it is for; without it, a description that is there stays
    description: Option<String>,
    /// Count deferred task instances as occupying slots
    #[arg(long)]
    include_deferred: bool,
}

const COLUMNS: &[Column] = &[
    ("pool", "/name", Show::Text),
    ("slots", "/slots", Show::Text),
    ("running", "/running_slots", Show::Text),
    ("queued", "/queued_slots", Show::Text),
    ("scheduled", "/scheduled_slots", Show::Text),
    ("open", "/open_slots", Show::Text),
    ("description", "/description", Show::Line),
];

const FIELDS: &[Column] = &[
    ("pool", "/name", Show::Text),
    ("slots", "/slots", Show::Text),
    ("occupied", "/occupied_slots", Show::Text),
    ("running", "/running_slots", Show::Text),
    ("queued", "/queued_slots", Show::Text),
    ("scheduled", "/scheduled_slots", Show::Text),
    ("deferred", "/deferred_slots", Show::Text),
    ("open", "/open_slots", Show::Text),
    ("include deferred", "/include_deferred", Show::Text),
    ("description", "/description", Show::Text),
];

pub(super) async fn run(context: &Context, command: Command) -> Result<()> {
    let client = context.client()?;
    match command {
        Command::List { limit } => {
            let order = [("order_by", "name".to_owned())];
            let (pools, _) = list(client, &api(&["pools"]), "pools", &order, limit).await?;
            context.output().list(&pools, COLUMNS);
        }
        Command::Get { pool } => {
            let answer = client.get(&api(&["pools", &pool]), &[]).await?;
            context.output().record(&answer, FIELDS);
        }
        Command::Set(args) => {
            let answer = set(context, &args).await?;
            context.output().record(&answer, FIELDS);
        }
        Command::Delete { pool, yes } => {
            let shown = escape::line(&pool);
            confirm(yes, &format!("delete pool {shown}?"))?;
            client.delete(&api(&["pools", &pool])).await?;
            term::errln(&format!("deleted pool {shown}"));
        }
    }
    Ok(())
}

/// Airflow's `pools set` makes the pool if need be.
async fn set(context: &Context, args: &SetArgs) -> Result<Value> {
    let client = context.client()?;
    let mut body = json!({ "slots": args.slots, "include_deferred": args.include_deferred });
    if let Some(description) = &args.description {
        body["description"] = description.as_str().into();
    }
    let path = api(&["pools", &args.pool]);
    if client.find(&path, &[]).await?.is_some() {
        return client.send_json(Method::PATCH, &path, &[], &body).await;
    }
    body["name"] = args.pool.as_str().into();
    client.send_json(Method::POST, &api(&["pools"]), &[], &body).await
}
