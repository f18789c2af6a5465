//! Compiles and describes uploaded components in a child process, because compile-time exhaustion is not covered by
//! wasmtime's guarantees. The child is the same executable; its entry is [`compile_child_main`].

mod check;
mod child;
mod describe;
mod descriptor;
mod newer;
mod outline;
mod parent;
mod protocol;

pub use child::compile_child_main;
pub use parent::{CPU_TIME, ChildCompiler, CompilerConfig};
pub use protocol::INTERNAL_COMPILE;
