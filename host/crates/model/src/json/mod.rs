//! JSON text from guests and people: bounded validation in one pass, and the blob references inside it.
//!
//! A value is one RFC 8259 value: at most [`MAX_DEPTH`] deep, without duplicate keys, without numbers that no reader can
//! hold. A guest's text is never re-written: what it published is what its consumer reads, digit for digit. What people send
//! becomes a tree, see [`read_given`].

mod check;
mod given;
mod scan;
mod tree;

pub use check::{BLOB_KEY, BlobRef, JsonError, check, check_syntax, is_falsy};
pub use given::{GivenError, Step, ValuePath, read_given};
pub(crate) use scan::unescape;
pub use scan::{MAX_DEPTH, Sink, SyntaxError, scan};
pub use tree::tree_bytes;
