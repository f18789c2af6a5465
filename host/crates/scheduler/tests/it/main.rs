//! The scheduler on a store in memory (`databases`: on the real ones), with executors that tests control. Time is tokio's paused
//! clock: nothing really waits.

mod support;

mod basics;
mod between;
mod callbacks;
mod commits;
mod control;
mod dag_sensors;
mod databases;
mod existing;
mod failed_runs;
mod failures;
mod fencing;
mod heartbeats;
mod human;
mod inbox;
mod intents;
mod large;
mod limits;
mod losses;
mod mixed;
mod past;
mod payloads;
mod pools;
mod recovery;
mod remote;
mod setups;
mod shutdown;
mod simulation;
mod throughput;
mod watched_scheduler;
