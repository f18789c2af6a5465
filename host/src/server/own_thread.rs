//! A thread for one part of the server alone.
//!
//! On a runtime of several threads every wake-up of a task rouses a second thread that looks for work and finds none. The scheduler's loop
//! is woken several times for each step of a run and is one task: on a thread of its own it takes part in none of that.

use std::future::Future;
use std::io;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A runtime on a thread. It ends, and what runs on it, when this is dropped.
#[derive(Debug)]
pub(crate) struct OwnThread {
    handle: Handle,
    _end: DropGuard,
}

impl OwnThread {
    pub(crate) fn start(name: &str) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let end = CancellationToken::new();
        let ended = end.clone();
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || runtime.block_on(ended.cancelled()))?;
        Ok(Self {
            handle,
            _end: end.drop_guard(),
        })
    }

    /// Runs a task on it.
    pub(crate) fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.handle.spawn(task)
    }
}
