//! Content-addressed payloads in a local directory.
//!
//! A blob is written to a temporary name, hashed while it streams, synced, renamed to its digest, and the directory is
//! synced: only then does anybody learn its name. So a name that exists is a whole, durable blob.

mod reader;
mod store;
mod sweep;
mod writer;

pub use store::FileBlobStore;
pub use sweep::{SweepError, SweepReport, sweep};
