//! `airtight dags deploy` and `airtight dags check`.
use super::common::Context;
use crate::failure::Result;
#[derive(Debug, clap::Args)]
pub struct DeployArgs {}
#[derive(Debug, clap::Args)]
pub struct CheckArgs {}
pub async fn deploy(_: &Context, _: DeployArgs) -> Result<()> {
    Ok(())
}
pub async fn check(_: &Context, _: CheckArgs) -> Result<()> {
    Ok(())
}
