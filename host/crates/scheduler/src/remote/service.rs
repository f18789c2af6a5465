//! Looking for answers, and for who schedules.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::Inner;

/// How many requests are looked for at a time.
const A_LOOK: usize = 500;

/// What a [`Remote`](super::Remote) needs to be done in the background.
pub struct RemoteService {
    pub(super) inner: Arc<Inner>,
}

impl std::fmt::Debug for RemoteService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteService").finish_non_exhaustive()
    }
}

impl RemoteService {
    /// Runs until it is dropped.
    pub async fn run(self) {
        tokio::join!(watch(&self.inner), collect(&self.inner));
    }
}

/// Keeps in sight who schedules.
async fn watch(inner: &Inner) {
    loop {
        match inner.inbox.scheduler().await {
            Ok(seen) => drop(inner.seen.send_replace(Some(seen))),
            Err(error) => tracing::warn!(%error, "cannot read who schedules; trying again"),
        }
        tokio::time::sleep(inner.config.watch_every).await;
    }
}

/// Gives answers to those who wait for them. Nothing is read while nobody does.
async fn collect(inner: &Inner) {
    let mut pause = inner.config.first_pause;
    loop {
        let ids: Vec<Uuid> = inner.waiting().keys().copied().take(A_LOOK).collect();
        if ids.is_empty() {
            inner.asked.notified().await;
            pause = inner.config.first_pause;
            continue;
        }
        match take(inner, &ids).await {
            0 => {}
            _ => pause = inner.config.first_pause,
        }
        let asked = tokio::time::timeout(pause, inner.asked.notified()).await.is_ok();
        pause = match asked {
            true => inner.config.first_pause,
            false => pause.saturating_mul(2).min(inner.config.longest_pause),
        };
    }
}

/// Answers how many answers were there.
async fn take(inner: &Inner, ids: &[Uuid]) -> usize {
    let answers = match inner.inbox.answers(ids).await {
        Ok(answers) => answers,
        Err(error) => {
            tracing::warn!(%error, "cannot read answers from the inbox; trying again");
            tokio::time::sleep(Duration::from_millis(200)).await;
            return 0;
        }
    };
    if answers.is_empty() {
        return 0;
    }
    let taken: Vec<Uuid> = answers.iter().map(|(id, _)| *id).collect();
    for (id, answer) in answers {
        if let Some(waits) = inner.waiting().remove(&id) {
            // An error means that it was given up in this moment.
            let _ = waits.send(answer);
        }
    }
    if let Err(error) = inner.inbox.forget(&taken).await {
        tracing::warn!(%error, "cannot remove answers from the inbox; the scheduler removes them later");
    }
    taken.len()
}
