//! Watching the sources of a crate.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use crate::failure::{Exit, OrFail, Result};

/// Editors write a file in several steps; this long after the last one it counts as saved.
const QUIET: Duration = Duration::from_millis(60);

/// Tells when sources change.
pub(super) struct Watch {
    /// Ends the watching when it is dropped.
    _watcher: RecommendedWatcher,
    changed: mpsc::UnboundedReceiver<PathBuf>,
}

impl Watch {
    /// Watches the files of a directory, what lies below its `src` and `sdk`, and further paths.
    pub(super) fn start(dir: &Path, further: &[PathBuf]) -> Result<Self> {
        let (sender, changed) = mpsc::unbounded_channel();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let Ok(event) = event else { return };
            if matches!(event.kind, EventKind::Access(_)) {
                return;
            }
            if let Some(path) = event.paths.into_iter().find(|path| is_source(path)) {
                let _ = sender.send(path);
            }
        })
        .or_fail(Exit::Broken, || "cannot watch files".to_owned())?;
        let mut watch = |path: &Path, mode| {
            watcher
                .watch(path, mode)
                .or_fail(Exit::Broken, || format!("cannot watch `{}`", path.display()))
        };
        // Not the directory with all below it: cargo's output is there, too.
        watch(dir, RecursiveMode::NonRecursive)?;
        for below in ["src", "sdk"]
            .map(|name| dir.join(name))
            .iter()
            .filter(|path| path.is_dir())
        {
            watch(below, RecursiveMode::Recursive)?;
        }
        for path in further {
            watch(path, RecursiveMode::Recursive)?;
        }
        Ok(Self {
            _watcher: watcher,
            changed,
        })
    }

    /// Waits for a change, and until no more follow at once; answers what was changed first.
    pub(super) async fn changed(&mut self) -> Option<PathBuf> {
        let first = self.changed.recv().await?;
        while let Ok(Some(_)) = tokio::time::timeout(QUIET, self.changed.recv()).await {}
        Some(first)
    }
}

/// Whether a change of the file can change what is built or run.
fn is_source(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    // `Cargo.lock` is written by cargo itself.
    !name.starts_with('.') && !name.ends_with('~') && !matches!(ending, "lock" | "swp" | "tmp") && name != "target"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_editors_and_cargo_write_beside_is_no_source() {
        for source in ["src/lib.rs", "dag.yaml", "Cargo.toml", "data/table.csv"] {
            assert!(is_source(Path::new(source)), "{source}");
        }
        for other in [".lib.rs.swp", "lib.rs~", "Cargo.lock", "target", "4913.tmp"] {
            assert!(!is_source(Path::new(other)), "{other}");
        }
    }

    #[tokio::test]
    async fn a_change_is_told() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("src")).unwrap();
        let mut watch = Watch::start(dir.path(), &[]).unwrap();
        std::fs::write(dir.path().join("src/lib.rs"), "fn f() {}").unwrap();
        let changed = watch.changed().await.unwrap();
        assert!(changed.ends_with("src/lib.rs"), "{changed:?}");
    }
}
