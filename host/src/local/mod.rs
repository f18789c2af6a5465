//! Running tasks and whole DAGs from local files in this process: no server, no database.

mod digest;
mod source;

use crate::failure::Result;
use crate::ui::output::Output;
pub use digest::digest_of_file;
#[derive(Debug, clap::Args)]
pub struct TestArgs {}
#[derive(Debug, clap::Args)]
pub struct TaskTestArgs {}
pub async fn dags_test(_: Output, _: TestArgs) -> Result<()> {
    Ok(())
}
pub async fn tasks_test(_: Output, _: TaskTestArgs) -> Result<()> {
    Ok(())
}
