//! What the database promises to the other crates, on both databases: one body a behaviour.

mod lease;
mod support;
mod ticks;
