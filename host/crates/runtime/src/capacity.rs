//! Who may take what of the engine's pools, so that a try waits for room and never fails for the lack of it.
//!
//! Every slot has a share of memories and tables of its own, and as many core instances as a component may have: most components
//! need no more, and wait for nothing but their slot. What a component needs beyond the share comes from a part of the pools
//! that is kept for such components, in the order in which they ask. So a small one never waits for a large one, and no large
//! one is overtaken for ever.

use ports::component::EngineNeeds;
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};

use crate::engine::{MAX_CORE_INSTANCES, MAX_MEMORIES, MAX_TABLES};

/// Linear memories of every slot.
pub(crate) const SHARE_MEMORIES: u32 = 4;
/// Tables of every slot.
pub(crate) const SHARE_TABLES: u32 = 8;
/// For so many slots there is room for one component of the largest kind beyond its share.
const SLOTS_PER_LARGE: u32 = 4;

/// The number of components of the largest kind that fit beside so many slots.
pub(crate) const fn large(slots: u32) -> u32 {
    let large = slots / SLOTS_PER_LARGE;
    if large == 0 { 1 } else { large }
}

/// The most that a component may need: what is assumed of one that nothing is known of.
pub(crate) const fn most() -> EngineNeeds {
    EngineNeeds {
        core_instances: MAX_CORE_INSTANCES,
        memories: MAX_MEMORIES,
        tables: MAX_TABLES,
        initial_bytes: 0,
        code_bytes: 0,
    }
}

/// What is kept for components that need more than their share.
pub(crate) struct Spare {
    memories: Semaphore,
    tables: Semaphore,
}

/// Given back when it is dropped.
pub(crate) struct Admitted<'a> {
    _memories: Option<SemaphorePermit<'a>>,
    _tables: Option<SemaphorePermit<'a>>,
}

impl Spare {
    /// The part of the pools that goes with so many slots.
    pub(crate) fn for_slots(slots: u32) -> Self {
        let of = |each: u32| Semaphore::new((large(slots).saturating_mul(each) as usize).min(Semaphore::MAX_PERMITS));
        Self {
            memories: of(MAX_MEMORIES - SHARE_MEMORIES),
            tables: of(MAX_TABLES - SHARE_TABLES),
        }
    }

    /// Waits until there is room for the component beyond its share. Always in the same order, so that two never wait for each other.
    pub(crate) async fn admit(&self, needs: EngineNeeds) -> Result<Admitted<'_>, AcquireError> {
        // What is over the largest was refused at its upload; should it come here all the same, the engine says so.
        let memories = needs.memories.min(MAX_MEMORIES).saturating_sub(SHARE_MEMORIES);
        let tables = needs.tables.min(MAX_TABLES).saturating_sub(SHARE_TABLES);
        Ok(Admitted {
            _memories: take(&self.memories, memories).await?,
            _tables: take(&self.tables, tables).await?,
        })
    }

    /// Whoever waits hears that there is nothing to wait for.
    pub(crate) fn close(&self) {
        self.memories.close();
        self.tables.close();
    }
}

/// Who asks for nothing does not stand in line.
async fn take(from: &Semaphore, number: u32) -> Result<Option<SemaphorePermit<'_>>, AcquireError> {
    match number {
        0 => Ok(None),
        number => from.acquire_many(number).await.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn needs(memories: u32, tables: u32) -> EngineNeeds {
        EngineNeeds {
            core_instances: 1,
            memories,
            tables,
            ..EngineNeeds::default()
        }
    }

    #[tokio::test]
    async fn what_is_within_the_share_never_waits() {
        let spare = Spare::for_slots(1);
        let large = spare.admit(most()).await.unwrap();
        let waiting = spare.admit(most());
        tokio::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none(), "there is room for one");
        let small: Vec<_> = (0..100)
            .map(|_| spare.admit(needs(SHARE_MEMORIES, SHARE_TABLES)).now_or_never())
            .collect();
        assert!(small.iter().all(Option::is_some));
        drop(large);
        waiting.now_or_never().expect("its turn").unwrap();
    }

    #[tokio::test]
    async fn a_large_one_is_not_overtaken_by_those_that_ask_later() {
        let spare = Spare::for_slots(1);
        let first = spare.admit(needs(1, SHARE_TABLES + 1)).await.unwrap();
        let large = spare.admit(most());
        let later = spare.admit(needs(1, SHARE_TABLES + 1));
        tokio::pin!(large, later);
        assert!(large.as_mut().now_or_never().is_none());
        assert!(
            later.as_mut().now_or_never().is_none(),
            "it would fit, and stands in line"
        );
        drop(first);
        let large = large.now_or_never().expect("it was first").unwrap();
        assert!(later.as_mut().now_or_never().is_none());
        drop(large);
        later.now_or_never().expect("its turn").unwrap();
    }

    #[tokio::test]
    async fn who_waits_when_it_is_closed_hears_of_it() {
        let spare = Spare::for_slots(1);
        let _large = spare.admit(most()).await.unwrap();
        let waiting = spare.admit(most());
        tokio::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        spare.close();
        assert!(waiting.now_or_never().is_some_and(|ended| ended.is_err()));
    }
}
