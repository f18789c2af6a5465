//! The manifest: YAML text to a checked, compiled DAG version.
//!
//! The text is read into a tree that knows its places ([`read`](read()), never fails), the tree is checked as a whole, and
//! [`compile`](compile()) checks it against its components. One pass reports every error with its line and column.

mod between;
mod callback;
mod canonical;
mod compile;
mod component;
mod conf;
mod declared;
mod diagnostic;
mod ends;
mod field;
mod graph;
mod group;
mod human;
mod input;
mod json_schema;
mod locate;
mod param;
mod pool;
mod quantity;
mod read;
mod repeat;
mod repeats;
mod retry;
mod section;
mod sensor;
pub(crate) mod suggest;
mod tree;
mod when;

pub use compile::{Checked, compile, compile_on};
pub use component::{
    ComponentRef, Components, DESCRIBE_SCHEMA, Descriptor, InvalidComponentRef, ResolvedComponent, TaskDescriptor,
    Unresolved,
};
pub use conf::Undeclared;
pub use declared::Manifest;
pub use diagnostic::{Diagnostic, Pos, Severity};
pub use graph::MAX_EDGES;
pub use json_schema::json_schema;
pub use pool::Pools;
pub use read::{MAX_TASKS, parse, read};
pub use section::Spanned;
pub use tree::{MAX_MANIFEST_BYTES, MAX_MANIFEST_DEPTH, MAX_MANIFEST_NODES, MAX_MANIFEST_TEXT};

#[cfg(test)]
mod scale;
#[cfg(test)]
mod tests;
