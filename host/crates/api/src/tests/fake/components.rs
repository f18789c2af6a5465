//! Components and deploying.

use async_trait::async_trait;
use futures::StreamExt as _;
use model::{DagId, Digest};
use ports::component::{
    Component, ComponentError, ComponentState, Components, EngineNeeds, Standing, Tag, UploadStream,
};
use ports::deploy::{CheckedManifest, DeployError, Deployed, Deployer, Diagnostic, Severity};
use ports::query::{Listed, Page};

use super::*;

#[async_trait]
impl Components for Fake {
    async fn upload(&self, tag: Option<Tag>, mut body: UploadStream) -> Result<(Component, bool), ComponentError> {
        let mut bytes = Vec::new();
        while let Some(part) = body.next().await {
            bytes.extend_from_slice(&part.map_err(ComponentError::Body)?);
        }
        let component = Component {
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
            state: ComponentState::Compiling,
            refusal: None,
            tags: tag.into_iter().collect(),
            capabilities: vec!["blobs".to_owned()],
            imports: vec!["wasi:cli/stdout@0.2.6".to_owned()],
            descriptor: None,
            created_at: NOW,
        };
        let mut data = self.data();
        let new = data
            .component
            .as_ref()
            .is_none_or(|known| known.digest != component.digest);
        data.component = Some(component.clone());
        Ok((component, new))
    }

    async fn get(&self, reference: &str) -> Result<Component, ComponentError> {
        let component = self.data().component.clone();
        let names = |component: &Component| {
            component.digest.to_string() == reference || component.tags.iter().any(|tag| tag.to_string() == reference)
        };
        component
            .filter(names)
            .ok_or_else(|| ComponentError::NotFound(reference.to_owned()))
    }

    async fn list(&self, part: Page) -> Result<Listed<Component>, ComponentError> {
        Ok(page(self.data().component.clone().into_iter().collect(), part))
    }

    async fn standing(&self, components: &[Component]) -> Vec<Standing> {
        let standing = |component: &Component| match component.state {
            ComponentState::Compiling => Standing {
                queue_position: Some(2),
                needs: None,
            },
            _ => Standing {
                queue_position: None,
                needs: Some(EngineNeeds {
                    core_instances: 7,
                    memories: 1,
                    tables: 3,
                    initial_bytes: 1 << 20,
                    code_bytes: 300_000,
                }),
            },
        };
        components.iter().map(standing).collect()
    }

    async fn wait_ready(&self, digest: Digest) -> Result<Component, ComponentError> {
        let mut component = self.get(&digest.to_string()).await?;
        component.state = ComponentState::Ready;
        Ok(component)
    }

    async fn delete(&self, reference: &str) -> Result<(), ComponentError> {
        let component = self.get(reference).await?;
        Err(ComponentError::InUse {
            digest: component.digest,
            users: vec!["version 1 of DAG `etl`".to_owned()],
        })
    }
}

#[async_trait]
impl Deployer for Fake {
    async fn check(&self, source: &str) -> Result<CheckedManifest, DeployError> {
        let diagnostic = |severity, message: &str| Diagnostic {
            severity,
            code: "unknown_task".to_owned(),
            message: message.to_owned(),
            line: 3,
            column: 7,
            hint: Some("there is `load`".to_owned()),
        };
        if source.contains("compiling") {
            return Err(DeployError::Compiling("ml@1.3".to_owned()));
        }
        if !source.starts_with("dag:") {
            return Err(DeployError::Invalid(vec![
                diagnostic(Severity::Error, "there is no task `lod`"),
                diagnostic(Severity::Error, "there is no task `laod`"),
            ]));
        }
        Ok(CheckedManifest {
            digest: self.version.digest,
            source: source.into(),
            dag: self.version.dag.clone(),
            paused: None,
            diagnostics: vec![diagnostic(Severity::Warning, "this is odd")],
        })
    }

    async fn deploy(
        &self,
        source: &str,
        expected: Option<&DagId>,
        replace: bool,
        _: &str,
    ) -> Result<Deployed, DeployError> {
        let checked = self.check(source).await?;
        let dag_id = checked.dag.id.clone();
        if let Some(expected) = expected.filter(|expected| **expected != dag_id) {
            return Err(DeployError::OtherDag {
                expected: expected.clone(),
                found: dag_id,
            });
        }
        if !replace {
            return Err(DeployError::Exists(dag_id));
        }
        Ok(Deployed {
            dag_id,
            version: self.version.uuid,
            version_number: 1,
            digest: checked.digest,
            new_dag: false,
            new_version: true,
            diagnostics: checked.diagnostics,
        })
    }
}
