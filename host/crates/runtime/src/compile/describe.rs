//! Asks a component to describe itself: no grants, frozen clock, fixed seed, 64 MiB, 5 s, 1 MiB of answer; every import of
//! ours is a trap.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use model::Limits;
use ports::component::{EngineNeeds, Refusal};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, ResourceTable, ResourceType};
use wasmtime::{Engine, Store, Trap};
use wasmtime_wasi::random::Deterministic;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxView, WasiView};

use super::check::PACKAGE;
use super::protocol::{self, Answer, refusal};
use crate::capacity;
use crate::engine::{MAX_MEMORIES, MAX_TABLES};
use crate::limits::{Account, MachineMemory, TryLimiter};
use crate::outcome::bytes;

/// What a component may hold while it describes itself.
pub(super) const MEMORY_BYTES: u64 = 64 << 20;
const TIME: Duration = Duration::from_secs(5);
const GRACE: Duration = Duration::from_secs(1);
const MAX_ANSWER_BYTES: usize = 1 << 20;
/// Every component sees the same "random" numbers.
const SEED: &[u8] = b"airtight";

struct State {
    wasi: WasiCtx,
    table: ResourceTable,
    limiter: TryLimiter,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

/// A clock that stands still. A guest that waits for it to move runs into the time limit.
struct Frozen;

impl HostWallClock for Frozen {
    fn resolution(&self) -> Duration {
        Duration::from_micros(1)
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

impl HostMonotonicClock for Frozen {
    fn resolution(&self) -> u64 {
        1000
    }

    fn now(&self) -> u64 {
        0
    }
}

/// What a component says of itself, and what one instance of it takes.
pub(super) struct Described {
    /// What `describe` answers.
    pub(super) text: String,
    /// But for the code.
    pub(super) needs: EngineNeeds,
}

/// Instantiates the component and asks it.
pub(super) fn describe(engine: &Engine, component: &Component) -> Result<Described, Refusal> {
    let (done, watch) = mpsc::channel::<()>();
    let ticker = engine.clone();
    let watchdog = std::thread::spawn(move || {
        let still_runs = |time| watch.recv_timeout(time) == Err(mpsc::RecvTimeoutError::Timeout);
        if still_runs(TIME) {
            ticker.increment_epoch();
            // A guest that waits in the host does not see the epoch; this process has nothing else to do.
            if still_runs(GRACE) && protocol::send(&Answer::Refused(too_slow())).is_ok() {
                std::process::exit(0);
            }
        }
    });
    let answer = call(engine, component);
    drop(done);
    // It only waited.
    let _ = watchdog.join();
    let described = answer?;
    if described.text.len() > MAX_ANSWER_BYTES {
        return Err(refusal(
            "component_describe_failed",
            format!("`describe` answered more than {}", bytes(MAX_ANSWER_BYTES as u64)),
        ));
    }
    Ok(described)
}

/// What the pool has given to the one instance of this process. Without a pool: what the component declares, and the most core instances.
fn needs(engine: &Engine, component: &Component, initial_bytes: u64) -> EngineNeeds {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    if let Some(pool) = engine.pooling_allocator_metrics() {
        return EngineNeeds {
            core_instances: u32::try_from(pool.core_instances()).unwrap_or(u32::MAX),
            memories: count(pool.memories()),
            tables: count(pool.tables()),
            initial_bytes,
            code_bytes: 0,
        };
    }
    let declared = component.resources_required();
    EngineNeeds {
        memories: declared.as_ref().map_or(MAX_MEMORIES, |needs| needs.num_memories),
        tables: declared.as_ref().map_or(MAX_TABLES, |needs| needs.num_tables),
        initial_bytes,
        ..capacity::most()
    }
}

fn call(engine: &Engine, component: &Component) -> Result<Described, Refusal> {
    let mut linker: Linker<State> = Linker::new(engine);
    let machine = |error: wasmtime::Error| refusal("component_describe_failed", format!("{error:#}"));
    wasmtime_wasi::p2::add_to_linker_sync(&mut linker).map_err(machine)?;
    trap_on_ours(&mut linker, engine, component).map_err(machine)?;
    crate::denied_http::link(&mut linker, component, |_: &mut State, _| {}).map_err(machine)?;

    let account = Arc::new(Account::new(Arc::new(MachineMemory::new(u64::MAX)), MEMORY_BYTES));
    let state = State {
        wasi: WasiCtx::builder()
            .allow_tcp(false)
            .allow_udp(false)
            .allow_blocking_current_thread(true)
            .wall_clock(Frozen)
            .monotonic_clock(Frozen)
            .secure_random(Deterministic::new(SEED.to_vec()))
            .insecure_random(Deterministic::new(SEED.to_vec()))
            .insecure_random_seed(0)
            .build(),
        table: ResourceTable::new(),
        limiter: TryLimiter::new(Arc::clone(&account), &Limits::default()),
    };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.limiter);
    store.set_epoch_deadline(1);
    store.set_hostcall_fuel(MAX_ANSWER_BYTES * 4);
    let failed = |error: wasmtime::Error| refusal("component_describe_failed", why(&error, &account));

    let instance = linker.instantiate(&mut store, component).map_err(failed)?;
    let needs = needs(engine, component, account.used());
    let function = instance
        .get_export_index(&mut store, None, "airtight:task/guest@0.1.0")
        .and_then(|guest| instance.get_export_index(&mut store, Some(&guest), "describe"))
        .ok_or_else(|| refusal("component_world_mismatch", "the component does not export `describe`"))?;
    let function = instance
        .get_typed_func::<(), (String,)>(&mut store, function)
        .map_err(machine)?;
    let (text,) = function.call(&mut store, ()).map_err(failed)?;
    Ok(Described { text, needs })
}

/// Defines what the component imports of our package: functions that trap, and resources that nobody can make.
///
/// Not `define_unknown_imports_as_traps`: it takes an import of an older WASI patch version for unknown, and a component whose
/// dependencies were built against several of them would then mix two sets of resource types.
fn trap_on_ours(linker: &mut Linker<State>, engine: &Engine, component: &Component) -> wasmtime::Result<()> {
    for (name, import) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(interface) = import.ty else {
            continue;
        };
        if !name.starts_with(PACKAGE) {
            continue;
        }
        let mut instance = linker.instance(name)?;
        for (item, export) in interface.exports(engine) {
            match export.ty {
                ComponentItem::ComponentFunc(_) => {
                    let function = format!("{name}#{item}");
                    instance.func_new(item, move |_, _, _, _| {
                        Err(wasmtime::format_err!(
                            "`describe` called `{function}`, which it may not"
                        ))
                    })?;
                }
                ComponentItem::Resource(_) => {
                    instance.resource(item, ResourceType::host::<()>(), |_, _| Ok(()))?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn too_slow() -> Refusal {
    refusal(
        "component_describe_failed",
        format!("the component took longer than {} s to describe itself", TIME.as_secs()),
    )
}

fn why(error: &wasmtime::Error, account: &Account) -> String {
    if account.refusal().is_some() {
        return format!(
            "the component needs more than {} of memory to start and describe itself",
            bytes(MEMORY_BYTES)
        );
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => too_slow().message,
        Some(trap) => format!("the component trapped when it was asked to describe itself: {trap}"),
        None => format!("the component could not describe itself: {}", error.root_cause()),
    }
}
