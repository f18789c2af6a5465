//! XCom pulls of running tries: only committed values, only of upstream tasks, only for current dispatches, and of repeated tasks
//! only what the try's own part of the run sees.

use std::sync::Arc;

use async_trait::async_trait;
use model::run::is_many;
use model::template::{Segment, split};
use model::{MapIndex, TaskId, TaskIndex, TiKey};
use ports::executor::{NO_TASK, TryId};
use ports::payload::{MAX_LIST_BYTES, PART_BYTES, Pulled, XcomBackend, XcomError, XcomValue};

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
        most: u64,
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
        self.seen((&run, id), upstream, key, sight, most).await
    }

    async fn count(&self, id: TryId, task: &TaskId, key: &str) -> Result<u32, XcomError> {
        let run = self.current(&id).ok_or(XcomError::Stale)?;
        let upstream = upstream(&run, id, task)?;
        let sight = sight(&run, id, |sight| sight.now.get(&upstream).cloned());
        if !sees_many(&run, id, upstream) {
            let found = self.only(id, upstream, key, sight.as_deref()).await?;
            return Ok(u32::from(found.is_some()));
        }
        let items = items(id, upstream, key, sight);
        let all = MapIndex(0)..=MapIndex(i32::MAX);
        let sizes = self
            .shared
            .store
            .xcom_sizes(id.ti.run, upstream, all, key, u32::MAX)
            .await;
        let seen = sizes
            .map_err(failed)?
            .into_iter()
            .filter(|(index, _)| items.sees(*index))
            .count();
        Ok(u32::try_from(seen).unwrap_or(u32::MAX))
    }

    async fn pull_items(
        &self,
        id: TryId,
        task: &TaskId,
        key: &str,
        after: Option<MapIndex>,
        max: u32,
    ) -> Result<Vec<(MapIndex, XcomValue)>, XcomError> {
        let run = self.current(&id).ok_or(XcomError::Stale)?;
        let upstream = upstream(&run, id, task)?;
        let sight = sight(&run, id, |sight| sight.now.get(&upstream).cloned());
        if max == 0 {
            return Ok(Vec::new());
        }
        if !sees_many(&run, id, upstream) {
            let found = self.only(id, upstream, key, sight.as_deref()).await?;
            return Ok(found.into_iter().filter(|_| after.is_none()).collect());
        }
        let mut items = items(id, upstream, key, sight);
        items.next = after.map_or(0, |after| after.0.saturating_add(1)).max(0);
        self.part(&mut items, max).await
    }

    async fn pull_previous(&self, id: TryId, task: &TaskId, key: &str, most: u64) -> Result<Pulled, XcomError> {
        let run = self.current(&id).ok_or(XcomError::Stale)?;
        let other = run
            .version
            .dag()
            .resolve(id.ti.task, task.as_str())
            .ok_or_else(|| XcomError::NotUpstream(task.clone()))?;
        match sight(&run, id, |sight| sight.before.get(&other).cloned()) {
            None => Err(XcomError::NotUpstream(task.clone())),
            Some(before) if before.is_empty() => Ok(Pulled::Missing),
            Some(before) => self.seen((&run, id), other, key, Some(before), most).await,
        }
    }

    async fn pull_own(&self, id: TryId, key: &str) -> Result<Option<XcomValue>, XcomError> {
        self.current(&id).ok_or(XcomError::Stale)?;
        self.one(id, id.ti.task, id.ti.map_index, key).await
    }

    async fn own_sizes(&self, id: TryId) -> Result<Vec<(String, u64)>, XcomError> {
        self.current(&id).ok_or(XcomError::Stale)?;
        self.shared.store.xcom_keys(id.ti).await.map_err(failed)
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

/// Of how many values the sizes are read at a time.
const PART_ROWS: u32 = 16_384;

/// Values of many instances that a try sees, to be read one part after the other.
struct Items<'k> {
    id: TryId,
    task: TaskIndex,
    key: &'k str,
    /// Ascending; all, where there is none.
    sight: Option<Vec<MapIndex>>,
    /// The first index that was not looked at.
    next: i32,
}

