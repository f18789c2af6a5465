//! What the documentation lists is what the code has.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests lie in the repository")
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a readable directory") {
        let path = entry.expect("a readable entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && name != "tests" {
            sources(&path, found);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            found.push(path);
        }
    }
}

/// The text literal that begins here, if one does.
fn literal(text: &str) -> Option<&str> {
    let text = text.trim_start().strip_prefix('"')?;
    text.split('"').next()
}

/// The codes that an error is made with outside the API, whose own codes are an enum with a test beside it.
fn codes() -> BTreeSet<String> {
    let mut files = Vec::new();
    sources(&root().join("host"), &mut files);
    let mut codes = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a readable file");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        // Refusals of components, answers against the contract, tries between DAGs.
        for call in ["refusal(", "breach(details,", "Refusal::new(", "Refusal::fatal("] {
            for (at, _) in code.match_indices(call) {
                codes.extend(literal(&code[at + call.len()..]).map(str::to_owned));
            }
        }
        for (at, _) in code.match_indices("\"manifest_") {
            codes.extend(literal(&code[at..]).map(str::to_owned));
        }
    }
    codes
}

#[test]
fn every_code_of_an_error_is_in_the_docs() {
    let codes = codes();
    for known in [
        "component_format_unknown",
        "component_import_unknown",
        "component_too_large",
        "manifest_duplicate_key",
        "trigger_conf_invalid",
        "unknown_branch_label",
    ] {
        assert!(codes.contains(known), "`{known}` is not found: {codes:?}");
    }
    let read = |name: &str| std::fs::read_to_string(root().join("docs").join(name)).expect("a page of the docs");
    let (errors, manifest) = (read("errors.md"), read("manifest.md"));
    let missing: Vec<_> = codes
        .iter()
        .filter(|code| !errors.contains(&format!("### `{code}`")) && !manifest.contains(&format!("| `{code}` |")))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/errors.md and docs/manifest.md lack {missing:?}"
    );
}
