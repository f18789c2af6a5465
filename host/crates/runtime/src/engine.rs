//! The one wasmtime engine of a process.
//!
//! Everything that changes compiled code is set in [`base_config`], which the compiler child shares, so that what the child
//! writes is what the server loads.

use std::sync::Arc;

use ports::executor::CALLBACK_SLOTS;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use crate::capacity::{self, SHARE_MEMORIES, SHARE_TABLES};
use crate::epoch::EpochTicker;
use crate::limits::MachineMemory;
use crate::linker::TryLinker;

/// Core instances of one component. An interpreter such as Python brings dozens of them (one a shared library).
pub(crate) const MAX_CORE_INSTANCES: u32 = 200;
/// Linear memories of one component.
pub(crate) const MAX_MEMORIES: u32 = 16;
/// Tables of one component.
pub(crate) const MAX_TABLES: u32 = 64;
/// The stack of a guest. A recursion beyond it is a trap.
const WASM_STACK_BYTES: usize = 512 << 10;
/// The stack that guest and host calls of a try share.
const ASYNC_STACK_BYTES: usize = 1 << 20;
/// Table elements of one table in the pool.
const TABLE_ELEMENTS: usize = 1 << 20;

/// How the engine is set up.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// How many guests may be alive at a time; the executor's slots. None derives it from the machine.
    pub slots: Option<u32>,
    /// What all guests together may hold in memories and host buffers, in bytes. None is three quarters of the machine's memory.
    pub total_memory_bytes: Option<u64>,
    /// Reserve address space for all slots up front. Falls back to on-demand allocation where that is not to be had.
    pub pooling: bool,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            slots: None,
            total_memory_bytes: None,
            pooling: true,
        }
    }
}

/// How instances are allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// From a pool of address space that was reserved at start.
    Pooling,
    /// One by one, which is slower.
    OnDemand,
}

/// The engine could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot create the wasm engine")]
pub struct EngineError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl From<wasmtime::Error> for EngineError {
    fn from(error: wasmtime::Error) -> Self {
        Self(error.into())
    }
}

/// The engine, its epoch ticker and its linker. One a process.
pub struct TaskEngine {
    engine: Engine,
    linker: TryLinker,
    ticker: EpochTicker,
    machine: Arc<MachineMemory>,
    allocation: Allocation,
    slots: u32,
}

impl TaskEngine {
    /// Makes the engine.
    pub fn new(config: &EngineConfig) -> Result<Arc<Self>, EngineError> {
        let memory = machine_memory_bytes();
        let slots = config.slots.unwrap_or_else(|| default_slots(memory)).max(1);
        let total = config.total_memory_bytes.unwrap_or(memory / 4 * 3);
        let (engine, allocation) = make_engine(config.pooling, slots)?;
        let linker = crate::linker::task_linker(&engine)?;
        let ticker = EpochTicker::start(engine.clone());
        tracing::debug!(slots, ?allocation, memory_bytes = total, "wasm engine is ready");
        Ok(Arc::new(Self {
            engine,
            linker,
            ticker,
            machine: Arc::new(MachineMemory::new(total)),
            allocation,
            slots,
        }))
    }

    /// How instances are allocated.
    pub fn allocation(&self) -> Allocation {
        self.allocation
    }

    /// How many guests may be alive at a time.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    pub(crate) fn wasmtime(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn linker(&self) -> &TryLinker {
        &self.linker
    }

    pub(crate) fn ticker(&self) -> &EpochTicker {
        &self.ticker
    }

    pub(crate) fn machine(&self) -> &Arc<MachineMemory> {
        &self.machine
    }

    /// What compiled code must agree in to be loadable here, as text for a file name.
    pub(crate) fn compatibility(&self) -> String {
        compatibility(&self.engine)
    }
}

