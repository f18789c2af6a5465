//! The dispatches that an executor holds, waiting or running.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use ports::executor::TryId;
use tokio::sync::Notify;

use crate::gate::{Gate, Stop};

/// See the module.
#[derive(Default)]
pub(super) struct Held {
    state: Mutex<State>,
    emptied: Notify,
}

#[derive(Default)]
struct State {
    gates: HashMap<TryId, Arc<Gate>>,
    closed: bool,
}

/// Why a dispatch was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// The executor shuts down.
    Closed,
    /// It is here already: a repeated message.
    Known,
}

/// Forgets its dispatch when it is dropped.
pub(super) struct Hold {
    held: Arc<Held>,
    id: TryId,
    pub(super) gate: Arc<Gate>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.held.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.gates.remove(&self.id);
        if state.gates.is_empty() {
            self.held.emptied.notify_waiters();
        }
    }
}

impl Held {
    /// Takes a dispatch.
    pub(super) fn take(self: &Arc<Self>, id: TryId) -> Result<Hold, NotTaken> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return Err(NotTaken::Closed);
        }
        let Entry::Vacant(vacant) = state.gates.entry(id) else {
            return Err(NotTaken::Known);
        };
        let gate = Arc::clone(vacant.insert(Arc::default()));
        Ok(Hold {
            held: Arc::clone(self),
            id,
            gate,
        })
    }

    /// The dispatches that are held.
    pub(super) fn ids(&self) -> Vec<TryId> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.gates.keys().copied().collect()
    }

    /// Stops a dispatch; unknown ones are ignored.
    pub(super) fn stop(&self, id: TryId, stop: Stop) {
        let gate = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.gates.get(&id).cloned()
        };
        if let Some(gate) = gate {
            gate.stop(stop);
        }
    }

    /// Takes no more.
    pub(super) fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
    }

    /// Stops all.
    pub(super) fn stop_all(&self, stop: Stop) {
        let gates: Vec<_> = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.gates.values().cloned().collect()
        };
        for gate in gates {
            gate.stop(stop);
        }
    }

    /// Waits until none is left.
    pub(super) async fn empty(&self) {
        loop {
            let mut emptied = std::pin::pin!(self.emptied.notified());
            emptied.as_mut().enable();
            if self
                .state
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .gates
                .is_empty()
            {
                return;
            }
            emptied.await;
        }
    }
}
