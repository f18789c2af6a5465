//! End-to-end tests: the real binary, real components, real HTTP. Nothing is mocked; waiting is for signals of the server.

mod between;
mod cli;
mod crash;
mod demo;
mod errors;
mod fencing;
mod hostile;
mod human;
mod mapped;
mod python_client;
mod radio;
mod runs;
mod support;
