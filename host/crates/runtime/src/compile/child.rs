//! The compiler child: compiles one component, asks it to describe itself, writes the compiled code and answers. It limits
//! itself before it looks at a byte of the component.

use std::ffi::OsString;
use std::io::Read as _;
use std::process::ExitCode;

use ports::component::{EngineNeeds, Inspected, Refusal};
use rustix::process::{Resource, Rlimit, setrlimit};
use wasmtime::component::Component;

use super::protocol::{self, Answer, Job, refusal};
use super::{check, describe, descriptor, outline};
use crate::engine;
use crate::limits::as_u64;

/// Cranelift recurses on deeply nested code.
const STACK_BYTES: usize = 64 << 20;

/// The main function of a process that was started with [`super::INTERNAL_COMPILE`] as its first argument; `args` are those
/// after it. The binary calls it before it does anything else.
pub fn compile_child_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Some(job) = Job::from_args(args) else {
        return ExitCode::from(2);
    };
    let answer = match limit(&job) {
        Ok(()) => {
            exit_with_parent();
            compile_on_large_stack(job)
        }
        Err(error) => Answer::Failed {
            message: format!("cannot limit the compiler: {error}"),
        },
    };
    match protocol::send(&answer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Between the signal that says why and the one that nobody survives.
const CPU_GRACE_SECONDS: u64 = 5;
/// The priority of compiling: whatever else the machine has to do goes first.
const NICE: i32 = 10;

/// `RLIMIT_DATA` counts private writable memory, and not the gigabytes of address space that wasmtime reserves and never touches.
fn limit(job: &Job) -> rustix::io::Result<()> {
    let set = |resource, value| {
        setrlimit(
            resource,
            Rlimit {
                current: Some(value),
                maximum: Some(value),
            },
        )
    };
    set(Resource::Data, job.memory)?;
    let seconds = job.cpu.as_secs().max(1);
    // The kernel kills at the hard limit without a word, before it looks at the soft one: where both are the same, nobody learns why.
    let cpu = Rlimit {
        current: Some(seconds),
        maximum: Some(seconds.saturating_add(CPU_GRACE_SECONDS)),
    };
    setrlimit(Resource::Cpu, cpu)?;
    set(Resource::Core, 0)?;
    // Low priority is a kindness to others: where it is not to be had, the component is compiled all the same.
    let _ = rustix::process::nice(NICE);
    set(Resource::Nofile, 64)
}

/// The server holds the other end of standard input and never writes: its end is the server's end.
fn exit_with_parent() {
    let watch = || {
        let mut byte = [0];
        while std::io::stdin().read(&mut byte).is_ok_and(|read| read > 0) {}
        std::process::exit(1);
    };
    // Without the thread the server's own limits still hold.
    let _ = std::thread::Builder::new().name("parent-watch".to_owned()).spawn(watch);
}

fn compile_on_large_stack(job: Job) -> Answer {
    let thread = std::thread::Builder::new()
        .name("compile".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || match compile(&job) {
            Ok(Ok(inspected)) => Answer::Ready(inspected),
            Ok(Err(refusal)) => Answer::Refused(refusal),
            Err(error) => Answer::Failed {
                message: error.to_string(),
            },
        });
    match thread.map(std::thread::JoinHandle::join) {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Answer::Refused(refusal(
            "component_not_compilable",
            "the compiler crashed on this component",
        )),
        Err(error) => Answer::Failed {
            message: format!("cannot start the compiler's thread: {error}"),
        },
    }
}

fn compile(job: &Job) -> std::io::Result<Result<Inspected, Refusal>> {
    let wasm = std::fs::read(&job.wasm)?;
    Ok(match inspect(&wasm) {
        Ok((code, inspected)) => {
            std::fs::write(&job.code, code)?;
            Ok(inspected)
        }
        Err(refusal) => Err(refusal),
    })
}

/// Compiles, and answers the compiled code with what is known of the component. What can be told before the compiler runs is told first.
fn inspect(wasm: &[u8]) -> Result<(Vec<u8>, Inspected), Refusal> {
    check::is_component(wasm)?;
    outline::check(wasm)?;
    let machine = |error: wasmtime::Error| refusal("component_not_compilable", format!("{error:#}"));
    let compiler = engine::on_demand_engine().map_err(machine)?;
    let compiled = Component::from_binary(&compiler, wasm).map_err(|error| {
        refusal(
            "component_invalid",
            format!("not a valid component for this server: {error:#}"),
        )
    })?;
    let (imports, capabilities) = check::world(&compiler, &compiled)?;
    let code = compiled.serialize().map_err(machine)?;
    drop(compiled);
    // An engine with a pool like the server's takes the same code, unless the pool cannot hold the component.
    let engine = engine::compiler_engine().map_err(machine)?;
    #[expect(
        unsafe_code,
        reason = "wasmtime cannot check that compiled code is what its compiler wrote; here it has just written it"
    )]
    // SAFETY: the bytes were serialized three lines above by the same version of wasmtime with the same settings.
    let component = unsafe { Component::deserialize(&engine, &code) }.map_err(|error| check::too_large(&error))?;
    let described = describe::describe(&engine, &component)?;
    let descriptor = descriptor::parse(&described.text)?;
    let needs = EngineNeeds {
        code_bytes: as_u64(code.len()),
        ..described.needs
    };
    let inspected = Inspected {
        descriptor,
        capabilities,
        imports,
        needs,
    };
    Ok((code, inspected))
}
