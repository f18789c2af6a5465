//! Whether a component fits this server: its kind, its size, its imports and its exports, each refused by name.

use ports::component::Refusal;
use wasmtime::Engine;
use wasmtime::component::Component;

use super::describe::MEMORY_BYTES as DESCRIBE_MEMORY_BYTES;
use super::protocol::refusal;
use crate::bindings::TaskPre;
use crate::engine::{MAX_MEMORIES, MAX_TABLES};
use crate::outcome::bytes;

const WASM_PAGE_BYTES: u64 = 64 << 10;
/// Our package, without its version.
pub(super) const PACKAGE: &str = "airtight:task/";
/// What a component must export.
const GUEST: &str = "airtight:task/guest@0.1.0";
/// Interfaces of ours that need no mention: they say which try this is and write its log.
const QUIET: [&str; 3] = ["context", "log", "types"];

/// Refuses what is no component by its first bytes, with a word on what it is instead.
pub(super) fn is_component(wasm: &[u8]) -> Result<(), Refusal> {
    match wasm {
        [b'\0', b'a', b's', b'm', 0x01, 0x00, 0x00, 0x00, ..] => Err(refusal(
            "component_is_core_module",
            "this is a core module, not a component; build it with `--target wasm32-wasip2`",
        )),
        [b'\0', b'a', b's', b'm', _, _, 0x01, 0x00, ..] => Ok(()),
        [b'\0', b'a', b's', b'm', ..] => Err(refusal(
            "component_invalid",
            "this file starts like WebAssembly but ends early or has an unknown version",
        )),
        _ => Err(refusal("component_not_wasm", "this is not a WebAssembly file")),
    }
}

/// Checks imports, exports and sizes; answers all imports, and those that mean something in readable words.
pub(super) fn world(engine: &Engine, component: &Component) -> Result<(Vec<String>, Vec<String>), Refusal> {
    let world = component.component_type();
    let imports: Vec<String> = world.imports(engine).map(|(name, _)| name.to_owned()).collect();
    let linker = crate::linker::task_linker(engine)
        .map_err(|error| refusal("component_not_compilable", format!("{error:#}")))?;
    if let Some(unknown) = imports.iter().find(|import| !is_known(import)) {
        return Err(unknown_import(unknown));
    }
    if let Some(missing) = super::newer::missing(engine, component) {
        return Err(refusal("component_import_unknown", missing));
    }
    let pre = crate::linker::instantiate_pre(&linker, component).map_err(|error| {
        refusal(
            "component_import_unknown",
            format!("the component needs something that this server does not provide: {error:#}"),
        )
    })?;
    let exports: Vec<String> = world.exports(engine).map(|(name, _)| name.to_owned()).collect();
    if let Err(error) = TaskPre::new(pre) {
        return Err(wrong_export(&exports, &format!("{error:#}")));
    }
    size(component)?;
    let capabilities = capabilities(&imports);
    Ok((imports, capabilities))
}

/// Whether a component may import an interface of this name.
pub(super) fn is_known(import: &str) -> bool {
    const WASI: [&str; 7] = [
        "wasi:cli/",
        "wasi:clocks/",
        "wasi:filesystem/",
        "wasi:http/",
        "wasi:io/",
        "wasi:random/",
        "wasi:sockets/",
    ];
    WASI.iter()
        .any(|package| import.starts_with(package) && import.contains("@0.2."))
        || (import.starts_with(PACKAGE) && import.contains("@0.1."))
}

/// The refusal of a component that imports what nobody has.
pub(super) fn unknown_import(import: &str) -> Refusal {
    refusal(
        "component_import_unknown",
        format!("the component imports `{import}`, which this server does not provide"),
    )
}

/// The refusal of a component that the server's pool cannot hold; the error says what there is too much of, and the limit.
pub(super) fn too_large(error: &wasmtime::Error) -> Refusal {
    refusal(
        "component_too_large",
        format!("the component needs more of the engine than this server gives to one: {error:#}"),
    )
}

/// Whether an export is what a task component exports, in some version.
pub(super) fn is_guest(export: &str) -> bool {
    export.starts_with("airtight:task/guest@0.1.")
}

/// The refusal of a component that does not export tasks as this server knows them.
pub(super) fn wrong_export(exports: &[String], error: &str) -> Refusal {
    if exports.iter().any(|name| is_guest(name)) {
        return refusal(
            "component_world_mismatch",
            format!("the component's `{GUEST}` is not the one of this server: {error}"),
        );
    }
    let found = if exports.is_empty() {
        "it exports nothing".to_owned()
    } else if exports.iter().any(|name| name.starts_with("wasi:cli/run@")) {
        "it is a command with a `main`; a task component exports tasks instead".to_owned()
    } else {
        format!("it exports {}", exports.join(", "))
    };
    refusal(
        "component_world_mismatch",
        format!("the component does not export `{GUEST}`: {found}"),
    )
}

/// What the server's pool can hold, whatever the allocation of this process.
fn size(component: &Component) -> Result<(), Refusal> {
    let Some(needs) = component.resources_required() else {
        return Ok(());
    };
    // The pool maps the initial memory before it asks the limiter, so the child's own limit would speak first, and less clearly.
    let initial = needs
        .max_initial_memory_size
        .unwrap_or(0)
        .saturating_mul(WASM_PAGE_BYTES);
    if initial > DESCRIBE_MEMORY_BYTES {
        return Err(refusal(
            "component_too_large",
            format!(
                "the component starts with {} of memory; it must start and describe itself within {}",
                bytes(initial),
                bytes(DESCRIBE_MEMORY_BYTES)
            ),
        ));
    }
    for (found, limit, what) in [
        (needs.num_memories, MAX_MEMORIES, "linear memories"),
        (needs.num_tables, MAX_TABLES, "tables"),
    ] {
        if found > limit {
            return Err(refusal(
                "component_too_large",
                format!("the component has {found} {what}; this server runs components with at most {limit}"),
            ));
        }
    }
    Ok(())
}

fn capabilities(imports: &[String]) -> Vec<String> {
    let mut capabilities: Vec<String> = imports
        .iter()
        .filter_map(|import| import.strip_prefix(PACKAGE)?.split('@').next())
        .filter(|interface| !QUIET.contains(interface))
        .map(str::to_owned)
        .collect();
    capabilities.sort();
    capabilities.dedup();
    capabilities
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_a_file_is_instead() {
        let code = |bytes: &[u8]| is_component(bytes).unwrap_err().code;
        assert_eq!(code(b"hello"), "component_not_wasm");
        assert_eq!(code(b""), "component_not_wasm");
        assert_eq!(code(b"\0asm\x01\0\0\0"), "component_is_core_module");
        assert_eq!(code(b"\0asm\x0d\0"), "component_invalid");
        assert!(is_component(b"\0asm\x0d\0\x01\0").is_ok());
    }

    #[test]
    fn capabilities_leave_out_the_noise() {
        let imports = [
            "wasi:cli/stdout@0.2.6",
            "airtight:task/log@0.1.0",
            "airtight:task/xcom@0.1.0",
            "airtight:task/blobs@0.1.0",
        ];
        assert_eq!(capabilities(&imports.map(str::to_owned)), ["blobs", "xcom"]);
    }
}
