//! Write tasks for Airtight in Rust.
//!
//! A task is a plain function with an attribute. A crate with tasks builds to one WebAssembly component with ordinary cargo; the
//! component carries its dependencies inside and gets from the host what its DAG's manifest grants, nothing else.
//!
//! ```toml
//! [package]
//! name = "numbers"
//! version = "0.1.0"
//! edition = "2024"
//!
//! [lib]
//! crate-type = ["cdylib"]
//!
//! [dependencies]
//! airtight-sdk = { git = "…" }
//! ```
//!
//! ```
//! use airtight_sdk::prelude::*;
//!
//! #[data]
//! struct Numbers {
//!     values: Vec<f64>,
//! }
//!
//! /// Adds numbers up.
//! #[task]
//! fn sum(input: Numbers) -> Result<f64> {
//!     Ok(input.values.iter().sum())
//! }
//!
//! # assert_eq!(sum(Numbers { values: vec![1.0, 2.0] }).unwrap(), 3.0);
//! ```
//!
//! `cargo build --target wasm32-wasip2` makes `numbers.wasm`; there is nothing to register and no `main`.
//!
//! * **Input and output** are serde types with a JSON Schema. [`data`](macro@data) derives all of it; a crate that prefers the plain
//!   derives adds `serde` to its own dependencies and uses `#[derive(Serialize, Deserialize, JsonSchema)]`. Schemas come from
//!   the types and doc comments, and Airtight checks with them, at deploy, that tasks fit together.
//! * **Failing**: `?` on any `std::error::Error` is a failure that may be retried ([`Failure::from_boxed`] takes `anyhow::Error` and boxed
//!   errors); [`Failure`] says more: a fatal one, a code, details.
//! * **Other answers**: [`Outcome`] skips or reschedules, [`Branch`] chooses what runs next.
//! * **Large values** go into a [`Blob`], which is an ordinary value inside inputs and outputs.
//! * **The run**: [`context`] says which try this is; [`xcom`] reads and publishes values beside the return value; [`checkpoint`]
//!   keeps bytes over retries and crashes; [`progress`](mod@progress) and [`log`](mod@log) are for people. `println!` lands in the log, too.
//! * **Testing**: a task is a function, so `cargo test` on your own machine calls it. What it asks of the host, it asks of an
//!   in-memory host there: see the module `testing`, which exists on every target but WebAssembly.
//!
//! A task's code runs *at least once*, its result is committed *at most once*: after a crash or a lost worker the same try may run
//! again. Effects outside Airtight should bear that.

mod answer;
#[cfg(target_family = "wasm")]
mod bindings;
mod blob;
pub mod checkpoint;
pub mod context;
mod error;
mod failure;
mod host;
pub mod log;
pub mod prelude;
pub mod progress;
mod registry;
mod schema;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
pub mod xcom;

pub use airtight_sdk_macros::{Labels, data, task};
pub use answer::{Branch, Labels, Outcome, TaskOutput};
pub use blob::{Blob, BlobReader, BlobWriter};
pub use error::Error;
pub use failure::{Failure, FailureKind};
pub use {schemars, serde, serde_json};

/// What a task function returns: a value or a [`Failure`].
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// What the macros expand to. Not part of the interface.
#[doc(hidden)]
pub mod __private {
    pub use inventory;

    pub use crate::answer::{Answer, Fallible, answer};
    pub use crate::log::record;
    pub use crate::registry::{TaskEntry, parse_input};
    pub use crate::schema::{any_input, input_schema};
}
