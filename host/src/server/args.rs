//! Options that every kind of server takes.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args as ClapArgs;

/// What every server needs to know.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct ServerArgs {
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
    /// The largest component that may be uploaded, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    pub max_component_mib: u64,
    /// How many components are compiled at a time
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub compile_slots: usize,
    /// CPU time that compiling one component may take
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = humantime::parse_duration)]
    pub compile_cpu_time: Duration,
    /// Log as JSON, one object a line
    #[arg(long)]
    pub log_json: bool,
}
