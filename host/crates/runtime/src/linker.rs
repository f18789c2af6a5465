//! The one visible list of what a task may import. Everything here is always linked; what is not granted answers `denied`.

use wasmtime::Engine;
use wasmtime::component::{Component, InstancePre, Linker};
use wasmtime_wasi::cli::{WasiCli, WasiCliView as _};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView as _};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView as _};
use wasmtime_wasi::p2::bindings::{self as wasi, sockets};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsView as _};
use wasmtime_wasi::{WasiCtxView, WasiView};

use crate::bindings::{blobs, checkpoint, context, log, progress, types, xcom};
use crate::bounded::{HasPolls, HasRandom, Polls};
use crate::ctx::{HasTask, TryState};
use crate::denied_http;
use crate::wasi::{HasDeniedFiles, HasDeniedNetwork};

/// The linker of the engine.
pub(crate) type TryLinker = Linker<TryState>;

impl WasiView for TryState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

/// Everything that a task may import.
pub(crate) fn task_linker(engine: &Engine) -> wasmtime::Result<TryLinker> {
    let mut linker = Linker::new(engine);
    let l = &mut linker;
    add_wasi(l)?;
    types::add_to_linker::<_, HasTask>(l, TryState::task)?;
    context::add_to_linker::<_, HasTask>(l, TryState::task)?;
    xcom::add_to_linker::<_, HasTask>(l, TryState::task)?;
    blobs::add_to_linker::<_, HasTask>(l, TryState::task)?;
    checkpoint::add_to_linker::<_, HasTask>(l, TryState::task)?;
    progress::add_to_linker::<_, HasTask>(l, TryState::task)?;
    log::add_to_linker::<_, HasTask>(l, TryState::task)?;
    Ok(linker)
}

/// The component with everything that it imports. What it imports of `wasi:http` is linked for it alone, since it depends on the component.
pub(crate) fn instantiate_pre(linker: &TryLinker, component: &Component) -> wasmtime::Result<InstancePre<TryState>> {
    if !denied_http::is_imported(component) {
        return linker.instantiate_pre(component);
    }
    let mut linker = linker.clone();
    denied_http::link(&mut linker, component, |state: &mut TryState, what| {
        state.denied_network().note(what);
    })?;
    linker.instantiate_pre(component)
}

/// WASI 0.2 as `wasmtime_wasi::p2::add_to_linker_async` has it, but with the three ways to the network denied and counted.
fn add_wasi(l: &mut TryLinker) -> wasmtime::Result<()> {
    wasmtime_wasi_io(l)?;
    wasi::clocks::wall_clock::add_to_linker::<_, WasiClocks>(l, TryState::clocks)?;
    wasi::clocks::monotonic_clock::add_to_linker::<_, WasiClocks>(l, TryState::clocks)?;
    wasi::random::random::add_to_linker::<_, HasRandom>(l, TryState::random)?;
    wasi::random::insecure::add_to_linker::<_, HasRandom>(l, TryState::random)?;
    wasi::random::insecure_seed::add_to_linker::<_, WasiRandom>(l, |state| state.wasi.random())?;
    wasi::cli::exit::add_to_linker::<_, WasiCli>(l, TryState::cli)?;
    wasi::cli::environment::add_to_linker::<_, WasiCli>(l, TryState::cli)?;
    wasi::cli::stdin::add_to_linker::<_, WasiCli>(l, TryState::cli)?;
    wasi::cli::stdout::add_to_linker::<_, WasiCli>(l, TryState::cli)?;
    wasi::cli::stderr::add_to_linker::<_, WasiCli>(l, TryState::cli)?;
    wasi::cli::terminal_input::add_to_linker::<_, WasiCli>(l, TryState::cli)?;
    wasi::cli::terminal_output::add_to_linker::<_, WasiCli>(l, TryState::cli)?;
    wasi::cli::terminal_stdin::add_to_linker::<_, WasiCli>(l, TryState::cli)?;
    wasi::cli::terminal_stdout::add_to_linker::<_, WasiCli>(l, TryState::cli)?;
    wasi::cli::terminal_stderr::add_to_linker::<_, WasiCli>(l, TryState::cli)?;
    wasi::filesystem::preopens::add_to_linker::<_, HasDeniedFiles>(l, TryState::denied_files)?;
    wasi::filesystem::types::add_to_linker::<_, WasiFilesystem>(l, TryState::filesystem)?;
    sockets::network::add_to_linker::<_, WasiSockets>(l, &sockets::network::LinkOptions::default(), TryState::sockets)?;
    sockets::instance_network::add_to_linker::<_, WasiSockets>(l, TryState::sockets)?;
    sockets::tcp::add_to_linker::<_, WasiSockets>(l, TryState::sockets)?;
    sockets::udp::add_to_linker::<_, WasiSockets>(l, TryState::sockets)?;
    sockets::tcp_create_socket::add_to_linker::<_, HasDeniedNetwork>(l, TryState::denied_network)?;
    sockets::udp_create_socket::add_to_linker::<_, HasDeniedNetwork>(l, TryState::denied_network)?;
    sockets::ip_name_lookup::add_to_linker::<_, HasDeniedNetwork>(l, TryState::denied_network)?;
    Ok(())
}

fn wasmtime_wasi_io(l: &mut TryLinker) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::bindings::io::error::add_to_linker::<_, HasIo>(l, |state| &mut state.table)?;
    wasmtime_wasi::p2::bindings::io::poll::add_to_linker::<_, HasPolls>(l, |state| Polls(&mut state.table))?;
    wasmtime_wasi::p2::bindings::io::streams::add_to_linker::<_, HasIo>(l, |state| &mut state.table)
}

struct HasIo;

impl wasmtime::component::HasData for HasIo {
    type Data<'a> = &'a mut wasmtime::component::ResourceTable;
}
