//! XCom pulls of running tries: only committed values, only of upstream tasks, only for current dispatches, and of repeated tasks
//! only what the try's own part of the run sees.

use std::sync::Arc;

use async_trait::async_trait;
use model::dag::ROOT;
use model::run::is_many;
use model::template::{Segment, split};
use model::{MapIndex, TaskId, TaskIndex, TiKey};
use ports::executor::{NO_TASK, TryId};
use ports::payload::{Pulled, XcomBackend, XcomError, XcomValue};

use crate::handle::Handle;
use crate::live::LiveRun;
use crate::metrics::Metrics;
use crate::xcom_lists::ListKey;

#[async_trait]
impl XcomBackend for Handle {
    async fn pull(
        &self,
        id: TryId,
        task: &TaskId,
        key: &str,
        map_index: Option<MapIndex>,
    ) -> Result<Pulled, XcomError> {
        let run = self.current(&id).ok_or(XcomError::Stale)?;
        let upstream = upstream(&run, id, task)?;
        if id.callback.is_some() && upstream == id.ti.task && map_index.is_none() {
            // What the task instance itself published.
            let found = self.one(id, upstream, id.ti.map_index, key).await?;
            return Ok(found.map_or(Pulled::Missing, Pulled::One));
        }
        let sight = sight(&run, id, |sight| sight.now.get(&upstream).cloned());
        if let Some(wanted) = map_index {
            let sees = sight.is_none_or(|sight| sight.contains(&wanted));
            let found = if sees {
                self.one(id, upstream, wanted, key).await?
            } else {
                None
            };
            return Ok(found.map_or(Pulled::Missing, Pulled::One));
        }
        self.seen(&run, id, upstream, key, sight).await
    }

    async fn pull_previous(&self, id: TryId, task: &TaskId, key: &str) -> Result<Pulled, XcomError> {
        let run = self.current(&id).ok_or(XcomError::Stale)?;
        let other = run
            .version
            .dag()
            .resolve(id.ti.task, task.as_str())
            .ok_or_else(|| XcomError::NotUpstream(task.clone()))?;
        match sight(&run, id, |sight| sight.before.get(&other).cloned()) {
            None => Err(XcomError::NotUpstream(task.clone())),
            Some(before) if before.is_empty() => Ok(Pulled::Missing),
            Some(before) => self.seen(&run, id, other, key, Some(before)).await,
        }
    }

    async fn pull_element(
        &self,
        id: TryId,
        task: &TaskId,
        key: &str,
        path: &[Segment],
        index: u32,
    ) -> Result<Option<XcomValue>, XcomError> {
        let run = self.current(&id).ok_or(XcomError::Stale)?;
        let upstream = upstream(&run, id, task)?;
        let seen = sight(&run, id, |sight| sight.now.get(&upstream).cloned());
        let Some(map_index) = seen.map_or(Some(MapIndex::UNMAPPED), |seen| seen.first().copied()) else {
            return Ok(None);
        };
        let ti = TiKey {
            run: id.ti.run,
            task: upstream,
            map_index,
        };
        let list = ListKey {
            ti,
            key: key.to_owned(),
            path: path.to_vec(),
        };
        let known = self.shared.xcom_lists().get(&list);
        let list = match known {
            Some(list) => list,
            None => {
                let Some(value) = self.one(id, upstream, map_index, key).await? else {
                    return Ok(None);
                };
                let elements = split(&value.value, path).unwrap_or_default();
                let elements: Vec<Arc<str>> = elements.into_iter().map(Arc::from).collect();
                self.shared.xcom_lists().insert(list, elements, value.blobs)
            }
        };
        let element = list.elements.get(index as usize);
        Ok(element.map(|element| XcomValue {
            value: Arc::clone(element),
            blobs: list.blobs.clone(),
        }))
    }
}

/// The upstream task that a name stands for.
fn upstream(run: &LiveRun, id: TryId, name: &TaskId) -> Result<TaskIndex, XcomError> {
    run.version
        .dag()
        .resolve(id.ti.task, name.as_str())
        .filter(|upstream| {
            // A callback sees its own task too, and one of the DAG sees all.
            let called = id.callback.is_some() && (*upstream == id.ti.task || id.ti.task == NO_TASK);
            called || run.version.is_upstream(*upstream, id.ti.task)
        })
        .ok_or_else(|| XcomError::NotUpstream(name.clone()))
}

/// Which instances the try sees, where those are not all.
fn sight(
    run: &LiveRun,
    id: TryId,
    of: impl FnOnce(&crate::live::Sight) -> Option<Vec<MapIndex>>,
) -> Option<Vec<MapIndex>> {
    let tries = run.tries();
    tries
        .get(&(id.ti.task, id.ti.map_index))
        .and_then(|live| of(&live.sight))
}

impl Handle {
    /// What one task instance published.
    async fn one(
        &self,
        id: TryId,
        task: TaskIndex,
        map_index: MapIndex,
        key: &str,
    ) -> Result<Option<XcomValue>, XcomError> {
        let ti = TiKey {
            run: id.ti.run,
            task,
            map_index,
        };
        if let Some(value) = self.shared.xcoms().get(ti, key).cloned() {
            Metrics::count(&self.shared.metrics.xcom_cache_hits);
            return Ok(Some(value));
        }
        Metrics::count(&self.shared.metrics.xcom_cache_misses);
        let values = self.shared.store.xcoms(id.ti.run, task, Some(map_index), key).await;
        let values = values.map_err(|error| XcomError::Backend(Box::new(error)))?;
        Ok(values.into_iter().next().map(|(_, value)| value))
    }

    /// What a task published, as the try sees it: one value, or the list of the values of many instances.
    async fn seen(
        &self,
        run: &LiveRun,
        id: TryId,
        task: TaskIndex,
        key: &str,
        sight: Option<Vec<MapIndex>>,
    ) -> Result<Pulled, XcomError> {
        let dag = run.version.dag();
        let here = dag.scopes().of_task(id.ti.task).0;
        if !is_many(dag, here, task) {
            let map_index = match &sight {
                Some(sight) => sight.first().copied(),
                None => Some(MapIndex::UNMAPPED),
            };
            let found = match map_index {
                Some(map_index) => self.one(id, task, map_index, key).await?,
                None => None,
            };
            return Ok(found.map_or(Pulled::Missing, Pulled::One));
        }
        Metrics::count(&self.shared.metrics.xcom_cache_misses);
        let values = self.shared.store.xcoms(id.ti.run, task, None, key).await;
        let mut values = values.map_err(|error| XcomError::Backend(Box::new(error)))?;
        if let Some(mut sight) = sight {
            sight.sort_unstable();
            values.retain(|(index, _)| sight.binary_search(index).is_ok());
        } else if dag.scopes().of_task(task).0 == ROOT {
            // What was never expanded published nothing.
            values.retain(|(index, _)| *index != MapIndex::UNMAPPED);
        }
        Ok(Pulled::Mapped(values))
    }
}
