//! The REST client of the command line: one connection, one token, errors as people need them.

mod credentials;
mod http;

pub use credentials::{Saved, Target, resolve_data_dir};
pub use http::{Client, Query};
