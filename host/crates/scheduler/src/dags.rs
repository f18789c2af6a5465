//! The DAGs as the loop knows them: paused or not, and their current version.

use std::collections::HashMap;
use std::sync::Arc;

use model::DagId;

use crate::version::Version;

/// One DAG.
#[derive(Clone, Debug)]
pub(crate) struct DagEntry {
    pub(crate) paused: bool,
    pub(crate) version: Arc<Version>,
}

/// All DAGs, and what the tick in the making has changed about them.
#[derive(Debug, Default)]
pub(crate) struct Dags {
    by_id: HashMap<DagId, DagEntry>,
    /// The number of the change, and what was there before.
    undo: Vec<(usize, DagId, Option<DagEntry>)>,
}

impl Dags {
    pub(crate) fn get(&self, dag_id: &DagId) -> Option<&DagEntry> {
        self.by_id.get(dag_id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &DagEntry> {
        self.by_id.values()
    }

    /// Adds, replaces or removes a DAG, as the tick's change of this number.
    pub(crate) fn set(&mut self, change: usize, dag_id: &DagId, entry: Option<DagEntry>) {
        let before = match entry {
            Some(entry) => self.by_id.insert(dag_id.clone(), entry),
            None => self.by_id.remove(dag_id),
        };
        self.undo.push((change, dag_id.clone(), before));
    }

    /// Adds a DAG that is stored.
    pub(crate) fn add(&mut self, entry: DagEntry) {
        self.by_id.insert(entry.version.dag().id.clone(), entry);
    }

    /// The changes are committed.
    pub(crate) fn keep(&mut self) {
        self.undo.clear();
    }

    /// Only some of the changes are committed; the others are taken back.
    pub(crate) fn take_back(&mut self, committed: impl Fn(usize) -> bool) {
        for (change, dag_id, before) in std::mem::take(&mut self.undo).into_iter().rev() {
            if committed(change) {
                continue;
            }
            match before {
                Some(entry) => drop(self.by_id.insert(dag_id, entry)),
                None => drop(self.by_id.remove(&dag_id)),
            }
        }
    }
}
