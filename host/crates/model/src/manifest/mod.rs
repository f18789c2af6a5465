//! The manifest: YAML text to a checked, compiled DAG version. One pass reports every error with its line and column.

mod component;
mod diagnostic;

pub use component::{
    ComponentRef, Components, Descriptor, InvalidComponentRef, ResolvedComponent, TaskDescriptor, Unresolved,
};
pub use diagnostic::{Diagnostic, Severity};
