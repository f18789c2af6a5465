//! What may run at a time: decisions across runs. Pure, like the run state machine.
//!
//! [`admit`] chooses task instances out of the [`ReadyQueue`] as far as the [`Capacity`] allows: global parallelism, pools, task
//! instances per DAG and per task. The [`RunGate`] chooses queued runs: runs per DAG, paused DAGs.

mod admit;
mod queue;
mod runs;
mod slots;
#[cfg(test)]
mod tests;

pub use admit::{Admitted, admit};
pub use queue::{AGEING, ReadyQueue};
pub use runs::RunGate;
pub use slots::Capacity;
