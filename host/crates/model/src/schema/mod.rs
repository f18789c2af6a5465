//! JSON Schemas: a validator under limits, and the check whether what one task publishes can be what another one takes.

mod compat;
mod counted;
mod patterns;
mod unrolled;
mod validator;

pub use compat::{Shape, Step};
pub use validator::{Finding, MAX_SCHEMA_BYTES, SchemaError, Validator};

#[cfg(test)]
mod hostile;
