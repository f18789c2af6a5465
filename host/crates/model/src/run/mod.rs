//! The run state machine: [`advance`] turns (state, event, now) into transitions. Pure, deterministic and total.
//!
//! A [`RunState`] holds indices, states and counters, never values. Cloning one is cheap, so that a tick can work on drafts.
//! Readiness is counted: the end of a task instance raises a counter at each task that follows, and only those are looked at.

mod advance;
mod along;
mod anew;
mod chunked;
mod evaluate;
mod event;
mod expand;
mod grow;
mod hidden;
mod later;
mod lengths;
mod loops;
mod mark;
mod past;
mod restore;
mod retry;
mod room;
mod scope;
mod state;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod ti;
mod transition;
mod tries;

pub use advance::{advance, advance_within};
pub use along::take_along;
pub use event::{Event, Loss, TryEnd};
pub use lengths::{ElementOf, Known, Mapped, is_many};
pub use past::LiveBefore;
pub use restore::{RunSnapshot, TiSnapshot};
pub use retry::retry_delay;
pub use room::{DEFAULT_TASK_INSTANCES, MAX_TASK_INSTANCES, TooMany, count_from_start};
pub use state::RunState;
pub use ti::{Facts, Ti, raised_memory_bytes};
pub use transition::Transition;
