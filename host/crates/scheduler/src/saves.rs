//! Group commit of checkpoints: what tries save while one transaction is in flight is committed together in the next. A sync each would
//! make ticks, which share the database, wait for all of them in a row.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use ports::payload::CheckpointError;
use ports::store::{CheckpointSave, CommitError, Lease};
use tokio::sync::{mpsc, oneshot};

use crate::metrics::Metrics;
use crate::shared::Shared;

/// How many saves a transaction takes.
const BATCH_SAVES: usize = 64;
/// How many bytes a transaction takes, unless one save alone has more.
const BATCH_BYTES: usize = 8 << 20;

/// A save that waits, and whoever waits for it.
#[derive(Debug)]
struct Waiting {
    save: CheckpointSave,
    answer: oneshot::Sender<Result<(), CheckpointError>>,
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.save.checkpoint.as_ref().map_or(0, |saved| saved.bytes.len())
    }
}

/// The saves that wait: of each try that runs at most one that is not given up, so the number of slots bounds them.
#[derive(Debug)]
pub(crate) struct Saves {
    waiting: mpsc::UnboundedSender<Waiting>,
    /// Until the scheduler starts.
    taken: Mutex<Option<mpsc::UnboundedReceiver<Waiting>>>,
}

impl Default for Saves {
    fn default() -> Self {
        let (waiting, taken) = mpsc::unbounded_channel();
        Self {
            waiting,
            taken: Mutex::new(Some(taken)),
        }
    }
}

impl Saves {
    /// Durable when it returns. Once the scheduler has stopped, no dispatch of it is current.
    pub(crate) async fn save(&self, save: CheckpointSave) -> Result<(), CheckpointError> {
        let (answer, answered) = oneshot::channel();
        let sent = self.waiting.send(Waiting { save, answer });
        sent.map_err(|_| CheckpointError::Stale)?;
        answered.await.unwrap_or(Err(CheckpointError::Stale))
    }
}

/// Commits what is saved until the scheduler stops; dropped (aborted) when the loop ends.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let Some(lease) = shared.lease.get() else { return };
    let taken = shared.saves.taken.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(mut waiting) = taken else { return };
    let mut left_over = None;
    loop {
        let first = match left_over.take() {
            Some(first) => first,
            None => match waiting.recv().await {
                Some(first) => first,
                None => return,
            },
        };
        let batch = fill(first, || waiting.try_recv().ok(), &mut left_over);
        commit(&shared, lease, batch).await;
    }
}

/// What goes into one transaction, in the order in which it was saved. `left_over` is what did not fit any more.
fn fill(first: Waiting, mut next: impl FnMut() -> Option<Waiting>, left_over: &mut Option<Waiting>) -> Vec<Waiting> {
    let mut bytes = first.bytes();
    let mut batch = vec![first];
    while batch.len() < BATCH_SAVES {
        let Some(more) = next() else { break };
        bytes = bytes.saturating_add(more.bytes());
        if bytes > BATCH_BYTES {
            *left_over = Some(more);
            break;
        }
        batch.push(more);
    }
    batch
}

/// Commits a batch and answers each of its saves. A batch that the database refuses because of its data is split until the save that
/// it is about is alone.
async fn commit(shared: &Shared, lease: &Lease, batch: Vec<Waiting>) {
    let mut batches = VecDeque::from([batch]);
    while let Some(mut batch) = batches.pop_front() {
        // Whoever was cancelled while it waited needs no transaction.
        batch.retain(|waiting| !waiting.answer.is_closed());
        if batch.is_empty() {
            continue;
        }
        let (saves, answers): (Vec<_>, Vec<_>) = batch.into_iter().map(|one| (one.save, one.answer)).unzip();
        let now = shared.clock.now();
        match shared.store.save_checkpoints(lease, &saves, now).await {
            Ok(saved) => {
                for (answer, saved) in answers.into_iter().zip(saved) {
                    let _ = answer.send(if saved { Ok(()) } else { Err(refused(shared)) });
                }
            }
            Err(CommitError::Fenced) => {
                for answer in answers {
                    let _ = answer.send(Err(refused(shared)));
                }
            }
            Err(CommitError::Data(_)) if saves.len() > 1 => {
                let mut first: Vec<_> = saves
                    .into_iter()
                    .zip(answers)
                    .map(|(save, answer)| Waiting { save, answer })
                    .collect();
                let second = first.split_off(first.len() / 2);
                batches.push_front(second);
                batches.push_front(first);
            }
            Err(error) => {
                let error = Arc::new(error);
                for answer in answers {
                    let _ = answer.send(Err(CheckpointError::Backend(Box::new(Arc::clone(&error)))));
                }
            }
        }
    }
}

fn refused(shared: &Shared) -> CheckpointError {
    Metrics::count(&shared.metrics.stale_events);
    CheckpointError::Stale
}

#[cfg(test)]
mod tests {
    use model::{DagRunKey, DispatchNumber, MapIndex, TaskIndex, TiKey};
    use ports::payload::Checkpoint;

    use super::*;

    const MIB: usize = 1 << 20;

    fn of_bytes(bytes: usize) -> Waiting {
        let ti = TiKey {
            run: DagRunKey(1),
            task: TaskIndex(0),
            map_index: MapIndex::UNMAPPED,
        };
        let checkpoint = Some(Checkpoint {
            bytes: vec![0; bytes],
            blobs: Vec::new(),
        });
        let save = CheckpointSave {
            ti,
            dispatch: DispatchNumber(1),
            checkpoint,
        };
        Waiting {
            save,
            answer: oneshot::channel().0,
        }
    }

    /// The sizes of the batches that saves of these sizes are committed in.
    fn batches(sizes: &[usize]) -> Vec<Vec<usize>> {
        let mut waiting = sizes.iter().copied().map(of_bytes);
        let mut left_over = None;
        let mut batches = Vec::new();
        while let Some(first) = left_over.take().or_else(|| waiting.next()) {
            let batch = fill(first, || waiting.next(), &mut left_over);
            batches.push(batch.iter().map(Waiting::bytes).collect());
        }
        batches
    }

    #[test]
    fn a_batch_is_bounded_in_saves_and_in_bytes() {
        let lengths = |sizes: &[usize]| batches(sizes).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lengths(&[1; 130]), [64, 64, 2]);
        assert_eq!(
            batches(&[MIB, 9 * MIB, 3 * MIB, 5 * MIB, 1]),
            [vec![MIB], vec![9 * MIB], vec![3 * MIB, 5 * MIB], vec![1]]
        );
    }
}
