//! End-to-end tests: the real binary, real components, real HTTP. Nothing is mocked; waiting is for signals of the server.

mod api_server;
mod author;
mod between;
mod budgets;
mod callbacks;
mod cli;
#[path = "../../host/crates/runtime/tests/it/wat.rs"]
#[expect(dead_code, reason = "the runtime's tests use the rest")]
mod component;
mod conditions;
mod crash;
mod crash_api_server;
mod crash_mixed;
mod demo;
mod docs;
mod engine_limits;
mod errors;
mod fencing;
mod guard;
mod harm;
mod hostile;
mod human;
mod large;
mod manifests;
mod mapped;
mod past;
mod python_client;
mod radio;
mod runs;
mod support;
mod teardowns;
mod waits;
