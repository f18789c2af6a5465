//! The messages and traits that cross crate borders. Whoever implements one and whoever calls it see only this crate;
//! the binary wires them together. No logic lives here.

pub mod between;
pub mod callback;
pub mod component;
pub mod control;
pub mod deploy;
pub mod executor;
pub mod inbox;
pub mod intent;
pub mod log;
pub mod payload;
pub mod query;
pub mod space;
pub mod store;
