//! Calls a component's two exports. The host behind it knows WASI and nothing of ours: what is needed beyond that is a trap.

use anyhow::{Context as _, Result};
use model::manifest::Descriptor;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, ResourceTable, ResourceType, Val};
use wasmtime::{Config, Engine, OptLevel, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

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

const GUEST: &str = "airtight:task/guest@0.1.0";

/// Compiles a component, quickly: nothing here runs for long.
pub(crate) fn load(path: &str) -> Result<Component> {
    let engine = Engine::new(Config::new().cranelift_opt_level(OptLevel::None))?;
    Ok(Component::from_file(&engine, path)?)
}

fn call(component: &Component, function: &str, params: &[Val]) -> Result<Val> {
    let engine = component.engine();
    let mut linker = Linker::<State>::new(engine);
    wasmtime_wasi::p2::add_to_linker_sync(&mut linker)?;
    define_ours_as_traps(engine, component, &mut linker)?;
    let mut store = Store::new(
        engine,
        State {
            wasi: WasiCtx::builder().build(),
            table: ResourceTable::new(),
        },
    );
    let instance = linker.instantiate(&mut store, component)?;
    let interface = instance
        .get_export_index(&mut store, None, GUEST)
        .context("it does not export the interface")?;
    let index = instance
        .get_export_index(&mut store, Some(&interface), function)
        .context("no such function")?;
    let function = instance.get_func(&mut store, index).context("not a function")?;
    let mut results = [Val::Bool(false)];
    function.call(&mut store, params, &mut results)?;
    let [result] = results;
    Ok(result)
}

/// `Linker::define_unknown_imports_as_traps` would take WASI's place, too, where a component asks for a lower patch version of it.
fn define_ours_as_traps(engine: &Engine, component: &Component, linker: &mut Linker<State>) -> Result<()> {
    for (name, import) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(interface) = import.ty else {
            continue;
        };
        if !name.starts_with("airtight:") {
            continue;
        }
        let mut instance = linker.instance(name)?;
        for (function, item) in interface.exports(engine) {
            match item.ty {
                ComponentItem::ComponentFunc(_) => {
                    let what = format!("{name}#{function}");
                    instance.func_new(function, move |_, _, _, _| {
                        Err(wasmtime::format_err!("{what} is not there"))
                    })?;
                }
                ComponentItem::Resource(_) => {
                    instance.resource(function, ResourceType::host::<()>(), |_, _| Ok(()))?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// What a component answers, as it answers it.
pub(crate) fn described(component: &Component) -> Result<String> {
    match call(component, "describe", &[])? {
        Val::String(text) => Ok(text),
        _ => anyhow::bail!("describe does not return a string"),
    }
}

pub(crate) fn describe(component: &Component) -> Result<Descriptor> {
    Ok(serde_json::from_str(&described(component)?)?)
}

pub(crate) fn run(path: &str, task: &str, input: &str) -> Result<Val> {
    call(
        &load(path)?,
        "run",
        &[Val::String(task.to_owned()), Val::String(input.to_owned())],
    )
}
