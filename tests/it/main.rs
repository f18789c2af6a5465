//! End-to-end tests: the real binary, real components, real HTTP. Nothing is mocked; waiting is for signals of the server.

mod api_server;
mod between;
mod callbacks;
mod cli;
#[path = "../../host/crates/runtime/tests/it/wat.rs"]
#[expect(dead_code, reason = "the runtime's tests use the rest")]
mod component;
mod crash;
mod crash_api_server;
mod crash_mixed;
mod demo;
mod docs;
mod errors;
mod fencing;
mod guard;
mod hostile;
mod human;
mod mapped;
mod past;
mod python_client;
mod radio;
mod runs;
mod support;
