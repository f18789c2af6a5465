//! Parsed DAG versions, so that no list parses JSON for each of its rows. A version never changes, so nothing is ever stale.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use ports::deploy::DagVersion;
use uuid::Uuid;

/// How many versions are kept.
const CAPACITY: usize = 512;

/// The versions used last come and the first ones in go.
#[derive(Default)]
pub(crate) struct VersionCache {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    versions: HashMap<Uuid, Arc<DagVersion>>,
    order: VecDeque<Uuid>,
}

impl VersionCache {
    pub(crate) fn get(&self, uuid: Uuid) -> Option<Arc<DagVersion>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.versions.get(&uuid).cloned()
    }

    pub(crate) fn insert(&self, version: Arc<DagVersion>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let uuid = version.uuid;
        if state.versions.insert(uuid, version).is_none() {
            state.order.push_back(uuid);
            if state.order.len() > CAPACITY
                && let Some(first) = state.order.pop_front()
            {
                state.versions.remove(&first);
            }
        }
    }
}
