//! Options of `airtight api-server`.

use std::time::Duration;

use clap::Args as ClapArgs;

use crate::server::ServerArgs;

/// Options of a server that does not schedule.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    pub server: ServerArgs,
    /// How long a request waits for a scheduler to be there
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration, hide = true)]
    pub scheduler_patience: Duration,
    /// How long a request that is stored waits for the scheduler's answer
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration, hide = true)]
    pub answer_patience: Duration,
}
