//! Draining the inbox: what processes without the lease have asked for is read, done, and answered in its row.
//!
//! A request is done once. The tick that does it settles its row in the same transaction, and a scheduler that takes over does what is
//! not settled. The answer follows in a commit of its own; where a scheduler stopped between the two, the next one says that it is done
//! and no more.

mod perform;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use model::Timestamp;
use ports::control::ControlError;
use ports::inbox::{Answer, Done, InboxRow, Request};
use ports::store::{CommitError, Lease};
use tokio::sync::{Notify, mpsc, watch};
use uuid::Uuid;

use crate::shared::Shared;

/// How many requests are done at a time.
const AT_A_TIME: usize = 32;
/// How often it is looked for requests where no bell rings.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long an answer waits for whoever asked.
const KEEP: Duration = Duration::from_secs(3600);
/// How long a scheduler that stops waits for what it did to be answered.
const LAST_ANSWERS: Duration = Duration::from_secs(3);
/// How often answers that nobody took are removed.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// What those who drain the inbox share with others.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    /// Rung where there may be something in the inbox, and where there is room for more.
    bell: Notify,
    /// The requests that are read and not answered yet.
    in_hand: watch::Sender<BTreeSet<Uuid>>,
}

impl Drain {
    /// The inbox may have something new.
    pub(crate) fn ring(&self) {
        self.bell.notify_one();
    }

    /// Waits until everything that was done is answered, but not for long.
    pub(crate) async fn settle(&self) {
        let mut in_hand = self.in_hand.subscribe();
        let empty = in_hand.wait_for(BTreeSet::is_empty);
        let _ = tokio::time::timeout(LAST_ANSWERS, empty).await;
    }

    fn ids(&self) -> Vec<Uuid> {
        self.in_hand.borrow().iter().copied().collect()
    }

    fn take(&self, id: Uuid) {
        self.in_hand.send_modify(|ids| {
            ids.insert(id);
        });
    }

    fn let_go(&self, done: impl Iterator<Item = Uuid>) {
        self.in_hand.send_modify(|ids| {
            for id in done {
                ids.remove(&id);
            }
        });
        self.ring();
    }
}

/// Drains the inbox until the scheduler stops; dropped (aborted) when the loop ends.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let Some(lease) = shared.lease.get() else { return };
    let (answers, mut answered) = mpsc::unbounded_channel();
    let read = read_all(&shared, lease, &answers);
    let write = async {
        while let Some(first) = answered.recv().await {
            let mut batch = vec![first];
            while let Ok(more) = answered.try_recv() {
                batch.push(more);
            }
            if !write_answers(&shared, lease, &mut batch).await {
                return;
            }
            shared.drain.let_go(batch.iter().map(|(id, _)| *id));
        }
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
}

async fn read_all(
    shared: &Arc<Shared>,
    lease: &Lease,
    answers: &mpsc::UnboundedSender<(Uuid, String)>,
) {
    let mut sweep_at = Timestamp(i64::MIN);
    let mut pause = shared.config.backoff;
    while !shared.stopping.load(Ordering::Acquire) {
        let now = shared.clock.now();
        if now >= sweep_at {
            sweep_at = now.plus(SWEEP_EVERY);
            let before = Timestamp(now.0.saturating_sub(i64::try_from(KEEP.as_micros()).unwrap_or(i64::MAX)));
            if let Err(error) = shared.store.sweep_inbox(lease, before).await {
                tracing::warn!(%error, "cannot remove old answers from the inbox; trying again later");
            }
        }
        let out = shared.drain.ids();
        let room = AT_A_TIME.saturating_sub(out.len());
        let wait = match shared.store.inbox(&out, u32::try_from(room).unwrap_or(0)).await {
            Ok(rows) => {
                pause = shared.config.backoff;
                for row in rows {
                    shared.drain.take(row.id);
                    begin(shared, row, answers.clone());
                }
                LOOK_EVERY
            }
            Err(error) => {
                tracing::warn!(%error, "cannot read the inbox; trying again");
                let wait = pause;
                pause = pause.saturating_mul(2).min(shared.config.backoff_max);
                wait
            }
        };
        let _ = tokio::time::timeout(wait, shared.drain.bell.notified()).await;
    }
    // What is done already is still answered.
    std::future::pending().await
}

/// Does what a row asks for, in a task of its own.
fn begin(shared: &Arc<Shared>, row: InboxRow, answers: mpsc::UnboundedSender<(Uuid, String)>) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let id = row.id;
        let asked = Arc::clone(&shared);
        let done = tokio::spawn(async move { answer(&asked, row).await }).await;
        let answer = done.unwrap_or_else(|error| Some(Err(ControlError::Internal(Box::new(error)))));
        match answer {
            // Nobody is there to take it only where the scheduler has stopped.
            Some(answer) => drop(answers.send((id, text(&answer)))),
            None => shared.drain.let_go(std::iter::once(id)),
        }
    });
}

/// None where the scheduler stops: the next one does it.
async fn answer(shared: &Arc<Shared>, row: InboxRow) -> Option<Answer> {
    if row.settled {
        return Some(Ok(Done::Unsaid));
    }
    let mut pause = shared.config.backoff;
    loop {
        let request: Request = match serde_json::from_str(&row.request) {
            Ok(request) => request,
            Err(error) => {
                tracing::error!(%error, request = %row.id, "a request in the inbox cannot be read");
                return Some(Err(ControlError::Internal(Box::new(error))));
            }
        };
        match perform::perform(shared, row.id, request).await {
            Err(ControlError::Stopping) => return None,
            // It is committed that it is to be done, and nothing of it was: it waits until the database writes again.
            Err(ControlError::Unavailable) => {
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2).min(shared.config.backoff_max);
            }
            answer => return Some(answer),
        }
        if shared.stopping.load(Ordering::Acquire) {
            return None;
        }
    }
}

fn text(answer: &Answer) -> String {
    serde_json::to_string(answer).unwrap_or_else(|error| {
        tracing::error!(%error, "an answer cannot be written as JSON");
        let failed: Answer = Err(ControlError::Internal(Box::new(error)));
        serde_json::to_string(&failed).unwrap_or_default()
    })
}

/// Writes answers until that succeeds. `false` where another scheduler has the lease: it answers.
async fn write_answers(shared: &Shared, lease: &Lease, batch: &mut [(Uuid, String)]) -> bool {
    let mut pause = shared.config.backoff;
    loop {
        match shared.store.answer_inbox(lease, batch, shared.clock.now()).await {
            Ok(()) => return true,
            Err(CommitError::Fenced) => return false,
            Err(CommitError::Data(error)) => {
                tracing::error!(%error, "the database refuses answers; those who wait are told so");
                let refused: Answer = Err(ControlError::Internal("the answer cannot be stored".into()));
                let refused = text(&refused);
                if batch.iter().all(|(_, answer)| *answer == refused) {
                    return true;
                }
                for (_, answer) in batch.iter_mut() {
                    answer.clone_from(&refused);
                }
            }
            // An answer that was written is not written again.
            Err(error) => {
                tracing::warn!(%error, "cannot write answers into the inbox; trying again");
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2).min(shared.config.backoff_max);
            }
        }
    }
}
