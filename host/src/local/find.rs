//! Where the components of a local manifest are: beside it, named on the command line, or in a build directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use model::manifest::ComponentRef;

use crate::failure::{Exit, Failure, Result};

/// Where cargo puts components, below its target directory. The newest file wins.
const PROFILES: [&str; 3] = ["guest", "release", "debug"];

/// What the command line says: `--component name@version=path`.
#[derive(Debug, Default)]
pub(crate) struct Overrides(BTreeMap<String, PathBuf>);

impl Overrides {
    /// Reads the arguments.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self> {
        let mut overrides = BTreeMap::new();
        for argument in arguments {
            let (reference, path) = argument.split_once('=').ok_or_else(|| {
                Failure::new(Exit::Invalid, format!("`--component {argument}` names no file"))
                    .hint("write `--component name@version=path.wasm`")
            })?;
            overrides.insert(reference.to_owned(), PathBuf::from(path));
        }
        Ok(Self(overrides))
    }

    /// The references that are known, for "did you mean".
    pub(crate) fn known(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}

/// A path of a manifest, as a path of this process.
pub(crate) fn beside(manifest: &Path, path: &str) -> PathBuf {
    manifest.parent().unwrap_or(Path::new("")).join(path)
}

/// The file of a reference, if there is one.
pub(crate) fn find(manifest: &Path, reference: &ComponentRef, overrides: &Overrides) -> Option<PathBuf> {
    if let Some(path) = overrides.0.get(&reference.to_string()) {
        return Some(path.clone());
    }
    match reference {
        ComponentRef::Path(path) => Some(beside(manifest, path)),
        ComponentRef::Tag(name, _) => overrides
            .0
            .get(name.as_str())
            .cloned()
            .or_else(|| built(manifest, name.as_str())),
        ComponentRef::NamedDigest(..) | ComponentRef::Digest(_) => None,
    }
}

/// Looks for what cargo built of the crate with this name, in the target directories of the manifest's directory and of those
/// above it.
fn built(manifest: &Path, name: &str) -> Option<PathBuf> {
    let start = manifest.canonicalize().ok()?;
    let file = format!("{}.wasm", name.replace('-', "_"));
    let set = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let targets = set
        .into_iter()
        .chain(start.ancestors().skip(1).map(|dir| dir.join("target")));
    for target in targets {
        let newest = PROFILES
            .iter()
            .map(|profile| target.join("wasm32-wasip2").join(profile).join(&file))
            .filter_map(|path| Some((modified(&path)?, path)))
            .max();
        if let Some((_, path)) = newest {
            return Some(path);
        }
    }
    None
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_components_where_they_are() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().canonicalize().unwrap();
        let release = root.join("target/wasm32-wasip2/release");
        std::fs::create_dir_all(&release).unwrap();
        std::fs::create_dir(root.join("dags")).unwrap();
        std::fs::write(release.join("my_tasks.wasm"), "x").unwrap();
        let manifest = root.join("dags/a.yaml");
        std::fs::write(&manifest, "dag: a").unwrap();
        let overrides = Overrides::parse(&["other@1=/x/other.wasm".to_owned()]).unwrap();
        let find = |reference: &str| find(&manifest, &reference.parse().unwrap(), &overrides);
        assert_eq!(find("my-tasks@9"), Some(release.join("my_tasks.wasm")));
        assert_eq!(find("./b.wasm"), Some(root.join("dags/./b.wasm")));
        assert_eq!(find("other@1"), Some(PathBuf::from("/x/other.wasm")));
        assert_eq!(find("other@2"), None);
        assert!(Overrides::parse(&["x".to_owned()]).is_err());
    }
}
