//! JSON text from guests: bounded validation in one pass, and the blob references inside it.
//!
//! A value is one RFC 8259 value: at most [`MAX_DEPTH`] deep, without duplicate keys, without numbers that no reader can
//! hold. The text is never re-written: what a guest published is what its consumer reads, digit for digit.

mod check;
mod scan;

pub use check::{BLOB_KEY, BlobRef, JsonError, check, check_syntax, is_falsy};
pub(crate) use scan::unescape;
pub use scan::{MAX_DEPTH, Sink, SyntaxError, scan};
