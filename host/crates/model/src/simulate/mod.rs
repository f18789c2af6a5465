//! What a DAG does when things go wrong, before anything runs: the run state machine and the admission on a virtual clock, with
//! injected failures. No component is run; how long tasks take and what they answer is assumed.
//!
//! [`Simulator::run`] plays one [`Scenario`]; [`sweep`] plays the one in which nothing goes wrong, every choice of branches and people,
//! every failure of every task by itself, and any number of random ones, and says which failures nobody would notice. All of it
//! depends on nothing but the DAG, the assumptions and the seed.

mod assume;
mod hidden;
mod outcome;
mod rng;
mod scenario;
mod sweep;
#[cfg(test)]
mod tests;
mod world;

pub use crate::hidden::Hides;
pub use assume::Assumptions;
pub use hidden::Hidden;
pub use outcome::{Hang, Outcome, Stretch, TiOutcome};
pub use scenario::{Choice, Fault, Injection, Scenario, Which};
pub use sweep::{Played, Random, Report, Single, Sweep, sweep};
pub use world::Simulator;
