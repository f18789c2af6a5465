//! The DAGs as the loop knows them: paused or not, their current version, and which are being deleted.

use std::collections::{HashMap, HashSet};
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
    /// Those of which rows are left to be removed.
    going: HashSet<DagId>,
    undo: Vec<Undo>,
}

/// What there was of a DAG before a change.
#[derive(Debug)]
struct Undo {
    /// The number of the change.
    change: usize,
    dag_id: DagId,
    entry: Option<DagEntry>,
    going: bool,
}

impl Dags {
    pub(crate) fn get(&self, dag_id: &DagId) -> Option<&DagEntry> {
        self.by_id.get(dag_id)
    }

    /// Whether the DAG is being deleted.
    pub(crate) fn is_going(&self, dag_id: &DagId) -> bool {
        self.going.contains(dag_id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &DagEntry> {
        self.by_id.values()
    }

    /// Adds or replaces a DAG, as the tick's change of this number.
    pub(crate) fn set(&mut self, change: usize, dag_id: &DagId, entry: DagEntry) {
        self.remember(change, dag_id);
        self.by_id.insert(dag_id.clone(), entry);
    }

    /// A DAG is paused, by what is committed already.
    pub(crate) fn pause(&mut self, dag_id: &DagId) {
        if let Some(dag) = self.by_id.get_mut(dag_id) {
            dag.paused = true;
        }
    }

    /// A DAG begins to go, as the tick's change of this number.
    pub(crate) fn begin_to_go(&mut self, change: usize, dag_id: &DagId) {
        self.remember(change, dag_id);
        self.by_id.remove(dag_id);
        self.going.insert(dag_id.clone());
    }

    /// A DAG is gone, as the tick's change of this number.
    pub(crate) fn gone(&mut self, change: usize, dag_id: &DagId) {
        self.remember(change, dag_id);
        self.going.remove(dag_id);
    }

    fn remember(&mut self, change: usize, dag_id: &DagId) {
        self.undo.push(Undo {
            change,
            dag_id: dag_id.clone(),
            entry: self.by_id.get(dag_id).cloned(),
            going: self.going.contains(dag_id),
        });
    }

    /// Adds a DAG that is stored.
    pub(crate) fn add(&mut self, entry: DagEntry) {
        self.by_id.insert(entry.version.dag().id.clone(), entry);
    }

    /// Adds a DAG of which rows are left to be removed.
    pub(crate) fn add_going(&mut self, dag_id: DagId) {
        self.going.insert(dag_id);
    }

    /// The changes are committed.
    pub(crate) fn keep(&mut self) {
        self.undo.clear();
    }

    /// Only some of the changes are committed; the others are taken back.
    pub(crate) fn take_back(&mut self, committed: impl Fn(usize) -> bool) {
        for undo in std::mem::take(&mut self.undo).into_iter().rev() {
            if committed(undo.change) {
                continue;
            }
            let dag_id = undo.dag_id;
            match undo.going {
                true => self.going.insert(dag_id.clone()),
                false => self.going.remove(&dag_id),
            };
            match undo.entry {
                Some(entry) => drop(self.by_id.insert(dag_id, entry)),
                None => drop(self.by_id.remove(&dag_id)),
            }
        }
    }
}
