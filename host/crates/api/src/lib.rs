//! The REST API on axum: Airflow's `/api/v2` with the same names and shapes, and our own resources beside them.
//!
//! Handlers read a request, call one of the traits of `ports` and map the answer. No SQL, no scheduling and no wasm here:
//! the binary hands in the implementations as a [`State`].

mod auth;
mod error;
mod escape;
mod host_header;
mod openapi;
mod order;
mod page;
mod pattern;
mod request;
mod request_id;
mod routes;
mod serve;
mod shape;
mod state;

pub use auth::{Authenticator, local_token};
pub use error::{ApiError, Code};
pub use routes::{EVENTS_OF, router};
pub use serve::{ConnectionLimits, serve};
pub use state::{BodyLimits, Descriptors, EventsOf, State};

#[cfg(test)]
mod tests;
