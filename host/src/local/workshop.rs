//! What compiles and runs components in this process: the engine, and compiled code in the user's cache directory.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::Digest;
use model::manifest::{ComponentRef, Components, Manifest, ResolvedComponent, Unresolved};
use ports::component::{ComponentCompiler as _, Inspected, Refusal};
use runtime::{ChildCompiler, CodeCache, CompilerConfig, EngineConfig, TaskEngine};

use super::digest_of_file;
use super::find::{Overrides, find};
use crate::client::cache_dir;
use crate::failure::{Exit, OrFail, Result};
use crate::ui::progress;

/// The engine and the compiler.
pub(crate) struct Workshop {
    pub(super) engine: Arc<TaskEngine>,
    pub(super) code: Arc<CodeCache>,
    pub(super) compiler: Arc<ChildCompiler>,
}

/// What is known of a file: its content, and what it holds or why it can never be used.
pub(crate) type Described = (Digest, Result<Inspected, Refusal>);

impl Workshop {
    /// Opens the cache.
    pub(crate) fn open() -> Result<Self> {
        let engine = TaskEngine::new(&EngineConfig::default())
            .or_fail(Exit::Broken, || "cannot create the wasm engine".to_owned())?;
        let dir = cache_dir().join("compiled");
        let code = CodeCache::open(&dir, &engine)
            .or_fail(Exit::Broken, || format!("cannot open the cache in `{}`", dir.display()))?;
        let code = Arc::new(code);
        let config = CompilerConfig::this_executable()
            .or_fail(Exit::Broken, || "cannot find this program's own file".to_owned())?;
        Ok(Self {
            engine,
            compiler: Arc::new(ChildCompiler::new(config, code.clone())),
            code,
        })
    }

    /// Compiles a file, unless the cache has it, and says what it holds.
    pub(crate) async fn describe(&self, path: &Path) -> Result<Described> {
        let shown = path.display();
        let cannot_read = || format!("cannot read `{shown}`");
        let path = path.canonicalize().or_fail(Exit::Invalid, cannot_read)?;
        let digest = digest_of_file(&path).await.or_fail(Exit::Invalid, cannot_read)?;
        let spinner = progress::spinner(&format!("compiling {shown}"));
        let described = self.compiler.compile(digest, &path).await;
        spinner.finish_and_clear();
        let described = described.or_fail(Exit::Broken, || format!("cannot compile `{shown}`"))?;
        Ok((digest, described))
    }

    /// What the components of a local manifest stand for, and the files that they are in.
    pub(crate) async fn resolve(
        &self,
        file: &Path,
        manifest: &Manifest,
        overrides: &Overrides,
    ) -> (Components, HashMap<ComponentRef, PathBuf>) {
        let mut components = Components::new();
        let mut files = HashMap::new();
        for named in manifest.components() {
            let reference = named.value;
            let Some(path) = find(file, &reference, overrides) else {
                components.insert(
                    reference,
                    Err(Unresolved::NotFound {
                        known: overrides.known().into(),
                    }),
                );
                continue;
            };
            let resolved = self.resolve_file(&path).await;
            files.insert(reference.clone(), path);
            components.insert(reference, resolved);
        }
        (components, files)
    }

    /// What a file stands for.
    pub(crate) async fn resolve_file(&self, path: &Path) -> std::result::Result<ResolvedComponent, Unresolved> {
        match self.describe(path).await {
            Ok((digest, Ok(inspected))) => Ok(ResolvedComponent {
                digest,
                descriptor: Arc::new(inspected.descriptor),
            }),
            Ok((_, Err(refusal))) => Err(Unresolved::Refused(refusal.message)),
            Err(failure) => Err(Unresolved::Unusable(failure.in_words())),
        }
    }
}
