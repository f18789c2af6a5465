//! What the database promises to the other crates, on both databases: one body a behaviour.

mod components;
mod lease;
mod lists;
mod lost_commit;
mod open;
mod pools;
mod support;
mod ticks;
mod xcoms;
