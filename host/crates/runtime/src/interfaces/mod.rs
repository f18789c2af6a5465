//! The host's side of the task contract, one file an interface. Each call passes the gate of its try first, then checks
//! bounds, then calls a trait of `ports`. No SQL, no HTTP, no policy here.

pub(crate) mod blobs;
pub(crate) mod checkpoint;
pub(crate) mod context;
pub(crate) mod log;
pub(crate) mod progress;
pub(crate) mod types;
pub(crate) mod xcom;

/// An error of the interface, which the guest can handle, or a trap, which it cannot.
#[derive(Debug)]
pub(crate) enum HostError<E> {
    /// Goes to the guest.
    Wit(E),
    /// Unwinds the guest.
    Trap(wasmtime::Error),
}

impl<E> HostError<E> {
    /// What `convert_error` of each interface does.
    pub(crate) fn split(self) -> wasmtime::Result<E> {
        match self {
            Self::Wit(error) => Ok(error),
            Self::Trap(trap) => Err(trap),
        }
    }
}

impl<E> From<crate::gate::TryEnded> for HostError<E> {
    fn from(ended: crate::gate::TryEnded) -> Self {
        Self::Trap(ended.into())
    }
}

impl<E> From<wasmtime::component::ResourceTableError> for HostError<E> {
    fn from(error: wasmtime::component::ResourceTableError) -> Self {
        Self::Trap(error.into())
    }
}

/// A failure of the backend: logged here with its causes, told to the guest without them.
pub(crate) fn backend_failed(id: ports::executor::TryId, doing: &'static str, error: &dyn std::error::Error) -> String {
    let mut causes = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        causes.push_str(": ");
        causes.push_str(&cause.to_string());
        source = cause.source();
    }
    tracing::warn!(ti = ?id.ti, error = causes, "cannot {doing} for a task");
    format!("cannot {doing}: the server's storage failed")
}
