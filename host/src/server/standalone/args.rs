//! Options of `airtight standalone`.

use std::time::Duration;

use clap::Args as ClapArgs;

use crate::server::ServerArgs;

/// Options of the server that schedules.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    pub server: ServerArgs,
    /// How many tasks may run at a time [default: by memory and cores]
    #[arg(long, value_name = "N")]
    pub parallelism: Option<u32>,
    /// How deep runs may trigger runs of other DAGs
    #[arg(long, value_name = "N", default_value_t = model::between::MAX_TRIGGER_DEPTH)]
    pub max_trigger_depth: u32,
    /// Task instances that one run may have
    #[arg(long, value_name = "N", default_value_t = model::run::DEFAULT_TASK_INSTANCES,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(model::run::MAX_TASK_INSTANCES)))]
    pub max_task_instances_per_run: u32,
    /// Task instances that all active runs may have together
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_task_instances: u32,
    /// How long running tasks may go on after SIGTERM before they are stopped and handed back
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub grace: Duration,
    /// How long a scheduler's lease on the database holds without being renewed
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = humantime::parse_duration)]
    pub lease: Duration,
    /// How often blobs that nothing refers to are looked for; those younger than an hour are spared
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    pub blob_sweep: Duration,
    /// After how long a component that another server has not finished compiling is compiled here
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = humantime::parse_duration, hide = true)]
    pub compile_patience: Duration,
}
