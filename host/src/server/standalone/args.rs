//! Options of `airtight standalone`.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args as ClapArgs;

/// Options of the server.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Args {
    /// Where to listen
    #[arg(
        long,
        value_name = "ADDR:PORT",
        default_value = "127.0.0.1:8080",
        env = "AIRTIGHT_LISTEN",
        hide_env_values = true
    )]
    pub listen: SocketAddr,
    /// The metadata database: `sqlite:PATH` or `postgres://…` [default: airtight.db in the data directory]
    #[arg(long, value_name = "URL", env = "AIRTIGHT_DATABASE", hide_env_values = true)]
    pub database: Option<String>,
    /// Listen beyond this machine without TLS: passwords and tokens then cross the network readable
    #[arg(long)]
    pub insecure_http: bool,
    /// How many tasks may run at a time [default: by memory and cores]
    #[arg(long, value_name = "N")]
    pub parallelism: Option<u32>,

    /// How deep runs may trigger runs of other DAGs
    #[arg(long, value_name = "N", default_value_t = model::between::MAX_TRIGGER_DEPTH)]
    pub max_trigger_depth: u32,
    /// How long running tasks may go on after SIGTERM before they are stopped and handed back
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub grace: Duration,
    /// How long a scheduler's lease on the database holds without being renewed
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = humantime::parse_duration)]
    pub lease: Duration,
    /// The largest component that may be uploaded, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    pub max_component_mib: u64,
    /// How many components are compiled at a time
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub compile_slots: usize,
    /// How often blobs that nothing refers to are looked for; those younger than an hour are spared
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    pub blob_sweep: Duration,
    /// Log as JSON, one object a line
    #[arg(long)]
    pub log_json: bool,
}
