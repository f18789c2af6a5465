//! The run state machine: `advance` turns (state, event, now) into transitions. Pure, deterministic and total.
//!
//! A [`RunState`] holds indices, states and counters, never values. Cloning one is cheap, so that a tick can work on drafts.

mod event;
mod transition;

pub use event::{Event, Loss, TryEnd};
pub use transition::Transition;
