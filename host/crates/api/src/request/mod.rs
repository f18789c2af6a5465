//! Reading requests: path, query and body. Every problem is collected, so that a caller learns all of them at once.

mod accept;
mod body;
mod json;
mod path;
mod query;
pub(crate) mod unread;
mod value;

pub(crate) use accept::{Media, negotiate};
pub(crate) use body::{BodyError, content_type, paced, read_text};
pub(crate) use json::{JsonObject, text};
pub(crate) use path::PathArgs;
pub(crate) use query::{NumberRange, Patterns, Query};
