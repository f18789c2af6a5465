//! What may run at a time: decisions across runs. Pure, like the run state machine.
//!
//! [`admit`] chooses task instances out of the [`ReadyQueue`] as far as the [`Capacity`] allows: global parallelism, pools, task
//! instances per DAG and per task. Where the most urgent of a pool needs more slots than are free, what becomes free is kept for it.
//! The [`RunGate`] chooses queued runs: runs per DAG, paused DAGs.

mod admit;
#[cfg(test)]
mod kept_tests;
mod queue;
mod runs;
mod slots;
#[cfg(test)]
mod tests;
mod waits;

pub use admit::{Admitted, admit};
pub use queue::{AGEING, ReadyQueue};
pub use runs::RunGate;
pub use slots::{Capacity, Kept};
pub use waits::{KeptFor, PoolNow, slots, waits_for_pool, waits_for_run_slot};