/// What compiled code must agree in to be loadable by this engine.
pub(crate) fn compatibility(engine: &Engine) -> String {
    use std::hash::{Hash as _, Hasher as _};

    // `DefaultHasher::new` has fixed keys; across Rust releases it may change, which costs one recompilation.
    let mut hasher = std::hash::DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// The settings that the server and the compiler child share.
pub(crate) fn base_config() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .concurrency_support(false)
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed)
        .memory_init_cow(true)
        .max_wasm_stack(WASM_STACK_BYTES)
        .async_stack_size(ASYNC_STACK_BYTES);
    config
}

/// The engine of the compiler child. It has a pool like the server's, so that what the pool cannot hold is refused there.
pub(crate) fn compiler_engine() -> wasmtime::Result<Engine> {
    let mut config = base_config();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(1)));
    Engine::new(&config).or_else(|_| on_demand_engine())
}

/// An engine that allocates instances one by one.
pub(crate) fn on_demand_engine() -> wasmtime::Result<Engine> {
    Engine::new(&base_config())
}

fn make_engine(pooling: bool, slots: u32) -> Result<(Engine, Allocation), EngineError> {
    if pooling {
        let mut config = base_config();
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(slots)));
        match Engine::new(&config) {
            Ok(engine) => return Ok((engine, Allocation::Pooling)),
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                slots,
                "no address space for a pool of {slots} wasm instances; falling back to on-demand allocation, which starts tasks slower"
            ),
        }
    }
    Ok((on_demand_engine()?, Allocation::OnDemand))
}

fn pool(slots: u32) -> PoolingAllocationConfig {
    // A try that ended still holds its place for the moment that its store takes to drop.
    let live = slots.saturating_add(CALLBACK_SLOTS).saturating_add(4);
    // Tasks and callbacks have each their own; see `capacity`.
    let large = capacity::large(slots).saturating_add(capacity::large(CALLBACK_SLOTS));
    let total = |live: u32, share: u32, large: u32, most: u32| {
        live.saturating_mul(share)
            .saturating_add(large.saturating_mul(most - share))
    };
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(live)
        .total_core_instances(live.saturating_mul(MAX_CORE_INSTANCES))
        .total_memories(total(live, SHARE_MEMORIES, large, MAX_MEMORIES))
        .total_tables(total(live, SHARE_TABLES, large, MAX_TABLES))
        .total_stacks(live)
        .max_core_instances_per_component(MAX_CORE_INSTANCES)
        .max_memories_per_component(MAX_MEMORIES)
        .max_tables_per_component(MAX_TABLES)
        .max_tables_per_module(16)
        .max_memories_per_module(4)
        .table_elements(TABLE_ELEMENTS)
        .max_component_instance_size(8 << 20)
        .max_core_instance_size(8 << 20)
        .max_unused_warm_slots(slots.min(64))
        .linear_memory_keep_resident(256 << 10)
        .table_keep_resident(16 << 10)
        .async_stack_keep_resident(64 << 10)
        .pagemap_scan(Enabled::Auto);
    pool
}

/// Enough to keep the cores busy while some guests wait for the host, and no more than memory carries.
fn default_slots(memory: u64) -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let by_cores = u32::try_from(cores).unwrap_or(u32::MAX).saturating_mul(4).max(32);
    let by_memory = u32::try_from(memory / (64 << 20)).unwrap_or(u32::MAX);
    by_cores.min(by_memory).clamp(2, 1024)
}

/// The machine's memory, or the container's where that is less.
fn machine_memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    let physical = info.totalram.saturating_mul(u64::from(info.mem_unit).max(1));
    std::fs::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok())
        .map_or(physical, |limit| limit.min(physical))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_follow_memory_and_cores() {
        assert_eq!(default_slots(0), 2);
        assert!(default_slots(64 << 30) >= 32);
    }

    #[test]
    fn server_and_compiler_child_agree_on_compiled_code() {
        let server = TaskEngine::new(&EngineConfig::default()).unwrap();
        assert_eq!(server.compatibility(), compatibility(&compiler_engine().unwrap()));
        assert_eq!(server.compatibility(), compatibility(&on_demand_engine().unwrap()));
    }
}
