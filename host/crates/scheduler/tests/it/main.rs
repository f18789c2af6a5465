//! The scheduler on a store in memory, with executors that tests control. Time is tokio's paused clock: nothing really waits.

mod support;

mod basics;
mod commits;
mod control;
mod failures;
mod fencing;
mod payloads;
mod pools;
mod recovery;
mod shutdown;
mod simulation;
mod throughput;
