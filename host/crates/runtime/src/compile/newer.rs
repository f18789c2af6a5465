//! What a component imports from our package that this server does not have: it was built against a newer patch of the package,
//! which has one more function or interface.

use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::{ComponentInstance, ComponentItem};

use super::check::PACKAGE;

/// The version of our package that this server has.
const VERSION: &str = "0.1.0";

/// What a task may import of ours; a test compares it with the WIT. The linker has the same, but does not tell.
const INTERFACES: [(&str, &[&str]); 7] = [
    (
        "blobs",
        &[
            "[method]reader.size",
            "[method]reader.read",
            "[method]writer.write",
            "[static]writer.finish",
            "open",
            "create",
        ],
    ),
    ("checkpoint", &["load", "save", "clear"]),
    (
        "context",
        &[
            "dag-id",
            "run-id",
            "task-id",
            "map-index",
            "try-number",
            "max-tries",
            "logical-date",
            "data-interval-start",
            "data-interval-end",
            "params",
            "conf",
        ],
    ),
    ("log", &["write"]),
    ("progress", &["report"]),
    ("types", &[]),
    ("xcom", &["push", "pull", "count", "pull-items"]),
];

/// Says what is missing, if it is of ours.
pub(super) fn missing(engine: &Engine, component: &Component) -> Option<String> {
    component
        .component_type()
        .imports(engine)
        .find_map(|(import, item)| match item.ty {
            ComponentItem::ComponentInstance(instance) => missing_of(engine, import, &instance),
            _ => None,
        })
}

fn missing_of(engine: &Engine, import: &str, instance: &ComponentInstance) -> Option<String> {
    let functions = instance
        .exports(engine)
        .filter(|(_, item)| matches!(item.ty, ComponentItem::ComponentFunc(_)));
    missing_in(import, functions.map(|(name, _)| name))
}

/// Says what is missing of an imported interface, by its name and the names of the functions that are imported of it.
pub(super) fn missing_in<'a>(import: &str, mut functions: impl Iterator<Item = &'a str>) -> Option<String> {
    let (interface, version) = import.strip_prefix(PACKAGE)?.split_once('@')?;
    let what = match INTERFACES.iter().find(|(name, _)| *name == interface) {
        None => format!("the interface `{interface}`"),
        Some((_, known)) => {
            let function = functions.find(|name| !known.contains(name))?;
            format!("the function `{function}` of `{interface}`")
        }
    };
    Some(format!(
        "the component was built against a newer version of `airtight:task` ({version}) than this server has ({VERSION}): {what} is missing here; \
         build it with the SDK of this server, or use a newer server"
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// The functions of the interfaces that a task may import, read from the WIT line by line.
    fn of_the_wit() -> (String, BTreeSet<(String, String)>) {
        let (mut version, mut found) = (String::new(), BTreeSet::new());
        for file in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../wit")).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "wit") {
                continue;
            }
            let (mut interface, mut resource) = (None, None);
            for line in std::fs::read_to_string(&path).unwrap().lines().map(str::trim) {
                if let Some(named) = line.strip_prefix("package airtight:task@") {
                    version = named.trim_end_matches(';').to_owned();
                } else if let Some(named) = line.strip_prefix("interface ") {
                    interface = Some(named.trim_end_matches(" {").to_owned());
                    found.insert((interface.clone().unwrap(), String::new()));
                } else if let Some(named) = line.strip_prefix("resource ") {
                    resource = Some(named.trim_end_matches(" {").to_owned());
                } else if line == "}" {
                    resource = None;
                } else if let (Some((name, rest)), Some(interface)) = (line.split_once(": "), &interface)
                    && (rest.starts_with("func(") || rest.starts_with("static func("))
                {
                    let function = match &resource {
                        None => name.to_owned(),
                        Some(resource) if rest.starts_with("static") => format!("[static]{resource}.{name}"),
                        Some(resource) => format!("[method]{resource}.{name}"),
                    };
                    found.insert((interface.clone(), function));
                }
            }
        }
        found.retain(|(interface, _)| interface != "guest");
        (version, found)
    }

    #[test]
    fn the_list_is_that_of_the_wit() {
        let listed = INTERFACES.iter().flat_map(|(interface, functions)| {
            std::iter::once("")
                .chain(functions.iter().copied())
                .map(|function| ((*interface).to_owned(), function.to_owned()))
        });
        assert_eq!((VERSION.to_owned(), listed.collect()), of_the_wit());
    }
}
