//! XCom pulls of running tries: only committed values, only of upstream tasks, only for current dispatches.

use async_trait::async_trait;
use model::{MapIndex, TaskId, TiKey};
use ports::executor::TryId;
use ports::payload::{Pulled, XcomBackend, XcomError, XcomValue};

use crate::handle::Handle;
use crate::metrics::Metrics;

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
        let upstream = run
            .version
            .dag()
            .index_of(task.as_str())
            .filter(|upstream| run.version.is_upstream(*upstream, id.ti.task))
            .ok_or_else(|| XcomError::NotUpstream(task.clone()))?;
        if map_index.is_none_or(|index| index == MapIndex::UNMAPPED) {
            let ti = TiKey {
                run: id.ti.run,
                task: upstream,
                map_index: MapIndex::UNMAPPED,
            };
            if let Some(value) = self.shared.xcoms().get(ti, key).cloned() {
                Metrics::count(&self.shared.metrics.xcom_cache_hits);
                return Ok(Pulled::One(value));
            }
        }
        Metrics::count(&self.shared.metrics.xcom_cache_misses);
        let values = self
            .shared
            .store
            .xcoms(id.ti.run, upstream, key)
            .await
            .map_err(|error| XcomError::Backend(Box::new(error)))?;
        Ok(pick(values, map_index))
    }
}

fn pick(values: Vec<(MapIndex, XcomValue)>, map_index: Option<MapIndex>) -> Pulled {
    if let Some(wanted) = map_index {
        return values
            .into_iter()
            .find(|(index, _)| *index == wanted)
            .map_or(Pulled::Missing, |(_, value)| Pulled::One(value));
    }
    match values.as_slice() {
        [] => Pulled::Missing,
        [(MapIndex::UNMAPPED, value)] => Pulled::One(value.clone()),
        _ => Pulled::Mapped(values),
    }
}
