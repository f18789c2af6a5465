//! Making, changing and deleting pools. Like all that a tick decides it holds from here on, and is taken back where it is not
//! committed.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use model::dag::DEFAULT_POOL;
use model::{Dag, DagId};
use ports::control::{ControlError, NewPool, PoolPatch};
use ports::query::PoolRow;
use ports::store::PoolWrite;

use crate::core::Core;
use crate::inbox::PoolOp;

impl Core {
    /// What the tick's change of this number writes, or why it is refused.
    pub(crate) fn apply_pool(&mut self, op: &PoolOp, change: usize) -> Result<PoolWrite, ControlError> {
        match op {
            PoolOp::Create(new) => self.create_pool(new, change),
            PoolOp::Change { name, patch } => self.change_pool(name, patch, change),
            PoolOp::Delete { name } => {
                self.known_pool(name)?;
                self.refuse_in_use(name)?;
                self.set_pool(change, name, None);
                Ok(PoolWrite::Delete { name: name.clone() })
            }
        }
    }

    fn create_pool(&mut self, new: &NewPool, change: usize) -> Result<PoolWrite, ControlError> {
        if self.slots.pools.get(&new.name).is_some() {
            return Err(ControlError::PoolExists(new.name.clone()));
        }
        let pool = PoolRow {
            name: new.name.clone(),
            slots: new.slots,
            description: new.description.clone(),
            include_deferred: new.include_deferred,
            // Of a run whose pool was removed from the database.
            used: self.slots.pool_used(&new.name),
        };
        self.set_pool(change, &new.name, Some(pool.clone()));
        Ok(PoolWrite::Create(pool))
    }

    fn change_pool(&mut self, name: &str, patch: &PoolPatch, change: usize) -> Result<PoolWrite, ControlError> {
        let mut pool = self.known_pool(name)?;
        if let Some(new_name) = patch.name.as_deref().filter(|new_name| *new_name != name) {
            self.refuse_in_use(name)?;
            if self.slots.pools.get(new_name).is_some() {
                return Err(ControlError::PoolExists(new_name.to_owned()));
            }
            new_name.clone_into(&mut pool.name);
        }
        pool.slots = patch.slots.unwrap_or(pool.slots);
        pool.include_deferred = patch.include_deferred.unwrap_or(pool.include_deferred);
        if let Some(description) = &patch.description {
            pool.description.clone_from(description);
        }
        if pool.name != name {
            self.set_pool(change, name, None);
        }
        self.set_pool(change, &pool.name.clone(), Some(pool.clone()));
        Ok(PoolWrite::Change {
            name: name.to_owned(),
            pool,
        })
    }

    fn set_pool(&mut self, change: usize, name: &str, pool: Option<PoolRow>) {
        self.slots.pools.set(change, name, pool);
        self.slots.set_pool(name);
    }

    fn known_pool(&self, name: &str) -> Result<PoolRow, ControlError> {
        let pool = self.slots.pools.get(name).cloned();
        pool.ok_or_else(|| ControlError::PoolNotFound(name.to_owned()))
    }

    /// A name that somebody relies on stays: the current version of a DAG, or a run that is under way with an older one.
    fn refuse_in_use(&self, name: &str) -> Result<(), ControlError> {
        if name == DEFAULT_POOL {
            return Err(ControlError::DefaultPool);
        }
        let current = self.dags.iter().map(|entry| entry.version.dag());
        let active = self
            .runs
            .values()
            .filter(|run| !run.state.state().is_finished())
            .map(|run| run.live.version.dag());
        let mut seen: HashSet<*const Dag> = HashSet::new();
        let mut dags: BTreeSet<DagId> = BTreeSet::new();
        for dag in current.chain(active) {
            if seen.insert(Arc::as_ptr(dag)) && dag.tasks.iter().any(|task| task.pool == name) {
                dags.insert(dag.id.clone());
            }
        }
        if dags.is_empty() {
            return Ok(());
        }
        Err(ControlError::PoolInUse {
            pool: name.to_owned(),
            dags: dags.into_iter().collect(),
        })
    }
}
