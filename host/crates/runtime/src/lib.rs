//! Runs task components in wasmtime: the engine, limits, host interfaces, the compiler child and the local executor.
//!
//! It knows no SQL and no HTTP: what a task reads and writes goes through the traits of `ports`. How a try ended is
//! classified once, in [`outcome`].

pub mod cache;
pub mod code;
pub mod compile;
pub mod engine;
pub mod executor;

mod bindings;
mod bounded;
mod capacity;
mod ctx;
mod denied_http;
mod epoch;
mod gate;
mod interfaces;
mod limits;
mod linker;
mod meter;
mod outcome;
mod try_log;
mod wasi;

pub use code::CodeCache;
pub use compile::{CPU_TIME as COMPILE_CPU_TIME, ChildCompiler, CompilerConfig, INTERNAL_COMPILE, compile_child_main};
pub use engine::{Allocation, EngineConfig, TaskEngine};
pub use epoch::TICK as EPOCH_TICK;
pub use executor::{ExecutorConfig, LocalExecutor, Services};
