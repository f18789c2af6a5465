//! The REST client of the command line: one connection, one token, errors as people need them.

mod credentials;
mod http;

pub(crate) use credentials::{Saved, Target, cache_dir, resolve_data_dir};
pub(crate) use http::{Client, Query, error_answer};
