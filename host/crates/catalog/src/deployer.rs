//! Manifests against the catalog: every component that a manifest names is looked up, and the server's pools are; then `model`
//! judges the whole.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use model::DagId;
use model::budget::{Budget, StopOnDrop, within};
use model::manifest::{self, ComponentRef, Components, Manifest, Pools, ResolvedComponent, Unresolved};
use ports::component::{Component, ComponentState, Tag};
use ports::control::ControlError;
use ports::deploy::{CheckedManifest, DeployError, Deployed, Deployer};
use ports::query::{Page, QueryError};
use tokio::sync::Semaphore;

use crate::inner::{Catalog, Inner};

/// How many components are looked at for "did you mean".
const KNOWN: Page = Page {
    limit: 1_000,
    offset: 0,
};

#[async_trait]
impl Deployer for Catalog {
    async fn check(&self, source: &str) -> Result<CheckedManifest, DeployError> {
        let text: Arc<str> = source.into();
        let read = text.clone();
        let manifest = blocking(move || manifest::read(&read)).await?;
        let components = self.inner.resolve(&manifest).await?;
        let pools: Pools = self
            .inner
            .parts
            .control
            .pools()
            .await?
            .into_iter()
            .map(|pool| (pool.name, i64::from(pool.slots)))
            .collect();
        let unknown = self.inner.parts.control.unknown_dags(manifest.named_dags()).await?;
        let unknown: HashSet<DagId> = unknown.into_iter().collect();
        let unknown = manifest.unknown_dags(|dag| !unknown.contains(dag));
        let checked = blocking(move || manifest::compile_on(&manifest, &components, &pools)).await?;
        let mut checked = checked.map_err(DeployError::Invalid)?;
        checked.diagnostics.extend(unknown);
        Ok(CheckedManifest {
            digest: checked.digest,
            source: text,
            dag: Arc::new(checked.dag),
            paused: checked.paused,
            diagnostics: checked.diagnostics,
        })
    }

    async fn deploy(
        &self,
        source: &str,
        expected: Option<&DagId>,
        replace: bool,
        user: &str,
    ) -> Result<Deployed, DeployError> {
        let checked = self.check(source).await?;
        let found = checked.dag.id.clone();
        if let Some(expected) = expected
            && *expected != found
        {
            return Err(DeployError::OtherDag {
                expected: expected.clone(),
                found,
            });
        }
        match self.inner.parts.control.deploy(checked, replace, user).await {
            Err(ControlError::Conflict(_)) if !replace => Err(DeployError::Exists(found)),
            deployed => Ok(deployed?),
        }
    }
}

impl Inner {
    /// What the references of a manifest stand for. A component that is still being compiled stops everything, unless the
    /// manifest is wrong anyway.
    async fn resolve(&self, manifest: &Manifest) -> Result<Components, DeployError> {
        let mut components = Components::new();
        let mut known: Option<Arc<[String]>> = None;
        for named in manifest.components() {
            let reference = named.value;
            let resolved = match self.find(&reference).await.map_err(internal)? {
                Found::Component(component) => match usable(*component) {
                    Some(resolved) => resolved,
                    None if manifest.has_errors() => continue,
                    None => return Err(DeployError::Compiling(reference.to_string())),
                },
                Found::Nothing => {
                    if known.is_none() {
                        known = Some(self.known_tags().await.map_err(internal)?.into());
                    }
                    Err(Unresolved::NotFound {
                        known: known.clone().unwrap_or_default(),
                    })
                }
                Found::Path => Err(Unresolved::Unusable(
                    "a server reads no local files; `airtight dags deploy` uploads them first".to_owned(),
                )),
            };
            components.insert(reference, resolved);
        }
        Ok(components)
    }

    async fn find(&self, reference: &ComponentRef) -> Result<Found, QueryError> {
        let digest = match reference {
            ComponentRef::Path(_) => return Ok(Found::Path),
            ComponentRef::Digest(digest) | ComponentRef::NamedDigest(_, digest) => Some(*digest),
            ComponentRef::Tag(name, version) => {
                let tag = Tag {
                    name: name.clone(),
                    version: version.clone(),
                };
                self.parts.store.resolve_tag(&tag).await?
            }
        };
        let Some(digest) = digest else {
            return Ok(Found::Nothing);
        };
        let component = self.parts.store.component(digest).await?;
        Ok(component.map_or(Found::Nothing, |component| Found::Component(Box::new(component))))
    }

    async fn known_tags(&self) -> Result<Vec<String>, QueryError> {
        let components = self.parts.store.components(KNOWN).await?;
        Ok(components
            .items
            .iter()
            .flat_map(|component| &component.tags)
            .map(Tag::to_string)
            .collect())
    }
}

enum Found {
    Component(Box<Component>),
    Nothing,
    Path,
}

/// None while it is being compiled.
fn usable(component: Component) -> Option<Result<ResolvedComponent, Unresolved>> {
    match (component.state, component.descriptor) {
        (ComponentState::Compiling, _) => None,
        (ComponentState::Ready, Some(descriptor)) => Some(Ok(ResolvedComponent {
            digest: component.digest,
            descriptor: Arc::new(descriptor),
        })),
        (ComponentState::Ready, None) => Some(Err(Unresolved::Unusable("it has no description".to_owned()))),
        (ComponentState::Refused, _) => {
            let why = component
                .refusal
                .map_or_else(|| "no reason is known".to_owned(), |refusal| refusal.message);
            Some(Err(Unresolved::Refused(why)))
        }
    }
}

/// Manifests that are read or checked at a time. Others wait.
static CHECKS: Semaphore = Semaphore::const_new(2);

/// A manifest may have 100,000 tasks: reading and checking one is no work for a thread that serves requests. It ends soon after the request
/// that it is done for.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, DeployError> {
    let permit = CHECKS
        .acquire()
        .await
        .map_err(|closed| DeployError::Internal(closed.into()))?;
    let wanted = StopOnDrop::default();
    let budget = Budget::new(u64::MAX, u64::MAX).watched(wanted.watch());
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        within(budget, work)
    })
    .await
    .map_err(|failure| DeployError::Internal(failure.into()))
}

fn internal(failure: QueryError) -> DeployError {
    DeployError::Internal(failure.into())
}
