//! Components: what is known of an uploaded `.wasm`.

use async_trait::async_trait;
use bytes::Bytes;
pub use model::manifest::{Descriptor, TaskDescriptor};
use model::{ComponentName, ComponentVersion, Digest, Timestamp};
use serde::{Deserialize, Serialize};

use crate::space::NoSpace;

/// Where an uploaded component stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComponentState {
    /// It is being compiled and described.
    Compiling,
    /// It can be used.
    Ready,
    /// It cannot be used; the reason says why.
    Refused,
}

impl ComponentState {
    /// The name in the database and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Compiling => "compiling",
            Self::Ready => "ready",
            Self::Refused => "refused",
        }
    }
}

/// A tag `name@version`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tag {
    /// The name.
    pub name: ComponentName,
    /// The version.
    pub version: ComponentVersion,
}

impl std::fmt::Display for Tag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

/// An uploaded component.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Component {
    /// Its content.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Where it stands.
    pub state: ComponentState,
    /// Why it was refused.
    pub refusal: Option<Refusal>,
    /// Its tags that were not deleted.
    pub tags: Vec<Tag>,
    /// Its imports that mean something, in readable words, for example `blobs`.
    pub capabilities: Vec<String>,
    /// All its imports, for example `wasi:cli/stdout@0.2.6`.
    pub imports: Vec<String>,
    /// What it holds, once it is ready.
    pub descriptor: Option<Descriptor>,
    /// When it was uploaded first.
    pub created_at: Timestamp,
}

/// Why a component was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// A stable code, see `docs/errors.md`.
    pub code: String,
    /// For people.
    pub message: String,
}

/// What one instance of a component takes of the wasm engine: a try of it waits until the engine has that much to give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineNeeds {
    /// Core instances.
    pub core_instances: u32,
    /// Linear memories.
    pub memories: u32,
    /// Tables.
    pub tables: u32,
    /// What memories and tables have when the component starts, in bytes.
    pub initial_bytes: u64,
    /// Its compiled code, in bytes.
    pub code_bytes: u64,
}

/// What a server knows of a component beside its row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Its place in this server's compile queue: 0 while it is being compiled, 1 if it is the next. None where it is not in it.
    pub queue_position: Option<u32>,
    /// What an instance of it takes. None where its compiled code is not here.
    pub needs: Option<EngineNeeds>,
}

/// What the compiler child found in a component.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inspected {
    /// What it holds.
    pub descriptor: Descriptor,
    /// See [`Component::capabilities`].
    pub capabilities: Vec<String>,
    /// See [`Component::imports`].
    pub imports: Vec<String>,
    /// What one instance of it takes.
    pub needs: EngineNeeds,
}

/// Compiles and describes components outside of the control-plane process, and keeps the compiled code.
#[async_trait]
pub trait ComponentCompiler: Send + Sync + 'static {
    /// Compiles the file and asks the component to describe itself, under limits. The compiled code is kept under the digest.
    /// `Ok(Err(_))` is a component that can never be used; `Err` a failure of this machine that may pass.
    async fn compile(&self, digest: Digest, wasm: &std::path::Path) -> std::io::Result<Result<Inspected, Refusal>>;
    /// What an instance of the component takes, where its compiled code is here.
    async fn needs(&self, digest: Digest) -> Option<EngineNeeds>;
    /// Forgets the compiled code.
    async fn evict(&self, digest: Digest);
}

/// Why a component call failed.
#[derive(Debug, thiserror::Error)]
pub enum ComponentError {
    /// There is none.
    #[error("component `{0}` does not exist")]
    NotFound(String),
    /// The tag is taken by other content (even if it was deleted).
    #[error("tag `{tag}` already names other content ({existing}); tags are immutable, choose another version")]
    TagTaken {
        /// The tag.
        tag: Tag,
        /// What it names.
        existing: Digest,
    },
    /// DAG versions use it.
    #[error("component {digest} is in use by {}", users.join(", "))]
    InUse {
        /// The component.
        digest: Digest,
        /// DAG versions and runs, for people.
        users: Vec<String>,
    },
    /// The bytes can never be a component; nothing was kept.
    #[error("the upload was refused: {}", .0.message)]
    Refused(Refusal),
    /// More bytes than the server takes.
    #[error("the upload is over the limit of {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// There is no room for it.
    #[error("{0}")]
    NoSpace(NoSpace),
    /// The body broke off.
    #[error("the upload broke off")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server failed.
    #[error("cannot store the component")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The bytes of an upload.
pub type UploadStream =
    std::pin::Pin<Box<dyn futures_core::Stream<Item = Result<Bytes, Box<dyn std::error::Error + Send + Sync>>> + Send>>;

/// The component catalog, as the API sees it.
#[async_trait]
pub trait Components: Send + Sync + 'static {
    /// Stores an upload and starts to compile it. `true` where the content is new. The same content is never compiled twice.
    async fn upload(&self, tag: Option<Tag>, body: UploadStream) -> Result<(Component, bool), ComponentError>;
    /// One component by `sha256:…` or `name@version`.
    async fn get(&self, reference: &str) -> Result<Component, ComponentError>;
    /// All components, newest first.
    async fn list(&self, page: crate::query::Page) -> Result<crate::query::Listed<Component>, ComponentError>;
    /// What this server knows of components beside their rows, one answer a component.
    async fn standing(&self, components: &[Component]) -> Vec<Standing>;
    /// Waits until a component is no longer `compiling`.
    async fn wait_ready(&self, digest: Digest) -> Result<Component, ComponentError>;
    /// Removes a tag (`name@version`), or a component with all its tags (`sha256:…`). Refuses while it is in use.
    async fn delete(&self, reference: &str) -> Result<(), ComponentError>;
}
