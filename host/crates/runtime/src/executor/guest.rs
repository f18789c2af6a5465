//! A guest's future as a task of its own, which its try can give up between two polls.
//!
//! Were it polled by the task that watches for cancels and deadlines, that task would stand in line behind every busy guest: a
//! guest that yields goes to the end of its thread's queue. So the watcher sleeps until something happens to it, and then it
//! waits no longer than one epoch tick for the guest to let go.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::Mutex;
use tokio::task::{JoinError, JoinHandle};

type Cell<F> = Arc<Mutex<Option<Pin<Box<F>>>>>;

/// See the module.
pub(super) struct Guest<F: Future> {
    cell: Cell<F>,
    task: JoinHandle<Option<F::Output>>,
}

impl<F> Guest<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    /// Starts the future on the current runtime.
    pub(super) fn start(future: F) -> Self {
        let cell: Cell<F> = Arc::new(Mutex::new(Some(Box::pin(future))));
        let task = tokio::spawn(Polled(Arc::clone(&cell)));
        Self { cell, task }
    }

    /// Waits for the future's end. Nothing is lost where this is dropped.
    pub(super) async fn ended(&mut self) -> Result<F::Output, JoinError> {
        match (&mut self.task).await? {
            Some(output) => Ok(output),
            // Only `give_up` takes the future away, and it takes `self` with it.
            None => std::future::pending().await,
        }
    }

    /// Drops the future, as soon as it is not being polled.
    pub(super) async fn give_up(self) {
        let future = self.cell.lock().await.take();
        drop(future);
    }
}

/// Polls the future while it is there. The lock is only ever contended by who wants to drop the future.
struct Polled<F>(Cell<F>);

impl<F: Future> Future for Polled<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(mut cell) = self.0.try_lock() else {
            return Poll::Ready(None);
        };
        let Some(future) = cell.as_mut() else {
            return Poll::Ready(None);
        };
        let polled = future.as_mut().poll(cx);
        if polled.is_ready() {
            // The guest's store goes before anyone hears of its end.
            *cell = None;
        }
        polled.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tells when it is dropped.
    struct Told(Option<tokio::sync::oneshot::Sender<()>>);

    impl Drop for Told {
        fn drop(&mut self) {
            if let Some(sender) = self.0.take() {
                let _ = sender.send(());
            }
        }
    }

    #[tokio::test]
    async fn answers_what_the_future_answers() {
        let mut guest = Guest::start(async {
            tokio::task::yield_now().await;
            17
        });
        assert_eq!(guest.ended().await.unwrap(), 17);
        guest.give_up().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_future_that_always_yields_is_dropped() {
        let (sender, dropped) = tokio::sync::oneshot::channel();
        let (started, running) = tokio::sync::oneshot::channel();
        let told = Told(Some(sender));
        let mut guest = Guest::start(async move {
            let _told = told;
            let _ = started.send(());
            loop {
                tokio::task::yield_now().await;
            }
        });
        tokio::select! {
            _ = guest.ended() => unreachable!("it never ends"),
            _ = running => {}
        }
        guest.give_up().await;
        dropped.await.expect("it was dropped");
    }
}
