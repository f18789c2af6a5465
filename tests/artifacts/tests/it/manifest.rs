//! The example manifests fit the components beside them.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use model::Digest;
use model::manifest::{Checked, ComponentRef, Components, ResolvedComponent, compile, read};

use crate::component::{describe, load};

/// Compiles `tasks/<name>/dag.yaml` against what the components say of themselves; a tag's or file's name is the component's.
fn check(name: &str) -> Result<Checked> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tasks")
        .join(name)
        .join("dag.yaml");
    let manifest = read(&std::fs::read_to_string(&path).with_context(|| path.display().to_string())?);
    let mut components = Components::new();
    for reference in manifest.components() {
        let component = match &reference.value {
            ComponentRef::Tag(name, _) => name.as_str().replace('-', "_"),
            ComponentRef::Path(path) => Path::new(path)
                .file_stem()
                .context("no name")?
                .to_string_lossy()
                .into_owned(),
            other => anyhow::bail!("{other} in an example"),
        };
        let (_, wasm) = test_artifacts::ALL
            .iter()
            .find(|(name, _)| *name == component)
            .with_context(|| format!("nothing builds `{component}`"))?;
        let resolved = ResolvedComponent {
            digest: Digest::of(&std::fs::read(wasm)?),
            descriptor: Arc::new(describe(&load(wasm)?)?),
        };
        components.insert(reference.value, Ok(resolved));
    }
    compile(&manifest, &components).map_err(|findings| {
        let findings: Vec<String> = findings.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}:\n{}", path.display(), findings.join("\n"))
    })
}

#[test]
fn the_training_compiles_without_a_finding() -> Result<()> {
    let checked = check("model_training")?;
    assert_eq!(checked.dag.tasks.len(), 9);
    let findings: Vec<String> = checked.diagnostics.iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    Ok(())
}

#[test]
fn hello_compiles_without_a_finding() -> Result<()> {
    let checked = check("hello")?;
    let findings: Vec<String> = checked.diagnostics.iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    Ok(())
}
