//! The component catalog: takes uploads, has them compiled in the background, answers what is known of them, and turns
//! manifests into DAG versions whose components are all known and ready.
//!
//! It owns no storage of its own: rows live behind `ports::store::ComponentStore`, the bytes in the blob store under their
//! digest, the compiled code with the compiler. It knows no SQL, no wasmtime and no HTTP.

mod abandoned;
mod compile;
mod components;
mod config;
mod deployer;
mod header;
mod inner;
mod reference;

pub use compile::CompileService;
pub use config::Config;
pub use inner::{Catalog, Parts, WasmFiles};

#[cfg(test)]
mod tests;
