//! Every component as a component: what it imports and exports, what it says of itself, and that its tasks run. The host behind it
//! knows WASI and nothing of ours: what is needed beyond that is a trap.

use anyhow::{Context as _, Result};
use ports::component::Descriptor;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, ResourceTable, ResourceType, Val};
use wasmtime::{Config, Engine, Store};
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

fn call(path: &str, function: &str, params: &[Val]) -> Result<Val> {
    let engine = Engine::new(&Config::new())?;
    let component = Component::from_file(&engine, path)?;
    let mut linker = Linker::<State>::new(&engine);
    wasmtime_wasi::p2::add_to_linker_sync(&mut linker)?;
    define_ours_as_traps(&engine, &component, &mut linker)?;
    let mut store = Store::new(
        &engine,
        State {
            wasi: WasiCtx::builder().build(),
            table: ResourceTable::new(),
        },
    );
    let instance = linker.instantiate(&mut store, &component)?;
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

fn describe(path: &str) -> Result<Descriptor> {
    let Val::String(text) = call(path, "describe", &[])? else {
        anyhow::bail!("describe does not return a string");
    };
    Ok(serde_json::from_str(&text)?)
}

fn run(path: &str, task: &str, input: &str) -> Result<Val> {
    call(
        path,
        "run",
        &[Val::String(task.to_owned()), Val::String(input.to_owned())],
    )
}

fn done(json: &str) -> Val {
    Val::Result(Ok(Some(Box::new(Val::Variant(
        "done".to_owned(),
        Some(Box::new(Val::String(json.to_owned()))),
    )))))
}

#[test]
fn every_component_describes_itself() -> Result<()> {
    for (name, path) in test_artifacts::ALL {
        let descriptor = describe(path).with_context(|| (*name).to_owned())?;
        assert_eq!(descriptor.format, 1, "{name}");
        assert!(
            descriptor.sdk.is_some_and(|sdk| sdk.starts_with("airtight-sdk ")),
            "{name}"
        );
        assert!(!descriptor.tasks.is_empty(), "{name}");
        for task in descriptor.tasks {
            assert!(!task.doc.is_empty(), "{name}: task `{}` has no description", task.name);
            assert!(task.input.is_object(), "{name}: {}", task.name);
            assert!(task.output.is_object(), "{name}: {}", task.name);
        }
    }
    Ok(())
}

#[test]
fn every_component_imports_only_wasi_and_the_task_contract() -> Result<()> {
    let engine = Engine::new(&Config::new())?;
    for (name, path) in test_artifacts::ALL {
        let component = Component::from_file(&engine, path)?;
        for (import, _) in component.component_type().imports(&engine) {
            assert!(
                import.starts_with("wasi:") || import.starts_with("airtight:task/"),
                "{name} imports {import}"
            );
        }
    }
    Ok(())
}

#[test]
fn several_tasks_of_one_component_run_by_name() -> Result<()> {
    assert_eq!(run(test_artifacts::BENCH_TASKS, "noop", "{}")?, done("null"));
    assert_eq!(
        run(test_artifacts::BENCH_TASKS, "echo", r#"{"a":[1,2.5,"x"]}"#)?,
        done(r#"{"a":[1,2.5,"x"]}"#)
    );
    assert_eq!(
        run(test_artifacts::HELLO, "shout", r#"{"text":"quiet"}"#)?,
        done(r#""QUIET""#)
    );
    Ok(())
}

#[test]
fn an_input_that_does_not_fit_is_a_fatal_failure_with_its_path() -> Result<()> {
    let Val::Result(Err(Some(failure))) = run(test_artifacts::HELLO, "greet", r#"{"name":7}"#)? else {
        anyhow::bail!("it did not fail");
    };
    let Val::Record(fields) = *failure else {
        anyhow::bail!("a failure is a record")
    };
    let field = |name: &str| {
        fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.clone())
    };
    assert_eq!(
        field("message"),
        Some(Val::String(
            "the input at `name` does not fit: invalid type: integer `7`, expected a string at line 1 column 9"
                .to_owned()
        ))
    );
    assert_eq!(field("kind"), Some(Val::Enum("fatal".to_owned())));
    assert_eq!(
        field("code"),
        Some(Val::Option(Some(Box::new(Val::String("input_invalid".to_owned())))))
    );
    Ok(())
}

#[test]
fn an_unknown_task_is_a_fatal_failure_that_names_the_known_ones() -> Result<()> {
    let answer = format!("{:?}", run(test_artifacts::HELLO, "gret", "{}")?);
    assert!(
        answer.contains("this component has no task `gret`; it has: greet, shout"),
        "{answer}"
    );
    Ok(())
}

#[test]
fn small_components_stay_small() -> Result<()> {
    for path in [test_artifacts::HELLO, test_artifacts::BENCH_TASKS] {
        let size = std::fs::metadata(path)?.len();
        assert!(size < 300_000, "{path} has {size} bytes");
    }
    Ok(())
}
