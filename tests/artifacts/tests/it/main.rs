//! The components that this package builds, seen from outside.

mod component;
mod contract;
mod manifest;
