//! What the database promises to the other crates, on both databases: one body a behaviour.

mod between;
mod callbacks;
mod checkpoints;
mod components;
mod hitl;
mod inbox;
mod intents;
mod lease;
mod lists;
mod lost_commit;
mod open;
mod past;
mod pools;
mod support;
mod ticks;
mod xcoms;
