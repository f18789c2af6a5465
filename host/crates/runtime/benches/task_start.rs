//! What starting a task costs, beside raw wasmtime on the same component. `task_start COMPONENT LARGE` with a component that has a task
//! `noop`, and a larger one that is only compiled; prints JSON. `cargo xtask bench` runs it.

#[path = "../tests/it/support.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use ports::executor::Executor as _;
use serde_json::json;
use wasmtime::component::{Component, InstancePre, Linker, ResourceTable, Val};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use support::{World, engine, request, shared_code};

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "its output is its result")]
async fn main() {
    // Cargo adds `--bench`.
    let mut paths = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let (Some(path), Some(large)) = (paths.next(), paths.next()) else {
        panic!("usage: task_start COMPONENT LARGE");
    };
    let (instantiate, compile) = raw(Path::new(&path)).await;
    println!(
        "{}",
        json!({
            "instantiate_us": instantiate * 1e6,
            "compile_ms": compile * 1e3,
            "large_compile_ms": compiled(&raw_engine(), Path::new(&large)).1 * 1e3,
            "epoch_ms": runtime::EPOCH_TICK.as_secs_f64() * 1e3,
            "warm_start_us": warm(&path).await * 1e6,
            "cold_start_us": cold(&path).await * 1e6,
            "cancel_ms": cancel().await * 1e3,
        })
    );
}

struct State {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

fn raw_engine() -> Engine {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(PoolingAllocationConfig::default()));
    Engine::new(&config).expect("an engine")
}

/// Compiles a component; answers how long it took, in seconds.
fn compiled(engine: &Engine, path: &Path) -> (Component, f64) {
    let begin = Instant::now();
    let component = Component::from_file(engine, path).expect("a component");
    (component, begin.elapsed().as_secs_f64())
}

/// Store, instantiate, look the function up, call, drop; and Cranelift's time for the component.
async fn raw(path: &Path) -> (f64, f64) {
    let engine = raw_engine();
    let (component, compile) = compiled(&engine, path);
    let mut linker = Linker::<State>::new(&engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker).expect("WASI links");
    linker
        .define_unknown_imports_as_traps(&component)
        .expect("the rest links");
    let pre = linker.instantiate_pre(&component).expect("it links");
    let mut times = Vec::new();
    for _ in 0..2_000 {
        let begin = Instant::now();
        call(&engine, &pre).await;
        times.push(begin.elapsed());
    }
    (median(times), compile)
}

async fn call(engine: &Engine, pre: &InstancePre<State>) {
    let state = State {
        wasi: WasiCtx::builder().build(),
        table: ResourceTable::new(),
    };
    let mut store = Store::new(engine, state);
    store.set_epoch_deadline(1_000_000);
    let instance = pre.instantiate_async(&mut store).await.expect("it starts");
    let guest = instance
        .get_export_index(&mut store, None, "airtight:task/guest@0.1.0")
        .expect("it has tasks");
    let run = instance
        .get_export_index(&mut store, Some(&guest), "run")
        .expect("it has `run`");
    let run = instance.get_func(&mut store, run).expect("it is a function");
    let mut answer = [Val::Bool(false)];
    let arguments = [Val::String("noop".into()), Val::String("null".into())];
    run.call_async(&mut store, &arguments, &mut answer)
        .await
        .expect("it answers");
}

/// From a dispatch to the end of the task, with the component in memory.
async fn warm(path: &str) -> f64 {
    let world = World::new();
    let (digest, _) = world.compile(path).await.expect("a good component");
    let mut times = Vec::new();
    for _ in 0..2_000 {
        let request = request(digest, "noop", json!(null));
        let begin = Instant::now();
        world.report(request).await;
        times.push(begin.elapsed());
    }
    median(times.split_off(200))
}

/// The same with the compiled code on disk only.
async fn cold(path: &str) -> f64 {
    let mut times = Vec::new();
    for _ in 0..15 {
        let world = World::with(engine(), shared_code());
        let (digest, _) = world.compile(path).await.expect("a good component");
        let request = request(digest, "noop", json!(null));
        let begin = Instant::now();
        world.report(request).await;
        times.push(begin.elapsed());
    }
    median(times)
}

/// From a cancel to the end of a guest that computes without end.
async fn cancel() -> f64 {
    let world = World::new();
    let mut times = Vec::new();
    for _ in 0..30 {
        let request = world.request(test_artifacts::CAUSE_LIMIT, "spin", json!(null)).await;
        let id = request.id;
        world.executor.dispatch(request);
        world.logs.wait_for(id, "spinning").await;
        let begin = Instant::now();
        world.executor.cancel(id);
        world.finished(id).await;
        times.push(begin.elapsed());
    }
    median(times)
}
