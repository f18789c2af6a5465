//! The files that `airtight init` writes. They are part of the binary: a new crate needs no copy of this repository.

use std::path::Path;

include!(concat!(env!("OUT_DIR"), "/packed.rs"));

/// A file to write: its path from the new directory on, and its content.
pub(super) type File = (String, String);

/// The SDK as crates beside a task crate: `airtight-sdk`, `airtight-sdk-macros` and the WIT package that they are made from.
pub(super) fn sdk() -> impl Iterator<Item = File> {
    let manifests = ["airtight-sdk", "airtight-sdk-macros"].map(|name| {
        let text = template_file(&format!("sdk/{name}.toml")).unwrap_or_default();
        (
            format!("sdk/{name}/Cargo.toml"),
            text.replace("__VERSION__", env!("CARGO_PKG_VERSION")),
        )
    });
    let sources = [SDK_WIT, SDK_SOURCES, SDK_MACROS].into_iter().flatten();
    let sources = sources.map(|(name, text)| (format!("sdk/{name}"), (*text).to_owned()));
    manifests.into_iter().chain(sources)
}

/// The files of a template under the name of the new crate.
pub(super) fn template(template: &str, name: &str) -> Vec<File> {
    let library = name.replace('-', "_");
    let mut files = Vec::new();
    for dir in ["common", template] {
        for (path, text) in TEMPLATES {
            let Ok(below) = Path::new(path).strip_prefix(dir) else {
                continue;
            };
            let below = match below.to_str() {
                Some("gitignore") => ".gitignore",
                Some(below) => below,
                None => continue,
            };
            let text = text.replace("__NAME__", name).replace("__CRATE__", &library);
            files.push((below.to_owned(), text));
        }
    }
    files
}

fn template_file(wanted: &str) -> Option<&'static str> {
    TEMPLATES
        .iter()
        .find(|(path, _)| *path == wanted)
        .map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The dependencies of a crate's manifest by name, each as its line says it after the name.
    fn dependencies(text: &str) -> Vec<(&str, &str)> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.filter_map(|line| line.split_once(" = ")).collect()
    }

    #[test]
    fn the_sdk_outside_depends_on_what_it_depends_on_here() {
        let workspace = include_str!("../../../Cargo.toml");
        let here = include_str!("../../../guest-sdk/Cargo.toml");
        let macros_here = include_str!("../../../guest-sdk/macros/Cargo.toml");
        let workspace = dependencies(workspace);
        for (name, inside) in [("airtight-sdk", here), ("airtight-sdk-macros", macros_here)] {
            let text = template_file(&format!("sdk/{name}.toml")).unwrap();
            let outside = dependencies(text);
            for (line, said) in dependencies(inside.split("[dev-dependencies]").next().unwrap()) {
                if said != "true" {
                    assert!(
                        line == "serde"
                            || line == "serde_json"
                            || outside.contains(&(line, said))
                            || line == "name"
                            || line == "description"
                            || line == "proc-macro",
                        "{line}"
                    );
                    continue;
                }
                let Some(dependency) = line.strip_suffix(".workspace") else {
                    continue;
                };
                if dependency.starts_with("airtight-sdk") {
                    continue;
                }
                let wanted = workspace.iter().find(|(name, _)| *name == dependency);
                let found = outside.iter().find(|(name, _)| *name == dependency);
                match dependency {
                    // Fields of the package, not dependencies.
                    "version" | "edition" | "rust-version" | "license" | "publish" => {}
                    _ => assert_eq!(found, wanted, "{name}: {dependency}"),
                }
            }
        }
    }

    #[test]
    fn a_template_has_all_that_a_crate_needs() {
        for name in ["minimal", "pipeline", "sensor"] {
            let files = template(name, "my-tasks");
            for wanted in ["Cargo.toml", "README.md", ".gitignore", "src/lib.rs", "dag.yaml"] {
                assert!(files.iter().any(|(path, _)| path == wanted), "{name} lacks {wanted}");
            }
            let left: Vec<_> = files.iter().filter(|(_, text)| text.contains("__")).collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }
}
