//! Deploying manifests. A manifest is validated whole when it is deployed; the last good version stays untouched otherwise.

use std::sync::Arc;

use async_trait::async_trait;
pub use model::manifest::{Diagnostic, Severity};
use model::{Dag, DagId, Digest, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A DAG version as it is stored.
#[derive(Clone, Debug)]
pub struct DagVersion {
    /// The digest of the canonical manifest and its component digests.
    pub digest: Digest,
    /// For the outside.
    pub uuid: Uuid,
    /// Counted within its DAG, from 1.
    pub number: u32,
    /// The manifest as it was deployed.
    pub source: Arc<str>,
    /// Compiled.
    pub dag: Arc<Dag>,
    /// When it was deployed first.
    pub created_at: Timestamp,
}

/// A checked manifest, ready to be stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckedManifest {
    /// See [`DagVersion::digest`].
    pub digest: Digest,
    /// The manifest's text.
    pub source: Arc<str>,
    /// Compiled.
    pub dag: Arc<Dag>,
    /// `paused:` of the manifest; holds only when the DAG is new.
    pub paused: Option<bool>,
    /// Warnings and notes.
    pub diagnostics: Vec<Diagnostic>,
}

/// What a deploy did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Deployed {
    /// The DAG.
    pub dag_id: DagId,
    /// The version's UUID.
    pub version: Uuid,
    /// The version's number.
    pub version_number: u32,
    /// The version's digest.
    pub digest: Digest,
    /// Whether the DAG is new.
    pub new_dag: bool,
    /// Whether the content is new; the same content is the same version.
    pub new_version: bool,
    /// Warnings and notes.
    pub diagnostics: Vec<Diagnostic>,
}

/// Why a deploy failed.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The manifest has errors; all of them are here.
    #[error("the manifest has {} error(s)", .0.iter().filter(|d| d.severity == Severity::Error).count())]
    Invalid(Vec<Diagnostic>),
    /// A component is still being compiled: try again soon.
    #[error("component `{0}` is still being compiled")]
    Compiling(String),
    /// The URL and the manifest name different DAGs.
    #[error("the manifest is of DAG `{found}`, not of `{expected}`")]
    OtherDag {
        /// In the URL.
        expected: DagId,
        /// In the manifest.
        found: DagId,
    },
    /// `POST` of a DAG that exists; `PUT` replaces it.
    #[error("DAG `{0}` exists already")]
    Exists(DagId),
    /// The scheduler refused.
    #[error(transparent)]
    Control(#[from] crate::control::ControlError),
    /// The server failed.
    #[error("cannot deploy the manifest")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Checks and deploys manifests, as the API sees it.
#[async_trait]
pub trait Deployer: Send + Sync + 'static {
    /// Checks a manifest against the components of this server without storing anything.
    async fn check(&self, source: &str) -> Result<CheckedManifest, DeployError>;
    /// Deploys. `expected` is the DAG id of the URL, if it names one; `replace` allows that the DAG exists.
    async fn deploy(
        &self,
        source: &str,
        expected: Option<&DagId>,
        replace: bool,
        user: &str,
    ) -> Result<Deployed, DeployError>;
}