impl Items<'_> {
    fn sees(&self, index: MapIndex) -> bool {
        let sight = self.sight.as_ref();
        sight.is_none_or(|sight| sight.binary_search(&index).is_ok())
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
        let values = self
            .shared
            .store
            .xcoms(id.ti.run, task, map_index..=map_index, key)
            .await;
        let values = values.map_err(failed)?;
        Ok(values.into_iter().next().map(|(_, value)| value))
    }

    /// What a task published, as the try sees it: one value, or the list of the values of many instances.
    async fn seen(
        &self,
        (run, id): (&LiveRun, TryId),
        task: TaskIndex,
        key: &str,
        sight: Option<Vec<MapIndex>>,
        most: u64,
    ) -> Result<Pulled, XcomError> {
        if !sees_many(run, id, task) {
            let found = self.only(id, task, key, sight.as_deref()).await?;
            return Ok(found.map_or(Pulled::Missing, |(_, value)| Pulled::One(value)));
        }
        let limit = most.min(MAX_LIST_BYTES);
        let mut items = items(id, task, key, sight);
        let mut all = Vec::new();
        let mut bytes = 0_u64;
        loop {
            let part = self.part(&mut items, u32::MAX).await?;
            if part.is_empty() {
                return Ok(Pulled::Mapped(all));
            }
            bytes += part.iter().map(|(_, value)| size(value)).sum::<u64>();
            if bytes > limit {
                let named = run.version.dag().task(task).map(|task| task.id.clone());
                return Err(named.map_or(XcomError::Stale, |task| XcomError::TooLarge { task, limit }));
            }
            all.extend(part);
        }
    }

    /// The one value that the try sees of a task that is not repeated, or of the last iteration.
    async fn only(
        &self,
        id: TryId,
        task: TaskIndex,
        key: &str,
        sight: Option<&[MapIndex]>,
    ) -> Result<Option<(MapIndex, XcomValue)>, XcomError> {
        let map_index = sight.map_or(Some(MapIndex::UNMAPPED), |sight| sight.first().copied());
        let Some(map_index) = map_index else { return Ok(None) };
        let value = self.one(id, task, map_index, key).await?;
        Ok(value.map(|value| (map_index, value)))
    }

    /// The next values: at most `max`, and about [`PART_BYTES`]. Nothing: there are no more.
    async fn part(&self, items: &mut Items<'_>, max: u32) -> Result<Vec<(MapIndex, XcomValue)>, XcomError> {
        let (store, run) = (&self.shared.store, items.id.ti.run);
        loop {
            let all = MapIndex(items.next)..=MapIndex(i32::MAX);
            let sizes = store.xcom_sizes(run, items.task, all, items.key, PART_ROWS).await;
            let sizes = sizes.map_err(failed)?;
            let Some((last, _)) = sizes.last().copied() else {
                return Ok(Vec::new());
            };
            let mut seen = sizes
                .into_iter()
                .skip_while(|(index, _)| !items.sees(*index))
                .peekable();
            let Some((first, _)) = seen.peek().copied() else {
                items.next = last.0.saturating_add(1);
                continue;
            };
            // What lies between is read, too, and does not count as handed over.
            let (mut end, mut bytes, mut count) = (first, 0_u64, 0);
            for (index, size) in seen {
                bytes = bytes.saturating_add(size);
                if count > 0 && (bytes > PART_BYTES || count == max) {
                    break;
                }
                end = index;
                count += u32::from(items.sees(index));
            }
            items.next = end.0.saturating_add(1);
            Metrics::count(&self.shared.metrics.xcom_cache_misses);
            let values = store.xcoms(run, items.task, first..=end, items.key).await;
            let mut values = values.map_err(failed)?;
            values.retain(|(index, _)| items.sees(*index));
            return Ok(values);
        }
    }
}

/// Whether the try sees a list of what a task published.
fn sees_many(run: &LiveRun, id: TryId, task: TaskIndex) -> bool {
    let dag = run.version.dag();
    is_many(dag, dag.scopes().of_task(id.ti.task).0, task)
}

/// What was never expanded published nothing: the first index is 0.
fn items(id: TryId, task: TaskIndex, key: &str, mut sight: Option<Vec<MapIndex>>) -> Items<'_> {
    if let Some(sight) = &mut sight {
        sight.sort_unstable();
    }
    Items {
        id,
        task,
        key,
        sight,
        next: 0,
    }
}

fn size(value: &XcomValue) -> u64 {
    u64::try_from(value.value.len()).unwrap_or(u64::MAX)
}

fn failed(error: ports::query::QueryError) -> XcomError {
    XcomError::Backend(Box::new(error))
}
